//! A kubelet put together: what is made at its start, in which order, and who is given what. The loop that it then runs
//! is [`sync_loop`]; `statics`, `moving` and `leaving` are parts of it. Does I/O: starts tasks, waits for the runtime.

mod housekeeping;
mod leaving;
mod moving;
mod statics;
mod sync_loop;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::rate::Rate;
use client::{Cache, EventRecorder, Informer};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::Api;
use kube::runtime::watcher;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use wire::cri;

use crate::act::{Executor, Found};
use crate::config::Config;
use crate::error::Error;
use crate::io::cri::{Cri, shown};
use crate::io::objects::Objects;
use crate::io::pleg;
use crate::messages::{self, Mailbox, Message, NodeSignals};
use crate::node::addresses::Addresses;
use crate::node::heartbeat::Heartbeat;
use crate::node::machine::Machine;
use crate::node::qos::Classes;
use crate::server::{self, Server};
use crate::volumes::Volumes;
use crate::worker::Settings;
use crate::worker::observation::Observation;
use housekeeping::Housekeeping;
use sync_loop::Loop;

/// How soon a runtime that does not answer yet is asked again.
const RUNTIME_RETRY: Duration = Duration::from_millis(100);

/// Runs a kubelet until shutdown. Containers go on running after it.
pub async fn run(mut config: Config, client: kube::Client, shutdown: CancellationToken) -> Result<(), Error> {
    config.run = uuid::Uuid::new_v4().to_string();
    let config = Arc::new(config);
    prepare_host(&config)?;
    let cri = Cri::connect(&config.container_runtime_endpoint)?;
    let machine = Machine::read();
    let (mailbox, inbox) = messages::mailbox();
    let addresses = moving::follow(&config, &mailbox, &shutdown);
    let informers = start_informers(&config, &client, &mailbox, &shutdown);
    let rate = Rate::new(config.event_record_qps, config.event_burst);
    let recorder = EventRecorder::new(client.clone(), "kubelet").on_host(&config.node_name).at_rate(rate);
    let node = NodeSignals::default();
    let Some(runtime_name) = wait_for_runtime(&cri, &shutdown).await else { return Ok(()) };
    let objects = Arc::new(Objects::new(client.clone(), mailbox.clone()));
    let executor = Arc::new(Executor {
        volumes: Arc::new(Volumes::new(config.clone(), objects.clone(), client.clone())),
        config: config.clone(),
        cri: cri.clone(),
        client: client.clone(),
        events: recorder.clone(),
        objects,
        services: informers.services,
        nodes: informers.nodes.clone(),
        cgroups: linux::cgroup::Cgroups::detect().ok(),
        node_memory: machine.memory,
        addresses: addresses.clone(),
        mailbox: mailbox.clone(),
        pulls: config.serialize_image_pulls.then(|| tokio::sync::Semaphore::new(1)),
        found: Found::default(),
    });
    tokio::spawn(executor.volumes.clone().run(shutdown.clone()));
    let classes = Classes::prepare(executor.cgroups.as_ref(), &config, &machine)?;
    let (runtime_changes, watch_runtime) = watch::channel(0u64);
    let server = Server { executor: executor.clone(), runtime_changes: watch_runtime };
    let port = server::start(server, shutdown.clone()).await?;
    let housekeeping =
        Housekeeping { classes, executor: executor.clone(), node: node.clone(), pid_max: machine.pid_max };
    tokio::spawn(housekeeping.run(shutdown.clone()));
    tokio::spawn(leaving::run(config.clone(), mailbox.clone(), node.clone(), shutdown.clone()));
    let heartbeat = Arc::new(Heartbeat {
        config: config.clone(),
        cri: cri.clone(),
        client,
        nodes: informers.nodes,
        machine,
        addresses: addresses.clone(),
        port,
        recorder,
        signals: node.clone(),
        node_seen: informers.node_seen,
    });
    let heartbeat = tokio::spawn(heartbeat.run(shutdown.clone()));
    let recovered = recover(&cri, &shutdown).await;
    tokio::spawn(pleg::run(cri, mailbox, shutdown.clone()));
    let settings = settings(&config, runtime_name, &addresses);
    let state = Loop::new(executor, settings, recovered, node, runtime_changes);
    tokio::select! {
        () = state.run(inbox, shutdown.clone()) => Ok(()),
        ended = heartbeat => match ended {
            Ok(Err(error)) => Err(error),
            _ => Ok(()),
        },
    }
}

fn settings(config: &Config, runtime_name: String, addresses: &Addresses) -> Settings {
    let longest = SignedDuration::try_from(config.max_container_restart_period);
    Settings {
        runtime_name,
        host_ips: addresses.texts(),
        longest_restart_delay: longest.unwrap_or(crate::pod::backoff::LONGEST),
        run: config.run.clone(),
    }
}

/// What has to be so of the host before anything is started.
fn prepare_host(config: &Config) -> Result<(), Error> {
    let differing = match config.protect_kernel_defaults {
        true => crate::node::kernel::differing("/proc/sys".as_ref()),
        false => Vec::new(),
    };
    if !differing.is_empty() {
        return Err(Error::Kernel(differing));
    }
    make_dir(&config.root_dir, 0o750)?;
    make_dir(&config.root_dir.join("pods"), 0o750)?;
    make_dir(&config.pod_logs_dir, 0o755)
}

fn make_dir(path: &std::path::Path, mode: u32) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|source| Error::File {
        what: "create directory",
        path: path.display().to_string(),
        source,
    })
}

struct Informers {
    services: Cache<Service>,
    nodes: Cache<Node>,
    node_seen: Arc<Notify>,
}

fn start_informers(
    config: &Config,
    client: &kube::Client,
    mailbox: &Mailbox,
    shutdown: &CancellationToken,
) -> Informers {
    let (services, _) = Informer::<Service>::new(Api::all(client.clone())).run(shutdown.clone());
    let own = watcher::Config::default().fields(&format!("metadata.name={}", config.node_name));
    let node_seen = Arc::new(Notify::new());
    let told = node_seen.clone();
    let (nodes, _) = Informer::<Node>::new(Api::all(client.clone()))
        .select(own)
        .on(move |_| told.notify_one())
        .run(shutdown.clone());
    let bound = watcher::Config::default().fields(&format!("spec.nodeName={}", config.node_name));
    let to = mailbox.clone();
    let (pods, _) = Informer::<Pod>::new(Api::all(client.clone()))
        .select(bound)
        .on(move |delta| {
            to.send(Message::Pod(delta.clone()));
        })
        .run(shutdown.clone());
    let to = mailbox.clone();
    tokio::spawn(async move {
        pods.synced().await;
        to.send(Message::Synced);
    });
    if let Some(dir) = config.static_pod_path.clone() {
        tokio::spawn(crate::io::static_pods::watch(dir, config.node_name.clone(), mailbox.clone(), shutdown.clone()));
    }
    Informers { services, nodes, node_seen }
}

/// The runtime's name, as soon as it answers. `None` on shutdown.
async fn wait_for_runtime(cri: &Cri, shutdown: &CancellationToken) -> Option<String> {
    let mut told = false;
    loop {
        match cri.runtime().version(cri::VersionRequest::default()).await {
            Ok(version) => return Some(version.into_inner().runtime_name),
            Err(error) if !told => {
                told = true;
                tracing::info!(error = shown(&error), "waiting for the container runtime");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return None,
            () = tokio::time::sleep(RUNTIME_RETRY) => {}
        }
    }
}

/// What the runtime has from before, by pod UID.
async fn recover(cri: &Cri, shutdown: &CancellationToken) -> HashMap<String, Observation> {
    loop {
        match pleg::list(cri).await {
            Ok(found) => return found,
            Err(error) => tracing::warn!(error = shown(&error), "the runtime did not list its pods, trying again"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return HashMap::new(),
            () = tokio::time::sleep(RUNTIME_RETRY) => {}
        }
    }
}
