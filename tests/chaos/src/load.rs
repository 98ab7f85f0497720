//! The load: writers that create, change and delete objects of their own and keep account of every answer, and one that
//! makes and removes Services. I/O.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::chance::Chance;
use crate::ledger::Ledger;

/// Who writes at the same time.
const WRITERS: u64 = 4;
/// Objects of one writer: few enough to be changed and deleted often.
const OBJECTS: u64 = 12;
/// An answer that takes longer is none: the server may be stopped for longer than that.
const PATIENCE: Duration = Duration::from_secs(4);
const LABEL: &str = "chaos=load";

/// Connects by a kubeconfig.
pub async fn connect(kubeconfig: &Path) -> Result<Client> {
    let config = Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// The running load.
pub struct Load {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Load {
    pub fn start(client: &Client, ledger: &Arc<Mutex<Ledger>>, seed: u64) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for writer in 0..WRITERS {
            let writer = Writer {
                api: Api::default_namespaced(client.clone()),
                ledger: ledger.clone(),
                name: format!("w{writer}"),
                chance: Chance::new(seed ^ writer << 32),
            };
            tasks.spawn(writer.run(stop.clone()));
        }
        tasks.spawn(services(Api::default_namespaced(client.clone()), stop.clone()));
        Load { stop, tasks }
    }

    /// No request leaves any more; those that have left are waited for.
    pub async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
    }
}

struct Writer {
    api: Api<ConfigMap>,
    ledger: Arc<Mutex<Ledger>>,
    name: String,
    chance: Chance,
}

impl Writer {
    async fn run(mut self, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            if !self.one().await {
                sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// One request; whether it was answered with success.
    async fn one(&mut self) -> bool {
        let name = format!("{}-{}", self.name, self.chance.between(0, OBJECTS));
        // What is uncertain stays so until the server is asked with nothing under way.
        let Some(state) = self.known(&name).await else { return false };
        let content = format!("{:x}", self.chance.number()).repeat(self.chance.between(1, 60) as usize);
        let object = config_map(&name, &content, state.as_ref().map(|(_, revision)| *revision));
        let delete = state.is_some() && self.chance.between(0, 4) == 0;
        self.ledger.lock().await.asked(&name, (!delete).then(|| content.clone()));
        let answer = timeout(PATIENCE, async {
            match (delete, state.is_some()) {
                (true, _) => self.api.delete(&name, &DeleteParams::default()).await.map(|_| None),
                (false, true) => self.api.replace(&name, &PostParams::default(), &object).await.map(Some),
                (false, false) => self.api.create(&PostParams::default(), &object).await.map(Some),
            }
        });
        let answer = answer.await;
        let mut ledger = self.ledger.lock().await;
        match answer {
            Ok(Ok(object)) => {
                ledger.done(&name, object.map(|o| (content, revision(&o))));
                true
            }
            // The server says that it did nothing: 4xx. A 5xx may come after the write.
            Ok(Err(kube::Error::Api(status))) if status.code < 500 => {
                ledger.refused(&name);
                false
            }
            _ => false,
        }
    }

    async fn known(&self, name: &str) -> Option<crate::ledger::State> {
        let mut ledger = self.ledger.lock().await;
        let known = ledger.certain(name).cloned();
        if known.is_none() && !ledger.has(name) {
            ledger.done(name, None);
            return Some(None);
        }
        known
    }
}

fn revision(object: &ConfigMap) -> u64 {
    object.resource_version().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn config_map(name: &str, content: &str, revision: Option<u64>) -> ConfigMap {
    let (key, value) = LABEL.split_once('=').unwrap_or_default();
    let mut object = ConfigMap::default();
    object.metadata.name = Some(name.to_owned());
    object.metadata.resource_version = revision.map(|revision| revision.to_string());
    object.metadata.labels = Some(BTreeMap::from([(key.to_owned(), value.to_owned())]));
    object.data = Some(BTreeMap::from([("content".to_owned(), content.to_owned())]));
    object
}

/// Makes an object of this size; what was acknowledged is not accounted for.
pub async fn write_once(client: &Client, name: &str, content: &str) -> Result<()> {
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let mut object = config_map(name, content, None);
    object.metadata.labels = None;
    timeout(PATIENCE, api.create(&PostParams::default(), &object)).await??;
    Ok(())
}

/// Services come and go.
async fn services(api: Api<Service>, stop: Arc<AtomicBool>) {
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("service-{}", turn % 6);
        let object =
            json!({"metadata": {"name": name}, "spec": {"selector": {"app": "many"}, "ports": [{"port": 80}]}});
        let object: Service = serde_json::from_value(object).unwrap_or_default();
        let _ = timeout(PATIENCE, api.create(&PostParams::default(), &object)).await;
        sleep(Duration::from_millis(30)).await;
        if turn % 2 == 0 {
            let _ = timeout(PATIENCE, api.delete(&name, &DeleteParams::default())).await;
        }
    }
}

/// Removes every Service of the load.
pub async fn remove_services(client: &Client) -> Result<()> {
    let api: Api<Service> = Api::default_namespaced(client.clone());
    for turn in 0..6 {
        match api.delete(&format!("service-{turn}"), &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Every object of the writers as the server has it, held against the account.
pub async fn check(client: &Client, ledger: &Mutex<Ledger>) -> Result<()> {
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let list = timeout(PATIENCE * 3, api.list(&ListParams::default().labels(LABEL))).await??;
    let list_revision = list.metadata.resource_version.as_deref().unwrap_or_default();
    let list_revision = list_revision.parse().context("the list's revision")?;
    let found = list.items.into_iter().map(|object| {
        let content = object.data.as_ref().and_then(|d| d.get("content")).cloned().unwrap_or_default();
        (object.name_any(), (content, revision(&object)))
    });
    ledger.lock().await.check(list_revision, found.collect())
}
