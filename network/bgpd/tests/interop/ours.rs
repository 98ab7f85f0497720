//! Ours: a process of its own, so that it can be killed. It is this very program, started with a configuration.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, anyhow};
use bgpd::config::Kind;
use bgpd::control::view::{NeighborView, RouteView};
use bgpd::control::{Command as Question, Which, client};
use bgpd::daemon::Farewell;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::lab::{Host, Program};
use crate::speaker::{Conf, Path, Peer, Speaker, Table};

/// The configuration of the process that is ours.
const RUN: &str = "INTEROP_RUN";
/// It is a route reflector's.
const REFLECTOR: &str = "INTEROP_REFLECTOR";
/// It was told to keep routes.
const KEEP: &str = "INTEROP_KEEP";

pub struct Ours {
    host: Host,
    program: Option<Program>,
    reflector: bool,
    keep: bool,
}

/// No test: the speaker, in a process that was started for it.
#[test]
fn the_program() {
    let Some(file) = std::env::var_os(RUN).map(PathBuf::from) else { return };
    let kind = if std::env::var_os(REFLECTOR).is_some() { Kind::Reflector } else { Kind::Speaker };
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stdout);
    log.with_max_level(tracing::Level::DEBUG).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_again, reloads) = tokio::sync::mpsc::channel(1);
    let farewell = if std::env::var_os(KEEP).is_some() { Farewell::KeepRoutes } else { Farewell::Told };
    let options = bgpd::Options { file, kind, farewell };
    let ended = runtime.block_on(bgpd::run(options, reloads, CancellationToken::new()));
    ended.unwrap_or_else(|why| panic!("{why}"));
}

impl Ours {
    pub fn start(host: &Host, conf: &Conf) -> Ours {
        Ours::with(host, &configuration(host, conf), conf.cluster.is_some())
    }

    /// With a configuration of one's own; its control socket is set.
    pub fn with(host: &Host, configuration: &Value, reflector: bool) -> Ours {
        let mut ours = Ours { host: host.clone(), program: None, reflector, keep: false };
        ours.configure(configuration);
        ours.again();
        ours
    }

    /// Writes another file.
    pub fn configure(&self, configuration: &Value) {
        let mut all = configuration.clone();
        all["control-socket"] = json!(self.socket());
        // JSON is YAML.
        self.host.file("ours.yaml", &all.to_string());
    }

    /// From the next start it has `--keep-routes`.
    pub fn keep_routes(&mut self) {
        self.keep = true;
    }

    /// Starts it (once more).
    pub fn again(&mut self) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "ours::the_program", "--nocapture", "--test-threads=1"]);
        command.env(RUN, self.host.dir.join("ours.yaml"));
        for (on, name) in [(self.reflector, REFLECTOR), (self.keep, KEEP)] {
            if on {
                command.env(name, "1");
            }
        }
        self.program = Some(self.host.start("ours", &mut command));
    }

    fn socket(&self) -> PathBuf {
        self.host.dir.join("ours.sock")
    }

    /// What it has said.
    pub fn log(&self) -> String {
        self.program.as_ref().map(Program::log).unwrap_or_default()
    }

    pub fn ask(&self, question: &Question) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let keep = |item| {
            items.push(item);
            Ok(())
        };
        client::ask(&self.socket(), question, keep).map_err(|error| anyhow!(error))?;
        Ok(items)
    }

    pub fn neighbors(&self) -> Result<Vec<NeighborView>> {
        let all = self.ask(&Question::Neighbors { neighbor: None })?;
        all.into_iter().map(|item| Ok(serde_json::from_value(item)?)).collect()
    }

    /// What it has to say of a neighbour.
    pub fn neighbor(&self, address: IpAddr) -> Result<NeighborView> {
        let all = self.neighbors()?;
        all.into_iter().find(|view| view.address == address).ok_or_else(|| anyhow!("no {address}"))
    }

    pub fn route_views(&self) -> Result<Vec<RouteView>> {
        let all = self.ask(&Question::Routes(Which::default()))?;
        all.into_iter().map(|item| Ok(serde_json::from_value(item)?)).collect()
    }
}

/// The configuration in the words of the file.
pub fn configuration(host: &Host, conf: &Conf) -> Value {
    let network = |network: &crate::speaker::Network| json!({"prefix": network.prefix, "set": {"communities": {"add": network.communities}}});
    let mut all = json!({
        "router-id": format!("10.0.0.{}", host.n),
        "as": conf.number,
        "kernel": {"routes": conf.kernel},
        "decision": {"maximum-paths": 8},
        "filters": [{"name": "all", "rules": [], "default": "accept"}],
        "neighbors": conf.peers.iter().map(|peer| neighbor(host, peer)).collect::<Vec<_>>(),
        "networks": conf.networks.iter().map(network).collect::<Vec<_>>(),
    });
    if let Some(vrf) = conf.vrf {
        all["vrf"] = json!(vrf);
    }
    if let Some(cluster) = conf.cluster {
        all["cluster-id"] = json!(cluster);
    }
    all
}

fn neighbor(host: &Host, peer: &Peer) -> Value {
    let mut all = json!({
        "address": peer.address(),
        "source-address": peer.local(host),
        "remote-as": peer.number,
        "hold-time": format!("{}s", peer.hold),
        "connect-retry-time": "2s",
        "idle-hold-time": "1s",
        "longest-idle-hold-time": "2s",
        "families": [if peer.carries_ipv6() { "ipv6" } else { "ipv4" }],
        "passive": peer.passive,
        "import": "all",
        "export": "all",
        "graceful-restart": match peer.graceful {
            true => json!({"restart-time": peer.restart_time()}),
            false => json!({"mode": "off"}),
        },
    });
    if peer.long_lived {
        all["graceful-restart"]["long-lived-time"] = json!("60s");
    }
    if peer.both {
        all["families"] = json!(["ipv4", "ipv6"]);
    }
    if peer.unnumbered {
        all["interface"] = json!("eth0");
        for field in ["address", "source-address", "families"] {
            all.as_object_mut().unwrap().remove(field);
        }
    }
    if let Some(password) = &peer.password {
        all["password"] = json!(password);
    }
    if peer.ttl_security {
        all["ttl-security"] = json!(true);
    }
    if peer.client {
        all["route-reflector-client"] = json!(true);
    }
    if peer.add_path {
        all["add-path"] = json!("both");
    }
    if peer.bfd {
        all["bfd"] = json!({"interval": "100ms", "multiplier": 3});
    }
    all
}

fn sorted(mut communities: Vec<String>) -> Vec<String> {
    communities.sort_unstable();
    communities
}

impl Speaker for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn sessions(&self) -> Result<Vec<IpAddr>> {
        let up = |view: &NeighborView| (view.state == "Established").then_some(view.address);
        Ok(self.neighbors()?.iter().filter_map(up).collect())
    }

    fn routes(&self) -> Result<Table> {
        let path = |path: &bgpd::control::view::PathView| {
            let attributes = &path.attributes;
            Path {
                next_hop: attributes.next_hop,
                as_path: attributes.as_path.split_whitespace().filter_map(|number| number.parse().ok()).collect(),
                communities: sorted(attributes.communities.clone()),
                originator: attributes.originator_id,
                clusters: attributes.cluster_list.clone(),
                best: path.best,
            }
        };
        let counts = |path: &&bgpd::control::view::PathView| !path.refused;
        let views = self.route_views()?;
        Ok(views.iter().map(|view| (view.prefix, view.paths.iter().filter(counts).map(path).collect())).collect())
    }

    fn kill(&mut self) {
        self.program.iter_mut().for_each(Program::kill);
    }
}
