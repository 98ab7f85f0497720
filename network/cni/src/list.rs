//! The runtime's side of the specification: network configuration lists, and calling their plugins in turn, each with
//! the result of the one before. Does I/O: remembers results in files, which DEL, CHECK and GC need.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::Error;
use crate::exec;
use crate::plugins::{self, Command, Invocation};
use crate::types::{AddResult, PortMapping, VERSIONS};

/// A network: its plugins in order.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkList {
    /// Equal on all hosts; results and addresses are kept by it.
    pub name: String,
    /// The version that plug-ins are spoken to in.
    pub cni_version: String,
    /// `disableCheck`: CHECK succeeds without asking.
    pub disable_check: bool,
    /// `disableGC`: GC succeeds without asking.
    pub disable_gc: bool,
    plugins: Vec<Value>,
    /// As it was written: a container is taken out as it was added, whatever the directory says by then.
    source: Value,
}

/// A container's interface in a network.
#[derive(Clone, Copy, Debug)]
pub struct Attachment<'a> {
    /// `CNI_CONTAINERID`: the sandbox's ID.
    pub container_id: &'a str,
    /// Needed but for removing.
    pub netns: Option<&'a Path>,
    /// `CNI_IFNAME`: the name inside, `eth0`.
    pub ifname: &'a str,
    /// `CNI_ARGS`: `K8S_POD_NAME=web;K8S_POD_NAMESPACE=default`.
    pub args: &'a str,
    /// The capability `portMappings`: given to plug-ins that say they have it.
    pub ports: &'a [PortMapping],
}

/// Calls plugins.
#[derive(Clone, Debug)]
pub struct Invoker {
    /// Where plugins that are not built in are looked for.
    pub plugin_dirs: Vec<PathBuf>,
    /// Where results are remembered.
    pub cache_dir: PathBuf,
    /// Our own plugins serve where no program of their name is found.
    pub builtin: bool,
}

impl NetworkList {
    /// From a list (`.conflist`) or the configuration of a single plugin (`.conf`, `.json`).
    pub fn parse(text: &str) -> Result<Self, Error> {
        NetworkList::of(serde_json::from_str(text)?)
    }

    fn of(value: Value) -> Result<Self, Error> {
        let field = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let flag = |name: &str| value[name].as_bool().unwrap_or_default() || value[name].as_str() == Some("true");
        let plugins = match &value["plugins"] {
            Value::Array(plugins) => plugins.clone(),
            Value::Null => vec![value.clone()],
            _ => return Err(Error::config("plugins", "it is a list of plugin configurations")),
        };
        let list = NetworkList {
            name: field("name"),
            cni_version: newest(&value),
            disable_check: flag("disableCheck"),
            disable_gc: flag("disableGC"),
            plugins,
            source: value,
        };
        check_name(&list.name)?;
        if !VERSIONS.contains(&list.cni_version.as_str()) {
            return Err(Error::Version(list.cni_version));
        }
        for (i, plugin) in list.plugins.iter().enumerate() {
            if plugin["type"].as_str().is_none_or(str::is_empty) {
                return Err(Error::config(format!("plugins[{i}].type"), "the plugin's name is needed"));
            }
        }
        if list.plugins.is_empty() {
            return Err(Error::config("plugins", "it is empty: at least one plugin is needed"));
        }
        Ok(list)
    }

    /// The first configuration of a directory by file name, as runtimes choose; none when there is none.
    pub fn load(dir: &Path) -> Result<Option<Self>, Error> {
        let what = || format!("reading {}", dir.display());
        let mut files = match fs::read_dir(dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            entries => entries.map_err(Error::io(what()))?.filter_map(Result::ok).map(|e| e.path()).collect::<Vec<_>>(),
        };
        files.retain(|f| f.extension().is_some_and(|e| e == "conflist" || e == "conf" || e == "json"));
        files.sort();
        let Some(file) = files.first() else { return Ok(None) };
        let mut text = String::new();
        fs::File::open(file)
            .and_then(|f| f.take(exec::MOST_INPUT + 1).read_to_string(&mut text))
            .map_err(Error::io(format!("reading {}", file.display())))?;
        if text.len() as u64 > exec::MOST_INPUT {
            return Err(Error::config(file.display().to_string(), format!("larger than {} bytes", exec::MOST_INPUT)));
        }
        NetworkList::parse(&text).map(Some)
    }

    fn has(&self, version: &str) -> bool {
        let place = |v: &str| VERSIONS.iter().position(|known| *known == v);
        place(&self.cni_version) >= place(version)
    }
}

/// What the specification says of a network's name; it is part of file names.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let mut chars = name.chars();
    match chars.next() {
        None => Err(Error::config("name", "the network needs a name")),
        Some(first)
            if first.is_ascii_alphanumeric()
                && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')) =>
        {
            Ok(())
        }
        Some(_) => Err(Error::config("name", "it is made of letters, digits, '_', '.' and '-'")),
    }
}

/// The newest version that both sides know: `cniVersions` lists several since 1.1.
fn newest(value: &Value) -> String {
    let listed = value["cniVersions"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let best = listed.chain(value["cniVersion"].as_str()).filter_map(|v| VERSIONS.iter().position(|k| *k == v)).max();
    match best {
        Some(best) => VERSIONS[best].to_owned(),
        None => value["cniVersion"].as_str().unwrap_or_default().to_owned(),
    }
}

impl Invoker {
    /// Adds a container to a network. When a plugin fails, those before it are undone.
    pub fn add(&self, list: &NetworkList, attachment: &Attachment<'_>) -> Result<AddResult, Error> {
        let mut result = None;
        for (i, plugin) in list.plugins.iter().enumerate() {
            match self.call(list, plugin, attachment, Command::Add, result.as_ref(), Value::Null) {
                Ok(printed) => result = printed.or(result),
                Err(e) => {
                    for done in list.plugins[..=i].iter().rev() {
                        let _ = self.call(list, done, attachment, Command::Del, result.as_ref(), Value::Null);
                    }
                    return Err(e);
                }
            }
        }
        let result = result.unwrap_or_else(|| json!({"cniVersion": list.cni_version}));
        self.remember(list, attachment, &result)?;
        Ok(serde_json::from_value(result)?)
    }

    /// Takes a container out; idempotent. Plugins go in reverse.
    pub fn del(&self, list: &NetworkList, attachment: &Attachment<'_>) -> Result<(), Error> {
        let before = self.remembered(list, attachment);
        for plugin in list.plugins.iter().rev() {
            self.call(list, plugin, attachment, Command::Del, before.as_ref(), Value::Null)?;
        }
        match fs::remove_file(self.file(list, attachment)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("forgetting a result")(e)),
            _ => Ok(()),
        }
    }

    /// Whether a container's interface is as it was made.
    pub fn check(&self, list: &NetworkList, attachment: &Attachment<'_>) -> Result<(), Error> {
        if list.disable_check || !list.has("0.4.0") {
            return Ok(());
        }
        let before = self.remembered(list, attachment);
        for plugin in &list.plugins {
            self.call(list, plugin, attachment, Command::Check, before.as_ref(), Value::Null)?;
        }
        Ok(())
    }

    /// Takes out all containers but these (container id, interface), each as it was added, or by the configured network
    /// where an older version wrote down no more than that network's name. One that can't be taken out keeps no other.
    pub fn keep_only(&self, configured: Option<&NetworkList>, valid: &[(&str, &str)]) -> Result<(), Error> {
        let mut all = Ok(());
        for record in self.records() {
            let (Some(id), Some(ifname)) = (record["containerId"].as_str(), record["ifName"].as_str()) else {
                continue;
            };
            let of_name = || configured.filter(|list| record["networkName"] == list.name.as_str()).cloned();
            let Some(list) = network(&record).or_else(of_name).filter(|_| !valid.contains(&(id, ifname))) else {
                continue;
            };
            let attachment = Attachment { container_id: id, netns: None, ifname, args: "", ports: &[] };
            all = all.and(self.del(&list, &attachment));
        }
        all
    }

    /// The same, and has plugins free whatever else they have of others.
    pub fn gc(&self, list: &NetworkList, valid: &[(&str, &str)]) -> Result<(), Error> {
        if list.disable_gc {
            return Ok(());
        }
        let kept = self.keep_only(Some(list), valid);
        if !list.has("1.1.0") {
            return kept;
        }
        let valid: Vec<_> = valid.iter().map(|(id, ifname)| json!({"containerID": id, "ifname": ifname})).collect();
        let extra = json!({"cni.dev/valid-attachments": valid});
        let nobody = Attachment { container_id: "", netns: None, ifname: "", args: "", ports: &[] };
        for plugin in &list.plugins {
            self.call(list, plugin, &nobody, Command::Gc, None, extra.clone())?;
        }
        kept
    }

    /// Whether containers can be added.
    pub fn status(&self, list: &NetworkList) -> Result<(), Error> {
        let nobody = Attachment { container_id: "", netns: None, ifname: "", args: "", ports: &[] };
        if list.has("1.1.0") {
            for plugin in &list.plugins {
                self.call(list, plugin, &nobody, Command::Status, None, Value::Null)?;
            }
        }
        Ok(())
    }

    fn call(
        &self,
        list: &NetworkList,
        plugin: &Value,
        attachment: &Attachment<'_>,
        command: Command,
        before: Option<&Value>,
        extra: Value,
    ) -> Result<Option<Value>, Error> {
        let mut config = plugin.clone();
        config["name"] = list.name.clone().into();
        config["cniVersion"] = list.cni_version.clone().into();
        if let Some(before) = before {
            config["prevResult"] = before.clone();
        }
        if config["capabilities"]["portMappings"] == Value::Bool(true) && !attachment.ports.is_empty() {
            config["runtimeConfig"] = json!({"portMappings": attachment.ports});
        }
        if let (Value::Object(config), Value::Object(extra)) = (&mut config, extra) {
            config.remove("capabilities");
            config.extend(extra);
        }
        let call = Invocation {
            command,
            container_id: attachment.container_id.to_owned(),
            netns: attachment.netns.map(Path::to_owned),
            ifname: attachment.ifname.to_owned(),
            args: attachment.args.to_owned(),
            path: self.plugin_dirs.clone(),
            config,
        };
        exec::validate(&call)?;
        let kind = plugin["type"].as_str().unwrap_or_default();
        match self.builtin && plugins::is_builtin(kind) && exec::find(kind, &call.path).is_none() {
            true => plugins::run(kind, &call),
            false => exec::call(kind, &call),
        }
    }

    // Results, in the layout of the reference library.

    fn dir(&self) -> PathBuf {
        self.cache_dir.join("results")
    }

    fn file(&self, list: &NetworkList, attachment: &Attachment<'_>) -> PathBuf {
        self.dir().join(format!("{}-{}-{}", list.name, attachment.container_id, attachment.ifname))
    }

    fn remember(&self, list: &NetworkList, attachment: &Attachment<'_>, result: &Value) -> Result<(), Error> {
        let file = self.file(list, attachment);
        let what = || format!("remembering a result in {}", file.display());
        crate::files::make_dir(&self.dir()).map_err(Error::io(what()))?;
        let record = json!({
            "kind": "cniCacheV1", "containerId": attachment.container_id, "ifName": attachment.ifname,
            "networkName": list.name, "config": list.source, "result": result,
        });
        // Under another name first: a result is there whole or not at all.
        let draft = file.with_extension("tmp");
        crate::files::write(&draft, record.to_string())
            .and_then(|()| fs::rename(&draft, &file))
            .map_err(Error::io(what()))
    }

    fn remembered(&self, list: &NetworkList, attachment: &Attachment<'_>) -> Option<Value> {
        let file = self.file(list, attachment);
        let bytes = fs::read(&file).ok()?;
        let record: Value = serde_json::from_slice(&bytes)
            // Removing must go on without it: plugins find by the container what they made.
            .inspect_err(|e| tracing::warn!(file = %file.display(), error = %e, "a remembered CNI result is damaged"))
            .ok()?;
        Some(record["result"].clone()).filter(|r| !r.is_null())
    }

    fn records(&self) -> impl Iterator<Item = Value> {
        let entries = fs::read_dir(self.dir()).into_iter().flatten().filter_map(Result::ok);
        entries.filter_map(|e| serde_json::from_slice(&fs::read(e.path()).ok()?).ok())
    }

    /// The network that a container was added to, as it was then; none when nobody remembers one.
    pub fn network_of(&self, container_id: &str, ifname: &str) -> Option<NetworkList> {
        let record = self.records().find(|r| r["containerId"] == container_id && r["ifName"] == ifname)?;
        network(&record)
    }
}

/// The network in a record.
fn network(record: &Value) -> Option<NetworkList> {
    NetworkList::of(record["config"].clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_single_configurations_are_read_and_mistakes_named() {
        let list = NetworkList::parse(
            r#"{"cniVersion":"1.0.0","cniVersions":["0.4.0","1.1.0","9.0.0"],"name":"n","plugins":[{"type":"bridge"}]}"#,
        );
        assert_eq!(list.unwrap().cni_version, "1.1.0");
        let single = NetworkList::parse(r#"{"cniVersion":"0.3.1","name":"n","type":"loopback"}"#).unwrap();
        assert_eq!(single.plugins.len(), 1);
        let wrong = |text: &str| NetworkList::parse(text).unwrap_err().to_string();
        assert!(wrong(r#"{"cniVersion":"1.0.0","plugins":[{"type":"x"}]}"#).contains("name: the network needs a name"));
        assert!(wrong(r#"{"cniVersion":"1.0.0","name":"../n","type":"x"}"#).contains("name: it is made of letters"));
        assert!(wrong(r#"{"cniVersion":"1.0.0","name":"n","plugins":[{}]}"#).contains("plugins[0].type"));
        assert!(wrong(r#"{"cniVersion":"7.0.0","name":"n","type":"x"}"#).starts_with("CNI version \"7.0.0\""));
    }
}
