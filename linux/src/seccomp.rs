//! Loads a system call filter on the calling process, and foretells what it will answer. The filter itself is compiled
//! by the runtime, purely.

use crate::failure::{Doing, Failure};

/// The kernel takes no longer programs (BPF_MAXINSNS).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Puts a classic BPF program in force, each instruction packed as `code | jt << 16 | jf << 24 | k << 32`.
/// Needs no_new_privs or CAP_SYS_ADMIN.
pub fn load(program: &[u64]) -> Result<(), Failure> {
    if program.is_empty() || program.len() > MAX_INSTRUCTIONS {
        return Err(Failure::new("load the seccomp filter", "the program is empty or too long"));
    }
    let filter: Vec<libc::sock_filter> = program
        .iter()
        .map(|i| libc::sock_filter { code: *i as u16, jt: (i >> 16) as u8, jf: (i >> 24) as u8, k: (i >> 32) as u32 })
        .collect();
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program points to `filter`, which lives through the call; the kernel copies and verifies it.
    let answer = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if answer < 0 { Err(std::io::Error::last_os_error()).doing("load the seccomp filter") } else { Ok(()) }
}

/// The kernel's number of this machine's instruction set (linux/audit.h).
const NATIVE: u32 = if cfg!(target_arch = "aarch64") { 0xc000_00b7 } else { 0xc000_003e };
/// The answers that let a call happen (linux/seccomp.h), without the data in the low half.
const ALLOW: u32 = 0x7fff_0000;
const LOG: u32 = 0x7ffc_0000;

/// Whether a call of this machine would pass.
pub fn passes(program: &[u64], call: libc::c_long, args: [u64; 6]) -> bool {
    let answer = u32::try_from(call).ok().and_then(|number| answer(program, NATIVE, number, args));
    matches!(answer.map(|a| a & 0xffff_0000), Some(ALLOW | LOG))
}

/// What the kernel would answer for a call: the filter on a small interpreter of the kernel's machine. `None` for
/// instructions that the runtime never writes.
pub fn answer(program: &[u64], instruction_set: u32, number: u32, args: [u64; 6]) -> Option<u32> {
    let mut data = [0u32; 16];
    (data[0], data[1]) = (number, instruction_set);
    for (at, arg) in args.iter().enumerate() {
        (data[4 + 2 * at], data[5 + 2 * at]) = (*arg as u32, (*arg >> 32) as u32);
    }
    let (mut at, mut accumulator) = (0usize, 0u32);
    // Jumps go forward only, so every program ends within its length.
    for _ in 0..program.len() {
        let instruction = *program.get(at)?;
        let (code, k) = (instruction as u16, (instruction >> 32) as u32);
        let (yes, no) = ((instruction >> 16) as u8, (instruction >> 24) as u8);
        let go = |hold: bool| usize::from(if hold { yes } else { no });
        at += 1 + match code {
            0x20 => {
                accumulator = *data.get(k as usize / 4)?;
                0
            }
            0x54 => {
                accumulator &= k;
                0
            }
            0x05 => k as usize,
            0x15 => go(accumulator == k),
            0x25 => go(accumulator > k),
            0x35 => go(accumulator >= k),
            0x06 => return Some(k),
            _ => return None,
        };
    }
    None
}
