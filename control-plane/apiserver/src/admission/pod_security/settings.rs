//! What PodSecurity is told by `--admission-control-config-file`: the standards of namespaces that say nothing, and who is
//! exempt (`pod-security.admission.config.k8s.io`, PodSecurityConfiguration). Pure.

use meta::names;
use serde_json::Value;

use super::policy::{Standard, level, version};

/// Versions of PodSecurityConfiguration: they are the same.
const VERSIONS: [&str; 3] = [
    "pod-security.admission.config.k8s.io/v1",
    "pod-security.admission.config.k8s.io/v1beta1",
    "pod-security.admission.config.k8s.io/v1alpha1",
];

/// See the module's head; by default every namespace is privileged and nobody exempt, as upstream has it.
#[derive(Debug, Default)]
pub struct Settings {
    pub enforce: Standard,
    pub audit: Standard,
    pub warn: Standard,
    pub usernames: Vec<String>,
    pub runtime_classes: Vec<String>,
    pub namespaces: Vec<String>,
}

impl Settings {
    /// From a configuration; the error names the field.
    pub fn read(configuration: &Value) -> Result<Settings, String> {
        let word = |field: &str| configuration[field].as_str().unwrap_or_default();
        if !VERSIONS.contains(&word("apiVersion")) || word("kind") != "PodSecurityConfiguration" {
            let (version, kind) = (word("apiVersion"), word("kind"));
            return Err(format!("PodSecurity: {version:?} {kind:?} is no PodSecurityConfiguration of {}", VERSIONS[0]));
        }
        known_fields(configuration, "", &["apiVersion", "kind", "defaults", "exemptions"])?;
        let defaults = &configuration["defaults"];
        let modes = ["enforce", "enforce-version", "audit", "audit-version", "warn", "warn-version"];
        known_fields(defaults, "defaults.", &modes)?;
        let exemptions = &configuration["exemptions"];
        known_fields(exemptions, "exemptions.", &["usernames", "runtimeClasses", "namespaces"])?;
        Ok(Settings {
            enforce: standard(defaults, "enforce")?,
            audit: standard(defaults, "audit")?,
            warn: standard(defaults, "warn")?,
            usernames: list(exemptions, "usernames", |name| {
                if name.is_empty() { vec!["username must not be empty".to_owned()] } else { Vec::new() }
            })?,
            runtime_classes: list(exemptions, "runtimeClasses", names::dns1123_subdomain)?,
            namespaces: list(exemptions, "namespaces", names::dns1123_label)?,
        })
    }

    /// Why nothing is asked of what this user does in this namespace, if so: upstream's word.
    pub fn exempts(&self, namespace: &str, user: &str) -> Option<&'static str> {
        if self.namespaces.iter().any(|name| name == namespace) {
            return Some("namespace");
        }
        self.usernames.iter().any(|name| name == user).then_some("user")
    }

    /// Whether nothing is asked of pods of this spec.
    pub fn exempts_spec(&self, spec: &Value) -> bool {
        let class = spec["runtimeClassName"].as_str().filter(|class| !class.is_empty());
        class.is_some_and(|class| self.runtime_classes.iter().any(|name| name == class))
    }
}

/// A misspelt field would leave a door open that somebody believes shut.
fn known_fields(object: &Value, path: &str, known: &[&str]) -> Result<(), String> {
    let mut fields = object.as_object().into_iter().flatten().map(|(field, _)| field.as_str());
    match fields.find(|field| !known.contains(field)) {
        Some(field) => Err(format!("PodSecurity: {path}{field}: unknown field")),
        None => Ok(()),
    }
}

fn standard(defaults: &Value, mode: &str) -> Result<Standard, String> {
    let wrong = |field: &str, value: &Value, why: &str| {
        Err(format!("PodSecurity: defaults.{field}: Invalid value: {value}: {why}"))
    };
    let mut standard = Standard::default();
    let named = &defaults[mode];
    if !named.is_null() {
        match named.as_str().and_then(level) {
            Some(level) => standard.level = level,
            None => return wrong(mode, named, "must be one of privileged, baseline, restricted"),
        }
    }
    let field = format!("{mode}-version");
    let named = &defaults[&field];
    if !named.is_null() {
        match named.as_str().and_then(version) {
            Some(version) => standard.version = version,
            None => return wrong(&field, named, "must be \"latest\" or \"v1.x\""),
        }
    }
    Ok(standard)
}

fn list(exemptions: &Value, field: &str, rule: impl Fn(&str) -> Vec<String>) -> Result<Vec<String>, String> {
    let mut all: Vec<String> = Vec::new();
    for (at, entry) in exemptions[field].as_array().into_iter().flatten().enumerate() {
        let name = entry.as_str().unwrap_or_default();
        if all.iter().any(|known| known == name) {
            return Err(format!("PodSecurity: exemptions.{field}[{at}]: Duplicate value: {entry}"));
        }
        if let Some(why) = rule(name).first() {
            return Err(format!("PodSecurity: exemptions.{field}[{at}]: Invalid value: {entry}: {why}"));
        }
        all.push(name.to_owned());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(more: Value) -> Result<Settings, String> {
        let mut configuration = json!({"apiVersion": VERSIONS[0], "kind": "PodSecurityConfiguration"});
        for (key, value) in more.as_object().into_iter().flatten() {
            configuration[key] = value.clone();
        }
        Settings::read(&configuration)
    }

    #[test]
    fn a_configuration_is_read_strictly() {
        let exemptions = json!({"usernames": ["u"], "runtimeClasses": ["r"], "namespaces": ["kube-system"]});
        let defaults = json!({"enforce": "baseline", "enforce-version": "v1.30", "warn": "restricted"});
        let settings = read(json!({"defaults": defaults, "exemptions": exemptions})).expect("settings");
        assert_eq!(
            (settings.enforce.to_string(), settings.warn.to_string()),
            ("baseline:v1.30".into(), "restricted:latest".into())
        );
        assert_eq!(settings.exempts("kube-system", ""), Some("namespace"));
        assert_eq!((settings.exempts("a", "u"), settings.exempts("a", "b")), (Some("user"), None));
        assert!(settings.exempts_spec(&json!({"runtimeClassName": "r"})) && !settings.exempts_spec(&json!({})));
        assert_eq!(read(json!({})).expect("nothing").enforce, Standard::default());
        for (wrong, why) in [
            (json!({"defaults": {"enforce": "strict"}}), "defaults.enforce: Invalid value: \"strict\": must be one of"),
            (json!({"defaults": {"audit": 1}}), "defaults.audit: Invalid value: 1"),
            (json!({"defaults": {"warn-version": "1.2"}}), "defaults.warn-version: Invalid value"),
            (json!({"defaults": {"enforced": "baseline"}}), "defaults.enforced: unknown field"),
            (json!({"exemptions": {"namespaces": ["A"]}}), "exemptions.namespaces[0]: Invalid value: \"A\""),
            (json!({"exemptions": {"usernames": ["a", "a"]}}), "exemptions.usernames[1]: Duplicate value"),
            (json!({"exemptions": {"usernames": [""]}}), "username must not be empty"),
            (json!({"kind": "Other"}), "is no PodSecurityConfiguration"),
        ] {
            let said = read(wrong.clone()).expect_err("refused");
            assert!(said.contains(why), "{wrong}: {said}");
        }
    }
}
