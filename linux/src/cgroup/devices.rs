//! Which devices a group may use: the device controller of v1, a small BPF program on v2.
//!
//! Without it, root in a container could make a node for the host's disk (CAP_MKNOD is in the default set) and read it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::{Group, write_file};
use crate::failure::{Doing, Failure};

/// One allowed device, or class of devices.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeviceRule {
    /// 'c', 'b' or 'a' for both.
    pub kind: char,
    /// `None` for all.
    pub major: Option<u32>,
    /// `None` for all.
    pub minor: Option<u32>,
    /// Of "rwm".
    pub access: String,
}

impl DeviceRule {
    /// A rule for one device or, with `None`, for many.
    pub fn new(kind: char, major: Option<u32>, minor: Option<u32>, access: &str) -> Self {
        DeviceRule { kind, major, minor, access: access.to_owned() }
    }

    /// Everything is allowed: privileged containers.
    pub fn everything() -> Self {
        DeviceRule::new('a', None, None, "rwm")
    }

    fn v1_line(&self) -> String {
        let part = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
        format!("{} {}:{} {}", self.kind, part(self.major), part(self.minor), self.access)
    }
}

pub(super) fn allow(group: &Group, rules: &[DeviceRule]) -> Result<(), Failure> {
    if group.cgroups.is_v2() {
        let Some(dir) = group.dir_of("") else { return Ok(()) };
        let doing = || format!("limit the devices of cgroup {}", group.path());
        let program = load(&program(rules)).doing(doing())?;
        let dir = std::fs::File::open(dir).doing(doing())?;
        return attach(&dir, &program).doing(doing());
    }
    let Some(dir) = group.dir_of("devices") else { return Ok(()) };
    if rules.iter().any(|r| *r == DeviceRule::everything()) {
        return write_file(&dir, "devices.allow", "a");
    }
    write_file(&dir, "devices.deny", "a")?;
    rules.iter().try_for_each(|rule| write_file(&dir, "devices.allow", &rule.v1_line()))
}

/// One eBPF instruction (linux/bpf.h: struct bpf_insn).
fn instruction(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> u64 {
    u64::from(code)
        | u64::from(dst & 15) << 8
        | u64::from(src & 15) << 12
        | u64::from(offset as u16) << 16
        | u64::from(immediate as u32) << 32
}

const LOAD_WORD: u8 = 0x61;
const MOVE_REG: u8 = 0xbf;
const MOVE_IMM: u8 = 0xb7;
const AND_IMM: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_NE_REG: u8 = 0x5d;
const JUMP_NE_IMM: u8 = 0x55;
const EXIT: u8 = 0x95;

/// The program: r1 points at {access_type (kind | access << 16), major, minor}; it answers 1 to allow.
pub(super) fn program(rules: &[DeviceRule]) -> Vec<u64> {
    let mut code = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(MOVE_REG, 3, 2, 0, 0),
        instruction(AND_IMM, 2, 0, 0, 0xffff), // r2: kind
        instruction(SHIFT_RIGHT, 3, 0, 0, 16), // r3: access
        instruction(LOAD_WORD, 4, 1, 4, 0),    // r4: major
        instruction(LOAD_WORD, 5, 1, 8, 0),    // r5: minor
    ];
    for rule in rules {
        let mut block = Vec::new();
        let kind = match rule.kind {
            'b' => Some(1),
            'c' => Some(2),
            _ => None,
        };
        let access = rule.access.chars().fold(0, |bits, c| {
            bits | match c {
                'm' => 1,
                'r' => 2,
                'w' => 4,
                _ => 0,
            }
        });
        if let Some(kind) = kind {
            block.push(instruction(JUMP_NE_IMM, 2, 0, 0, kind));
        }
        if access != 7 {
            // Every bit asked for must be among those allowed: (r3 & allowed) == r3.
            block.push(instruction(MOVE_REG, 6, 3, 0, 0));
            block.push(instruction(AND_IMM, 6, 0, 0, access));
            block.push(instruction(JUMP_NE_REG, 6, 3, 0, 0));
        }
        for (register, number) in [(4, rule.major), (5, rule.minor)] {
            if let Some(number) = number {
                block.push(instruction(JUMP_NE_IMM, register, 0, 0, number as i32));
            }
        }
        block.push(instruction(MOVE_IMM, 0, 0, 0, 1));
        block.push(instruction(EXIT, 0, 0, 0, 0));
        let length = block.len();
        let always = length == 2;
        for (at, one) in block.iter_mut().enumerate() {
            if matches!(*one as u8, JUMP_NE_IMM | JUMP_NE_REG) {
                *one |= ((length - at - 1) as u64 & 0xffff) << 16;
            }
        }
        code.extend(block);
        // Nothing gets past a rule without a condition, and the kernel refuses a program with a part that nothing reaches.
        if always {
            return code;
        }
    }
    code.push(instruction(MOVE_IMM, 0, 0, 0, 0));
    code.push(instruction(EXIT, 0, 0, 0, 0));
    code
}

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

fn load(program: &[u64]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        rest: [u64; 16],
    }
    let attr = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        // The program calls no helper, so any license string does.
        license: c"Apache-2.0".as_ptr() as u64,
        rest: [0; 16],
    };
    // SAFETY: the attribute and what it points to live through the call; unknown tail bytes are zero, as required.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attr, size_of::<Load>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fresh from the kernel.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn attach(dir: &std::fs::File, program: &OwnedFd) -> io::Result<()> {
    #[repr(C)]
    struct Attach {
        target: u32,
        program: u32,
        kind: u32,
        flags: u32,
    }
    let attr = Attach {
        target: dir.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the attribute lives through the call.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attr, size_of::<Attach>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
