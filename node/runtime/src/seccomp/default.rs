//! The RuntimeDefault profile: what a container has no business calling. Pure.
//!
//! Same meaning as the default profiles of Docker and containerd: calls that reach beyond a container are refused
//! unless the container has the capability that the kernel wants for them anyway. Calls that are newer than this table
//! answer ENOSYS, so that programs fall back.

use std::collections::BTreeMap;

use linux::caps;

use super::compile::{Action, Compare, Condition, Policy, Rule, Section};
use super::syscalls::Arch;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Refused whoever asks.
const NEVER: &[&str] = &[
    "_sysctl",
    "add_key",
    "create_module",
    "get_kernel_syms",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "lsm_set_self_attr",
    "migrate_pages",
    "move_pages",
    "nfsservctl",
    "pivot_root",
    "query_module",
    "request_key",
    "swapoff",
    "swapon",
    "sysfs",
    "uselib",
    "userfaultfd",
    "ustat",
    "vm86",
    "vm86old",
    "vserver",
];

/// Refused without any one of these capabilities.
const GUARDED: &[(&[&str], &[&str])] = &[
    (
        &["SYS_ADMIN"],
        &[
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    (&["SYS_ADMIN", "BPF"], &["bpf"]),
    (&["SYS_ADMIN", "PERFMON"], &["perf_event_open"]),
    (&["SYS_ADMIN", "SYSLOG"], &["syslog"]),
    (&["SYS_BOOT"], &["reboot"]),
    (&["SYS_CHROOT"], &["chroot"]),
    (&["SYS_MODULE"], &["delete_module", "finit_module", "init_module"]),
    (&["SYS_NICE"], &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    (&["SYS_PACCT"], &["acct"]),
    (&["SYS_PTRACE"], &["kcmp", "pidfd_getfd", "process_madvise"]),
    (&["SYS_RAWIO"], &["ioperm", "iopl"]),
    (&["SYS_TIME"], &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    (&["SYS_TTY_CONFIG"], &["vhangup"]),
    (&["DAC_READ_SEARCH"], &["open_by_handle_at"]),
];

/// The flags of clone that make namespaces.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
/// Execution domains that a program may choose: Linux, 32-bit address limits, fixed addresses; all ones asks only.
const PERSONALITIES: [u64; 5] = [0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// Sockets to the hypervisor's host.
const AF_VSOCK: u64 = 40;

/// The profile for a container with these capabilities.
pub fn policy(caps: u64) -> Policy {
    let has = |names: &[&str]| names.iter().filter_map(|n| caps::bit(n)).any(|bit| caps & bit != 0);
    let sections = Arch::all_here().iter().map(|arch| section(*arch, &has)).collect();
    Policy { default: Action::ALLOW, sections }
}

fn section(arch: Arch, has: &dyn Fn(&[&str]) -> bool) -> Section {
    let mut rules: BTreeMap<u32, Vec<Rule>> = BTreeMap::new();
    let mut add = |name: &str, conditions: Vec<Condition>, action: Action| {
        if let Some(number) = arch.number(name) {
            rules.entry(number).or_default().push(Rule { conditions, action });
        }
    };
    let refuse = Action::errno(EPERM);
    NEVER.iter().for_each(|name| add(name, vec![], refuse));
    for (caps, names) in GUARDED {
        if !has(caps) {
            names.iter().for_each(|name| add(name, vec![], refuse));
        }
    }
    if !has(&["SYS_ADMIN"]) {
        // The flags of clone3 lie in memory, out of the filter's sight: programs fall back to clone.
        add("clone3", vec![], Action::errno(ENOSYS));
        for bit in (0..32).map(|b| 1u64 << b).filter(|bit| NEW_NAMESPACES & bit != 0) {
            let set = Condition { argument: 0, compare: Compare::Masked(bit), value: bit };
            add("clone", vec![set], refuse);
        }
    }
    for allowed in PERSONALITIES {
        let same = Condition { argument: 0, compare: Compare::Equal, value: allowed };
        add("personality", vec![same], Action::ALLOW);
    }
    add("personality", vec![], refuse);
    let vsock = Condition { argument: 0, compare: Compare::Equal, value: AF_VSOCK };
    add("socket", vec![vsock], refuse);
    Section { arch, rules, unknown: Some(Action::errno(ENOSYS)) }
}
