//! What the API accepts, stores and gives back although nothing here acts on it yet: each answers with a `Warning`
//! header. One table; a row goes when the feature comes. Who calls: the API server, on every create and update.

use serde_json::Value;

use crate::kind::Kind;

/// A field without effect.
struct Row {
    group: &'static str,
    plural: &'static str,
    /// Dotted path from the root; `[]` goes through a list.
    path: &'static str,
    when: When,
}

#[derive(Clone, Copy)]
enum When {
    Set,
    Is(&'static str),
    False,
}

const fn kind(group: &'static str, plural: &'static str) -> Row {
    Row { group, plural, path: "", when: When::Set }
}

const fn field(group: &'static str, plural: &'static str, path: &'static str, when: When) -> Row {
    Row { group, plural, path, when }
}

/// Kinds and fields beside pods.
const UNENFORCED: &[Row] = &[
    kind("networking.k8s.io", "networkpolicies"),
    kind("autoscaling", "horizontalpodautoscalers"),
    kind("storagemigration.k8s.io", "storageversionmigrations"),
    kind("resource.k8s.io", "resourceclaims"),
    kind("resource.k8s.io", "resourceclaimtemplates"),
    kind("resource.k8s.io", "devicetaintrules"),
    kind("flowcontrol.apiserver.k8s.io", "flowschemas"),
    kind("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"),
    kind("storage.k8s.io", "storageclasses"),
    kind("storage.k8s.io", "volumeattachments"),
    kind("storage.k8s.io", "volumeattributesclasses"),
    kind("storage.k8s.io", "csidrivers"),
    kind("", "persistentvolumes"),
    kind("", "persistentvolumeclaims"),
    field("apiregistration.k8s.io", "apiservices", "spec.service", When::Set),
];

/// Fields of pods, below `spec` of pods and of templates. `containers` stands for init containers too.
const OF_PODS: &[(&str, When)] = &[
    ("hostUsers", When::False),
    ("resourceClaims", When::Set),
    ("securityContext.appArmorProfile", When::Set),
    ("securityContext.seLinuxOptions", When::Set),
    ("securityContext.fsGroupChangePolicy", When::Is("OnRootMismatch")),
    ("containers[].securityContext.appArmorProfile", When::Set),
    ("containers[].securityContext.seLinuxOptions", When::Set),
    ("containers[].env[].valueFrom.fileKeyRef", When::Set),
    ("containers[].volumeDevices", When::Set),
    ("volumes[].projected.sources[].podCertificate", When::Set),
];

/// Volumes that the kubelet mounts; a volume of anything else never is.
const MOUNTED: [&str; 7] = ["configMap", "downwardAPI", "emptyDir", "hostPath", "image", "projected", "secret"];

/// Where kinds hold the spec of pods.
const POD_SPECS: [(&str, &str, &str); 9] = [
    ("", "pods", "spec"),
    ("", "podtemplates", "template.spec"),
    ("", "replicationcontrollers", "spec.template.spec"),
    ("apps", "daemonsets", "spec.template.spec"),
    ("apps", "deployments", "spec.template.spec"),
    ("apps", "replicasets", "spec.template.spec"),
    ("apps", "statefulsets", "spec.template.spec"),
    ("batch", "jobs", "spec.template.spec"),
    ("batch", "cronjobs", "spec.jobTemplate.spec.template.spec"),
];

const WITHOUT_EFFECT: &str = "accepted and stored, but nothing in this server acts on it yet";

/// What to say of `object`.
pub fn warnings(kind: &Kind, object: &Value) -> Vec<String> {
    let about = |group: &str, plural: &str| kind.group == group && kind.plural == plural;
    let rows = UNENFORCED.iter().filter(|row| about(row.group, row.plural) && holds(object, row.path, row.when));
    let mut warnings: Vec<String> = rows
        .map(|row| {
            let what = if row.path.is_empty() { row.plural.to_owned() } else { shown(row.path, row.when) };
            format!("{what}: {WITHOUT_EFFECT}")
        })
        .collect();
    let place = POD_SPECS.iter().find(|(group, plural, _)| about(group, plural));
    if let Some((place, spec)) = place.and_then(|(_, _, path)| Some((*path, crate::value::at(object, path)?))) {
        warnings.extend(of_pod(place, spec));
    }
    if about("apps", "statefulsets") && !crate::value::items(object, "spec.volumeClaimTemplates").is_empty() {
        warnings.push(format!("spec.volumeClaimTemplates: {}", not_mounted("persistentVolumeClaim")));
    }
    warnings
}

fn shown(path: &str, when: When) -> String {
    match when {
        When::Set => path.to_owned(),
        When::Is(value) => format!("{path}: {value}"),
        When::False => format!("{path}: false"),
    }
}

fn of_pod(place: &str, spec: &Value) -> Vec<String> {
    let init = |path: &str| path.strip_prefix("containers").map(|rest| format!("initContainers{rest}"));
    let mut warnings: Vec<String> = OF_PODS
        .iter()
        .flat_map(|(path, when)| std::iter::once(((*path).to_owned(), *when)).chain(init(path).map(|p| (p, *when))))
        .filter(|(path, when)| holds(spec, path, *when))
        .map(|(path, when)| format!("{place}.{}: {WITHOUT_EFFECT}", shown(&path, when)))
        .collect();
    for (i, volume) in crate::value::items(spec, "volumes").iter().enumerate() {
        let keys = volume.as_object().into_iter().flatten().filter(|(_, v)| !v.is_null()).map(|(key, _)| key.as_str());
        let strange = keys.into_iter().find(|key| *key != "name" && !MOUNTED.contains(key));
        if let Some(sort) = strange {
            warnings.push(format!("{place}.volumes[{i}]: {}", not_mounted(sort)));
        }
    }
    warnings
}

fn not_mounted(sort: &str) -> String {
    format!("volumes of type {sort} are not mounted by this kubelet yet")
}

fn holds(value: &Value, path: &str, when: When) -> bool {
    let (head, rest) = path.split_once('.').unwrap_or((path, ""));
    if head.is_empty() {
        return match when {
            // Nothing in it, nothing without effect.
            When::Set => match value {
                Value::Null => false,
                Value::Object(map) => !map.is_empty(),
                Value::Array(list) => !list.is_empty(),
                _ => true,
            },
            When::Is(wanted) => value == wanted,
            When::False => *value == false,
        };
    }
    match head.strip_suffix("[]") {
        Some(name) => value.get(name).and_then(Value::as_array).into_iter().flatten().any(|v| holds(v, rest, when)),
        None => value.get(head).is_some_and(|v| holds(v, rest, when)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(group: &str, version: &str, kind: &str, object: Value) -> Vec<String> {
        warnings(crate::by_kind(group, version, kind).unwrap(), &object)
    }

    #[test]
    fn what_has_no_effect_is_said() {
        assert_eq!(said("", "v1", "Service", json!({"spec": {"type": "LoadBalancer"}})), [""; 0]);
        let policy = said("networking.k8s.io", "v1", "NetworkPolicy", json!({"spec": {}}));
        assert_eq!(policy, [format!("networkpolicies: {WITHOUT_EFFECT}")]);
    }

    #[test]
    fn fields_of_pods_are_found_in_templates() {
        let spec = json!({"hostUsers": false, "initContainers": [{"volumeDevices": [{}]}],
            "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "nfs": {}}]});
        let deployment = said("apps", "v1", "Deployment", json!({"spec": {"template": {"spec": spec}}}));
        let wanted = [
            format!("spec.template.spec.hostUsers: false: {WITHOUT_EFFECT}"),
            format!("spec.template.spec.initContainers[].volumeDevices: {WITHOUT_EFFECT}"),
            "spec.template.spec.volumes[1]: volumes of type nfs are not mounted by this kubelet yet".to_owned(),
        ];
        assert_eq!(deployment, wanted);
        assert_eq!(said("", "v1", "Pod", json!({"spec": {"hostUsers": true, "volumes": [{"name": "c"}]}})), [""; 0]);
    }

    #[test]
    fn claims_of_stateful_sets_are_volumes_and_what_is_empty_is_nothing() {
        let claims = |list: Value| {
            let spec = json!({"template": {"spec": {"securityContext": {"seLinuxOptions": {}}}}, "volumeClaimTemplates": list});
            said("apps", "v1", "StatefulSet", json!({"spec": spec}))
        };
        let wanted =
            "spec.volumeClaimTemplates: volumes of type persistentVolumeClaim are not mounted by this kubelet yet";
        assert_eq!(claims(json!([{"metadata": {"name": "data"}}])), [wanted]);
        assert_eq!(claims(json!([])), [""; 0]);
    }

    #[test]
    fn rows_name_kinds_that_there_are() {
        let known = |group: &str, plural: &str| crate::ALL.iter().any(|k| k.group == group && k.plural == plural);
        assert!(UNENFORCED.iter().all(|row| known(row.group, row.plural)));
        assert!(POD_SPECS.iter().all(|(group, plural, _)| known(group, plural)));
    }
}
