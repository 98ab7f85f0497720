//! What the proxy tells over HTTP: /healthz and /livez for load balancers and probes, /metrics, and one port for each
//! Service that wants its local endpoints counted. Does I/O.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use serving::{Body, Connections, Http, Listener, Peer, Port};
use telemetry::{Family, Gauge, Histogram, Registry};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::daemon::Error;
use crate::model::Name;
use crate::service::HealthCheck;

/// Upstream's buckets of applying rules, in seconds.
const SYNC_SECONDS: &[f64] =
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];
/// Our rules of both families are one transaction: each series is told for both.
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// The metrics, with upstream's names.
#[derive(Debug)]
struct Metrics {
    registry: Registry,
    syncs: Family<Histogram, 1>,
    full_syncs: Family<Histogram, 1>,
    updated: Family<Gauge, 1>,
    queued: Family<Gauge, 1>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let registry = Registry::default();
        telemetry::process::declare(&registry);
        telemetry::process::declare_build(&registry, meta::version::GIT_VERSION);
        let (r, family) = (&registry, ["ip_family"]);
        let name = "kubeproxy_sync_proxy_rules_duration_seconds";
        let syncs = r.histogram(name, "How long rules took to reach the kernel.", family, SYNC_SECONDS);
        let name = "kubeproxy_sync_full_proxy_rules_duration_seconds";
        let full_syncs = r.histogram(name, "The same when all rules were sent.", family, SYNC_SECONDS);
        let name = "kubeproxy_sync_proxy_rules_last_timestamp_seconds";
        let updated = r.gauge(name, "When rules last reached the kernel.", family);
        let name = "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds";
        let queued = r.gauge(name, "When a change last came in.", family);
        Metrics { registry, syncs, full_syncs, updated, queued }
    }
}

fn seconds(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1000.0
}

/// How the proxy is.
#[derive(Debug)]
pub struct Health {
    metrics: Metrics,
    state: Mutex<State>,
    eligible: AtomicBool,
    /// An update that waits longer than this is a sign of trouble.
    patience: Duration,
}

#[derive(Debug, Default)]
struct State {
    updated: Option<Timestamp>,
    /// The first change that waits.
    queued: Option<Timestamp>,
}

impl Health {
    pub fn new(sync_period: Duration) -> Self {
        Health {
            metrics: Metrics::default(),
            state: Mutex::default(),
            eligible: AtomicBool::new(true),
            patience: sync_period * 2,
        }
    }

    /// A change came in.
    pub fn queued(&self) {
        let now = Timestamp::now();
        let mut state = self.state.lock();
        state.queued.get_or_insert(now);
        FAMILIES.iter().for_each(|family| self.metrics.queued.with([family]).set(seconds(now)));
    }

    /// The kernel has all changes.
    pub fn updated(&self, took: Duration, full: bool) {
        let mut state = self.state.lock();
        let now = Timestamp::now();
        state.updated = Some(now);
        state.queued = None;
        for family in FAMILIES {
            self.metrics.syncs.with([family]).time(took);
            self.metrics.updated.with([family]).set(seconds(now));
            if full {
                self.metrics.full_syncs.with([family]).time(took);
            }
        }
    }

    pub fn set_eligible(&self, eligible: bool) {
        self.eligible.store(eligible, Ordering::Relaxed);
    }

    /// Whether changes reach the kernel.
    pub fn is_healthy(&self, now: Timestamp) -> bool {
        let state = self.state.lock();
        let waiting = state.queued.map(|since| now.duration_since(since));
        state.updated.is_some() && waiting.is_none_or(|w| w.as_secs_f64() < self.patience.as_secs_f64())
    }

    /// The answer of /healthz, and of /livez for which a node that is about to go is as good as any.
    fn answer(&self, now: Timestamp, live: bool) -> Response<Full<Bytes>> {
        let eligible = live || self.eligible.load(Ordering::Relaxed);
        let healthy = self.is_healthy(now);
        let updated = if healthy { now } else { self.state.lock().updated.unwrap_or(Timestamp::UNIX_EPOCH) };
        let body = format!(
            r#"{{"lastUpdated": "{}","currentTime": "{}", "nodeEligible": {eligible}}}"#,
            go_time(updated),
            go_time(now)
        );
        json(if healthy && eligible { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body)
    }
}

/// A time as upstream's programs print it.
fn go_time(t: Timestamp) -> String {
    t.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string()
}

fn json(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .body(Full::new(body.into()))
        .expect("constant headers")
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
        .body(Full::new(body.into()))
        .expect("constant headers")
}

/// Opens the health and metrics ports.
pub(crate) async fn serve(config: &Config, health: Arc<Health>, shutdown: &CancellationToken) -> Result<(), Error> {
    if let Some(address) = config.healthz_bind_address {
        let health = health.clone();
        let answer = move |request: &Request<Body>| match request.uri().path() {
            "/healthz" => health.answer(Timestamp::now(), false),
            "/livez" => health.answer(Timestamp::now(), true),
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        };
        listen("--healthz-bind-address", pages(address), answer, shutdown.clone()).await?;
    }
    if let Some(address) = config.metrics_bind_address {
        let answer = move |request: &Request<Body>| match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "ok"),
            "/proxyMode" => text(StatusCode::OK, "nftables"),
            "/metrics" => text(StatusCode::OK, health.metrics.registry.text()),
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        };
        listen("--metrics-bind-address", pages(address), answer, shutdown.clone()).await?;
    }
    Ok(())
}

fn pages(address: SocketAddr) -> (Arc<Connections>, SocketAddr) {
    (Connections::of(Port::Pages), address)
}

/// Answers at an address until `stop`.
async fn listen(
    flag: &'static str,
    (connections, address): (Arc<Connections>, SocketAddr),
    answer: impl Fn(&Request<Body>) -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
    stop: CancellationToken,
) -> Result<(), Error> {
    let listener = Listener::bind_within(connections, address).await;
    let listener = listener.map_err(|source| Error::Bind { flag, address, source })?;
    let handler = move |request: Request<Body>, _: Peer| std::future::ready(answer(&request));
    tokio::spawn(serving::serve(listener, Http::pages(None), handler, stop));
    Ok(())
}

/// The ports of Services whose load balancer asks which nodes have endpoints.
#[derive(Debug)]
pub struct HealthChecks {
    health: Arc<Health>,
    /// However many Services there are, their ports share one limit.
    connections: Arc<Connections>,
    open: HashMap<(Name, u16), OpenCheck>,
}

#[derive(Debug)]
struct OpenCheck {
    local: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl HealthChecks {
    pub fn new(health: Arc<Health>) -> Self {
        HealthChecks { health, connections: Connections::of(Port::HealthChecks), open: HashMap::new() }
    }

    /// Opens, updates and closes ports so that they are these.
    pub async fn set(&mut self, wanted: Vec<(Name, HealthCheck)>) {
        self.open.retain(|key, check| {
            let keep = wanted.iter().any(|(name, w)| *name == key.0 && w.port == key.1);
            if !keep {
                check.stop.cancel();
            }
            keep
        });
        for (name, check) in wanted {
            let key = (name, check.port);
            if let Some(open) = self.open.get(&key) {
                open.local.store(check.local_endpoints, Ordering::Relaxed);
                continue;
            }
            match self.start(&key.0, check).await {
                Ok(open) => {
                    self.open.insert(key, open);
                }
                Err(error) => tracing::warn!(%error, service = %key.0, "the Service's health check port is not served"),
            }
        }
    }

    async fn start(&self, name: &Name, check: HealthCheck) -> Result<OpenCheck, Error> {
        let local = Arc::new(AtomicUsize::new(check.local_endpoints));
        let stop = CancellationToken::new();
        let (health, count, name) = (self.health.clone(), local.clone(), name.clone());
        let answer = move |_: &Request<Body>| {
            let healthy = health.is_healthy(Timestamp::now());
            health_check_answer(&name, count.load(Ordering::Relaxed), healthy)
        };
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, check.port));
        listen("healthCheckNodePort", (self.connections.clone(), address), answer, stop.clone()).await?;
        Ok(OpenCheck { local, stop })
    }
}

fn health_check_answer(name: &str, local: usize, healthy: bool) -> Response<Full<Bytes>> {
    let (namespace, name) = name.split_once('/').unwrap_or(("", name));
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{namespace}\",\n\t\t\"name\": \"{name}\"\n\t}},\n\t\
         \"localEndpoints\": {local},\n\t\"serviceProxyHealthy\": {healthy}\n}}"
    );
    let status = if local > 0 && healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = json(status, body);
    response.headers_mut().insert("x-load-balancing-endpoint-weight", local.into());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_waits_too_long_is_unhealthy() {
        let health = Health::new(Duration::from_secs(30));
        let now = Timestamp::now();
        assert!(!health.is_healthy(now), "not before the first sync");
        health.updated(Duration::from_millis(3), true);
        assert!(health.is_healthy(now));
        health.queued();
        assert!(health.is_healthy(now + Duration::from_secs(50)));
        assert!(!health.is_healthy(now + Duration::from_secs(70)));
        assert_eq!(health.answer(now + Duration::from_secs(70), false).status(), 503);
        health.updated(Duration::from_millis(3), false);
        health.set_eligible(false);
        assert_eq!(health.answer(now, false).status(), 503);
        assert_eq!(health.answer(now, true).status(), 200);
    }

    #[test]
    fn times_are_printed_as_upstream_does() {
        let t: Timestamp = "2026-01-02T03:04:05.25Z".parse().unwrap();
        assert_eq!(go_time(t), "2026-01-02 03:04:05.25 +0000 UTC");
    }
}
