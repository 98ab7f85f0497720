//! What Kubernetes wants the kernel to be set to (`protectKernelDefaults`). Does I/O: reads /proc/sys. We never set
//! anything of the host; with the setting on, a kubelet refuses to run where it is otherwise.

use std::path::Path;

/// Upstream's tunables.
const WANTED: [(&str, i64); 6] = [
    ("vm/overcommit_memory", 1),
    ("vm/panic_on_oom", 0),
    ("kernel/panic", 10),
    ("kernel/panic_on_oops", 1),
    ("kernel/keys/root_maxkeys", 1_000_000),
    ("kernel/keys/root_maxbytes", 25_000_000),
];

/// Upstream's sentence for each tunable below `root` (/proc/sys) that is otherwise.
pub fn differing(root: &Path) -> Vec<String> {
    let say = |(name, wanted): &(&str, i64)| match std::fs::read_to_string(root.join(name)) {
        Ok(text) if text.trim().parse() == Ok(*wanted) => None,
        Ok(text) => {
            Some(format!("invalid kernel flag: {name}, expected value: {wanted}, actual value: {}", text.trim()))
        }
        Err(error) => Some(format!("invalid kernel flag: {name}, expected value: {wanted}: {error}")),
    };
    WANTED.iter().filter_map(say).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_otherwise_is_named_with_both_values() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("kernel/keys")).unwrap();
        std::fs::create_dir_all(dir.path().join("vm")).unwrap();
        WANTED.iter().for_each(|(name, value)| std::fs::write(dir.path().join(name), format!("{value}\n")).unwrap());
        assert!(differing(dir.path()).is_empty());
        std::fs::write(dir.path().join("kernel/panic"), "0\n").unwrap();
        assert_eq!(differing(dir.path()), ["invalid kernel flag: kernel/panic, expected value: 10, actual value: 0"]);
    }
}
