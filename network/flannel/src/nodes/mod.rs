//! The Kubernetes subnet manager: the network's configuration is a file or a ConfigMap, a host's subnets are its Node's pod
//! ranges, and what others must know of it stands in annotations of the Node. A ConfigMap that changes is followed. I/O: the API server, by `client`; the file. What the
//! annotations say is decided in [`annotations`]. Caller: the daemon.

mod annotations;

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::{Cache, Informer};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::annotations::Names;
use crate::config::{ConfigError, MAX_BYTES, NetConf, Turn};
use crate::judge::judged;
use crate::lease::{Attributes, Lease, Subnets};
use crate::news::News;

/// After a patch that failed.
const PATCH_AGAIN: Duration = Duration::from_secs(5);

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("--net-config-path {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("ConfigMap {namespace}/{name}: {source}")]
    Map { namespace: &'static str, name: &'static str, source: Box<kube::Error> },
    #[error("ConfigMap {namespace}/{name}: it has no {key}")]
    Key { namespace: &'static str, name: &'static str, key: &'static str },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Node(String),
    #[error("patching node {node}: {source}")]
    Patch { node: String, source: Box<kube::Error> },
}

/// Where the network's configuration is.
#[derive(Clone, Debug)]
pub enum Source {
    /// `--net-config-path`
    File(PathBuf),
    /// It is known already.
    Text(String),
    /// In the API, as upstream's manifest has it.
    Map { namespace: &'static str, name: &'static str, key: &'static str },
}

/// What the flags say.
#[derive(Clone)]
pub struct Options {
    pub client: kube::Client,
    /// The name of this host's Node.
    pub node: String,
    pub config: Source,
    /// `--kube-annotation-prefix`
    pub names: Names,
    /// `--set-node-network-unavailable`
    pub sets_condition: bool,
}

/// Leases in annotations of nodes.
pub struct Nodes {
    options: Options,
    cache: Cache<Node>,
    /// Where the configuration is a ConfigMap: that one alone.
    map: Option<Cache<ConfigMap>>,
    _watching: DropGuard,
}

impl Nodes {
    /// Begins to watch.
    pub fn start(options: Options) -> Nodes {
        let stop = CancellationToken::new();
        let (cache, _) = Informer::new(Api::<Node>::all(options.client.clone())).run(stop.clone());
        let map = match &options.config {
            &Source::Map { namespace, name, .. } => {
                let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
                let maps = Api::<ConfigMap>::namespaced(options.client.clone(), namespace);
                Some(Informer::new(maps).select(only).run(stop.clone()).0)
            }
            _ => None,
        };
        Nodes { options, cache, map, _watching: stop.drop_guard() }
    }

    /// The ranges of this host's node; none: there are none yet, or nothing is known.
    fn given(&self) -> Subnets {
        self.own().and_then(|node| annotations::subnets(&node).ok().flatten()).unwrap_or_default()
    }

    /// The configuration in the families that this host's node has ranges of.
    pub async fn fitting(&self, conf: &NetConf) -> NetConf {
        self.cache.synced().await;
        conf.only(&self.given())
    }

    /// What is told of a configuration that is other than this, which is what of the `whole` fits. None: nothing, or
    /// nothing is known.
    fn turned(&self, whole: &NetConf, conf: &NetConf) -> Option<News> {
        let given = self.given();
        let (&Source::Map { namespace, name, key }, Some(map)) = (&self.options.config, &self.map) else {
            // The node has a range of the other family now.
            let fits = whole.followed(conf, &given);
            return (conf.turn(&fits) == Turn::Family).then(|| News::Turned(Box::new(fits)));
        };
        if !map.is_synced() {
            return None;
        }
        let text = map.get_in(namespace, name);
        let text = text.as_ref().and_then(|map| map.data.as_ref()?.get(key)).map(String::as_bytes);
        Some(judged(conf, text, Some(&given), &format!("ConfigMap {namespace}/{name}")))
    }

    pub async fn config(&self) -> Result<NetConf, Error> {
        let text = match &self.options.config {
            Source::Text(text) => text.clone().into_bytes(),
            Source::File(path) => {
                let mut text = Vec::new();
                let read = File::open(path).and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_end(&mut text));
                read.map_err(|source| Error::File { path: path.clone(), source })?;
                text
            }
            &Source::Map { namespace, name, key } => {
                let maps: Api<ConfigMap> = Api::namespaced(self.options.client.clone(), namespace);
                let got = maps.get(name).await;
                let got = got.map_err(|source| Error::Map { namespace, name, source: Box::new(source) })?;
                let text = got.data.and_then(|mut data| data.remove(key));
                text.ok_or(Error::Key { namespace, name, key })?.into_bytes()
            }
        };
        Ok(NetConf::parse(&text)?)
    }

    /// Changes with each node.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.cache.version()
    }

    fn own(&self) -> Option<Arc<Node>> {
        self.cache.get_in("", &self.options.node)
    }

    /// The lease that this host told of when it was here last.
    pub async fn mine(&self) -> Option<Attributes> {
        self.cache.synced().await;
        self.options.names.lease(&*self.own()?).ok()?.map(|lease| lease.attributes)
    }

    /// Takes the subnets that the node has, and tells of them.
    pub async fn acquire(&self, conf: &NetConf, own: &Attributes) -> Result<Lease, Error> {
        self.cache.synced().await;
        let name = &self.options.node;
        let node = self.own().ok_or_else(|| Error::Node(format!("there is no node {name} yet")))?;
        let wrong = |problem: String| Error::Node(format!("node {name}: {problem}"));
        let given = annotations::subnets(&node).map_err(wrong)?.unwrap_or_default();
        let subnets = annotations::within(conf, given).map_err(wrong)?;
        if let Some(patch) = self.options.names.patch(&node, &self.options.names.overwritten(&node, own)) {
            self.patch(&patch).await?;
        }
        tracing::info!(%subnets, node = name, "this host has its node's ranges");
        Ok(Lease { subnets, attributes: own.clone() })
    }

    async fn patch(&self, patch: &Value) -> Result<(), Error> {
        let node = self.options.node.clone();
        let nodes: Api<Node> = Api::all(self.options.client.clone());
        let patched = nodes.patch_status(&node, &PatchParams::default(), &Patch::Strategic(patch)).await;
        patched.map(drop).map_err(|source| Error::Patch { node, source: Box::new(source) })
    }

    /// Tells of all leases whenever one changes, and tells others again what they must know of this host when its node
    /// was made anew, or a person wrote another address there. Ends when nobody listens, or the node has other ranges.
    pub async fn follow(&self, (whole, conf): (&NetConf, &NetConf), mine: &Lease, news: mpsc::Sender<News>) {
        let mut version = self.cache.version();
        let mut maps = self.map.as_ref().map(Cache::version);
        let (mut told, mut judged) = (None, None);
        if self.options.sets_condition && !self.own().is_some_and(|node| annotations::is_available(&node)) {
            self.patch_until_done(&annotations::available(Timestamp::now()), &news).await;
        }
        loop {
            version.borrow_and_update();
            if let Some(maps) = &mut maps {
                maps.borrow_and_update();
            }
            let turned = self.turned(whole, conf);
            if let Some(turned) = turned.filter(|turned| judged.as_ref() != Some(turned)) {
                if news.send(turned.clone()).await.is_err() {
                    return;
                }
                judged = Some(turned);
            }
            if let Some(node) = self.own() {
                let given = annotations::subnets(&node).ok().flatten();
                if given.is_some_and(|given| annotations::within(conf, given).ok() != Some(mine.subnets)) {
                    let _ = news.send(News::Lost(mine.subnets)).await;
                    return;
                }
                let attributes = self.options.names.overwritten(&node, &mine.attributes);
                if let Some(patch) = self.options.names.patch(&node, &attributes) {
                    self.patch_until_done(&patch, &news).await;
                }
            }
            let leases = self.leases(conf, mine);
            if told.as_ref() != Some(&leases) {
                if news.send(News::All(leases.clone())).await.is_err() {
                    return;
                }
                told = Some(leases);
            }
            tokio::select! {
                changed = changed(&mut version) => if !changed { return },
                changed = changed_any(&mut maps) => if !changed { return },
                () = news.closed() => return,
            }
        }
    }

    async fn patch_until_done(&self, patch: &Value, news: &mpsc::Sender<News>) {
        while let Err(error) = self.patch(patch).await {
            tracing::warn!(%error, "others are not told of this host; again in a moment");
            tokio::select! {
                () = tokio::time::sleep(PATCH_AGAIN) => {}
                () = news.closed() => return,
            }
        }
    }

    /// The leases of all nodes in the order of their subnets, this one's as it was acquired.
    fn leases(&self, conf: &NetConf, mine: &Lease) -> Vec<Lease> {
        let mut leases = vec![mine.clone()];
        for node in self.cache.list() {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            if name == self.options.node {
                continue;
            }
            match self.options.names.lease(&node) {
                Ok(Some(mut lease)) => {
                    // A cluster of two families may have a network of one.
                    lease.subnets.v4 = lease.subnets.v4.filter(|_| conf.v4.is_some());
                    lease.subnets.v6 = lease.subnets.v6.filter(|_| conf.v6.is_some());
                    leases.push(lease);
                }
                Ok(None) => {}
                Err(problem) => tracing::debug!(node = name, problem, "a node is passed over"),
            }
        }
        leases.sort_by_key(|lease| lease.subnets);
        leases
    }
}

async fn changed_any(version: &mut Option<watch::Receiver<u64>>) -> bool {
    match version {
        Some(version) => changed(version).await,
        None => std::future::pending().await,
    }
}

async fn changed(version: &mut watch::Receiver<u64>) -> bool {
    version.changed().await.is_ok()
}
