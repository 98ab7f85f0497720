//! The server's named health checks: `/livez`, `/readyz`, `/healthz`, each with its checks below it. I/O: asks the store.
//!
//! A check that upstream has because of something that this server does otherwise is left out; the others have
//! upstream's names, so that probes which exclude or ask for one work.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::{self, HeaderValue};
use meta::Status;
use telemetry::health::{Asked, Outcome, page, single};

use crate::http::body::Body;
use crate::http::call::Call;
use crate::http::respond::response;
use crate::server::Core;
use crate::storage::RangeRequest;

/// How long the store may take to answer a check; upstream's.
const STORE: Duration = Duration::from_secs(2);

/// What a check looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Nothing: that there is an answer is the answer.
    Alive,
    /// The store answers.
    Store,
    /// The watch caches are loaded.
    Caches,
    /// What the server sets up at start is there.
    Started,
    /// The server is not about to stop.
    Staying,
}

struct Check {
    name: &'static str,
    look: Look,
    /// Not a part of /livez and /healthz: a restart would not help.
    ready_only: bool,
}

const fn check(name: &'static str, look: Look) -> Check {
    Check { name, look, ready_only: false }
}

const fn ready(name: &'static str, look: Look) -> Check {
    Check { name, look, ready_only: true }
}

/// Every check, in upstream's order.
const CHECKS: &[Check] = &[
    check("ping", Look::Alive),
    check("log", Look::Alive),
    check("etcd", Look::Store),
    ready("etcd-readiness", Look::Store),
    ready("informer-sync", Look::Caches),
    check("poststarthook/start-apiextensions-controllers", Look::Started),
    check("poststarthook/crd-informer-synced", Look::Caches),
    check("poststarthook/start-system-namespaces-controller", Look::Started),
    check("poststarthook/start-cluster-authentication-info-controller", Look::Started),
    check("poststarthook/rbac/bootstrap-roles", Look::Started),
    check("poststarthook/scheduling/bootstrap-system-priority-classes", Look::Started),
    check("poststarthook/priority-and-fairness-config-producer", Look::Started),
    check("poststarthook/bootstrap-controller", Look::Started),
    ready("shutdown", Look::Staying),
];

/// The endpoints, without their slash.
pub const ENDPOINTS: [&str; 3] = ["healthz", "livez", "readyz"];

fn of(endpoint: &str) -> impl Iterator<Item = &'static Check> {
    let ready = endpoint == "readyz";
    CHECKS.iter().filter(move |check| ready || !check.ready_only)
}

/// Paths of all endpoints and their checks, for the index of the server.
pub fn paths() -> impl Iterator<Item = String> {
    ENDPOINTS.into_iter().flat_map(|endpoint| {
        let below = of(endpoint).map(move |check| format!("/{endpoint}/{}", check.name));
        std::iter::once(format!("/{endpoint}")).chain(below)
    })
}

/// Answers `/<endpoint>` or `/<endpoint>/<check>`; `None` when there is no such check.
pub async fn serve(
    core: &Arc<Core>,
    call: &Call,
    endpoint: &'static str,
    wanted: &str,
) -> Result<Option<Response<Body>>, Status> {
    let asked = Asked::new(call.query.iter());
    let (code, text) = if wanted.is_empty() {
        let mut outcomes = Vec::new();
        for check in of(endpoint) {
            let outcome = match asked.excludes(check.name) {
                true => Outcome::Excluded,
                false => core.look(check, endpoint).await,
            };
            outcomes.push((check.name, outcome));
        }
        page(endpoint, &outcomes, &asked)
    } else {
        let Some(check) = of(endpoint).find(|check| check.name == wanted) else {
            return Ok(None);
        };
        single(&core.look(check, endpoint).await)
    };
    let mut answer = response(code, "text/plain; charset=utf-8", text);
    answer.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(Some(answer))
}

impl Core {
    async fn look(&self, check: &Check, endpoint: &'static str) -> Outcome {
        let outcome = match check.look {
            Look::Alive => Ok(()),
            Look::Store => ask_store(self).await,
            Look::Caches if self.hub.revision() > 0 => Ok(()),
            Look::Caches => Err("the watch caches are not loaded yet".to_owned()),
            Look::Started if self.is_started() => Ok(()),
            Look::Started => Err("not finished".to_owned()),
            Look::Staying if self.is_ending() => Err("process is shutting down".to_owned()),
            Look::Staying => Ok(()),
        };
        let outcome = match outcome {
            Ok(()) => Outcome::Passed,
            Err(why) => {
                tracing::warn!(check = check.name, endpoint, why, "a health check failed");
                Outcome::Failed(why)
            }
        };
        self.metrics.checks.note(check.name, endpoint, &outcome);
        outcome
    }
}

/// Reads a key that is never there, as upstream does: the answer counts, not what it says.
pub async fn ask_store(core: &Core) -> Result<(), String> {
    let key = Bytes::from(format!("{}/health", core.config.etcd_prefix));
    let request = RangeRequest { key, limit: 1, keys_only: true, ..RangeRequest::default() };
    match tokio::time::timeout(STORE, core.store.range(request)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("error getting data from etcd: context deadline exceeded".to_owned()),
    }
}
