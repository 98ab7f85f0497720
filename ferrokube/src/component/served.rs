//! Upstream's names of what an API server may have, and what of it is here: admission plugins and versions of the API.
//! What is asked for and not here is refused by name; what is turned off and not here is off. Pure.
//! Caller: `ferrokube kube-apiserver`.

use super::switches::boolean;
use crate::fault::Fault;

/// Admission plugins of upstream that are not here.
const ELSEWHERE: &[&str] = &[
    "AlwaysAdmit",
    "AlwaysDeny",
    "ExtendedResourceToleration",
    "ImagePolicyWebhook",
    "LimitPodHardAntiAffinityTopology",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "NamespaceAutoProvision",
    "NamespaceExists",
    "NodeDeclaredFeatureValidator",
    "PersistentVolumeClaimResize",
    "PersistentVolumeLabel",
    "PodNodeSelector",
    "PodTolerationRestriction",
    "PodTopologyLabels",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
];

/// The plugins that are to be turned on.
pub fn enabled(names: &[String]) -> Result<(), Fault> {
    match names.iter().find(|name| !here(name)) {
        None => Ok(()),
        Some(name) => Err(unknown("--enable-admission-plugins", name)),
    }
}

/// The plugins that are to be turned off: those that are here, and those that are off anyway.
pub fn disabled(names: Vec<String>) -> Result<(Vec<String>, Vec<String>), Fault> {
    let (off, others): (Vec<String>, Vec<String>) = names.into_iter().partition(|name| here(name));
    match others.iter().find(|name| !ELSEWHERE.contains(&name.as_str())) {
        None => Ok((off, others.iter().map(|name| format!("--disable-admission-plugins {name}")).collect())),
        Some(name) => Err(unknown("--disable-admission-plugins", name)),
    }
}

fn here(name: &str) -> bool {
    apiserver::admission::ADMISSION.iter().any(|row| row.name == name)
}

fn unknown(flag: &str, name: &str) -> Fault {
    let here: Vec<&str> = apiserver::admission::ADMISSION.iter().map(|row| row.name).collect();
    Fault::usage(format!("{flag} {name}: there is no such plugin here; there are {}", here.join(", ")))
}

/// Reads `--runtime-config`: which versions are served can't be chosen here, so that what it asks for must be so.
/// What is as it asks is given back, to be told that it has no effect.
pub fn versions(entries: &[String]) -> Result<Vec<String>, Fault> {
    let told = |entry: &String| format!("--runtime-config {entry}");
    for entry in entries {
        let (key, value) = entry.split_once('=').unwrap_or((entry, "true"));
        let on = boolean(value).map_err(|why| Fault::usage(format!("--runtime-config {key}: {why}")))?;
        let refuse = |why: String| Err(Fault::usage(format!("--runtime-config {entry} can't be had here: {why}")));
        let is_set = matches!(key, "api/all" | "api/ga" | "api/beta" | "api/alpha" | "api/legacy");
        if is_set || is_served(key) {
            if !on && key != "api/alpha" {
                return refuse("what is served can't be turned off".to_owned());
            }
        } else if on {
            return refuse(format!("{key} is not served"));
        }
    }
    Ok(entries.iter().map(told).collect())
}

/// Whether `GROUP/VERSION` or `GROUP/VERSION/RESOURCE` is served; the core group may be called `api`.
fn is_served(key: &str) -> bool {
    let mut parts = key.split('/');
    let (first, second) = (parts.next().unwrap_or_default(), parts.next());
    let (group, version) = match second {
        None => ("", first),
        Some(version) if first == "api" => ("", version),
        Some(version) => (first, version),
    };
    let resource = parts.next();
    kinds::ALL.iter().any(|kind| {
        kind.group == group && kind.version == version && resource.is_none_or(|plural| kind.plural == plural)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_plugin_that_is_not_here_is_off_already() {
        let (off, told) = disabled(texts(&["ServiceAccount", "ValidatingAdmissionWebhook"])).expect("taken");
        assert_eq!(
            (off, told),
            (texts(&["ServiceAccount"]), texts(&["--disable-admission-plugins ValidatingAdmissionWebhook"]))
        );
        assert!(enabled(&texts(&["NodeRestriction"])).is_ok());
        for said in [enabled(&texts(&["ImagePolicyWebhook"])).err(), disabled(texts(&["ServiceAcount"])).err()] {
            let said = said.map(|fault| fault.sentence).unwrap_or_default();
            assert!(said.contains("there is no such plugin here; there are NamespaceLifecycle"), "{said}");
        }
        assert!(ELSEWHERE.iter().all(|name| !here(name)), "it is here by now");
    }

    #[test]
    fn versions_are_served_or_they_are_not() {
        for taken in [
            "api/all=true",
            "api/all",
            "api/alpha=false",
            "apps/v1=true",
            "v1",
            "api/v1=true",
            "batch/v2=false",
            "apps/v1/deployments=true",
        ] {
            assert_eq!(versions(&texts(&[taken])).expect("taken"), [format!("--runtime-config {taken}")]);
        }
        for (refused, why) in [
            ("apps/v1=false", "what is served can't be turned off"),
            ("x.k8s.io/v1alpha1=true", "x.k8s.io/v1alpha1 is not served"),
            ("apps/v1=maybe", "is not true or false"),
        ] {
            let said = versions(&texts(&["v1", refused])).expect_err("refused").sentence;
            assert!(said.contains(why), "{said}");
        }
    }
}
