//! Whose volumes are being brought up to date, and whose objects changed meanwhile. One refresh of a pod at a time: one
//! that read an older object must not write after one that read a newer. Pure; the daemon's loop asks.

use std::collections::BTreeSet;

#[derive(Debug, Default)]
pub struct Refreshing {
    busy: BTreeSet<String>,
    again: BTreeSet<String>,
}

impl Refreshing {
    /// Something changed: whether a refresh begins now. If not, it is remembered; `ready` says that the pod's volumes
    /// are there.
    pub fn begin(&mut self, pod: &str, ready: bool) -> bool {
        let now = ready && !self.busy.contains(pod);
        if now {
            self.busy.insert(pod.to_owned())
        } else {
            self.again.insert(pod.to_owned())
        };
        now
    }

    /// A refresh ended, or the volumes were made: whether something changed meanwhile.
    pub fn end(&mut self, pod: &str) -> bool {
        self.busy.remove(pod);
        self.again.remove(pod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_meanwhile_is_looked_at_afterwards() {
        let mut refreshing = Refreshing::default();
        assert!(!refreshing.begin("a", false), "its volumes are being made");
        assert!(refreshing.end("a"), "what was read for them may be old");
        assert!(refreshing.begin("a", true) && refreshing.begin("b", true));
        assert!(!refreshing.begin("a", true) && !refreshing.begin("a", true));
        assert!(refreshing.end("a") && !refreshing.end("a") && !refreshing.end("b"));
    }
}
