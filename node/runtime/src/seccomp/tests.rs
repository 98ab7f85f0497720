//! Programs are run on the small interpreter of the kernel's machine in `linux::seccomp`.

use super::compile::compile;
use super::syscalls::Arch;
use super::*;
use linux::caps;

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

/// What the kernel would answer for a call.
fn run(program: &[u64], arch: Arch, number: u32, args: [u64; 6]) -> u32 {
    linux::seccomp::answer(program, arch.audit(), number, args).unwrap()
}

fn call(program: &[u64], name: &str, first: u64) -> u32 {
    run(program, Arch::NATIVE, Arch::NATIVE.number(name).unwrap(), [first, 0, 0, 0, 0, 0])
}

#[test]
fn the_default_profile_keeps_a_container_in() {
    let program = compile(&default::policy(0)).unwrap();
    for name in ["read", "execve", "openat", "setuid", "ptrace", "chmod", "mseal", "fchmodat2"] {
        if Arch::NATIVE.number(name).is_some() {
            assert_eq!(call(&program, name, 0), ALLOW, "{name}");
        }
    }
    for name in ["mount", "unshare", "keyctl", "bpf", "reboot", "io_uring_setup", "setns", "chroot"] {
        assert_eq!(call(&program, name, 0), EPERM, "{name}");
    }
    assert_eq!(call(&program, "clone3", 0), ENOSYS);
    assert_eq!(call(&program, "clone", 0x11), ALLOW, "fork");
    assert_eq!(call(&program, "clone", 0x1000_0011), EPERM, "a new user namespace");
    assert_eq!(call(&program, "personality", 0xffff_ffff), ALLOW);
    assert_eq!(call(&program, "personality", 0x0040_0000), EPERM);
    assert_eq!(call(&program, "socket", 2), ALLOW);
    assert_eq!(call(&program, "socket", 40), EPERM);
    assert_eq!(run(&program, Arch::NATIVE, Arch::NATIVE.highest() + 1, [0; 6]), ENOSYS, "a newer kernel's call");
    if Arch::NATIVE == Arch::X86_64 {
        assert_eq!(run(&program, Arch::X86_64, 0x4000_0001, [0; 6]), ENOSYS, "x32");
        let mount = Arch::I386.number("mount").unwrap();
        assert_eq!(run(&program, Arch::I386, mount, [0; 6]), EPERM, "by the 32-bit way");
        assert_eq!(run(&program, Arch::Aarch64, 0, [0; 6]), 0x8000_0000, "another machine's calls");
    }
}

#[test]
fn capabilities_open_what_belongs_to_them() {
    let program = compile(&default::policy(caps::bit("SYS_ADMIN").unwrap())).unwrap();
    for name in ["mount", "unshare", "clone3", "bpf"] {
        assert_eq!(call(&program, name, 0), ALLOW, "{name}");
    }
    assert_eq!(call(&program, "reboot", 0), EPERM);
    assert_eq!(call(&program, "keyctl", 0), EPERM);
}

#[test]
fn profiles_of_the_oci_form() {
    let json = br#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"architectures":["SCMP_ARCH_X86_64"],
        "syscalls":[{"names":["read","no_such_call"],"action":"SCMP_ACT_ALLOW"},
        {"names":["kill"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":9,"op":"SCMP_CMP_LT"}]},
        {"names":["lseek"],"action":"SCMP_ACT_KILL_PROCESS","args":[{"index":1,"value":4294967296,"op":"SCMP_CMP_GE"}]},
        {"names":["personality"],"action":"SCMP_ACT_ALLOW",
         "args":[{"index":0,"value":255,"valueTwo":8,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#;
    let program = compile(&profile::parse(json).unwrap()).unwrap();
    let second =
        |name: &str, arg: u64| run(&program, Arch::NATIVE, Arch::NATIVE.number(name).unwrap(), [0, arg, 0, 0, 0, 0]);
    assert_eq!(call(&program, "read", 0), ALLOW);
    assert_eq!(call(&program, "write", 0), ENOSYS);
    assert_eq!((second("kill", 8), second("kill", 9), second("kill", 1 << 32)), (ALLOW, ENOSYS, ENOSYS));
    assert_eq!((second("lseek", (1 << 32) - 1), second("lseek", 1 << 32)), (ENOSYS, 0x8000_0000));
    assert_eq!((call(&program, "personality", 0x1008), call(&program, "personality", 9)), (ALLOW, ENOSYS));
}

#[test]
fn bad_profiles_are_refused() {
    for json in [
        &b"{}"[..],
        b"",
        br#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#,
        br#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"?"}]}"#,
        br#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#,
    ] {
        assert!(profile::parse(json).is_err(), "{}", String::from_utf8_lossy(json));
    }
    let mut wanted = cri::SecurityProfile::default();
    wanted.set_profile_type(ProfileType::Localhost);
    let security = cri::LinuxContainerSecurityContext { seccomp: Some(wanted), ..Default::default() };
    assert!(filter_for(&security, 0).unwrap_err().contains("absolute path"), "an empty name is no profile");
}
