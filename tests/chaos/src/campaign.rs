//! The campaign: a round is load, harm, a start where one is needed, and a look; every few rounds everything is scaled to
//! nothing, and what is left of the machine's must be what was there before. I/O.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::Client;
use testkit::eventually;
use testkit::image::BUSYBOX;
use testkit::manifests::MANY;
use tokio::sync::Mutex;

use crate::chance::Chance;
use crate::cluster::Cluster;
use crate::faults::{Fault, Mark};
use crate::inspect::{Steady, addresses, nothing_left, steady, taken};
use crate::ledger::Ledger;
use crate::load::{self, Load};

/// Rounds from one look at the whole machine to the next.
const BETWEEN_LOOKS: u64 = 10;
struct Campaign {
    cluster: Cluster,
    client: Client,
    ledger: Arc<Mutex<Ledger>>,
    steady: Steady,
    before: BTreeSet<String>,
    seed: u64,
}

/// Runs it; the cluster is removed whatever happens.
pub fn run(name: &str, rounds: u64, seed: u64) -> Result<()> {
    // The second call finds the provider there, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    println!("seed {seed}, {rounds} rounds");
    let result = runtime.block_on(async {
        let mut campaign = Campaign::begin(name, seed).await?;
        let told = campaign.rounds(rounds).await;
        told.and(campaign.cluster.end())
    });
    if let Err(error) = &result {
        let _ = testkit::Cluster { name: name.to_owned(), dir: directory(name), host: None }.run(&["reset", "--yes"]);
        println!("FAILED: {error:#}");
    }
    result
}

fn directory(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("ferrokube-test-{name}"))
}

/// What a pod's spec has that a full disk neither evicts nor keeps out: the node says so for five minutes more, as
/// upstream's does.
const STAYS: &str = r#"{"priorityClassName": "system-node-critical",
    "tolerations": [{"key": "node.kubernetes.io/disk-pressure", "operator": "Exists"}]}"#;

/// [`STAYS`] for `kubectl run`.
fn overrides() -> String {
    format!(r#"{{"apiVersion": "v1", "spec": {STAYS}}}"#)
}

impl Campaign {
    async fn begin(name: &str, seed: u64) -> Result<Campaign> {
        let cluster = Cluster::start(name)?;
        let kit = &cluster.testkit;
        for pod in ["steady-0", "steady-1"] {
            let (labels, stays) = ("--labels=role=steady", overrides());
            kit.kubectl(&["run", pod, "--image", BUSYBOX, labels, "--overrides", &stays, "--", "sleep", "100000"])?;
        }
        for pod in ["steady-0", "steady-1"] {
            kit.ready(pod)?;
        }
        kit.apply(MANY)?;
        let template = format!(r#"{{"spec": {{"template": {{"spec": {STAYS}}}}}}}"#);
        kit.kubectl(&["patch", "deployment", "many", "--patch", &template])?;
        let client = load::connect(&kit.kubeconfig()).await?;
        let (steady, before) = (steady(&cluster)?, taken(&cluster)?);
        Ok(Campaign { cluster, client, ledger: Arc::default(), steady, before, seed })
    }

    async fn rounds(&mut self, rounds: u64) -> Result<()> {
        let began = Instant::now();
        for round in 0..rounds {
            let at = Instant::now();
            let mut chance = Chance::new(self.seed ^ round.wrapping_mul(0x9e37_79b9));
            let fault = Fault::of(round, &mut chance);
            let told = self.round(round, fault, &mut chance).await;
            let told = told.with_context(|| {
                format!("round {round} ({fault:?}) of seed {}\n{}", self.seed, self.cluster.testkit.log_tail())
            })?;
            let acknowledged = self.ledger.lock().await.acknowledged;
            println!("round {round}: {fault:?}{told}, {acknowledged} writes, {:.1} s", at.elapsed().as_secs_f64());
            if (round + 1) % BETWEEN_LOOKS == 0 || round + 1 == rounds {
                self.look().await.with_context(|| format!("the look after round {round} of seed {}", self.seed))?;
            }
        }
        let acknowledged = self.ledger.lock().await.acknowledged;
        println!(
            "{rounds} rounds, {acknowledged} acknowledged writes: none lost, none changed; the containers are the same, \
             nothing is left behind ({:.0} s)",
            began.elapsed().as_secs_f64()
        );
        Ok(())
    }

    async fn round(&mut self, round: u64, fault: Fault, chance: &mut Chance) -> Result<String> {
        let replicas = format!("--replicas={}", chance.between(0, 4));
        self.cluster.testkit.kubectl(&["scale", "deployment", "many", &replicas])?;
        let daemon = self.cluster.daemon()?;
        let victim =
            if matches!(fault, Fault::Monitor | Fault::StopMonitor) { Some(self.victim(round)?) } else { None };
        let load = Load::start(&self.client, &self.ledger, chance.number());
        let struck = tokio::task::block_in_place(|| fault.strike(&self.cluster, victim, chance));
        load.stop().await;
        struck?;
        let mut told = String::new();
        if matches!(fault, Fault::TornTail | Fault::Garbage) {
            told = format!(" ({})", self.damage_log(round, fault, chance).await?);
        }
        if fault.kills() {
            // Starts it, or waits until its supervisor has.
            self.cluster.up()?;
            ensure!(self.cluster.daemon()? != daemon, "the daemon is another one");
        } else {
            // What a client gave up on may still be done.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        self.check(victim.map(|_| format!("victim-{round}"))).await?;
        self.cluster.clock.set(0)?;
        Ok(told)
    }

    /// Lets go of what was written last, after the account was closed.
    async fn damage_log(&self, round: u64, fault: Fault, chance: &mut Chance) -> Result<String> {
        load::check(&self.client, &self.ledger).await?;
        let mark = Mark::set(&self.cluster)?;
        let content = format!("{:x}", chance.number()).repeat(400);
        load::write_once(&self.client, &format!("torn-{round}"), &content).await?;
        self.cluster.kill(self.cluster.daemon()?, true)?;
        eventually(Duration::from_secs(5), || {
            ensure!(self.cluster.daemon().is_err(), "it is dying");
            Ok(())
        })?;
        if fault == Fault::Garbage { mark.litter(chance) } else { mark.tear(&self.cluster, chance) }
    }

    /// A pod that may come to harm: the pid of its monitor.
    fn victim(&self, round: u64) -> Result<i32> {
        let kit = &self.cluster.testkit;
        let before: BTreeSet<i32> = kit.pids("monitor")?.into_iter().collect();
        let name = format!("victim-{round}");
        let (once, stays) = ("--restart=Never", overrides());
        kit.kubectl(&["run", &name, "--image", BUSYBOX, once, "--overrides", &stays, "--", "sleep", "100000"])?;
        let pod = kit.ready(&name)?;
        let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap_or_default();
        let id = id.rsplit('/').next().unwrap_or_default().to_owned();
        let new = kit.pids("monitor")?.into_iter().filter(|pid| !before.contains(pid));
        let ours = |pid: &i32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| !c.is_empty());
        let mut new: Vec<i32> = new.filter(ours).collect();
        let named = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&id)
        };
        new.sort_by_key(|pid| !named(pid));
        new.first().copied().context("the victim has no monitor")
    }

    async fn check(&mut self, victim: Option<String>) -> Result<()> {
        let kit = &self.cluster.testkit;
        let until = Instant::now() + Duration::from_secs(15);
        // The server may be busy still; what it says must be right as soon as it says something.
        while kit.kubectl(&["get", "--raw", "/readyz"]).is_err() && Instant::now() < until {}
        load::check(&self.client, &self.ledger).await?;
        eventually(Duration::from_secs(30), || {
            let now = steady(&self.cluster)?;
            ensure!(now == self.steady, "steady pods were {:?} and are {now:?}", self.steady);
            Ok(())
        })?;
        addresses(&self.cluster)?;
        if let Some(victim) = victim {
            kit.kubectl(&["delete", "pod", &victim, "--now", "--wait=false"])?;
        }
        Ok(())
    }

    /// Everything is scaled to nothing: what is left must be what there was at first.
    async fn look(&mut self) -> Result<()> {
        let kit = &self.cluster.testkit;
        kit.kubectl(&["scale", "deployment", "many", "--replicas=0"])?;
        load::remove_services(&self.client).await?;
        let two = |list: &serde_json::Value| list["items"].as_array().is_some_and(|items| items.len() == 2);
        kit.wait_for("pods", Duration::from_secs(60), two)?;
        nothing_left(&self.cluster, &self.before)
    }
}
