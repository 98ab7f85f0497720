//! What `--admission-control-config-file` says to the plugins: an AdmissionConfiguration, with a plugin's own
//! configuration inside or in a file beside it. I/O: reads files, at start.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::error::Error;

const FLAG: &str = "--admission-control-config-file";
/// Versions of AdmissionConfiguration: they are the same.
const VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1alpha1"];
/// Largest file that is read: a configuration is a page or two.
const MAX_FILE: u64 = 1 << 20;

/// The configurations of plugins, by the plugins' names.
#[derive(Debug, Default)]
pub struct Configuration(BTreeMap<String, Value>);

impl Configuration {
    /// Reads the file, and all that it names: what is wrong with one is told whether or not its plugin is on. A plugin
    /// that is not among those that take a configuration is a mistake.
    pub fn read(file: Option<&Path>, plugins: &[&str]) -> Result<Configuration, Error> {
        file.map_or_else(|| Ok(Configuration::default()), |file| whole(file, plugins).map_err(bad))
    }

    /// What a plugin makes of what is said to it, if anything is.
    pub fn of<T>(&self, plugin: &str, make: impl FnOnce(Option<&Value>) -> Result<T, String>) -> Result<T, Error> {
        make(self.0.get(plugin)).map_err(bad)
    }
}

fn bad(reason: String) -> Error {
    Error::Flag { flag: FLAG, reason }
}

fn whole(file: &Path, plugins: &[&str]) -> Result<Configuration, String> {
    let all = document(file)?;
    let word = |field: &str| all[field].as_str().unwrap_or_default();
    if !VERSIONS.contains(&word("apiVersion")) || word("kind") != "AdmissionConfiguration" {
        let (version, kind) = (word("apiVersion"), word("kind"));
        return Err(format!("{version:?} {kind:?} is no AdmissionConfiguration of {}", VERSIONS[0]));
    }
    let mut configurations = BTreeMap::new();
    for plugin in all["plugins"].as_array().into_iter().flatten() {
        let name = plugin["name"].as_str().unwrap_or_default();
        if !plugins.contains(&name) {
            return Err(format!("plugin {name:?} takes no configuration here"));
        }
        let configuration = match plugin["path"].as_str().filter(|path| !path.is_empty()) {
            // As upstream: a relative path is beside the file.
            Some(path) => document(&file.parent().unwrap_or(Path::new("")).join(path))?,
            None => plugin["configuration"].clone(),
        };
        configurations.insert(name.to_owned(), configuration);
    }
    Ok(Configuration(configurations))
}

fn document(path: &Path) -> Result<Value, String> {
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
    use crate::admission::CONFIGURED;

    #[test]
    fn a_plugins_configuration_stands_inside_or_beside() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("admission.yaml");
        let write = |plugins: &str| {
            let text =
                format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n{plugins}");
            std::fs::write(&file, text).expect("written");
        };
        let kind = |plugin: &str| {
            let kind = |said: Option<&Value>| Ok(said.map(|said| said["kind"].clone()));
            whole(&file, CONFIGURED).expect("read").of(plugin, kind).expect("taken")
        };
        write("- name: EventRateLimit\n  configuration:\n    kind: Configuration\n");
        assert_eq!((kind("EventRateLimit"), kind("PodSecurity")), (Some("Configuration".into()), None));
        std::fs::write(dir.path().join("limits.yaml"), "kind: Beside\n").expect("written");
        write("- name: PodSecurity\n  configuration: {kind: Other}\n- name: EventRateLimit\n  path: limits.yaml\n");
        assert_eq!((kind("PodSecurity"), kind("EventRateLimit")), (Some("Other".into()), Some("Beside".into())));
        let wrong = |file: &Path| Configuration::read(Some(file), CONFIGURED).expect_err("refused").to_string();
        write("- name: LimitRanger\n  configuration: {}\n");
        assert!(wrong(&file).contains("\"LimitRanger\" takes no configuration"));
        std::fs::write(&file, "kind: Pod\n").expect("written");
        assert!(wrong(&file).contains("is no AdmissionConfiguration"));
        assert!(wrong(Path::new("/nowhere")).starts_with("--admission-control-config-file: /nowhere: "));
    }
}
