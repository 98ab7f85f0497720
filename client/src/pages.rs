//! A component's own pages: health by name, metrics, SLIs, over HTTPS as upstream's kube-controller-manager and
//! kube-scheduler serve them. Health is for everybody; the rest for whom the API server lets. I/O: sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use serving::tls::{Clients, Files, Tls, TlsError};
use serving::{Body, Http, Listener, Peer, Port};
use telemetry::Registry;
use telemetry::health::{Asked, Outcome, Record, page, single};
use tokio_util::sync::CancellationToken;

use crate::delegated::{Attempt, Delegated, User, bearer};

const ENDPOINTS: [&str; 3] = ["healthz", "livez", "readyz"];

/// Where the pages are: `--bind-address`, `--secure-port`, `--tls-cert-file`, …
#[derive(Debug, Clone)]
pub struct Config {
    /// `--bind-address` and `--secure-port`; port 0 is any.
    pub address: SocketAddr,
    /// `--tls-cert-file`, `--tls-private-key-file`; read again when they are replaced.
    pub files: Files,
    /// Whose client certificates are identities.
    pub clients: Clients,
}

/// Why the pages cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Certificate, key or authorities can't be used.
    #[error("--tls-cert-file, --tls-private-key-file, --client-ca-file: {0}")]
    Tls(#[from] TlsError),
    /// Mostly: the port is taken.
    #[error("--bind-address, --secure-port: cannot listen on {address}: {source}")]
    Listen {
        /// Where it should have been.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

type Look = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What a component tells.
#[derive(Default)]
pub struct Pages {
    /// What /metrics shows.
    pub metrics: Registry,
    checks: Vec<(&'static str, Look)>,
    record: Record,
}

impl Pages {
    /// What every component tells, with the check that there is an answer.
    pub fn new() -> Pages {
        let mut pages = Pages::default();
        telemetry::process::declare(&pages.metrics);
        telemetry::process::declare_build(&pages.metrics, meta::version::GIT_VERSION);
        pages.check("ping", || Ok(()));
        pages
    }

    /// Adds a health check.
    pub fn check(&mut self, name: &'static str, look: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.checks.push((name, Box::new(look)));
    }

    fn look(&self, endpoint: &'static str, (name, look): &(&'static str, Look)) -> Outcome {
        let outcome = look().map_or_else(Outcome::Failed, |()| Outcome::Passed);
        self.record.note(name, endpoint, &outcome);
        outcome
    }

    /// The page of a path, or `None` when there is none.
    fn answer(&self, path: &str, query: &str) -> Option<Page> {
        match path {
            "/metrics" => return Some((200, telemetry::CONTENT_TYPE, self.metrics.text())),
            "/metrics/slis" => return Some((200, telemetry::CONTENT_TYPE, self.record.text())),
            _ => {}
        }
        let (endpoint, check) = health_path(path)?;
        let (code, text) = if check.is_empty() {
            let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            let asked = Asked::new(pairs);
            let outcomes: Vec<(&str, Outcome)> = self
                .checks
                .iter()
                .map(|check| match asked.excludes(check.0) {
                    true => (check.0, Outcome::Excluded),
                    false => (check.0, self.look(endpoint, check)),
                })
                .collect();
            page(endpoint, &outcomes, &asked)
        } else {
            single(&self.look(endpoint, self.checks.iter().find(|(name, _)| *name == check)?))
        };
        Some((code, "text/plain; charset=utf-8", text))
    }
}

type Page = (u16, &'static str, String);

/// The endpoint and the check of a path below it.
fn health_path(path: &str) -> Option<(&'static str, &str)> {
    let path = path.strip_prefix('/')?;
    let (endpoint, check) = path.split_once('/').unwrap_or((path, ""));
    Some((ENDPOINTS.into_iter().find(|known| *known == endpoint)?, check))
}

struct Server {
    pages: Arc<Pages>,
    delegated: Delegated,
}

/// Serves the pages until shutdown; returns once the address is bound.
pub async fn start(
    config: &Config,
    pages: Arc<Pages>,
    client: kube::Client,
    shutdown: CancellationToken,
) -> Result<SocketAddr, Error> {
    let tls = Tls::new(config.files.clone(), &config.clients)?;
    let fail = |source| Error::Listen { address: config.address, source };
    let listener = Listener::bind(Port::Pages, config.address).await.map_err(fail)?;
    let address = listener.local_addr().map_err(fail)?;
    let server = Arc::new(Server { pages, delegated: Delegated::new(client) });
    let handler = move |request: Request<Body>, peer: Peer| {
        let server = server.clone();
        async move { answer(&server, peer.subject().and_then(User::of_subject), &request).await }
    };
    tokio::spawn(serving::serve(listener, Http::pages(Some(tls)), handler, shutdown));
    Ok(address)
}

async fn answer<B>(server: &Server, caller: Option<User>, request: &Request<B>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return response(StatusCode::METHOD_NOT_ALLOWED.as_u16(), PLAIN, "Method Not Allowed\n".to_owned());
    }
    if health_path(path).is_none()
        && let Err(refusal) = check(server, caller, request).await
    {
        return refusal;
    }
    match server.pages.answer(path, request.uri().query().unwrap_or_default()) {
        Some((code, kind, text)) => response(code, kind, text),
        None => response(StatusCode::NOT_FOUND.as_u16(), PLAIN, "404 page not found\n".to_owned()),
    }
}

const PLAIN: &str = "text/plain; charset=utf-8";

async fn check<B>(server: &Server, caller: Option<User>, request: &Request<B>) -> Result<(), Response<Full<Bytes>>> {
    let user = match (caller, bearer(request.headers())) {
        (Some(user), _) => user,
        (None, Some(token)) => match server.delegated.of_token(token).await {
            Some(user) => user,
            None => return Err(response(401, PLAIN, "Unauthorized\n".to_owned())),
        },
        (None, None) => User::anonymous(),
    };
    let path = request.uri().path().to_owned();
    let forbidden = format!("forbidden: User \"{}\" cannot get path \"{path}\"\n", user.name);
    match server.delegated.may(&user, Attempt::Path { verb: "get", path }).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(response(403, PLAIN, forbidden)),
        Err(error) => Err(response(500, PLAIN, format!("Internal Server Error: {error}\n"))),
    }
}

fn response(code: u16, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_found_by_path() {
        let mut pages = Pages::default();
        pages.check("ping", || Ok(()));
        pages.check("leaderElection", || Err("lost".to_owned()));
        pages.metrics.counter("things_total", "Things.", []).with([]).inc();
        let text = |path| pages.answer(path, "").map(|(code, _, text)| (code, text));
        assert_eq!(text("/healthz/ping"), Some((200, "ok".into())));
        let failed = "[+]ping ok\n[-]leaderElection failed: reason withheld\nlivez check failed\n";
        assert_eq!(text("/livez"), Some((500, failed.into())));
        assert_eq!(pages.answer("/readyz", "exclude=leaderElection").map(|p| p.0), Some(200));
        assert!(text("/metrics").is_some_and(|(_, text)| text.contains("things_total 1\n")));
        assert!(text("/metrics/slis").is_some_and(|(_, text)| text.contains("name=\"leaderElection\"")));
        for path in ["/", "/healthz/other", "/debug/pprof"] {
            assert_eq!(text(path), None, "{path}");
        }
    }
}
