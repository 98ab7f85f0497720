//! `ferrokube bgp`, the program as a person runs it, without a cluster: in a network of its own, with a neighbour that never
//! answers. What it does among other speakers is bgpd's own tests'.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::runner::Test;
use testkit::{Cluster, Host, Output, Running, Signal, binary, eventually, output};

const PATIENCE: Duration = Duration::from_secs(30);

pub const TESTS: &[Test] =
    &[("bgp_runs_is_asked_reads_its_file_again_and_ends", life), ("bgp_tells_all_errors_of_a_file_by_line", errors)];

/// A host, and there a file and a socket of the daemon.
struct Speaker {
    host: Host,
    file: PathBuf,
    socket: PathBuf,
}

impl Speaker {
    fn new(cluster: &Cluster, name: &str) -> Result<Speaker> {
        let folder = cluster.dir.join(name);
        fs::create_dir_all(&folder)?;
        Ok(Speaker { host: Host::new()?, file: folder.join("bgp.yaml"), socket: folder.join("bgp.sock") })
    }

    fn write(&self, rest: &str) -> Result<()> {
        let socket = self.socket.display();
        Ok(fs::write(&self.file, format!("router-id: 192.0.2.2\nas: 64512\ncontrol-socket: {socket}\n{rest}\n"))?)
    }

    /// The daemon, with flags of its own.
    fn run(&self, more: &[&str]) -> Result<Running> {
        let mut command = self.host.command(binary());
        Running::start(command.args(["bgp", "--config"]).arg(&self.file).args(more))
    }

    fn ask(&self, args: &[&str]) -> Result<Output> {
        output(self.host.command(binary()).arg("bgp").args(args).arg("--socket").arg(&self.socket), "")
    }

    fn shown(&self, what: &str) -> Result<Value> {
        let text = self.ask(&["show", what, "-o", "json"])?.ok()?;
        serde_json::from_str(&text).with_context(|| text.clone())
    }

    /// Until so many routes of ours are there, by the daemon's own word.
    fn has(&self, routes: u64) -> Result<()> {
        eventually(PATIENCE, || {
            let summary = self.shown("summary")?;
            ensure!(summary["prefixes"]["ipv4"] == routes, "{summary}");
            Ok(())
        })
    }
}

fn life(cluster: &Cluster) -> Result<()> {
    let speaker = Speaker::new(cluster, "bgp-life")?;
    speaker.write("networks: [{prefix: 10.1.0.0/24, kernel: blackhole}]")?;
    let mut daemon = speaker.run(&[])?;
    speaker.has(1)?;
    let summary = speaker.shown("summary")?;
    ensure!(summary["routerId"] == "192.0.2.2" && summary["as"] == 64512 && summary["neighbors"] == 0, "{summary}");
    let nobody = speaker.shown("neighbors")?;
    ensure!(nobody.as_array().is_some_and(Vec::is_empty), "an empty list, not nothing: {nobody}");
    let blackholes = || speaker.host.sh("ip route show proto 71");
    let dropped = || {
        eventually(PATIENCE, || {
            let routes = blackholes()?;
            ensure!(routes.contains("blackhole 10.1.0.0/24"), "{routes}");
            Ok(())
        })
    };
    dropped()?;

    // By a signal, and by the command, which says what has come of it.
    speaker.write("networks: [{prefix: 10.1.0.0/24, kernel: blackhole}, {prefix: 10.2.0.0/24}]")?;
    daemon.signal(Signal::HUP)?;
    speaker.has(2)?;
    speaker.write("networks: [{prefix: 10.3.0.0/24}]\nneighbors: [{address: 192.0.2.9, remote-as: internal}]")?;
    let told = speaker.ask(&["reload"])?.ok()?;
    ensure!(told.contains("1 added"), "{told:?}");
    speaker.has(1)?;
    let neighbors = speaker.shown("neighbors")?;
    ensure!(neighbors[0]["address"] == "192.0.2.9" && neighbors[0]["remoteAs"] == "internal", "{neighbors}");
    // A file that is wrong changes nothing, and is told of to who asked.
    speaker.write("networks: [{prefix: 10.4.0.0/24, metric: 7}]")?;
    let refused = speaker.ask(&["reload"])?;
    ensure!(refused.code == 1 && refused.stderr.contains("line 4: networks[0].metric"), "{refused:?}");
    speaker.has(1)?;

    daemon.signal(Signal::TERM)?;
    let (code, said) = daemon.end(PATIENCE)?;
    ensure!(code == 0, "{code}: {said}");
    ensure!(!speaker.socket.exists(), "the socket goes with the daemon");
    ensure!(blackholes()?.trim().is_empty(), "and so do its routes");
    let gone = speaker.ask(&["show", "summary"])?;
    ensure!(gone.code == 1 && gone.stderr.contains("is `ferrokube bgp` running?"), "{gone:?}");

    // What a restart that moves no packet leaves.
    speaker.write("networks: [{prefix: 10.1.0.0/24, kernel: blackhole}]")?;
    let mut daemon = speaker.run(&["--keep-routes"])?;
    dropped()?;
    daemon.signal(Signal::TERM)?;
    let (code, said) = daemon.end(PATIENCE)?;
    ensure!(code == 0 && blackholes()?.contains("blackhole 10.1.0.0/24"), "{code}: {said}");
    Ok(())
}

fn errors(cluster: &Cluster) -> Result<()> {
    let speaker = Speaker::new(cluster, "bgp-errors")?;
    speaker.write("neighbors:\n- {address: 192.0.2.9, remote-as: inside}\nnetworks:\n- {prefix: 10.1.0.1/24}")?;
    let (code, said) = speaker.run(&[])?.end(PATIENCE)?;
    let checked = output(speaker.host.command(binary()).args(["bgp", "check"]).arg(&speaker.file), "")?;
    ensure!((code, checked.code) == (1, 1), "{code}, {}: {said}", checked.code);
    for line in ["line 5: neighbors[0].remote-as: ", "line 7: networks[0].prefix: "] {
        ensure!(said.contains(line) && checked.stderr.contains(line), "{line}: {said}\n{}", checked.stderr);
    }
    ensure!(!speaker.socket.exists(), "nothing was begun");
    Ok(())
}
