//! LimitRanger: fills in the requests and limits that a namespace's LimitRanges have for containers, and refuses pods
//! and claims outside of what they allow.

use async_trait::async_trait;
use kinds::quota::{Amounts, amounts, pod_amounts};
use meta::{Quantity, Status};
use serde_json::{Value, json};

use crate::admission::{Mutating, Operation, Plugin, Request, Validating, World};

/// Says on a pod what was filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";
/// Containers first: the annotation lists them in this order.
const LISTS: [(&str, &str); 2] = [("containers", "container"), ("initContainers", "init container")];

pub struct LimitRanger;

/// Containers of a pod change in a resize only, claims always.
fn concerns(request: &Request<'_>) -> bool {
    let resize = request.subresource == "resize" && request.kind.group.is_empty() && request.kind.plural == "pods";
    match request.operation {
        Operation::Create => request.is("", "pods") || request.is("", "persistentvolumeclaims"),
        Operation::Update => resize || request.is("", "persistentvolumeclaims"),
        _ => false,
    }
}

impl Plugin for LimitRanger {
    fn handles(&self, request: &Request<'_>) -> bool {
        concerns(request) && !request.object["metadata"]["deletionTimestamp"].is_string()
    }
}

#[async_trait]
impl Mutating for LimitRanger {
    async fn admit(&self, request: &mut Request<'_>, world: &dyn World) -> Result<(), Status> {
        if request.is("", "pods") && request.operation == Operation::Create {
            for range in world.objects("", "limitranges", request.namespace) {
                fill(request.object, &range);
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Validating for LimitRanger {
    async fn validate(&self, request: &Request<'_>, world: &dyn World) -> Result<(), Status> {
        for range in world.objects("", "limitranges", request.namespace) {
            let limits = range["spec"]["limits"].as_array().map_or(&[][..], Vec::as_slice);
            let wrong: Vec<String> = match request.kind.plural.as_ref() {
                "pods" => limits.iter().flat_map(|limit| pod_outside(request.object, limit)).collect(),
                _ => limits.iter().flat_map(|limit| claim_outside(request.object, limit)).collect(),
            };
            match wrong.as_slice() {
                [] => {}
                [one] => return Err(request.forbidden(one)),
                many => return Err(request.forbidden(format!("[{}]", many.join(", ")))),
            }
        }
        Ok(())
    }
}

/// Gives containers the default requests and limits of a range where they have none, and notes it on the pod.
fn fill(pod: &mut Value, range: &Value) {
    let limits = range["spec"]["limits"].as_array().map_or(&[][..], Vec::as_slice);
    let of_containers = |key: &str| -> Vec<(String, Value)> {
        let items = limits.iter().filter(|limit| limit["type"] == "Container");
        let entries = items.flat_map(|limit| limit[key].as_object().into_iter().flatten());
        entries.map(|(name, amount)| (name.clone(), amount.clone())).collect()
    };
    let defaults =
        [("request", "requests", of_containers("defaultRequest")), ("limit", "limits", of_containers("default"))];
    let mut notes = Vec::new();
    for (list, what) in LISTS {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            for (word, key, defaults) in &defaults {
                let set = fill_container(container, key, defaults);
                if !set.is_empty() {
                    let name = container["name"].as_str().unwrap_or_default();
                    notes.push(format!("{} {word} for {what} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        if !pod["metadata"]["annotations"].is_object() {
            pod["metadata"]["annotations"] = json!({});
        }
        pod["metadata"]["annotations"][ANNOTATION] = format!("LimitRanger plugin set: {}", notes.join("; ")).into();
    }
}

/// The names of what was filled in, in order.
fn fill_container(container: &mut Value, key: &str, defaults: &[(String, Value)]) -> Vec<String> {
    let mut set = Vec::new();
    for (name, amount) in defaults {
        if container["resources"][key][name].is_null() {
            container["resources"][key][name] = amount.clone();
            set.push(name.clone());
        }
    }
    set.sort_unstable();
    set
}

/// One item of a range, read.
struct Bounds {
    kind: String,
    min: Amounts,
    max: Amounts,
    ratio: Amounts,
}

impl Bounds {
    fn of(limit: &Value) -> Bounds {
        Bounds {
            kind: limit["type"].as_str().unwrap_or_default().to_owned(),
            min: amounts(limit, "min"),
            max: amounts(limit, "max"),
            ratio: amounts(limit, "maxLimitRequestRatio"),
        }
    }

    /// What of requests and limits lies outside.
    fn outside(&self, requests: &Amounts, limits: &Amounts) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, least) in &self.min {
            wrong.extend(self.below(name, *least, requests.get(name), limits.get(name)));
        }
        for (name, most) in &self.max {
            wrong.extend(self.above(name, *most, requests.get(name), limits.get(name)));
        }
        for (name, ratio) in &self.ratio {
            wrong.extend(self.apart(name, *ratio, requests.get(name), limits.get(name)));
        }
        wrong
    }

    fn below(
        &self,
        name: &str,
        least: Quantity,
        request: Option<&Quantity>,
        limit: Option<&Quantity>,
    ) -> Option<String> {
        let head = format!("minimum {name} usage per {} is {least}", self.kind);
        match (request, limit) {
            (None, _) => Some(format!("{head}.  No request is specified")),
            (Some(request), _) if *request < least => Some(format!("{head}, but request is {request}")),
            (_, Some(limit)) if *limit < least => Some(format!("{head}, but limit is {limit}")),
            _ => None,
        }
    }

    fn above(
        &self,
        name: &str,
        most: Quantity,
        request: Option<&Quantity>,
        limit: Option<&Quantity>,
    ) -> Option<String> {
        let head = format!("maximum {name} usage per {} is {most}", self.kind);
        match (request, limit) {
            (_, None) => Some(format!("{head}.  No limit is specified")),
            (_, Some(limit)) if *limit > most => Some(format!("{head}, but limit is {limit}")),
            (Some(request), _) if *request > most => Some(format!("{head}, but request is {request}")),
            _ => None,
        }
    }

    fn apart(
        &self,
        name: &str,
        most: Quantity,
        request: Option<&Quantity>,
        limit: Option<&Quantity>,
    ) -> Option<String> {
        let head = format!("{name} max limit to request ratio per {} is {most}", self.kind);
        let request = request.filter(|amount| !amount.is_zero());
        let limit = limit.filter(|amount| !amount.is_zero());
        match (request, limit) {
            (None, _) => Some(format!("{head}, but no request is specified or request is 0")),
            (_, None) => Some(format!("{head}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let ratio = limit.as_f64() / request.as_f64();
                (ratio > most.as_f64()).then(|| format!("{head}, but provided ratio is {ratio:.6}"))
            }
        }
    }
}

fn pod_outside(pod: &Value, limit: &Value) -> Vec<String> {
    let bounds = Bounds::of(limit);
    match bounds.kind.as_str() {
        "Container" => {
            let containers = LISTS.iter().flat_map(|(list, _)| pod["spec"][list].as_array().into_iter().flatten());
            let read = |c: &Value| (amounts(c, "resources.requests"), amounts(c, "resources.limits"));
            containers.map(read).flat_map(|(requests, limits)| bounds.outside(&requests, &limits)).collect()
        }
        "Pod" => bounds.outside(&pod_amounts(&pod["spec"], "requests"), &pod_amounts(&pod["spec"], "limits")),
        _ => Vec::new(),
    }
}

fn claim_outside(claim: &Value, limit: &Value) -> Vec<String> {
    let bounds = Bounds::of(limit);
    if bounds.kind != "PersistentVolumeClaim" {
        return Vec::new();
    }
    let requests = amounts(claim, "spec.resources.requests");
    let mut wrong: Vec<String> =
        bounds.min.iter().filter_map(|(name, least)| bounds.below(name, *least, requests.get(name), None)).collect();
    for (name, most) in &bounds.max {
        let head = format!("maximum {name} usage per {} is {most}", bounds.kind);
        match requests.get(name) {
            None => wrong.push(format!("{head}.  No request is specified")),
            Some(request) if request > most => wrong.push(format!("{head}, but request is {request}")),
            Some(_) => {}
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(resources: Value) -> Value {
        json!({"metadata": {}, "spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    #[test]
    fn what_is_filled_in_is_noted_on_the_pod() {
        let range = json!({"spec": {"limits": [{"type": "Container",
            "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m", "memory": "1Mi"}}]}});
        let mut filled = pod(json!({"limits": {"cpu": "2"}}));
        filled["spec"]["initContainers"] =
            json!([{"name": "i", "resources": {"requests": {"cpu": "1", "memory": "1"}}}]);
        fill(&mut filled, &range);
        let wanted = json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "1Mi"}});
        assert_eq!(filled["spec"]["containers"][0]["resources"], wanted);
        let note = "LimitRanger plugin set: cpu, memory request for container c; memory limit for container c; \
                    cpu, memory limit for init container i";
        assert_eq!(filled["metadata"]["annotations"][ANNOTATION], note);
    }

    #[test]
    fn what_lies_outside_is_said_in_upstreams_words() {
        let limit = json!({"type": "Container", "min": {"cpu": "50m"}, "max": {"cpu": "1", "memory": "1Gi"},
            "maxLimitRequestRatio": {"cpu": "2"}});
        let said = pod_outside(&pod(json!({"requests": {"cpu": "10m"}, "limits": {"cpu": "2"}})), &limit);
        let wanted = [
            "minimum cpu usage per Container is 50m, but request is 10m",
            "maximum cpu usage per Container is 1, but limit is 2",
            "maximum memory usage per Container is 1Gi.  No limit is specified",
            "cpu max limit to request ratio per Container is 2, but provided ratio is 200.000000",
        ];
        assert_eq!(said, wanted);
    }

    #[test]
    fn pods_are_measured_as_a_whole() {
        let limit = json!({"type": "Pod", "max": {"cpu": "1"}});
        let mut two = pod(json!({"limits": {"cpu": "600m"}}));
        let one = two["spec"]["containers"][0].clone();
        assert_eq!(pod_outside(&two, &limit), [""; 0]);
        two["spec"]["containers"].as_array_mut().unwrap().push(one);
        assert_eq!(pod_outside(&two, &limit), ["maximum cpu usage per Pod is 1, but limit is 1200m"]);
    }

    #[test]
    fn claims_are_measured_by_what_they_ask_for() {
        let limit = json!({"type": "PersistentVolumeClaim", "min": {"storage": "2Gi"}, "max": {"storage": "5Gi"}});
        let claim = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
        let said = claim_outside(&claim("1Gi"), &limit);
        assert_eq!(said, ["minimum storage usage per PersistentVolumeClaim is 2Gi, but request is 1Gi"]);
        let said = claim_outside(&claim("6Gi"), &limit);
        assert_eq!(said, ["maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 6Gi"]);
        assert_eq!(claim_outside(&claim("3Gi"), &limit), [""; 0]);
    }
}
