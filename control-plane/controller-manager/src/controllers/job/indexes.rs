//! Completion indexes: sets of them in upstream's text form (`1,3-5,7`), which have succeeded or failed, and which
//! come next. Pure.

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::api::core::v1::Pod;

use super::{SyncContext, is_tracked, policy, retry};
use crate::common::pods;

pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Indexes(BTreeSet<i32>);

impl Indexes {
    /// Reads `1,3-5`; what is not such text, or not below `below`, is left out.
    pub fn parse(text: &str, below: i32) -> Indexes {
        let mut all = BTreeSet::new();
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
                all.extend((first.max(0)..=last).take_while(|n| *n < below));
            }
        }
        Indexes(all)
    }

    pub fn insert(&mut self, index: i32) {
        self.0.insert(index);
    }

    pub fn contains(&self, index: i32) -> bool {
        self.0.contains(&index)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many of these are in the other set too.
    pub fn common(&self, other: &Indexes) -> usize {
        self.0.intersection(&other.0).count()
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.iter().copied().peekable();
        let mut first = true;
        while let Some(start) = rest.next() {
            let mut end = start;
            while let Some(next) = rest.next_if(|n| *n == end + 1) {
                end = next;
            }
            let comma = if first { "" } else { "," };
            first = false;
            match end - start {
                0 => write!(f, "{comma}{start}")?,
                1 => write!(f, "{comma}{start},{end}")?,
                _ => write!(f, "{comma}{start}-{end}")?,
            }
        }
        Ok(())
    }
}

pub fn completions(sync: &SyncContext) -> i32 {
    sync.spec.completions.unwrap_or(0)
}

/// The pod's index, if it is one of the job's.
pub fn valid(sync: &SyncContext, pod: &Pod) -> Option<i32> {
    let text = pod.metadata.annotations.as_ref()?.get(INDEX)?;
    text.parse().ok().filter(|n| (0..completions(sync)).contains(n))
}

/// Which indexes have succeeded, and which failed for good.
pub fn calculate(sync: &mut SyncContext) {
    if !sync.is_indexed() {
        return;
    }
    let below = completions(sync);
    let known = |text: &Option<String>| Indexes::parse(text.as_deref().unwrap_or(""), below);
    let (mut succeeded, mut failed) = (known(&sync.status.completed_indexes), known(&sync.status.failed_indexes));
    for pod in &sync.pods {
        let Some(index) = valid(sync, pod) else { continue };
        if pods::phase(pod) == "Succeeded" && is_tracked(pod) {
            succeeded.insert(index);
        }
    }
    if let Some(limit) = sync.spec.backoff_limit_per_index {
        for pod in sync.pods.iter().filter(|p| sync.has_failed(p)) {
            let Some(index) = valid(sync, pod) else { continue };
            let verdict = policy::verdict(sync, pod);
            let failures = retry::failures_of(pod) + i32::from(verdict.counts);
            if !succeeded.contains(index) && (verdict.fails_index || failures > limit) {
                failed.insert(index);
            }
        }
    }
    (sync.succeeded, sync.failed) = (succeeded, failed);
}

/// The lowest indexes that nobody works on; at most `most`.
pub fn pending(sync: &SyncContext, most: usize) -> Vec<i32> {
    let busy = |p: &Pod| {
        pods::is_active(p) || (sync.replaces_ended_only() && pods::is_terminating(p) && !pods::is_terminal(p))
    };
    let taken: BTreeSet<i32> = sync.pods.iter().filter(|p| busy(p)).filter_map(|p| valid(sync, p)).collect();
    let free = |n: &i32| !taken.contains(n) && !sync.succeeded.contains(*n) && !sync.failed.contains(*n);
    (0..completions(sync)).filter(free).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_sets_read_and_print_alike() {
        for text in ["", "0", "1,2", "1,3-5,7", "0-9"] {
            assert_eq!(Indexes::parse(text, 10).to_string(), text);
        }
        assert_eq!(Indexes::parse("1,x,8-12", 10).to_string(), "1,8,9");
    }
}
