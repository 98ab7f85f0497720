//! The daemon's part in the nodes of its host: starts those that are to run, side by side, takes up those that a former
//! life of the daemon has started, and starts one again that ended by itself, after a pause. Which there are it reads from
//! the record, again whenever that changes; who stops a node is the command. I/O: waits for files and processes.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use futures::FutureExt;
use jiff::Timestamp;
use kubelet::files::Watcher;
use rustix::process::Signal;
use tokio::io::unix::AsyncFd;
use tokio::sync::{OnceCell, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Assembly, Serving, ready, renewal};
use crate::backoff::Backoff;
use crate::config::record::{self, Node, Record};
use crate::config::{Host, private_dir};
use crate::crash;
use crate::fault::{Fault, best_effort};
use crate::joining::published;
use crate::nodes::{home, images, life, machine, underlay};
use crate::process::Daemon;
use crate::progress::{Progress, Steps, listen};

/// The part's name.
pub const PART: &str = "nodes";
/// The certificate of the API server, and how often its listener looks for another.
const APISERVER: &str = "apiserver";
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A node that could not be started has this long to end by itself.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long a start of the host's waits for its nodes. A node that comes later is not missed: it is started all the same.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the tasks share.
struct Kept {
    host: Arc<Host>,
    admin: kube::Client,
    node_ip: watch::Sender<Vec<IpAddr>>,
    /// The folder of images is imported.
    images: client::Latch,
    /// What nodes may do is in the API.
    rights: OnceCell<()>,
}

/// How the first try of a node ended that a start of the host's waits for.
struct First {
    node: String,
    took: Duration,
    outcome: Result<()>,
}

/// Starts the part. What is answered resolves when each node that is to run was started once, or could not be.
pub async fn start(a: &mut Assembly, steps: Steps) -> Result<Serving> {
    let (host, admin) = (a.host.clone(), a.client(&crate::api::Identity::Admin).await?);
    private_dir(&record::dir(&host))?;
    life::prepare(&host)?;
    images::prepare(&host)?;
    let (node_ip, images) = (a.node_ip.clone(), a.images.clone());
    let kept = Arc::new(Kept { host, admin, node_ip, images, rights: OnceCell::new() });
    // Bounded by the record: each of its nodes tells once.
    let (told, mut first) = mpsc::unbounded_channel();
    a.parts.run(PART, |stop| keep(kept, told, stop));
    Ok(async move {
        let all = async {
            while let Some(First { node, took, outcome }) = first.recv().await {
                steps.report(&match outcome {
                    Ok(()) => Progress::Step { what: format!("Node {node} is Ready"), millis: took.as_millis() as u64 },
                    Err(error) => Progress::Warning { sentence: format!("the node {node} did not start: {error:#}") },
                });
            }
        };
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
            let sentence = format!("not every node is there after {PATIENCE:?}: see `ferrokube node ls`");
            steps.report(&Progress::Warning { sentence });
        }
        Ok(())
    }
    .boxed())
}

/// Keeps the nodes until `stop`; they go on without it.
async fn keep(kept: Arc<Kept>, told: mpsc::UnboundedSender<First>, stop: CancellationToken) -> Result<()> {
    let mut watcher =
        Watcher::new().and_then(|w| w.add_dir(&record::dir(&kept.host)).map(|()| w)).context("inotify")?;
    let mut tended = JoinSet::new();
    let mut names = HashMap::new();
    let mut told = Some(told);
    loop {
        let host = kept.host.clone();
        let wanted = tokio::task::spawn_blocking(move || wanted(&host)).await?;
        let running: BTreeSet<String> = names.values().cloned().collect();
        for name in wanted.into_iter().filter(|name| !running.contains(name)) {
            let task = tended.spawn(tend(kept.clone(), name.clone(), told.clone()));
            names.insert(task.id(), name);
        }
        told = None;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = watcher.changed() => {}
            Some(ended) = tended.join_next_with_id() => {
                let (id, broke) = match ended {
                    Ok((id, ())) => (id, None),
                    Err(error) => (error.id(), Some(error)),
                };
                let name = names.remove(&id).unwrap_or_default();
                if let Some(error) = broke {
                    // What broke off is tried again when the record changes, or by a command.
                    tracing::error!(node = name, %error, "a node is not looked after any more");
                }
            }
        }
    }
}

/// Names of the nodes that are to run.
fn wanted(host: &Host) -> Vec<String> {
    match record::nodes(host) {
        Ok(nodes) => nodes.into_iter().filter(|node| !node.stopped).map(|node| node.name).collect(),
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "which nodes there are can't be read");
            Vec::new()
        }
    }
}

/// Looks after one node until it is no longer to run.
async fn tend(kept: Arc<Kept>, name: String, mut told: Option<mpsc::UnboundedSender<First>>) {
    let mut backoff = Backoff::default();
    loop {
        let began = Instant::now();
        let lived = live(&kept, &name, |outcome| {
            if let Some(told) = told.take() {
                best_effort(
                    "who waits for a node",
                    told.send(First { node: name.clone(), took: began.elapsed(), outcome }),
                );
            }
        });
        let error = match lived.await {
            Lived::NotWanted => return,
            Lived::Failed(error) => error,
        };
        if !wanted(&kept.host).contains(&name) {
            return;
        }
        let pause = backoff.after(began.elapsed());
        let error = format!("{error:#}");
        tracing::error!(node = name, error, again_after = ?pause, "a node has ended");
        crash::queue_note(PART, format!("the node {name}: {error}"));
        tokio::time::sleep(pause).await;
    }
}

/// How a node's life ended.
enum Lived {
    /// Nobody wants it to run any more.
    NotWanted,
    /// By itself, or it never began.
    Failed(anyhow::Error),
}

/// One life of a node: taken up or begun, and waited for. `started` hears how the beginning went.
async fn live(kept: &Arc<Kept>, name: &str, mut started: impl FnMut(Result<()>)) -> Lived {
    let (host, node) = (kept.host.clone(), name.to_owned());
    let found = {
        let (host, node) = (host.clone(), node.clone());
        tokio::task::spawn_blocking(move || life::find(&host, &node)).await
    };
    if let Some(init) = found.ok().flatten() {
        tracing::info!(node, pid = init.pid, "a node goes on");
        let ready = init.is_ready_in(&life::file(&host, &node));
        started(Ok(()));
        let tell = async {
            if !ready && ready::node(kept.admin.clone(), node.clone()).await.is_ok() {
                best_effort("a node's file", life::note_ready(&host, &node, init));
            }
            std::future::pending::<()>().await;
        };
        return tokio::select! {
            () = tell => Lived::NotWanted,
            error = end_of(init) => Lived::Failed(error),
        };
    }
    match begin(kept, name).await {
        Ok(Some(init)) => {
            started(Ok(()));
            tracing::info!(node, pid = init.pid, "a node is ready");
            Lived::Failed(end_of(init).await)
        }
        Ok(None) => Lived::NotWanted,
        Err(error) => {
            let why = format!("{error:#}");
            let sentence = why.clone();
            let ended = tokio::task::spawn_blocking(move || {
                // Whatever of it still lives is in the way of the next try.
                best_effort("the end of a node", life::end(&host, &node, Signal::TERM, LAST_WORDS));
                life::note_failure(&host, &node, &why);
            });
            best_effort("the end of a node", ended.await);
            started(Err(Fault::failed(sentence).into()));
            Lived::Failed(error)
        }
    }
}

/// Returns when the process has ended.
async fn end_of(init: Daemon) -> anyhow::Error {
    let end = async {
        // The successor of `new` is unsafe; what it asks for holds here: the descriptor is owned and never changes.
        #[allow(deprecated)]
        let pidfd = AsyncFd::new(linux::process::pidfd(init.pid)?)?;
        // Its number could be another's by now.
        if init.lives() {
            drop(pidfd.readable().await?);
        }
        anyhow::Ok(())
    };
    match end.await {
        Ok(()) => anyhow!("its first process has ended"),
        Err(error) => error.context("watching its first process"),
    }
}

/// Starts a node and waits until its components do their work. None: it is not to run.
async fn begin(kept: &Arc<Kept>, name: &str) -> Result<Option<Daemon>> {
    let rights = || published::apply_rights(&kept.admin, &kept.host.cluster);
    kept.rights.get_or_try_init(rights).await.context("the rights of nodes")?;
    let (host, node) = (kept.host.clone(), name.to_owned());
    let host_ips = kept.node_ip.borrow().clone();
    let Some(init) = tokio::task::spawn_blocking(move || boot(&host, &node, &host_ips)).await?? else {
        return Ok(None);
    };
    kept.images.wait().await;
    if let Err(error) = images::give_imported(&kept.host, name).await {
        tracing::warn!(node = name, error = format!("{error:#}"), "a node lacks images that were imported");
    }
    life::note_ready(&kept.host, name, init)?;
    Ok(Some(init))
}

fn boot(host: &Host, name: &str, host_ips: &[IpAddr]) -> Result<Option<Daemon>> {
    // Nobody removes it meanwhile.
    let lock = record::share(host)?;
    let Some(record) = record::read(host)? else { return Ok(None) };
    let Some(node) = record.get(name).filter(|node| !node.stopped) else { return Ok(None) };
    let network = connect(host, &record, node, host_ips)?;
    let inside = home::furnish(host, &record, node)?;
    let mut child = machine::spawn(host, &inside, network)?;
    let mut heard = child.stdout.take().map(listen).into_iter().flatten();
    // The first word says that it is written down, or why it never will be.
    let first = heard.next();
    drop(lock);
    best_effort("the end of who started a node", child.wait());
    for told in first.into_iter().chain(heard) {
        match told {
            Progress::Ready => {
                let init = life::find(host, name).context("it ended at once")?;
                return Ok(Some(init));
            }
            Progress::Failed { sentence, .. } => return Err(Fault::failed(sentence).into()),
            Progress::Step { .. } | Progress::Warning { .. } | Progress::Note { .. } => {}
        }
    }
    let words = home::last_words(host, name);
    let log = home::path(host, name).join("daemon.log");
    Err(Fault::failed(format!("its daemon ended while it started: {words} (see {})", log.display())).into())
}

/// Makes sure of the link between nodes, and connects one.
fn connect(host: &Host, record: &Record, node: &Node, host_ips: &[IpAddr]) -> Result<linux::netns::NetNs> {
    // Two at once would each take the other's table for an old one.
    static TURN: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
    let _turn = TURN.lock();
    underlay::ensure(host, record).context("the link between nodes")?;
    // The first node of a cluster that runs: the API server's certificate names no such address yet.
    let renewed = renewal::renew(host, host_ips, Timestamp::now()).context("certificates")?.renewed;
    if renewed.iter().any(|name| name == APISERVER) {
        std::thread::sleep(LOOK_AGAIN);
    }
    underlay::plug(host, record, node, host_ips).context("its network")
}
