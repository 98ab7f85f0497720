//! Requests and limits of containers and whole pods.

use std::collections::BTreeSet;

use meta::{FieldError, Path, Quantity, names};
use serde_json::Value;

use crate::check::{Errors, NEGATIVE, follows};
use crate::value::{at, items, map, text};

/// Whose resources they are: that decides which names are allowed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    Container,
    Pod,
}

/// Names without a slash that mean something somewhere.
const STANDARD: [&str; 25] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
    "count/pods",
    "count/services",
    "count/secrets",
    "count/configmaps",
    "attachable-volumes",
];

/// Requests, limits and claims at `path`.
pub(crate) fn requirements(errors: &mut Errors, path: Path, resources: &Value, of: Of) {
    let mut computes = false;
    let mut huge_pages = false;
    for (list, is_request) in [("limits", false), ("requests", true)] {
        let list_path = path.child(list);
        for (name, amount) in map(resources, list).into_iter().flatten() {
            let entry = list_path.key(name);
            name_of(errors, entry, name, of);
            let Some(amount) = amount.as_str().and_then(|a| a.parse::<Quantity>().ok()) else { continue };
            amount_of(errors, entry, name, amount);
            if is_request {
                request(errors, path, name, amount, resources);
            }
            if let Some(page) = huge_page(name) {
                huge_pages = true;
                if page.is_zero() || amount.nanos() % page.nanos() != 0 {
                    let message = format!("{amount} is not positive integer multiple of {name}");
                    errors.push(FieldError::invalid(entry, amount.to_string(), message));
                }
            }
            computes |= matches!(name.as_str(), "cpu" | "memory");
        }
    }
    if huge_pages && !computes {
        errors.push(FieldError::forbidden(path, "HugePages require cpu or memory"));
    }
}

/// What may be promised more often than there is.
fn overcommittable(name: &str) -> bool {
    (!name.contains('/') || name.contains("kubernetes.io/")) && huge_page(name).is_none()
}

fn huge_page(name: &str) -> Option<Quantity> {
    name.strip_prefix("hugepages-").map(|size| size.parse().unwrap_or_else(|_| Quantity::new(0)))
}

fn request(errors: &mut Errors, path: Path, name: &str, amount: Quantity, resources: &Value) {
    let limit = map(resources, "limits").and_then(|l| l.get(name)).and_then(Value::as_str);
    let limit = limit.and_then(|l| l.parse::<Quantity>().ok());
    match limit {
        Some(limit) if amount != limit && !overcommittable(name) => {
            let message = format!("must be equal to {name} limit of {limit}");
            errors.push(FieldError::invalid(path.child("requests"), amount.to_string(), message));
        }
        Some(limit) if amount > limit => {
            let message = format!("must be less than or equal to {name} limit of {limit}");
            errors.push(FieldError::invalid(path.child("requests"), amount.to_string(), message));
        }
        None if !overcommittable(name) => {
            let message = "Limit must be set for non overcommitable resources";
            errors.push(FieldError::required(path.child("limits"), message));
        }
        _ => {}
    }
}

/// Amounts are not negative, and whole where parts make no sense.
pub(crate) fn amount_of(errors: &mut Errors, path: Path, name: &str, amount: Quantity) {
    if amount.sign() < 0 {
        errors.push(FieldError::invalid(path, amount.to_string(), NEGATIVE));
    }
    if integral(name) && !amount.is_whole() {
        errors.push(FieldError::invalid(path, amount.to_string(), "must be an integer"));
    }
}

fn integral(name: &str) -> bool {
    const COUNTED: [&str; 10] = [
        "pods",
        "services",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
        "memory",
    ];
    COUNTED[..9].contains(&name) || extended(name)
}

/// A resource that a device plugin or an operator brought.
pub(crate) fn extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

/// The name of a resource: qualified, and without a slash one of the standard ones.
pub(crate) fn resource_name(errors: &mut Errors, path: Path, name: &str) -> bool {
    let before = errors.len();
    follows(errors, path, name, names::qualified_name);
    if errors.len() > before {
        return false;
    }
    let standard =
        STANDARD.contains(&name) || name.starts_with("hugepages-") || name.starts_with("requests.hugepages-");
    if !name.contains('/') && !standard {
        errors.push(FieldError::invalid(path, name, "must be a standard resource type or fully qualified"));
        return false;
    }
    true
}

/// The name of a resource that may be asked for there.
pub(crate) fn name_of(errors: &mut Errors, path: Path, name: &str, of: Of) {
    let good = resource_name(errors, path, name);
    match of {
        Of::Pod if good && !matches!(name, "cpu" | "memory") && huge_page(name).is_none() => {
            errors.push(FieldError::not_supported(path, name, ["cpu", "hugepages-", "memory"]));
        }
        Of::Container if !name.contains('/') => {
            let known = matches!(name, "cpu" | "memory" | "ephemeral-storage") || huge_page(name).is_some();
            if !known {
                errors.push(FieldError::invalid(path, name, "must be a standard resource for containers"));
            }
        }
        Of::Container if !name.contains("kubernetes.io/") && !extended(name) => {
            errors.push(FieldError::invalid(path, name, "doesn't follow extended resource name standard"));
        }
        _ => {}
    }
}

/// Claims of a container name claims of the pod, each once.
pub(super) fn claims(errors: &mut Errors, path: Path, resources: &Value, of_pod: &BTreeSet<&str>) {
    let mut seen = BTreeSet::new();
    for (i, claim) in items(resources, "claims").iter().enumerate() {
        let path = path.index(i);
        let name = text(claim, "name");
        if name.is_empty() {
            errors.push(FieldError::required(path, ""));
            continue;
        }
        if !seen.insert((name, text(claim, "request"))) {
            errors.push(FieldError::duplicate(path, name));
        }
        if !of_pod.contains(name) {
            let known = of_pod.iter().copied().collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { " which is empty".to_owned() } else { format!(": {known}") };
            let detail = format!("must be one of the names in pod.spec.resourceClaims{known}");
            errors.push(FieldError { detail, ..FieldError::not_found(path, name) });
        }
    }
}

/// Resources given for a whole pod cover what its containers ask for.
pub(super) fn of_pod(errors: &mut Errors, path: Path, spec: &Value) {
    let Some(resources) = at(spec, "resources") else { return };
    let resources_path = path.child("resources");
    if !items(resources, "claims").is_empty() {
        let message = "claims may not be set for Resources at pod-level";
        errors.push(FieldError::forbidden(resources_path.child("claims"), message));
    }
    requirements(errors, resources_path, resources, Of::Pod);
    let asked = crate::core::pod_strategy::aggregate(spec, "requests");
    for (name, amount) in map(resources, "requests").into_iter().flatten() {
        let amount = amount.as_str().and_then(|a| a.parse::<Quantity>().ok());
        if let (Some(amount), Some(asked)) = (amount, asked.get(name))
            && *asked > amount
        {
            let message = format!("must be greater than or equal to aggregate container requests of {asked}");
            errors.push(FieldError::invalid(resources_path.child("requests").key(name), amount.to_string(), message));
        }
    }
    let containers = resources_path.child("containers");
    for (i, container) in items(spec, "containers").iter().enumerate() {
        for (name, limit) in map(container, "resources.limits").into_iter().flatten() {
            let parse = |v: &Value| v.as_str().and_then(|a| a.parse::<Quantity>().ok());
            let most = map(resources, "limits").and_then(|l| l.get(name)).and_then(parse);
            if let (Some(limit), Some(most)) = (parse(limit), most)
                && limit > most
            {
                let message = format!("must be less than or equal to pod limits of {most}");
                let place = containers.index(i);
                errors.push(FieldError::invalid(place.key(name).child("limits"), limit.to_string(), message));
            }
        }
    }
}
