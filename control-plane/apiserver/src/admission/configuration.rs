//! What `--admission-control-config-file` says to the plugins: an AdmissionConfiguration, with a plugin's own
//! configuration inside or in a file beside it. I/O: reads files, at start.

use std::path::Path;

use serde_json::Value;

use super::{event_rate_limit, pod_security};

/// Versions of AdmissionConfiguration: they are the same.
const VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1alpha1"];
/// Largest file that is read: a configuration is a page or two.
const MAX_FILE: u64 = 1 << 20;

/// Plugins that take a configuration; another's is a mistake.
const PLUGINS: [&str; 2] = [event_rate_limit::NAME, pod_security::NAME];

/// The configuration of a plugin.
pub fn of(plugin: &str, file: &Path) -> Result<Option<Value>, String> {
    let wanted = plugin;
    let all = read(file)?;
    let word = |field: &str| all[field].as_str().unwrap_or_default();
    if !VERSIONS.contains(&word("apiVersion")) || word("kind") != "AdmissionConfiguration" {
        let (version, kind) = (word("apiVersion"), word("kind"));
        return Err(format!("{version:?} {kind:?} is no AdmissionConfiguration of {}", VERSIONS[0]));
    }
    let mut found = None;
    for plugin in all["plugins"].as_array().into_iter().flatten() {
        let name = plugin["name"].as_str().unwrap_or_default();
        if !PLUGINS.contains(&name) {
            return Err(format!("plugin {name:?} takes no configuration here"));
        }
        if name != wanted {
            continue;
        }
        found = Some(match plugin["path"].as_str().filter(|path| !path.is_empty()) {
            // As upstream: a relative path is beside the file.
            Some(path) => read(&file.parent().unwrap_or(Path::new("")).join(path))?,
            None => plugin["configuration"].clone(),
        });
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Value, String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let size = std::fs::metadata(path).map_err(|error| told(&error))?.len();
    if size > MAX_FILE {
        return Err(told(&format!("{size} bytes are no configuration; {MAX_FILE} are the most")));
    }
    let text = std::fs::read(path).map_err(|error| told(&error))?;
    codec::yaml::decode(&text, codec::Form::Any).map(|decoded| decoded.object).map_err(|error| told(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event_rate_limit(file: &Path) -> Result<Option<Value>, String> {
        of(event_rate_limit::NAME, file)
    }

    #[test]
    fn a_plugins_configuration_stands_inside_or_beside() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("admission.yaml");
        let write = |plugins: &str| {
            let text =
                format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n{plugins}");
            std::fs::write(&file, text).expect("written");
        };
        write("- name: EventRateLimit\n  configuration:\n    kind: Configuration\n");
        assert_eq!(event_rate_limit(&file).expect("inside").expect("there")["kind"], "Configuration");
        std::fs::write(dir.path().join("limits.yaml"), "kind: Beside\n").expect("written");
        write("- name: EventRateLimit\n  path: limits.yaml\n");
        assert_eq!(event_rate_limit(&file).expect("beside").expect("there")["kind"], "Beside");
        write("- name: PodSecurity\n  configuration: {kind: Other}\n- name: EventRateLimit\n  path: limits.yaml\n");
        assert_eq!(of("PodSecurity", &file).expect("one of two").expect("there")["kind"], "Other");
        assert_eq!(event_rate_limit(&file).expect("the other").expect("there")["kind"], "Beside");
        write("- name: LimitRanger\n  configuration: {}\n");
        assert!(event_rate_limit(&file).expect_err("another").contains("\"LimitRanger\" takes no configuration"));
        std::fs::write(&file, "kind: Pod\n").expect("written");
        assert!(event_rate_limit(&file).expect_err("no such kind").contains("is no AdmissionConfiguration"));
        assert!(event_rate_limit(Path::new("/nowhere")).expect_err("no file").starts_with("/nowhere: "));
    }
}
