//! Runs the table: gives every wanted controller its identity, starts the shared informers, then the workers, and ends
//! with `shutdown` or when leadership is lost. The only entry for `ferrokube`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use client::pages::Pages;
use client::queue::QueueMetrics;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::controllers;
use crate::setup::{Informers, Setup, View};

/// Why the controller manager could not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("--controllers: there is no controller {name:?}; known: {known}")]
    UnknownController { name: String, known: String },
    #[error("--cluster-cidr: {0}")]
    ClusterCidr(String),
    #[error(transparent)]
    Serving(#[from] client::pages::Error),
    #[error("leadership lost")]
    LeadershipLost,
}

/// Runs until `shutdown`. `client` is the manager's own identity (`system:kube-controller-manager`).
pub async fn run(config: Config, client: kube::Client, shutdown: CancellationToken) -> Result<(), Error> {
    check(&config)?;
    let leads = Arc::new(AtomicBool::new(config.leader_election.is_none()));
    let metrics = serve_pages(&config, &client, &leads, &shutdown).await?;
    let candidate = config.leader_election.clone();
    let own = client.clone();
    let work = async |until: CancellationToken| {
        leads.store(true, Ordering::Release);
        start(Arc::new(config), own, &metrics, &until);
        until.cancelled().await;
    };
    match candidate {
        Some(candidate) => drop(candidate.lead(client, shutdown.clone(), work).await),
        None => work(shutdown.clone()).await,
    }
    if shutdown.is_cancelled() { Ok(()) } else { Err(Error::LeadershipLost) }
}

/// Serves the pages of health and metrics, before this candidate leads: those who wait are healthy too.
async fn serve_pages(
    config: &Config,
    client: &kube::Client,
    leads: &Arc<AtomicBool>,
    shutdown: &CancellationToken,
) -> Result<QueueMetrics, Error> {
    let mut pages = Pages::new();
    // A candidate that loses its lease ends: while there is an answer, the election is well.
    pages.check("leaderElection", || Ok(()));
    let metrics = QueueMetrics::declare(&pages.metrics);
    if let Some(candidate) = &config.leader_election {
        let (name, leads) = (candidate.name.clone(), leads.clone());
        pages.metrics.collect("leader_election_master_status", "Whether this candidate leads.", "gauge", move |out| {
            out.add(["name"], [&name], f64::from(u8::from(leads.load(Ordering::Acquire))));
        });
    }
    if let Some(serving) = &config.serving {
        client::pages::start(serving, Arc::new(pages), client.clone(), shutdown.clone()).await?;
    }
    Ok(metrics)
}

fn check(config: &Config) -> Result<(), Error> {
    let known = |name: &str| controllers::ALL.iter().any(|c| c.is(name));
    for word in config.controllers.iter().filter(|w| *w != "*") {
        let name = word.strip_prefix('-').unwrap_or(word);
        if !known(name) {
            let known: Vec<&str> = controllers::ALL.iter().map(|c| c.name).collect();
            return Err(Error::UnknownController { name: name.into(), known: known.join(", ") });
        }
    }
    controllers::node_ipam::Ranges::of(config).map(|_| ()).map_err(Error::ClusterCidr)
}

fn start(config: Arc<Config>, client: kube::Client, metrics: &QueueMetrics, shutdown: &CancellationToken) {
    let mut informers = Informers::new(client.clone());
    let mut started = Vec::new();
    for controller in controllers::ALL.iter().filter(|c| c.is_wanted(&config.controllers)) {
        let of_its_own = config.controller_clients.as_ref().filter(|_| !controller.account.is_empty());
        let own = of_its_own.map_or_else(|| client.clone(), |of| of(controller.account));
        let mut setup = Setup::new(controller.name, &config, &mut informers, own, shutdown.clone());
        (controller.start)(&mut setup);
        started.push(setup.finish());
    }
    informers.start(shutdown);
    let all = started.iter().flat_map(|c| c.views.clone()).collect();
    tokio::spawn(tell_when_synced(all, config.ready.clone(), shutdown.clone()));
    for controller in started {
        let views: Arc<[_]> = controller.views.into();
        controller.work.into_iter().for_each(|work| work.start(controller.name, views.clone(), metrics, shutdown));
        tracing::debug!(controller = controller.name, "started");
    }
}

async fn tell_when_synced(views: Vec<Arc<dyn View>>, ready: client::Latch, shutdown: CancellationToken) {
    let all = futures::future::join_all(views.iter().map(|view| view.synced()));
    tokio::select! {
        _ = all => ready.set(),
        () = shutdown.cancelled() => {}
    }
}
