//! What a pod or a volume refers to: secrets, config maps, claims. Pure; the node authoriser lets a kubelet read these,
//! and admission keeps pods of a node's own making free of them.

use serde_json::Value;

/// Names of secrets (`secret`) or config maps (`configmap`) that an object refers to, anywhere in its spec.
pub fn names(object: &Value, what: &str) -> Vec<String> {
    let mut found = Vec::new();
    collect(&object["spec"], what, &mut found);
    found
}

fn collect(value: &Value, what: &str, found: &mut Vec<String>) {
    let mut take = |name: &Value| found.extend(name.as_str().map(str::to_owned));
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match (what, key.as_str()) {
                    ("secret", "secretKeyRef" | "secretRef" | "imagePullSecrets") => {
                        value.as_array().into_iter().flatten().for_each(|v| take(&v["name"]));
                        take(&value["name"]);
                    }
                    ("secret", "secret" | "azureFile") => {
                        take(&value["secretName"]);
                        take(&value["name"]);
                    }
                    // nodePublishSecretRef and its siblings.
                    ("secret", key) if key.ends_with("SecretRef") => take(&value["name"]),
                    ("configmap", "configMapKeyRef" | "configMapRef" | "configMap") => take(&value["name"]),
                    _ => {}
                }
            }
            map.values().for_each(|value| collect(value, what, found));
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, what, found)),
        _ => {}
    }
}

/// Names of the persistent volume claims of a pod, those of its ephemeral volumes included.
pub fn claims_of(pod: &Value) -> Vec<String> {
    let volumes = pod["spec"]["volumes"].as_array();
    let name = |v: &Value| match v["persistentVolumeClaim"]["claimName"].as_str() {
        Some(name) => Some(name.to_owned()),
        None if v["ephemeral"].is_object() => {
            Some(format!("{}-{}", pod["metadata"]["name"].as_str()?, v["name"].as_str()?))
        }
        None => None,
    };
    volumes.into_iter().flatten().filter_map(name).collect()
}

/// Names of the resource claims of a pod: those that it names, and those that were made for it.
pub fn resource_claims_of(pod: &Value) -> Vec<String> {
    let of = |list: &Value| -> Vec<String> {
        let names = list.as_array().into_iter().flatten().filter_map(|claim| claim["resourceClaimName"].as_str());
        names.map(str::to_owned).collect()
    };
    let mut all = of(&pod["spec"]["resourceClaims"]);
    all.extend(of(&pod["status"]["resourceClaimStatuses"]));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_way_to_refer_to_a_secret_counts() {
        let pod = json!({"spec": {
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [{"name": "a", "secret": {"secretName": "vol"}},
                {"name": "c", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "csi"}}},
                {"name": "b", "projected": {"sources": [{"secret": {"name": "proj"}}, {"configMap": {"name": "cm"}}]}}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "env"}}}], "envFrom": [{"secretRef": {"name": "from"}}]}],
        }});
        let mut found = names(&pod, "secret");
        found.sort();
        assert_eq!(found, ["csi", "env", "from", "proj", "pull", "vol"]);
        assert_eq!(names(&pod, "configmap"), ["cm"]);
    }
}
