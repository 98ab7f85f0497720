//! The server's named health checks: `/livez`, `/readyz`, `/healthz`, each with its checks below it. I/O: asks the store.
//!
//! A check that upstream has because of something that this server does otherwise is left out; the others have
//! upstream's names, so that probes which exclude or ask for one work.

use http::Response;
use http::header::{self, HeaderValue};
use meta::Status;
use telemetry::health::{Asked, Outcome, page, single};

use crate::http::body::Body;
use crate::http::call::Call;
use crate::http::respond::response;
use crate::server::Core;

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
    /// Addresses and ports of Services have been looked through.
    Repaired,
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
    check("poststarthook/start-service-ip-repair-controllers", Look::Repaired),
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
    core: &Core,
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
                false => look(core, check, endpoint).await,
            };
            outcomes.push((check.name, outcome));
        }
        page(endpoint, &outcomes, &asked)
    } else {
        let Some(check) = of(endpoint).find(|check| check.name == wanted) else {
            return Ok(None);
        };
        single(&look(core, check, endpoint).await)
    };
    let mut answer = response(code, "text/plain; charset=utf-8", text);
    answer.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(Some(answer))
}

async fn look(core: &Core, check: &Check, endpoint: &'static str) -> Outcome {
    let outcome = match check.look {
        Look::Alive => Ok(()),
        Look::Store => core.objects.ping().await,
        Look::Caches if core.objects.hub.revision() > 0 => Ok(()),
        Look::Caches => Err("the watch caches are not loaded yet".to_owned()),
        Look::Started if core.is_started() => Ok(()),
        Look::Repaired if core.repaired.is_cancelled() => Ok(()),
        Look::Started | Look::Repaired => Err("not finished".to_owned()),
        Look::Staying if core.is_ending() => Err("process is shutting down".to_owned()),
        Look::Staying => Ok(()),
    };
    let outcome = match outcome {
        Ok(()) => Outcome::Passed,
        Err(why) => {
            tracing::warn!(check = check.name, endpoint, why, "a health check failed");
            Outcome::Failed(why)
        }
    };
    core.metrics.checks.note(check.name, endpoint, &outcome);
    outcome
}
