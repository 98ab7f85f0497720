//! Pod failure policy (what one pod's failure means) and success policy (when enough indexes have succeeded). Pure.

use k8s_openapi::api::batch::v1::{PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::SyncContext;
use super::indexes::{self, Indexes};
use crate::common::pods;

/// What a failed pod means to its job.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Counts towards the backoff limit.
    pub counts: bool,
    pub fails_index: bool,
    /// The whole job fails, with this message.
    pub fails_job: Option<String>,
}

const COUNTS: Verdict = Verdict { counts: true, fails_index: false, fails_job: None };

/// By the first rule that matches; without one, a failure counts.
pub fn verdict(sync: &SyncContext, pod: &Pod) -> Verdict {
    let rules = sync.spec.pod_failure_policy.as_ref().map_or(&[][..], |p| &p.rules);
    for (n, rule) in rules.iter().enumerate() {
        let Some(why) = matches(rule, pod) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Verdict { counts: false, ..COUNTS },
            "FailIndex" if sync.spec.backoff_limit_per_index.is_some() => Verdict { fails_index: true, ..COUNTS },
            "FailJob" => Verdict { fails_job: Some(format!("{why} matching FailJob rule at index {n}")), ..COUNTS },
            _ => COUNTS,
        };
    }
    COUNTS
}

fn matches(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let (namespace, name) =
        (pod.metadata.namespace.as_deref().unwrap_or(""), pod.metadata.name.as_deref().unwrap_or(""));
    if let Some(codes) = &rule.on_exit_codes {
        let (container, code) = exit_code(codes, pod)?;
        return Some(format!("Container {container} for pod {namespace}/{name} failed with exit code {code}"));
    }
    let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
    let met = patterns.iter().find(|p| {
        let status = p.status.as_deref().unwrap_or("True");
        pods::condition(pod, &p.type_).is_some_and(|c| c.status == status)
    })?;
    Some(format!("Pod {namespace}/{name} has condition {}", met.type_))
}

fn exit_code(codes: &PodFailurePolicyOnExitCodesRequirement, pod: &Pod) -> Option<(String, i32)> {
    let status = pod.status.as_ref()?;
    let all = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    let ended = |c: &ContainerStatus| Some((c.name.clone(), c.state.as_ref()?.terminated.as_ref()?.exit_code));
    let named = |name: &String| codes.container_name.as_ref().is_none_or(|wanted| wanted == name);
    all.filter_map(ended).filter(|(name, code)| *code != 0 && named(name)).find(|(_, code)| {
        let listed = codes.values.contains(code);
        if codes.operator == "NotIn" { !listed } else { listed }
    })
}

/// The message of the first success rule that is met.
pub fn success(sync: &SyncContext) -> Option<String> {
    let rules = &sync.spec.success_policy.as_ref()?.rules;
    let met = rules.iter().position(|rule| {
        let wanted = rule.succeeded_indexes.as_ref().map(|t| Indexes::parse(t, indexes::completions(sync)));
        let done = wanted.as_ref().map_or(sync.succeeded.len(), |w| w.common(&sync.succeeded));
        let enough = rule.succeeded_count.map(|n| usize::try_from(n).unwrap_or(0));
        done >= enough.or(wanted.as_ref().map(Indexes::len)).unwrap_or(usize::MAX)
    })?;
    Some(format!("Matched rules at index {met}"))
}
