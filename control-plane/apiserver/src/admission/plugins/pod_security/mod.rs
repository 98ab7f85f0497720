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

use policy::{Defaults, Level, Policy, Standard};

use crate::admission::{Parts, Plugin, Request, Validating, World};
use crate::error::Error;

/// Pods looked at when a namespace's standard becomes stricter.
const MAX_PODS: usize = 3000;
/// Annotations that rules look at.
const ANNOTATIONS: [&str; 3] = [
    "container.apparmor.security.beta.kubernetes.io/",
    "seccomp.security.alpha.kubernetes.io/pod",
    "container.seccomp.security.alpha.kubernetes.io/",
];

/// The name under which its configuration stands.
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

/// What is asked where a namespace says nothing.
pub struct PodSecurity(Defaults);

impl PodSecurity {
    pub fn new(parts: &Parts<'_>) -> Result<PodSecurity, Error> {
        let defaults = parts.configuration.of(NAME, |given| given.map(Defaults::of).transpose())?;
        Ok(PodSecurity(defaults.unwrap_or_default()))
    }

    async fn policy_of(&self, request: &Request<'_>, world: &dyn World) -> Result<Policy, Status> {
        match world.find("", "namespaces", "", request.namespace).await? {
            Some(namespace) => Ok(Policy::of(&namespace.object(), &self.0)),
            None => {
                Err(Status::internal(format!("failed to lookup namespace {}", meta::text::quote(request.namespace))))
            }
        }
    }

    /// Judges a pod, or a template of pods, for which nothing is enforced.
    async fn pod(&self, request: &Request<'_>, world: &dyn World, pod: &Value, enforce: bool) -> Result<(), Status> {
        if let Some(reason) = self.0.exempt(request.namespace, &request.user.name) {
            request.annotate(EXEMPT, reason);
            return Ok(());
        }
        let policy = self.policy_of(request, world).await?;
        if policy.asks_nothing(enforce) {
            if enforce {
                request.annotate(ENFORCED, Standard::default().to_string());
            }
            return Ok(());
        }
        if enforce && request.old.is_some_and(|old| !matters(request.object, old)) {
            return Ok(());
        }
        if self.0.exempt_class(pod) {
            request.annotate(EXEMPT, "runtimeClass");
            return Ok(());
        }
        judge(request, &policy, pod, enforce)
    }

    /// Labels of a namespace must be right, and stricter ones tell which pods break them already.
    fn namespace(&self, request: &Request<'_>, world: &dyn World) -> Result<(), Status> {
        let of = |namespace| Policy::of(namespace, &self.0);
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
        if self.0.exempt(request.name, "").is_some() {
            return Ok(());
        }
        let pods = world.entries("", "pods", request.name).into_iter().map(|entry| entry.object());
        let pods = pods.filter(|pod| !self.0.exempt_class(pod)).take(MAX_PODS);
        let warnings = existing(new, pods);
        if warnings.is_empty() {
            return Ok(());
        }
        let name = meta::text::quote(request.name);
        request.warn(format!(
            "existing pods in namespace {name} violate the new PodSecurity enforce level {}",
            quote(new)
        ));
        warnings.into_iter().for_each(|warning| request.warn(warning));
        Ok(())
    }
}

impl Plugin for PodSecurity {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.writes() && about(request).is_some()
    }
}

#[async_trait]
impl Validating for PodSecurity {
    async fn validate(&self, request: &Request<'_>, world: &dyn World) -> Result<(), Status> {
        match about(request) {
            Some(About::Namespace) => self.namespace(request, world),
            Some(About::Pod) => self.pod(request, world, request.object, true).await,
            Some(About::Template(path)) => match request.object.pointer(path).filter(|template| template.is_object()) {
                Some(template) => self.pod(request, world, template, false).await,
                None => Ok(()),
            },
            None => Ok(()),
        }
    }
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
