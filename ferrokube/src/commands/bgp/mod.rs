//! `bgp` and `route-reflector`: a BGP speaker alone on a machine, its configuration checked, and what it knows shown. The
//! daemon is the crate `bgpd`; these are its flags and its words. I/O: signals, the control socket.
//!
//! - [`show`]: asks a daemon that runs; `table`: answers as tables
//! - [`nodes`]: a route reflector's clients from a cluster

mod nodes;
pub mod show;
mod table;

use std::path::{Path, PathBuf};

use anyhow::Result;
use bgpd::Options;
use bgpd::config::found::Others;
use bgpd::config::peering::NONE_NAMED;
use bgpd::config::{self, Config, File, Kind};
use bgpd::control::Command;
use bgpd::control::client;
use bgpd::daemon::Farewell;
use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::commands::misc::print;
use crate::component::until_signal;
use crate::fault::Fault;

/// Where more is said of the file than flags can.
const ABOUT_THE_FILE: &str =
    "The file's fields, with defaults and an example of filters, are described in the README, section BGP.

Where it does not say otherwise, the daemon answers at /run/ferrokube/bgp.sock (control-socket), for its own user and root, \
and neighbours reach it at port 179 of all addresses (listen).";

/// `ferrokube bgp`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true, after_help = ABOUT_THE_FILE)]
pub struct Bgp {
    #[command(flatten)]
    speaker: Option<Speaker>,
    #[command(subcommand)]
    command: Option<Cmd>,
}

/// A daemon of a file.
#[derive(Debug, Args)]
pub struct Speaker {
    /// The configuration, YAML; read again on SIGHUP and by `bgp reload`
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// At the end, tell neighbours nothing and leave the kernel's routes: they keep theirs until it is back (RFC 4724)
    #[arg(long)]
    keep_routes: bool,
}

/// `ferrokube route-reflector`
#[derive(Debug, Args)]
pub struct Reflector {
    #[command(flatten)]
    speaker: Speaker,
    #[command(flatten)]
    nodes: nodes::Flags,
}

#[derive(Debug, Subcommand)]
enum Cmd {
    /// Show what a daemon on this host knows
    Show(show::Show),
    /// Check a configuration, and say what is wrong with it
    #[command(after_help = ABOUT_THE_FILE)]
    Check {
        /// The configuration, YAML; `-` is standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// It is for `route-reflector`
        #[arg(long)]
        reflector: bool,
        /// The group that nodes have there
        #[arg(long, value_name = "NAME", requires = "reflector")]
        node_group: Option<String>,
    },
    /// Have the daemon read its configuration again: sessions that it does not change go on
    Reload {
        /// The daemon's control-socket
        #[arg(long, default_value = config::CONTROL_SOCKET, value_name = "FILE")]
        socket: PathBuf,
    },
}

pub fn run(bgp: Bgp) -> Result<()> {
    match (bgp.command, bgp.speaker) {
        (Some(Cmd::Show(show)), _) => show::run(&show),
        (Some(Cmd::Check { file, reflector, node_group }), _) => {
            check(&file, if reflector { Kind::Reflector } else { Kind::Speaker }, node_group.as_deref())
        }
        (Some(Cmd::Reload { socket }), _) => reload(&socket),
        (None, Some(speaker)) => daemon(speaker, Kind::Speaker, None),
        (None, None) => Err(Fault::usage("say --config FILE, or show, check or reload").into()),
    }
}

/// `ferrokube route-reflector`: the same daemon, which leaves the kernel's tables alone unless its file says otherwise.
pub fn reflector(reflector: Reflector) -> Result<()> {
    daemon(reflector.speaker, Kind::Reflector, Some(reflector.nodes))
}

fn daemon(speaker: Speaker, kind: Kind, nodes: Option<nodes::Flags>) -> Result<()> {
    let farewell = if speaker.keep_routes { Farewell::KeepRoutes } else { Farewell::Told };
    let options = Options { file: speaker.config, kind, farewell };
    until_signal(move |shutdown| async move {
        let mut hangup = signal(SignalKind::hangup())?;
        // One that waits is enough: it reads the file as it is then.
        let (again, reloads) = mpsc::channel(1);
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                let _ = again.try_send(());
            }
        });
        let place = match nodes {
            Some(nodes) => nodes.start(shutdown.clone()).await?,
            None => None,
        };
        bgpd::run_with(options, place, reloads, shutdown).await.map_err(|error| Fault::failed(error.to_string()).into())
    })
}

fn reload(socket: &Path) -> Result<()> {
    let mut told = String::new();
    let asked = client::ask(socket, &Command::Reload, |item| {
        told = item.as_str().unwrap_or_default().to_owned();
        Ok(())
    });
    asked.map_err(Fault::failed)?;
    print(&format!("{told}\n"))
}

fn check(file: &Path, kind: Kind, group: Option<&str>) -> Result<()> {
    let read = match file.to_str() {
        Some("-") => File::read_from(std::io::stdin().lock(), "standard input", kind),
        _ => File::read(file, kind),
    };
    let made = read.and_then(|file| file.with(Others { group, ..Others::default() }));
    let (config, _) = made.map_err(|error| Fault::failed(error.to_string()))?;
    let name = if file == Path::new("-") { Path::new("standard input") } else { file };
    print(&checked(name, &config))
}

/// What is there, and what may surprise.
fn checked(file: &Path, config: &Config) -> String {
    let mut text = format!(
        "{}: sound: AS {}; neighbors: {}, ranges of them: {}, filters: {}, networks: {}\n",
        file.display(),
        config.number,
        config.neighbors.len(),
        config.dynamic.len(),
        config.filters.len(),
        config.networks.len()
    );
    let named = config.neighbors.iter().map(|neighbor| (neighbor.name(), &neighbor.peering));
    let ranges = config.dynamic.iter().map(|range| (range.prefix.to_string(), &range.peering));
    for (name, peering) in named.chain(ranges) {
        let (import, export) = (&peering.routes.import.name, &peering.routes.export.name);
        let without = match (import == NONE_NAMED, export == NONE_NAMED) {
            (true, true) => "import and export",
            (true, false) => "import",
            (false, true) => "export",
            (false, false) => continue,
        };
        text += &format!(
            "  {name} is of another AS and has no {without} filter: nothing goes that way (RFC 8212); `accept` takes all\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        bgp: Bgp,
    }

    fn line(text: &str) -> Result<Bgp, String> {
        Line::try_parse_from(text.split(' ')).map(|line| line.bgp).map_err(|error| error.to_string())
    }

    #[test]
    fn a_daemon_has_a_file_and_questions_have_none() {
        let daemon = line("bgp --config /etc/bgp.yaml --keep-routes").expect("a daemon").speaker.expect("its flags");
        assert!(daemon.keep_routes && daemon.config == Path::new("/etc/bgp.yaml"));
        for text in
            ["bgp show neighbors", "bgp show route 10.0.0.0/8 -o json", "bgp check a.yaml", "bgp check -", "bgp reload"]
        {
            assert!(line(text).expect("a question").command.is_some(), "{text}");
        }
        assert!(line("bgp --keep-routes").expect_err("refused").contains("--config"));
        assert!(line("bgp --config a show summary").is_err());
        assert!(line("bgp check a.yaml --reflector --node-group nodes").is_ok());
        assert!(line("bgp check a.yaml --node-group nodes").expect_err("refused").contains("--reflector"));
    }

    #[test]
    fn a_file_is_checked_as_the_daemon_reads_it_that_it_is_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("bgp.yaml");
        let text = "{router-id: 10.0.0.1, as: 64512, groups: [{name: nodes}]}";
        std::fs::write(&file, text).expect("written");
        let told = |kind, group| check(&file, kind, group).map_err(|why| why.to_string());
        assert_eq!(told(Kind::Reflector, Some("nodes")), Ok(()));
        let metric = "{router-id: 10.0.0.1, as: 64512, kernel: {metric: 7}, groups: [{name: nodes}]}";
        std::fs::write(&file, metric).expect("written");
        assert_eq!(told(Kind::Speaker, None), Ok(()));
        assert!(told(Kind::Reflector, None).expect_err("refused").contains("kernel.metric"));
        std::fs::write(&file, text).expect("written");
        let none = told(Kind::Reflector, Some("others")).expect_err("refused");
        assert!(none.contains("groups: there is no group \"others\""), "{none}");
    }

    #[derive(Debug, Parser)]
    struct ReflectorLine {
        #[command(flatten)]
        reflector: Reflector,
    }

    #[test]
    fn a_reflector_has_its_clients_from_one_place() {
        let line = |text: &str| ReflectorLine::try_parse_from(text.split(' ')).map_err(|error| error.to_string());
        for text in [
            "rr --config a",
            "rr --config a --kubeconfig b --node-group nodes",
            "rr --config a --etcd-endpoints http://a:1,http://b:2 --etcd-username c --etcd-password-file d",
        ] {
            assert!(line(text).is_ok_and(|line| line.reflector.speaker.config == Path::new("a")), "{text}");
        }
        for (text, why) in [
            ("rr --kubeconfig b", "--config <FILE>"),
            ("rr --config a --kubeconfig b --etcd-endpoints http://a:1", "cannot be used with"),
            ("rr --config a --etcd-cafile b", "--etcd-endpoints <URL>"),
            ("rr --config a --etcd-endpoints http://a:1 --etcd-password-file b", "--etcd-username <NAME>"),
        ] {
            let said = line(text).expect_err("refused");
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    #[test]
    fn a_check_says_where_nothing_will_go() {
        let text = "{router-id: 10.0.0.1, as: 64512, neighbors: [{address: 10.0.0.2, remote-as: 1, import: accept}, \
                    {address: 10.0.0.3, remote-as: internal}], dynamic: [{prefix: 10.1.0.0/16, remote-as: external}]}";
        let config = config::parse(text, Kind::Speaker, &|_| Err(String::new())).expect("sound");
        let told = checked(Path::new("a.yaml"), &config);
        assert!(told.starts_with("a.yaml: sound: AS 64512; neighbors: 2, ranges of them: 1"), "{told}");
        assert!(told.contains("10.0.0.2 is of another AS and has no export filter"), "{told}");
        assert!(told.contains("10.1.0.0/16 is of another AS and has no import and export filter"), "{told}");
        assert!(!told.contains("10.0.0.3"), "{told}");
    }
}
