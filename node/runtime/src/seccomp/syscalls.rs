//! System calls by name, for each instruction set that a process of this machine may use. Pure.

use std::collections::HashMap;
use std::sync::OnceLock;

const TABLE: &str = include_str!("syscalls.tsv");

/// An instruction set whose calls can be filtered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arch {
    X86_64,
    I386,
    Aarch64,
}

impl Arch {
    /// That of this program.
    pub const NATIVE: Arch = if cfg!(target_arch = "aarch64") { Arch::Aarch64 } else { Arch::X86_64 };

    /// The kernel's mark of it in every call (linux/audit.h).
    pub fn audit(self) -> u32 {
        match self {
            Arch::X86_64 => 0xc000_003e,
            Arch::I386 => 0x4000_0003,
            Arch::Aarch64 => 0xc000_00b7,
        }
    }

    /// Those that run on this machine: the native one first.
    pub fn all_here() -> &'static [Arch] {
        if cfg!(target_arch = "aarch64") { &[Arch::Aarch64] } else { &[Arch::X86_64, Arch::I386] }
    }

    /// By the name in OCI profiles.
    pub fn by_oci_name(name: &str) -> Option<Arch> {
        match name {
            "SCMP_ARCH_X86_64" => Some(Arch::X86_64),
            "SCMP_ARCH_X86" => Some(Arch::I386),
            "SCMP_ARCH_AARCH64" => Some(Arch::Aarch64),
            _ => None,
        }
    }

    /// The number of a call; `None` when this set doesn't have it.
    pub fn number(self, name: &str) -> Option<u32> {
        table().get(name).and_then(|numbers| numbers[self as usize])
    }

    /// The highest number known: what lies above came with a later kernel.
    pub fn highest(self) -> u32 {
        table().values().filter_map(|numbers| numbers[self as usize]).max().unwrap_or(0)
    }
}

type Numbers = [Option<u32>; 3];

fn table() -> &'static HashMap<&'static str, Numbers> {
    static PARSED: OnceLock<HashMap<&'static str, Numbers>> = OnceLock::new();
    PARSED.get_or_init(|| {
        let row = |line: &'static str| {
            let mut words = line.split('\t');
            let name = words.next()?;
            let mut next = || words.next().and_then(|n| n.parse().ok());
            Some((name, [next(), next(), next()]))
        };
        TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(row).collect()
    })
}
