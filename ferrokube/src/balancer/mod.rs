//! A node's way to the API servers: a port of loopback by which every part of a node alone reaches whichever server works.
//! TLS goes through it from end to end, so it sees nothing and needs no key; who answers is proved by the name that all
//! servers have ([`crate::joining::credentials::SERVER_NAME`]). A connection goes to the first server that takes it; when
//! that one is gone or does not do its work, its connections are cut, and their clients come again and are led to another.
//!
//! - [`servers`]: which there are, and in which order they are tried; pure
//! - [`health`]: whether one does its work
//! - here: connections, and what is learned from the `kubernetes` Service and kept on disk. I/O
//!
//! ```text
//!   kubelet ──┐                         ┌──> 192.0.2.1:6443   /readyz says no: cut, tried again by itself
//!   proxy   ──┼──> 127.0.0.1:10253 ─────┤
//!   dns     ──┘    TCP                  └──> 192.0.2.2:6443
//! ```
//!
//! With one server nothing is asked by the clock: a connection that breaks says enough.

mod health;
mod servers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use client::Informer;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::runtime::watcher;
use parking_lot::Mutex;
use rustix::net::sockopt;
use serving::{Connection, Listener, Port};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::servers::{Kept, Server, Servers};
use crate::config::{Host, write_private};
use crate::fault::Fault;
use crate::joining::credentials;
use crate::pki::Pki;

/// How long a server may take to take a connection, where there are others.
const CONNECT: Duration = Duration::from_secs(2);
/// What a server was sent and has not confirmed for so long, it will not: the kernel cuts the connection. An idle one is
/// asked whether it lives after [`IDLE`], by so many packets of TCP.
const SILENT: Duration = Duration::from_secs(8);
const IDLE: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_secs(2);
const ASKED: u32 = 2;
/// How often servers that are used are asked how they are, where there are others.
const LOOK: Duration = Duration::from_secs(10);
/// The file of known servers is ours; a hundred names are a few kilobytes.
const LONGEST_FILE: u64 = 64 << 10;

/// What the kubeconfigs of a node alone name as their server.
pub fn url(host: &Host) -> String {
    format!("https://127.0.0.1:{}", host.servers_port())
}

/// Writes down the servers that a person has named.
pub fn give(host: &Host, servers: &[http::Uri]) -> Result<()> {
    let text = given(servers.iter().filter_map(authority).collect())?;
    write_private(&host.servers_file(), text.as_bytes())
}

/// The file of a host that was given these servers and has learned of none.
pub fn given(servers: Vec<Server>) -> Result<String> {
    written(&Kept { given: servers, learned: Vec::new() })
}

fn written(kept: &Kept) -> Result<String> {
    Ok(format!("{:#}\n", serde_json::to_value(kept)?))
}

fn authority(server: &http::Uri) -> Option<Server> {
    Some(format!("{}:{}", server.host()?, server.port_u16().unwrap_or(443)))
}

fn keep(file: &Path, kept: &Kept) -> Result<()> {
    write_private(file, written(kept)?.as_bytes())
}

/// See the module's head. Cloning shares it.
#[derive(Clone)]
pub struct Balancer {
    listener: Arc<Listener>,
    shared: Arc<Shared>,
}

struct Shared {
    file: PathBuf,
    ca: PathBuf,
    state: Mutex<State>,
    /// What is looked at by the clock is another.
    changed: Notify,
}

struct State {
    servers: Servers,
    /// What cuts the connections of each server that has any, and how many there are.
    carried: BTreeMap<Server, (CancellationToken, usize)>,
}

impl Balancer {
    /// Takes the port of a host that has joined. One of a version before gets its kubeconfigs anew.
    pub async fn open(host: &Host) -> Result<Balancer> {
        let kept = known(host)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, host.servers_port()));
        let listener = Listener::bind(Port::Servers, address).await;
        let listener =
            listener.map_err(|error| Fault::failed(format!("{address}, the way to the API servers: {error}")))?;
        Ok(Balancer::over(listener, Servers::new(&host.node_name, kept), host.servers_file(), Pki::of(host).ca()))
    }

    fn over(listener: Listener, servers: Servers, file: PathBuf, ca: PathBuf) -> Balancer {
        let state = Mutex::new(State { servers, carried: BTreeMap::new() });
        let shared = Shared { file, ca, state, changed: Notify::new() };
        Balancer { listener: Arc::new(listener), shared: Arc::new(shared) }
    }

    /// Carries connections until `stop`. `node` speaks as the node, by this very way; which servers there are is learned
    /// once `learns` is set.
    pub async fn run(self, node: kube::Client, learns: client::Latch, stop: CancellationToken) -> Result<()> {
        let learning = async {
            learns.wait().await;
            learn(node, &self.shared, &stop);
            std::future::pending::<()>().await;
        };
        tokio::pin!(learning);
        let looks = look(self.shared.clone());
        tokio::pin!(looks);
        loop {
            let connection = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = &mut looks => return Ok(()),
                () = &mut learning => return Ok(()),
                connection = self.listener.accept() => connection,
            };
            let (shared, stop) = (self.shared.clone(), stop.clone());
            tokio::spawn(async move {
                let slot = connection.slot().clone();
                let _turn = slot.begin();
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = slot.must_close() => {}
                    () = shared.carry(connection) => {}
                }
            });
        }
    }
}

/// What this host knows of its cluster's servers.
fn known(host: &Host) -> Result<Kept> {
    let file = host.servers_file();
    match linux::root::read_regular(&file, LONGEST_FILE) {
        Ok(bytes) => {
            let wrong = |error| Fault::failed(format!("{}: {error}; bring it back from a backup", file.display()));
            return Ok(serde_json::from_slice(&bytes).map_err(wrong)?);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).context(file.display().to_string()),
    }
    // It has joined with a version that went to one server.
    let pki = Pki::of(host);
    let config = host.pki().join("kubelet.conf");
    let text = std::fs::read_to_string(&config).with_context(|| config.display().to_string())?;
    let parsed = crate::yaml::parse(&text).map_err(|why| Fault::failed(format!("{}: {why}", config.display())))?;
    let server = parsed["clusters"][0]["cluster"]["server"].as_str().and_then(|text| text.parse::<http::Uri>().ok());
    let server = server.with_context(|| format!("{} names no server", config.display()))?;
    let kept = Kept { given: authority(&server).into_iter().collect(), learned: Vec::new() };
    keep(&file, &kept)?;
    let ca = std::fs::read_to_string(pki.ca()).with_context(|| pki.ca().display().to_string())?;
    credentials::write(&pki, &host.node_name, &url(host), &ca)?;
    Ok(kept)
}

impl Shared {
    /// Carries a connection to the first server that takes it, until one of both ends, or the server does its work no more.
    async fn carry(&self, mut connection: Connection) {
        let order = self.state.lock().servers.order();
        let patience = if order.len() > 1 { CONNECT } else { CONNECT * 5 };
        for server in order {
            let mut stream = match tokio::time::timeout(patience, dial(&server)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    self.failed(&server, &error.to_string());
                    continue;
                }
                Err(_) => {
                    self.failed(&server, "it takes no connection");
                    continue;
                }
            };
            let cut = self.enter(&server, patience > CONNECT);
            tokio::select! {
                () = cut.cancelled() => {}
                // Which of both ends is nobody's business here.
                _ = tokio::io::copy_bidirectional(&mut connection, &mut stream) => {}
            }
            self.leave(&server);
            return;
        }
    }

    /// Of an only server nobody asks how it is.
    fn enter(&self, server: &Server, only: bool) -> CancellationToken {
        if only {
            self.works(server);
        }
        let mut state = self.state.lock();
        let (cut, count) = state.carried.entry(server.clone()).or_default();
        *count += 1;
        cut.clone()
    }

    fn leave(&self, server: &Server) {
        let mut state = self.state.lock();
        if let Some((_, count)) = state.carried.get_mut(server) {
            *count -= 1;
            if *count == 0 {
                state.carried.remove(server);
            }
        }
    }

    /// Its connections are cut where another can take them.
    fn failed(&self, server: &Server, why: &str) {
        let mut state = self.state.lock();
        if state.servers.fail(server, Instant::now()) {
            tracing::warn!(server, why, "an API server does not do its work; others are asked while there are any");
        }
        if state.servers.has_other(server)
            && let Some((cut, _)) = state.carried.get_mut(server)
        {
            std::mem::take(cut).cancel();
        }
        drop(state);
        self.changed.notify_one();
    }

    fn works(&self, server: &Server) {
        if self.state.lock().servers.work(server) {
            tracing::info!(server, "an API server does its work again");
        }
    }

    /// Takes what the `kubernetes` Service says. `all` are its slices.
    fn learned(&self, all: BTreeSet<Server>) {
        let kept = {
            let mut state = self.state.lock();
            if !state.servers.learn(all) {
                return;
            }
            state.servers.kept().clone()
        };
        tracing::info!(servers = kept.learned.join(", "), "the cluster's API servers");
        if let Err(error) = keep(&self.file, &kept) {
            tracing::warn!(error = format!("{error:#}"), "the API servers were not written down");
        }
        self.changed.notify_one();
    }
}

async fn dial(server: &str) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, IDLE)?;
    sockopt::set_tcp_keepintvl(&stream, ASK_AGAIN)?;
    sockopt::set_tcp_keepcnt(&stream, ASKED)?;
    sockopt::set_tcp_user_timeout(&stream, SILENT.as_millis() as u32)?;
    Ok(stream)
}

/// Asks servers how they are, for ever: those that are used and those that failed, as long as there is a choice.
async fn look(shared: Arc<Shared>) {
    let mut clients: BTreeMap<Server, kube::Client> = BTreeMap::new();
    loop {
        let (choice, next) = {
            let state = shared.state.lock();
            (state.servers.all().len() > 1, state.servers.next())
        };
        let wait = async {
            match (choice, next) {
                (false, _) => std::future::pending().await,
                (true, None) => tokio::time::sleep(LOOK).await,
                (true, Some(next)) => tokio::time::sleep_until((Instant::now() + LOOK).min(next).into()).await,
            }
        };
        tokio::select! {
            () = wait => {}
            // What has changed is when to look; a change each moment must not keep one from it.
            () = shared.changed.notified() => continue,
        }
        let asked: BTreeSet<Server> = {
            let state = shared.state.lock();
            let used = state.carried.keys().filter(|server| state.servers.works(server)).cloned();
            used.chain(state.servers.due(Instant::now())).collect()
        };
        for server in asked {
            match ask(&shared, &mut clients, &server).await {
                Ok(()) => shared.works(&server),
                Err(error) => {
                    clients.remove(&server);
                    shared.failed(&server, &format!("{error:#}"));
                }
            }
        }
    }
}

async fn ask(shared: &Shared, clients: &mut BTreeMap<Server, kube::Client>, server: &Server) -> Result<()> {
    let client = match clients.get(server) {
        Some(client) => client.clone(),
        None => {
            let client = health::client(server, &shared.ca)?;
            clients.insert(server.clone(), client.clone());
            client
        }
    };
    health::ask(&client).await
}

/// Follows the `kubernetes` Service.
fn learn(node: kube::Client, shared: &Arc<Shared>, stop: &CancellationToken) {
    let of_service = watcher::Config::default().labels("kubernetes.io/service-name=kubernetes");
    let mut informer = Informer::new(Api::<EndpointSlice>::namespaced(node, "default")).select(of_service);
    let (cache, told) = (informer.cache(), shared.clone());
    informer
        .on(move |_| {
            let all = cache.list().iter().flat_map(|slice| addresses(slice)).collect();
            told.learned(all);
        })
        .run(stop.clone());
}

/// Where the servers of a slice are.
fn addresses(slice: &EndpointSlice) -> Vec<Server> {
    let port = slice.ports.iter().flatten().find(|port| port.name.as_deref() == Some("https"));
    let Some(port) = port.and_then(|port| port.port).and_then(|port| u16::try_from(port).ok()) else {
        return Vec::new();
    };
    let ready = slice
        .endpoints
        .iter()
        .flatten()
        .filter(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true));
    let parsed = ready.flat_map(|endpoint| &endpoint.addresses).filter_map(|address| address.parse().ok());
    parsed.map(|address| SocketAddr::new(address, port).to_string()).collect()
}

#[cfg(test)]
mod tests;
