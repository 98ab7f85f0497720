//! What `--admission-control-config-file` says to the plugins: an AdmissionConfiguration, with a plugin's own
//! configuration inside or in a file beside it. I/O: reads files, at start.

use std::path::Path;

use serde_json::Value;

use super::event_rate_limit::{self, Limit};
use super::{Row, pod_security};

/// Versions of AdmissionConfiguration: they are the same.
const VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1alpha1"];
/// Largest file that is read: a configuration is a page or two.
const MAX_FILE: u64 = 1 << 20;

/// What the plugins that can be configured go by.
#[derive(Debug, Default)]
pub struct Settings {
    /// Empty when EventRateLimit is off.
    pub event_limits: Vec<Limit>,
    pub pod_security: pod_security::Settings,
}

impl Settings {
    /// From the file, if there is one, for a chain of plugins.
    pub fn read(file: Option<&Path>, chain: &[&'static Row]) -> Result<Settings, String> {
        let plugins = file.map(plugins).transpose()?.unwrap_or_default();
        let of = |name: &str| plugins.iter().find(|(known, _)| known == name).map(|(_, configuration)| configuration);
        let mut settings = Settings::default();
        if let Some(configuration) = of(pod_security::NAME) {
            settings.pod_security = pod_security::Settings::read(configuration)?;
        }
        let limited = chain.iter().any(|row| row.plugin.name() == event_rate_limit::NAME);
        if limited {
            settings.event_limits = event_rate_limit::limits(of(event_rate_limit::NAME))?;
        }
        Ok(settings)
    }
}

/// The configurations in a file, by plugin; one of a plugin that takes none here is a mistake.
fn plugins(file: &Path) -> Result<Vec<(String, Value)>, String> {
    let all = read(file)?;
    let word = |field: &str| all[field].as_str().unwrap_or_default();
    if !VERSIONS.contains(&word("apiVersion")) || word("kind") != "AdmissionConfiguration" {
        let (version, kind) = (word("apiVersion"), word("kind"));
        return Err(format!("{version:?} {kind:?} is no AdmissionConfiguration of {}", VERSIONS[0]));
    }
    let mut found = Vec::new();
    for plugin in all["plugins"].as_array().into_iter().flatten() {
        let name = plugin["name"].as_str().unwrap_or_default();
        if ![event_rate_limit::NAME, pod_security::NAME].contains(&name) {
            return Err(format!("plugin {name:?} takes no configuration here"));
        }
        let configuration = match plugin["path"].as_str().filter(|path| !path.is_empty()) {
            // As upstream: a relative path is beside the file.
            Some(path) => read(&file.parent().unwrap_or(Path::new("")).join(path))?,
            None => plugin["configuration"].clone(),
        };
        found.push((name.to_owned(), configuration));
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
        assert_eq!(plugins(&file).expect("inside")[0].1["kind"], "Configuration");
        std::fs::write(dir.path().join("limits.yaml"), "kind: Beside\n").expect("written");
        write("- name: EventRateLimit\n  path: limits.yaml\n");
        assert_eq!(plugins(&file).expect("beside")[0].1["kind"], "Beside");
        write("- name: Priority\n  configuration: {}\n");
        assert!(plugins(&file).expect_err("another").contains("\"Priority\" takes no configuration"));
        std::fs::write(&file, "kind: Pod\n").expect("written");
        assert!(plugins(&file).expect_err("no such kind").contains("is no AdmissionConfiguration"));
        assert!(plugins(Path::new("/nowhere")).expect_err("no file").starts_with("/nowhere: "));
    }
}
