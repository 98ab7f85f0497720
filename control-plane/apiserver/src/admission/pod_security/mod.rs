//! PodSecurity: holds pods to the standard that their namespace's labels name. Pods that break the enforced one are
//! refused; templates of pods, and what breaks only the standard to warn of, are answered with warnings. What the audit
//! log says of it has upstream's keys.

mod checks;
mod policy;
mod standards;

use std::collections::BTreeMap;

use async_trait::async_trait;
use meta::Status;
use serde_json::Value;

use super::{Operation, Plugin, Request};
use crate::server::Core;
pub use policy::Defaults;
use policy::{Level, Policy, Standard};

/// Pods looked at when a namespace's standard becomes stricter.
const MAX_PODS: usize = 3000;
/// Annotations that rules look at.
const ANNOTATIONS: [&str; 3] = [
    "container.apparmor.security.beta.kubernetes.io/",
    "seccomp.security.alpha.kubernetes.io/pod",
    "container.seccomp.security.alpha.kubernetes.io/",
];

pub const NAME: &str = "PodSecurity";

/// Annotations of audit events: the standard that was enforced, what breaks the one to audit, why nothing was asked, and
/// what is wrong with the namespace's labels.
const ENFORCED: &str = "pod-security.kubernetes.io/enforce-policy";
const VIOLATIONS: &str = "pod-security.kubernetes.io/audit-violations";
const EXEMPT: &str = "pod-security.kubernetes.io/exempt";
const ERROR: &str = "pod-security.kubernetes.io/error";

/// What a request is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    Namespace,
    Pod,
    /// Something that makes pods; the path of their template.
    Template(&'static str),
}

fn about(request: &Request<'_>) -> Option<About> {
    let main = request.subresource.is_empty();
    Some(match (request.kind.group.as_ref(), request.kind.plural.as_ref()) {
        ("", "pods") if main || request.subresource == "ephemeralcontainers" => About::Pod,
        _ if !main => return None,
        ("", "namespaces") => About::Namespace,
        ("", "podtemplates") => About::Template("/template"),
        ("", "replicationcontrollers") => About::Template("/spec/template"),
        ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets") => About::Template("/spec/template"),
        ("batch", "jobs") => About::Template("/spec/template"),
        ("batch", "cronjobs") => About::Template("/spec/jobTemplate/spec/template"),
        _ => return None,
    })
}

pub struct PodSecurity;

#[async_trait]
impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        NAME
    }

    fn handles(&self, request: &Request<'_>) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update) && about(request).is_some()
    }

    async fn validate(&self, request: &Request<'_>, core: &Core) -> Result<(), Status> {
        match about(request) {
            Some(About::Namespace) => namespace(request, core),
            Some(About::Pod) => pod(request, core, request.object, true).await,
            Some(About::Template(path)) => match request.object.pointer(path).filter(|template| template.is_object()) {
                Some(template) => pod(request, core, template, false).await,
                None => Ok(()),
            },
            None => Ok(()),
        }
    }
}

async fn policy_of(request: &Request<'_>, core: &Core) -> Result<Policy, Status> {
    match core.find("", "namespaces", "", request.namespace).await? {
        Some(namespace) => Ok(Policy::of(&namespace.object(), &core.pod_security)),
        None => Err(Status::internal(format!("failed to lookup namespace {}", meta::text::quote(request.namespace)))),
    }
}

/// Judges a pod, or a template of pods, for which nothing is enforced.
async fn pod(request: &Request<'_>, core: &Core, pod: &Value, enforce: bool) -> Result<(), Status> {
    if let Some(reason) = core.pod_security.exempt(request.namespace, &request.user.name) {
        request.annotate(EXEMPT, reason);
        return Ok(());
    }
    let policy = policy_of(request, core).await?;
    if policy.asks_nothing(enforce) {
        if enforce {
            request.annotate(ENFORCED, Standard::default().to_string());
        }
        return Ok(());
    }
    if enforce && request.old.is_some_and(|old| !matters(request.object, old)) {
        return Ok(());
    }
    if core.pod_security.exempt_class(pod) {
        request.annotate(EXEMPT, "runtimeClass");
        return Ok(());
    }
    judge(request, &policy, pod, enforce)
}

fn judge(request: &Request<'_>, policy: &Policy, pod: &Value, enforce: bool) -> Result<(), Status> {
    let broken = |standard| {
        let found = standards::evaluate(standard, &pod["metadata"], &pod["spec"]);
        (!found.is_empty()).then(|| format!("violate PodSecurity {}: {}", quote(standard), standards::details(&found)))
    };
    if !policy.errors.is_empty() {
        let errors = policy.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        request.annotate(ERROR, format!("Failed to parse policy: {errors}"));
    }
    if let Some(broken) = broken(policy.audit) {
        request.annotate(VIOLATIONS, format!("would {broken}"));
    }
    if enforce {
        request.annotate(ENFORCED, policy.enforce.to_string());
        if let Some(broken) = broken(policy.enforce) {
            return Err(request.forbidden(broken.replacen("violate", "violates", 1)));
        }
    }
    if let Some(broken) = broken(policy.warn) {
        request.warn(format!("would {broken}"));
    }
    Ok(())
}

fn quote(standard: Standard) -> String {
    meta::text::quote(&standard.to_string())
}

/// Whether an update changes what a standard looks at; the rest of a pod's spec cannot change.
fn matters(new: &Value, old: &Value) -> bool {
    let images = |pod: &Value| -> Vec<Value> {
        let lists = ["initContainers", "containers", "ephemeralContainers"];
        let all = lists.iter().flat_map(|list| pod["spec"][*list].as_array().into_iter().flatten());
        all.map(|container| container["image"].clone()).collect()
    };
    let annotations = |pod: &Value| -> BTreeMap<String, Value> {
        let all = pod["metadata"]["annotations"].as_object().into_iter().flatten();
        let looked_at = all.filter(|(key, _)| ANNOTATIONS.iter().any(|prefix| key.starts_with(prefix)));
        looked_at.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    images(new) != images(old) || annotations(new) != annotations(old)
}

/// Labels of a namespace must be right, and stricter ones tell which pods break them already.
fn namespace(request: &Request<'_>, core: &Core) -> Result<(), Status> {
    let of = |namespace| Policy::of(namespace, &core.pod_security);
    let policy = of(request.object);
    let before = request.old.map(of);
    if !policy.errors.is_empty() && before.as_ref().is_none_or(|before| before.errors != policy.errors) {
        return Err(Status::invalid(&request.kind.gvk(), request.name, &policy.errors));
    }
    let Some(before) = before else { return Ok(()) };
    let (new, old) = (policy.enforce, before.enforce);
    let relaxed = new.version == old.version && new.level <= old.level;
    if new == old || new.level == Level::Privileged || relaxed {
        return Ok(());
    }
    if core.pod_security.exempt(request.name, "").is_some() {
        return Ok(());
    }
    let pods = core.entries("", "pods", request.name).into_iter().map(|entry| entry.object());
    let pods = pods.filter(|pod| !core.pod_security.exempt_class(pod)).take(MAX_PODS);
    let warnings = existing(new, pods);
    if warnings.is_empty() {
        return Ok(());
    }
    let name = meta::text::quote(request.name);
    request.warn(format!("existing pods in namespace {name} violate the new PodSecurity enforce level {}", quote(new)));
    warnings.into_iter().for_each(|warning| request.warn(warning));
    Ok(())
}

/// One line for each way to break the standard: the first pod that does, and how many more. Of pods with the same
/// controller one stands for all.
fn existing(standard: Standard, pods: impl Iterator<Item = Value>) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    let mut by_reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pod in pods {
        let owners = pod["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        let controller = owners.into_iter().find(|owner| owner["controller"] == true);
        let controller = controller.and_then(|owner| owner["uid"].as_str());
        if controller.is_some_and(|uid| !seen.insert(uid.to_owned())) {
            continue;
        }
        let found = standards::evaluate(standard, &pod["metadata"], &pod["spec"]);
        if !found.is_empty() {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            by_reasons.entry(standards::reasons(&found)).or_default().push(name);
        }
    }
    let mut lines: Vec<String> = by_reasons
        .into_iter()
        .map(|(reasons, mut pods)| {
            pods.sort();
            match pods.len() {
                1 => format!("{}: {reasons}", pods[0]),
                2 => format!("{} (and 1 other pod): {reasons}", pods[0]),
                more => format!("{} (and {} other pods): {reasons}", pods[0], more - 1),
            }
        })
        .collect();
    lines.sort();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_that_break_a_new_standard_are_told_together() {
        let pod = |name: &str, controller: &str, host: bool| {
            json!({
                "metadata": {"name": name, "ownerReferences": [{"uid": controller, "controller": true}]},
                "spec": {"hostNetwork": host, "hostPID": !host, "containers": [{"name": "c"}]},
            })
        };
        let fine = json!({"metadata": {"name": "fine"}, "spec": {"containers": [{"name": "c"}]}});
        let pods = [pod("b", "1", true), pod("b2", "1", true), pod("a", "2", true), pod("c", "3", true), fine];
        let standard = Standard { level: Level::Baseline, ..Standard::default() };
        assert_eq!(existing(standard, pods.into_iter()), ["a (and 2 other pods): host namespaces"]);
    }

    #[test]
    fn an_update_matters_when_a_standard_could_see_it() {
        let pod =
            json!({"metadata": {"annotations": {"x": "1"}}, "spec": {"containers": [{"name": "c", "image": "a"}]}});
        let mut labelled = pod.clone();
        labelled["metadata"]["annotations"]["x"] = json!("2");
        labelled["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
        assert!(!matters(&labelled, &pod));
        let mut other = pod.clone();
        other["spec"]["containers"][0]["image"] = json!("b");
        assert!(matters(&other, &pod));
        let mut debugged = pod.clone();
        debugged["spec"]["ephemeralContainers"] = json!([{"name": "d", "image": "a"}]);
        assert!(matters(&debugged, &pod));
    }
}
