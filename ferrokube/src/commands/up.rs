//! `up`: starts the daemon in the background, shows its steps, and returns when the cluster is ready.

use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cluster::{flannel, note_controllers};
use crate::commands::join::Join;
use crate::commands::misc::print;
use crate::config::{Host, HostLock, Network, Roles, Shape, Which, differs, lock_host, without_second};
use crate::fault::{Fault, best_effort};
use crate::interrupt::{self, Interrupts};
use crate::kubeconfig;
use crate::nodes::wish::{self, Wish};
use crate::preflight;
use crate::process::{Daemon, START_ANEW, spawn_supervisor};
use crate::progress::{Progress, duration, listen, step_line};
use crate::systemd;

/// How often a daemon that another command has started is looked at.
const GLANCE: Duration = Duration::from_millis(50);
/// The same of a service: each look asks systemd.
const SERVICE_GLANCE: Duration = Duration::from_millis(200);
/// A daemon that starts anew is ready by then, or its supervisor tries in vain.
const GAINS_WITHIN: Duration = Duration::from_secs(180);

pub fn run(which: &Which, shape: &Shape, join: &Join, demo: bool) -> Result<()> {
    preflight::root("up")?;
    let shape = &shape.read()?;
    if demo {
        can_demo(shape)?;
    }
    super::join::server(which, shape, join)?;
    let Claimed { host, fresh, lock } = match claim(which, shape)? {
        Claim::New(claimed) => claimed,
        Claim::Runs(host, _) => {
            wait_for_other(&host)?;
            add_nodes(&host, shape)?;
            print(&format!("The cluster {:?} runs already: {}\n", host.cluster.name, host.server_url()))?;
            return if demo { super::demo::run(&host) } else { Ok(()) };
        }
        Claim::Gains(host, _, lock) => {
            gain_family(&host, lock)?;
            return add_nodes(&host, shape);
        }
    };
    let began = Instant::now();
    let installed = systemd::is_installed(&host);
    let by = if installed { format!(" by its service {}", systemd::unit_of(&host)) } else { String::new() };
    print(&format!("Starting the cluster {:?}{by}\n", host.cluster.name))?;
    if fresh && host.cluster.network() == Network::Flannel && host.roles().has(Roles::CONTROL_PLANE) {
        print(&format!("Packets to other hosts go by flannel's backend {}\n", host.cluster.flannel_backend().name()))?;
    }
    let started = if installed { start_service(&host, lock) } else { start(&host, lock) };
    if let Err(error) = started {
        undo(&host, fresh);
        return Err(error);
    }
    print(&format!("Ready after {}.\n", duration(began.elapsed())))?;
    if let Some((node, why)) = wish::failed(&host)?.filter(|_| shape.nodes.is_some()) {
        let sentence = format!("the cluster runs without the node {node}, which did not start: {why}");
        return Err(Fault::failed(sentence).into());
    }
    if !host.roles().has(Roles::CONTROL_PLANE) {
        return print(&format!("The node {} is in the cluster.\n", host.node_name));
    }
    if fresh {
        print("NetworkPolicy objects are accepted, but not enforced yet.\n")?;
    }
    let merged = kubeconfig::read_admin(&host).and_then(|admin| kubeconfig::merge_into_user(&host, &admin));
    let merged = merged.with_context(|| {
        format!("the cluster runs, `kubectl --kubeconfig {}` reaches it, but", host.kubeconfig().display())
    })?;
    let flag = match &merged {
        Some(path) => {
            print(&format!("The context {:?} is now current in {}.\n", host.cluster.name, path.display()))?;
            String::new()
        }
        None => format!(" --kubeconfig {}", host.kubeconfig().display()),
    };
    if host.cluster.network() == Network::Cni && !pod_network::is_configured() {
        print(&format!(
            "The node is not Ready before a pod network is configured in {}: apply the manifest of one.\n",
            pod_network::CONF_DIR
        ))?;
    }
    if demo {
        return super::demo::run(&host);
    }
    print(&format!("Try:  kubectl{flag} get nodes\n"))
}

/// Whether what is asked for has room for a demo.
fn can_demo(shape: &Shape) -> Result<()> {
    let (host, network) = (&shape.options.host, shape.options.cluster.network);
    let rooms = [
        (host.credentials.is_some(), "--demo and --credentials: the demo is made where the API server is"),
        (network == Some(Network::Cni), "--demo and --network cni: the demo needs a network for its pods"),
        (host.disable_node == Some(true), "--demo and --disable-node: the demo runs where pods do"),
    ];
    match rooms.into_iter().find(|(lacks, _)| *lacks) {
        Some((_, sentence)) => Err(Fault::usage(sentence).into()),
        None => Ok(()),
    }
}

/// Further nodes for a cluster that runs.
fn add_nodes(host: &Host, shape: &Shape) -> Result<()> {
    let wish = Wish::judge(host, shape)?;
    wish.write(host)?;
    for node in &wish.added {
        let took = wish::wait_for(host, node)?;
        print(&(step_line(&format!("Node {node} is Ready"), took.as_millis() as u64) + "\n"))?;
    }
    Ok(())
}

/// A cluster that runs gets a second family: its daemon starts anew with it, and nodes that joined follow.
fn gain_family(host: &Host, lock: HostLock) -> Result<()> {
    // Before it is ready it takes no such word, and a daemon that is starting has read the old ranges.
    wait_for_other(host)?;
    let began = Instant::now();
    let Some(daemon) = Daemon::find(host) else { return Err(ended(host).into()) };
    if !daemon.takes(START_ANEW) {
        let sentence = "the cluster's daemon is of a version that gets no second family while it runs: `ferrokube down` \
                        first, then `up` with the same flags";
        return Err(Fault::failed(sentence).into());
    }
    host.save()?;
    // Whether the next one is ready is said anew.
    daemon.register(host, false)?;
    daemon.signal(START_ANEW);
    drop(lock);
    let (pods, services) = (host.cluster.pod_cidr, host.cluster.service_cidr);
    print(&format!("The cluster {:?} gets pods in {pods} and Services in {services}\n", host.cluster.name))?;
    while !is_ready(host) {
        if Daemon::any(host).is_none() || began.elapsed() > GAINS_WITHIN {
            return Err(ended(host).into());
        }
        std::thread::sleep(GLANCE);
    }
    print(&format!("Ready after {}. Pods that run keep the address that they have.\n", duration(began.elapsed())))
}

/// A cluster that may be started.
pub struct Claimed {
    pub host: Host,
    /// It wasn't there before.
    pub fresh: bool,
    /// To be held until the daemon is registered: another `up` at the same time then finds it.
    pub lock: HostLock,
}

/// What came of the wish to start a cluster.
pub enum Claim {
    New(Claimed),
    Runs(Host, Daemon),
    /// It runs, and what is asked for is a second family and nothing else: not written down yet, and checked. The lock is
    /// held until it is.
    Gains(Host, Daemon, HostLock),
}

/// Chooses ports and ranges, looks at the host, and writes the cluster down. Nothing was made when it fails.
pub fn claim(which: &Which, shape: &Shape) -> Result<Claim> {
    let lock = lock_host()?;
    let mut host = which.resolve(shape)?;
    let before = which.load()?;
    // The next life of a daemon in the foreground is the same process.
    if let Some(daemon) = Daemon::any(&host).filter(|daemon| Daemon::current() != Some(*daemon)) {
        return runs(before, host, daemon, lock);
    }
    crate::component::check_arguments(&host)?;
    kubeconfig::check_user_file()?;
    preflight::check(&host, before.as_ref())?;
    let wish = Wish::judge(&host, shape)?;
    let fresh = !host.exists();
    flannel::settle(&mut host)?;
    host.save()?;
    wish.write(&host)?;
    note_controllers()?;
    Ok(Claim::New(Claimed { host, fresh, lock }))
}

/// What comes of the wish for a cluster that runs.
fn runs(before: Option<Host>, mut host: Host, daemon: Daemon, lock: HostLock) -> Result<Claim> {
    let Some(before) = before else { return Ok(Claim::Runs(host, daemon)) };
    if !before.cluster.gains(&host.cluster.pod_cidr, &host.cluster.service_cidr) {
        return match differs(&before, &host) {
            Some(sentence) => Err(Fault::usage(sentence).into()),
            None => Ok(Claim::Runs(host, daemon)),
        };
    }
    if let Some(sentence) = differs(&before, &without_second(&before, &host)) {
        return Err(Fault::usage(sentence).into());
    }
    preflight::family(&host, &before.cluster)?;
    flannel::settle(&mut host)?;
    Ok(Claim::Gains(host, daemon, lock))
}

/// After a start that failed: a cluster that wasn't there before leaves nothing behind.
pub fn undo(host: &Host, fresh: bool) {
    if !fresh || Daemon::any(host).is_some() {
        return;
    }
    if let Err(error) = super::reset::remove(host) {
        eprintln!("ferrokube: what the start had made could not be removed ({error:#}): `ferrokube reset` again");
    }
}

/// Starts the daemon and waits until it is ready. Ctrl-C ends it again.
fn start(host: &Host, lock: HostLock) -> Result<()> {
    let interrupted = Interrupts::watch()?;
    let mut child = spawn_supervisor(host)?;
    if let Some(supervisor) = Daemon::of(&child) {
        supervisor.register_supervisor(host)?;
        interrupted.end(supervisor, host);
    }
    drop(child.stdin.take());
    drop(lock);
    wait_until_ready(child, host).map_err(|error| match interrupted.came() {
        true => {
            Fault { sentence: "interrupted: what had been started is stopped".into(), code: interrupt::CODE }.into()
        }
        false => error,
    })
}

fn is_ready(host: &Host) -> bool {
    Daemon::find(host).is_some_and(|daemon| daemon.is_ready(host))
}

/// Has systemd start the daemon and waits until it is ready: whoever ends the service then ends the cluster.
fn start_service(host: &Host, lock: HostLock) -> Result<()> {
    drop(lock);
    systemd::start(host)?;
    while !is_ready(host) {
        if systemd::has_ended(host) {
            let unit = systemd::unit_of(host);
            systemd::stop(host)?;
            return Err(
                Fault::failed(format!("the service {unit} ended while it started: `journalctl -u {unit}`")).into()
            );
        }
        std::thread::sleep(SERVICE_GLANCE);
    }
    Ok(())
}

/// Another `up` has started the daemon: it is waited for, so that this one keeps its promise too.
fn wait_for_other(host: &Host) -> Result<()> {
    if is_ready(host) {
        return Ok(());
    }
    print(&format!("The cluster {:?} is being started already: waiting for it\n", host.cluster.name))?;
    while !is_ready(host) {
        if Daemon::any(host).is_none() {
            return Err(ended(host).into());
        }
        std::thread::sleep(GLANCE);
    }
    Ok(())
}

fn wait_until_ready(mut child: Child, host: &Host) -> Result<()> {
    for told in child.stdout.take().into_iter().flat_map(listen) {
        match told {
            Progress::Step { what, millis } => print(&(step_line(&what, millis) + "\n"))?,
            Progress::Warning { sentence } => print(&format!("Warning: {sentence}\n"))?,
            Progress::Note { sentence } => print(&format!("Note: {sentence}\n"))?,
            Progress::Ready => return Ok(()),
            Progress::Failed { sentence, code } => {
                // It still stops what it had started.
                best_effort("the daemon's end", child.wait());
                return Err(Fault { sentence, code }.into());
            }
        }
    }
    best_effort("the daemon's end", child.wait());
    Err(ended(host).into())
}

fn ended(host: &Host) -> Fault {
    let log = std::fs::read_to_string(host.log()).unwrap_or_default();
    let last = log.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it left no word").trim().to_owned();
    Fault::failed(format!("the daemon ended while it started: {last} (see {})", host.log().display()))
}
