//! token-cleaner-controller: bootstrap tokens go when their time is over, or when nobody can read when that is. Keys are
//! Secrets.

use std::time::Duration;

use client::{Delta, Key, Plan, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kinds::bootstrap_token::Expiry;

use super::{TOKENS, described};
use crate::common::acts;
use crate::runner::Work;
use crate::setup::Setup;

const WORKERS: usize = 1;

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    let again = queue.clone();
    let tokens = setup.on_selected(TOKENS, move |delta: &Delta<Secret>| again.add(Key::of(delta.object().as_ref())));
    let executor = setup.executor("token-cleaner");
    setup.run(Work::new(&queue, executor, WORKERS, move |key, now| {
        tokens.get(key).map(|secret| reconcile(&secret, now)).unwrap_or_default()
    }));
}

fn reconcile(secret: &Secret, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    match described(secret).map(|token| token.expiry(now)) {
        Some(Expiry::Over) if secret.metadata.deletion_timestamp.is_none() => {
            plan.push(acts::delete(secret));
        }
        Some(Expiry::In(seconds)) => {
            plan.requeue(Duration::from_secs(seconds)).because("the token is not over");
        }
        _ => return Plan::nothing("it is no token, has no end, or goes already"),
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::super::token;
    use super::*;

    #[test]
    fn a_token_goes_when_it_is_over() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let of = |end: &str| reconcile(&token("abcdef", &[("expiration", end)]), now);
        assert_eq!(of("2026-01-01T00:00:00Z").steps.len(), 1);
        assert_eq!(of("never").steps.len(), 1);
        assert_eq!(of("2026-01-01T00:00:30Z").requeue_after, Some(Duration::from_secs(30)));
        let endless = of("");
        assert!(endless.is_empty() && endless.requeue_after.is_none());
    }

    #[test]
    fn secrets_of_other_namespaces_are_left_alone() {
        let mut secret = token("abcdef", &[("expiration", "2020-01-01T00:00:00Z")]);
        secret.metadata.namespace = Some("default".into());
        assert!(reconcile(&secret, Timestamp::UNIX_EPOCH).is_empty());
    }
}
