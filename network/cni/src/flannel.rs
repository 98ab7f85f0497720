//! The plugin `flannel`: pods in the subnet that flannel has for this host. It connects nothing itself: from the file that
//! flannel writes it makes the configuration of another plugin, `bridge` unless `delegate` says otherwise, and calls that.
//! What was called for a container is kept, so that DEL is told the same however the host's subnet has changed. What the
//! configuration becomes is pure; the rest is I/O.
//!
//! ```text
//! {"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}}      as upstream's manifest has it
//!   FLANNEL_SUBNET=10.5.34.1/24  FLANNEL_MTU=1450  FLANNEL_IPMASQ=true  FLANNEL_NETWORK=10.5.0.0/16
//! {"type": "bridge", "mtu": 1450, "ipMasq": false, "isGateway": true, …,
//!  "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.5.34.0/24"}]], "routes": [{"dst": "10.5.0.0/16"}]}}
//! ```

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use meta::Prefix;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::plugins::{self, Command, Invocation};
use crate::{Error, exec, files};

pub(crate) const NAME: &str = "flannel";
/// More than flannel writes.
const MOST_FILE: u64 = 16 << 10;

/// The plugin's own configuration; what else it holds is the delegate's.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Conf {
    cni_version: String,
    name: String,
    subnet_file: Option<PathBuf>,
    data_dir: Option<PathBuf>,
    delegate: Map<String, Value>,
    ipam: Map<String, Value>,
    runtime_config: Value,
}

/// What flannel tells of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub networks: Vec<Prefix>,
    pub subnets: Vec<Prefix>,
    pub mtu: u32,
    pub ip_masq: bool,
}

impl Conf {
    fn subnet_file(&self) -> &Path {
        self.subnet_file.as_deref().unwrap_or(Path::new("/run/flannel/subnet.env"))
    }

    fn data_dir(&self) -> &Path {
        self.data_dir.as_deref().unwrap_or(Path::new("/var/lib/cni/flannel"))
    }

    fn record(&self, container_id: &str) -> PathBuf {
        self.data_dir().join(container_id)
    }

    fn told(&self) -> Result<Told, Error> {
        let file = self.subnet_file();
        let mut text = String::new();
        let read = fs::File::open(file).and_then(|opened| opened.take(MOST_FILE).read_to_string(&mut text));
        read.map_err(Error::io(format!("reading {}, which flannel writes once it runs here", file.display())))?;
        told(&text).map_err(|problem| Error::config(file.display().to_string(), problem))
    }
}

/// Reads `subnet.env`.
pub fn told(text: &str) -> Result<Told, String> {
    let mut told = Told::default();
    for line in text.lines() {
        let Some((name, value)) = line.trim().split_once('=') else { continue };
        let value = value.trim_matches('"');
        let prefix = || value.parse::<Prefix>().map(|p| p.network()).map_err(|error| format!("{name}: {error}"));
        match name {
            "FLANNEL_NETWORK" | "FLANNEL_IPV6_NETWORK" => told.networks.push(prefix()?),
            "FLANNEL_SUBNET" | "FLANNEL_IPV6_SUBNET" => told.subnets.push(prefix()?),
            "FLANNEL_MTU" => told.mtu = value.parse().map_err(|_| format!("{name}: {value:?} is no number"))?,
            "FLANNEL_IPMASQ" => told.ip_masq = value == "true",
            _ => {}
        }
    }
    if told.subnets.is_empty() || told.mtu == 0 {
        return Err("FLANNEL_SUBNET and FLANNEL_MTU are missing".to_owned());
    }
    Ok(told)
}

/// The configuration of the other plugin.
fn delegate(conf: &Conf, told: &Told) -> Result<Value, Error> {
    let mut made = conf.delegate.clone();
    for field in ["name", "ipam"] {
        if made.contains_key(field) {
            return Err(Error::config(format!("delegate.{field}"), "flannel sets it"));
        }
    }
    let kind = made.entry("type").or_insert_with(|| "bridge".into());
    // Ours give pods IPv4 alone, and refuse the rest.
    let ours = kind.as_str().is_some_and(plugins::is_builtin);
    let usable = |range: &&Prefix| !(ours && range.is_ipv6());
    let is_bridge = match kind.as_str() {
        Some(NAME) => return Err(Error::config("delegate.type", "flannel calls another plugin, not itself")),
        Some(kind) => kind == "bridge",
        None => return Err(Error::config("delegate.type", "it is the name of a plugin")),
    };
    // Only one of the two may masquerade: what flannel does already is left out here.
    made.entry("ipMasq").or_insert_with(|| (!told.ip_masq).into());
    made.entry("mtu").or_insert_with(|| told.mtu.into());
    if is_bridge {
        made.entry("isGateway").or_insert_with(|| true.into());
    }
    let mut ipam = conf.ipam.clone();
    ipam.entry("type").or_insert_with(|| "host-local".into());
    let ranges: Vec<Value> =
        told.subnets.iter().filter(usable).map(|subnet| json!([{"subnet": subnet.to_string()}])).collect();
    ipam.insert("ranges".to_owned(), ranges.into());
    let mut routes = ipam.get("routes").and_then(Value::as_array).cloned().unwrap_or_default();
    routes.extend(told.networks.iter().filter(usable).map(|network| json!({"dst": network.to_string()})));
    ipam.insert("routes".to_owned(), routes.into());
    made.insert("ipam".to_owned(), ipam.into());
    made.insert("name".to_owned(), conf.name.clone().into());
    made.insert("cniVersion".to_owned(), conf.cni_version.clone().into());
    if !conf.runtime_config.is_null() {
        made.insert("runtimeConfig".to_owned(), conf.runtime_config.clone());
    }
    Ok(made.into())
}

/// Does what the call asks.
pub(crate) fn run(call: &Invocation) -> Result<Option<Value>, Error> {
    let conf: Conf = serde_json::from_value(call.config.clone())?;
    match call.command {
        Command::Add => {
            let made = delegate(&conf, &conf.told()?)?;
            let what = || format!("keeping what is called for {}", call.container_id);
            files::make_dir(conf.data_dir()).map_err(Error::io(what()))?;
            files::write(&conf.record(&call.container_id), made.to_string()).map_err(Error::io(what()))?;
            pass_on(call, made).inspect_err(|_| forget(&conf, &call.container_id))
        }
        Command::Del => {
            let Some(made) = recorded(&conf, &call.container_id)? else { return Ok(None) };
            pass_on(call, made)?;
            forget(&conf, &call.container_id);
            Ok(None)
        }
        Command::Check => match recorded(&conf, &call.container_id)? {
            Some(made) => pass_on(call, made),
            None => {
                let problem = "it was not connected by flannel".to_owned();
                Err(Error::Check { container: call.container_id.clone(), problem })
            }
        },
        Command::Gc | Command::Status => pass_on(call, delegate(&conf, &conf.told()?)?),
        Command::Version => Ok(None),
    }
}

/// Calls the other plugin with this configuration, and with what the call's own holds of the chain and the containers.
fn pass_on(call: &Invocation, mut made: Value) -> Result<Option<Value>, Error> {
    for field in ["prevResult", "cni.dev/valid-attachments"] {
        if let Some(value) = call.config.get(field) {
            made[field] = value.clone();
        }
    }
    let plugin = made["type"].as_str().unwrap_or_default().to_owned();
    let call = Invocation { config: made, ..call.clone() };
    if plugins::is_builtin(&plugin) { plugins::run(&plugin, &call) } else { exec::call(&plugin, &call) }
}

/// What was called for a container; none when nothing was, or it is undone already.
fn recorded(conf: &Conf, container_id: &str) -> Result<Option<Value>, Error> {
    let file = conf.record(container_id);
    let mut text = String::new();
    match fs::File::open(&file).and_then(|opened| opened.take(exec::MOST_INPUT).read_to_string(&mut text)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format!("reading {}", file.display()))(error)),
        Ok(_) => Ok(Some(serde_json::from_str(&text)?)),
    }
}

fn forget(conf: &Conf, container_id: &str) {
    let file = conf.record(container_id);
    if let Err(error) = fs::remove_file(&file) {
        tracing::warn!(%error, file = %file.display(), "a record of a container that is gone stays");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str =
        "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.34.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

    fn made(conf: Value, file: &str) -> Result<Value, String> {
        let conf: Conf = serde_json::from_value(conf).unwrap();
        let told = told(file)?;
        delegate(&conf, &told).map_err(|error| error.to_string())
    }

    #[test]
    fn upstreams_manifest_becomes_a_bridge() {
        let conf = json!({
            "cniVersion": "0.3.1", "name": "cbr0", "type": "flannel",
            "delegate": {"hairpinMode": true, "isDefaultGateway": true},
        });
        let expected = json!({
            "cniVersion": "0.3.1", "name": "cbr0", "type": "bridge", "mtu": 1450, "ipMasq": false, "isGateway": true,
            "hairpinMode": true, "isDefaultGateway": true,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.5.34.0/24"}]], "routes": [{"dst": "10.5.0.0/16"}]},
        });
        assert_eq!(made(conf, FILE).unwrap(), expected);
    }

    #[test]
    fn what_is_said_goes_before_what_flannel_tells() {
        let conf = json!({
            "cniVersion": "1.0.0", "name": "n", "delegate": {"type": "macvlan", "mtu": 9000, "ipMasq": true},
            "ipam": {"type": "other", "routes": [{"dst": "0.0.0.0/0"}]}, "runtimeConfig": {"portMappings": []},
        });
        let made = made(conf, FILE).unwrap();
        assert_eq!((&made["type"], &made["mtu"], &made["ipMasq"]), (&json!("macvlan"), &json!(9000), &json!(true)));
        assert_eq!((&made["isGateway"], &made["ipam"]["type"]), (&Value::Null, &json!("other")));
        assert_eq!(made["ipam"]["routes"], json!([{"dst": "0.0.0.0/0"}, {"dst": "10.5.0.0/16"}]));
        assert_eq!(made["runtimeConfig"], json!({"portMappings": []}));
    }

    #[test]
    fn both_families_are_for_plugins_that_have_both() {
        let dual = format!("{FILE}FLANNEL_IPV6_NETWORK=fd00:5::/48\nFLANNEL_IPV6_SUBNET=fd00:5:0:1::1/64\n");
        let ranges = |kind: &str| {
            let made = made(json!({"name": "n", "delegate": {"type": kind}}), &dual).unwrap();
            (made["ipam"]["ranges"].clone(), made["ipam"]["routes"].as_array().unwrap().len())
        };
        assert_eq!(ranges("bridge"), (json!([[{"subnet": "10.5.34.0/24"}]]), 1));
        assert_eq!(ranges("ptp"), (json!([[{"subnet": "10.5.34.0/24"}], [{"subnet": "fd00:5:0:1::/64"}]]), 2));
    }

    #[test]
    fn what_cannot_be_is_told_by_the_name_of_the_field() {
        let says = |delegate: Value| made(json!({"name": "n", "delegate": delegate}), FILE).unwrap_err();
        for (delegate, end) in [
            (json!({"name": "x"}), "delegate.name: flannel sets it"),
            (json!({"ipam": {}}), "delegate.ipam: flannel sets it"),
            (json!({"type": "flannel"}), "delegate.type: flannel calls another plugin, not itself"),
            (json!({"type": 7}), "delegate.type: it is the name of a plugin"),
        ] {
            assert!(says(delegate.clone()).ends_with(end), "{delegate}");
        }
        for (file, said) in [
            ("", "FLANNEL_SUBNET and FLANNEL_MTU are missing"),
            ("FLANNEL_SUBNET=10.5.34.1/24\nFLANNEL_MTU=x", "FLANNEL_MTU: \"x\" is no number"),
            ("FLANNEL_SUBNET=x", "FLANNEL_SUBNET: \"x\" is not an address range such as 10.42.0.0/16 or fd00:10::/48"),
        ] {
            assert_eq!(made(json!({"name": "n"}), file).unwrap_err(), said);
        }
    }
}
