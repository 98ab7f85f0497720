//! Capabilities: their names, and putting sets in force on the calling process. The names are pure; `apply` is not.
//!
//! Called by the runtime (names to bits) and by the container init (bits to the kernel).

use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::failure::{Doing, Failure};

/// Names without `CAP_`, in the order of their numbers (linux/capability.h).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// All capabilities known here.
pub const ALL: u64 = (1 << NAMES.len()) - 1;

/// The sets of a program: what it may ever have, what it has, and what survives exec as another user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Sets {
    /// What it, and any program that it becomes, can ever have.
    pub bounding: u64,
    /// Effective and permitted alike; inheritable is empty but for the ambient ones (CVE-2022-29162).
    pub effective: u64,
    /// Kept over exec by a user other than root (capabilities(7)).
    pub ambient: u64,
}

/// The bit of a name, with or without `CAP_`, in any case.
pub fn bit(name: &str) -> Option<u64> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    NAMES.iter().position(|known| *known == name).map(|number| 1 << number)
}

/// The names of a set.
pub fn names(set: u64) -> Vec<&'static str> {
    NAMES.iter().enumerate().filter(|(number, _)| set & (1 << number) != 0).map(|(_, name)| *name).collect()
}

/// What the calling process may have at most: its bounding set.
pub fn available() -> u64 {
    let has = |number: &usize| {
        let cap = CapabilitySet::from_bits_retain(1 << number);
        rustix::thread::capability_is_in_bounding_set(cap).unwrap_or(false)
    };
    (0..NAMES.len()).filter(has).map(|number| 1 << number).sum()
}

/// Drops from the bounding set what is not wanted; before the user changes, while it is still allowed.
pub fn limit(bounding: u64) -> Result<(), Failure> {
    for number in 0..64 {
        let cap = CapabilitySet::from_bits_retain(1 << number);
        if bounding & (1 << number) == 0 && rustix::thread::capability_is_in_bounding_set(cap).unwrap_or(false) {
            rustix::thread::remove_capability_from_bounding_set(cap).doing("limit capabilities")?;
        }
    }
    Ok(())
}

/// Puts the other sets in force; after the user changed.
pub fn apply(sets: Sets) -> Result<(), Failure> {
    let effective = CapabilitySet::from_bits_retain(sets.effective);
    let ambient = sets.ambient & sets.effective;
    let all = CapabilitySets { effective, permitted: effective, inheritable: CapabilitySet::from_bits_retain(ambient) };
    rustix::thread::set_capabilities(None, all).doing("set capabilities")?;
    let _ = rustix::thread::clear_ambient_capability_set();
    for number in (0..64).filter(|number| ambient & (1 << number) != 0) {
        let cap = CapabilitySet::from_bits_retain(1 << number);
        rustix::thread::configure_capability_in_ambient_set(cap, true).doing("set ambient capabilities")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bits_agree_with_the_kernel() {
        assert_eq!(bit("CAP_CHOWN"), Some(1));
        assert_eq!(bit("net_admin"), Some(1 << 12));
        assert_eq!(bit("SYS_ADMIN"), Some(1 << 21));
        assert_eq!(bit("CHECKPOINT_RESTORE"), Some(1 << 40));
        assert_eq!(bit("FLY"), None);
        assert_eq!(names(bit("KILL").unwrap() | 1), ["CHOWN", "KILL"]);
    }
}
