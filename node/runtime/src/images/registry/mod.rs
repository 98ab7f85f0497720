//! The registry client: manifests and blobs by the OCI distribution specification 1.1. Does I/O.
//!
//! TLS with the host's certificates and what `registries.yaml` says ([`hosts`]); plain HTTP only for this host's own
//! registries and mirrors that say `http://`. A pod's credentials go to the registry and its token server, never to a
//! mirror or to where a blob is redirected.

mod auth;
mod hosts;
mod trust;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, HeaderValue, LOCATION, USER_AGENT, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use parking_lot::Mutex;

use super::fetch::Credentials;
use super::manifest::MEDIA_TYPES;
use super::reference::Reference;
use super::{ImageError, Result};
pub use auth::Challenge;
use hosts::HostTls;
pub use hosts::Registries;

/// Manifests and indexes are read whole; the specification lets registries refuse more than 4 MiB.
pub const MAX_DOCUMENT: usize = 4 << 20;
/// From a request to the head of its answer.
const HEAD_PATIENCE: Duration = Duration::from_secs(60);
/// From the head of an answer to the end of a document.
const DOCUMENT_PATIENCE: Duration = Duration::from_secs(60);
/// Registries send blobs from elsewhere, over a few hops at most.
const MAX_REDIRECTS: usize = 5;

type Http = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client for one repository at one place.
#[derive(Clone)]
pub struct Registry {
    http: Http,
    /// `https://host[:port]`
    base: String,
    repository: String,
    credentials: Option<Credentials>,
    authorization: Arc<Mutex<Option<HeaderValue>>>,
}

/// Somewhere to ask for an image.
#[derive(Clone)]
pub struct Place {
    /// `https://host[:port]`
    pub base: String,
    /// What the image is called there.
    pub repository: String,
    /// Those that the file has for the host, or the mirror's own address holds; a mirror is told no others.
    credentials: Option<Credentials>,
    pub tls: Option<Arc<HostTls>>,
    /// Not a mirror.
    is_registry: bool,
}

impl Place {
    fn new(base: &str, repository: String, is_registry: bool, registries: &Registries) -> Self {
        let host = registries.host(base);
        Place { base: base.to_owned(), repository, credentials: host.credentials, tls: host.tls, is_registry }
    }

    /// A mirror, or the registry by another scheme, as a URL names it.
    fn listed(url: &str, repository: String, registry: &str, registries: &Registries) -> Self {
        let parts = url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?)));
        let Some((scheme, (user, host))) = parts else {
            let is_registry = url.split_once("://").is_some_and(|(_, host)| host == registry);
            return Place::new(url, repository, is_registry, registries);
        };
        let (username, password) = user.split_once(':').unwrap_or((user, ""));
        let credentials = Credentials::Password { username: username.to_owned(), password: password.to_owned() };
        let place = Place::new(&format!("{scheme}://{host}"), repository, host == registry, registries);
        Place { credentials: Some(credentials), ..place }
    }

    /// What it may know of who asks: a pod's own secret has the first word at the registry that it was made for, and
    /// whoever runs a mirror isn't whom it was made for.
    pub fn credentials(&self, of_pull: &Option<Credentials>) -> Option<Credentials> {
        of_pull.as_ref().filter(|_| self.is_registry).or(self.credentials.as_ref()).cloned()
    }
}

/// Places to ask for a reference, in order: its mirrors, then the registry itself unless it is among them.
pub fn places(reference: &Reference, registries: &Registries) -> Vec<Place> {
    let host = if reference.registry == "docker.io" { "registry-1.docker.io" } else { &reference.registry };
    let mut places = Vec::new();
    if let Some(mirror) = registries.mirror(&reference.registry) {
        let repository = mirror.rewrite(&reference.repository);
        let listed = |url: &String| Place::listed(url, repository.clone(), host, registries);
        places.extend(mirror.endpoints.iter().map(listed));
    }
    if !places.iter().any(|place| place.is_registry) {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let local = name == "localhost" || name == "[::1]" || name.starts_with("127.");
        let base = format!("{}://{host}", if local { "http" } else { "https" });
        places.push(Place::new(&base, reference.repository.clone(), true, registries));
    }
    places
}

/// The authorities that this host trusts.
fn host_roots() -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// One client for all requests to a place: connections and certificates are shared.
pub fn http_client(tls: Option<&HostTls>) -> Result<Http> {
    let tls = match tls {
        Some(tls) => tls.client(),
        None => serving::tls::client(Some(host_roots()), None).map_err(|e| e.to_string()),
    };
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(Duration::from_secs(15)));
    let https = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls.map_err(ImageError::Registry)?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(Client::builder(hyper_util::rt::TokioExecutor::new()).build(https))
}

impl Registry {
    /// A client for a repository at a place.
    pub fn new(http: Http, base: &str, repository: &str, credentials: Option<Credentials>) -> Self {
        let authorization = Arc::new(Mutex::new(None));
        Registry { http, base: base.to_owned(), repository: repository.to_owned(), credentials, authorization }
    }

    /// A manifest or index by tag or digest.
    pub async fn manifest(&self, selector: &str) -> Result<Bytes> {
        let url = format!("{}/v2/{}/manifests/{selector}", self.base, self.repository);
        let answer = self.get(&url).await?;
        let what = format!("{}:{selector}", self.repository);
        read_whole(answer, &what).await
    }

    /// A blob's content as it comes. The caller checks the digest.
    pub async fn blob(&self, digest: &str) -> Result<Incoming> {
        let url = format!("{}/v2/{}/blobs/{digest}", self.base, self.repository);
        Ok(self.get(&url).await?.into_body())
    }

    /// A small blob.
    pub async fn document(&self, digest: &str) -> Result<Bytes> {
        let url = format!("{}/v2/{}/blobs/{digest}", self.base, self.repository);
        read_whole(self.get(&url).await?, digest).await
    }

    async fn get(&self, url: &str) -> Result<Response<Incoming>> {
        let held = self.authorization.lock().clone();
        let answer = self.follow(url, held).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return self.check(url, answer);
        }
        let header = answer.headers().get(WWW_AUTHENTICATE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let authorization = self.log_in(&Challenge::parse(header)).await?;
        *self.authorization.lock() = Some(authorization.clone());
        let answer = self.follow(url, Some(authorization)).await?;
        self.check(url, answer)
    }

    fn check(&self, url: &str, answer: Response<Incoming>) -> Result<Response<Incoming>> {
        let host = self.base.split("://").nth(1).unwrap_or_default();
        let of = format!("{host}/{}", self.repository);
        match answer.status() {
            status if status.is_success() => Ok(answer),
            StatusCode::NOT_FOUND => {
                let what = url.rsplit('/').next().unwrap_or_default();
                let sign = if what.contains(':') { '@' } else { ':' };
                Err(ImageError::RegistryNotFound(format!("{of}{sign}{what}: not found")))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(ImageError::Denied(format!(
                "pull access denied for {of}: it doesn't exist or needs other credentials"
            ))),
            StatusCode::TOO_MANY_REQUESTS => {
                Err(ImageError::Registry(format!("{of}: the registry limits how often it may be asked; try later")))
            }
            status => Err(ImageError::Registry(format!("{of}: the registry answered {status}"))),
        }
    }

    /// Follows redirects; credentials stay with the first host.
    async fn follow(&self, url: &str, authorization: Option<HeaderValue>) -> Result<Response<Incoming>> {
        let mut url = url.to_owned();
        let first_host = host_of(&url);
        for _ in 0..=MAX_REDIRECTS {
            let same = host_of(&url) == first_host;
            let answer = self.send(&url, authorization.clone().filter(|_| same)).await?;
            if !answer.status().is_redirection() {
                return Ok(answer);
            }
            let target = answer.headers().get(LOCATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
            if url.starts_with("https://") && target.starts_with("http://") {
                return Err(ImageError::Registry(format!("{url}: redirected from https to http")));
            }
            url = if target.starts_with('/') { format!("{}{target}", origin(&url)) } else { target.to_owned() };
        }
        Err(ImageError::Registry(format!("{url}: too many redirects")))
    }

    async fn send(&self, url: &str, authorization: Option<HeaderValue>) -> Result<Response<Incoming>> {
        let uri: Uri = url.parse().map_err(|_| ImageError::Registry(format!("{url:?} is not an address")))?;
        let mut request = Request::builder().method(Method::GET).uri(uri);
        for kind in MEDIA_TYPES {
            request = request.header(ACCEPT, kind);
        }
        request = request.header(ACCEPT, "*/*").header(USER_AGENT, concat!("ferrokube/", env!("CARGO_PKG_VERSION")));
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(Full::default()).map_err(|e| ImageError::Registry(e.to_string()))?;
        send(&self.http, request, url).await
    }
}

async fn send(http: &Http, request: Request<Full<Bytes>>, url: &str) -> Result<Response<Incoming>> {
    match tokio::time::timeout(HEAD_PATIENCE, http.request(request)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(e)) => Err(ImageError::Registry(format!("{}: {}", origin(url), causes(&e)))),
        Err(_) => Err(ImageError::Registry(format!("{}: no answer for {} s", origin(url), HEAD_PATIENCE.as_secs()))),
    }
}

/// The innermost reason is what helps: "connection refused", "unknown issuer".
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut inner = error.source();
    while let Some(cause) = inner {
        text = cause.to_string();
        inner = cause.source();
    }
    text
}

async fn read_whole(answer: Response<Incoming>, what: &str) -> Result<Bytes> {
    let limited = http_body_util::Limited::new(answer.into_body(), MAX_DOCUMENT);
    let slow = |_| ImageError::Registry(format!("{what}: not there after {} s", DOCUMENT_PATIENCE.as_secs()));
    let body = tokio::time::timeout(DOCUMENT_PATIENCE, limited.collect()).await.map_err(slow)?;
    Ok(body.map_err(|e| ImageError::Registry(format!("{what}: {e}")))?.to_bytes())
}

fn origin(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    format!("{}://{host}", url.split("://").next().unwrap_or_default())
}

fn host_of(url: &str) -> String {
    origin(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Registries {
        Registries::parse(text).unwrap()
    }

    #[test]
    fn where_images_are_asked_for() {
        let of = |name: &str, registries: &Registries| {
            let found = places(&Reference::parse(name).unwrap(), registries);
            found.into_iter().map(|place| format!("{} {}", place.base, place.repository)).collect::<Vec<_>>()
        };
        let none = Registries::default();
        assert_eq!(of("busybox", &none), ["https://registry-1.docker.io library/busybox"]);
        assert_eq!(of("localhost:5000/a", &none), ["http://localhost:5000 a"]);
        assert_eq!(of("127.0.0.1:5000/a", &none), ["http://127.0.0.1:5000 a"]);
        assert_eq!(of("10.0.0.1:5000/a", &none), ["https://10.0.0.1:5000 a"]);
        let mirrors = file("mirrors: {docker.io: {endpoint: ['http://cache:5000/v2/'], rewrite: {'^library': hub}}}");
        let both = ["http://cache:5000 hub/busybox", "https://registry-1.docker.io library/busybox"];
        assert_eq!(of("busybox", &mirrors), both, "the registry itself keeps its names");
        let plain = file("mirrors: {'my.example:5000': {endpoint: ['http://my.example:5000']}}");
        assert_eq!(of("my.example:5000/a", &plain), ["http://my.example:5000 a"], "it is the registry");
    }

    #[test]
    fn a_mirror_learns_no_secret_of_a_pull_and_a_pods_own_wins_over_the_files() {
        let secret = |name: &str| Some(Credentials::Password { username: name.into(), password: "p".into() });
        let user = |credentials: Option<Credentials>| match credentials {
            Some(Credentials::Password { username, password }) => format!("{username}:{password}"),
            _ => String::new(),
        };
        let registries = file(
            "mirrors: {'*': {endpoint: ['http://cache:5000', 'https://own:key@other/v2/', 'https://known']}}\n\
             configs: {known: {auth: {username: a, password: b}}, registry.test: {auth: {username: c, password: d}}}\n",
        );
        let found = places(&Reference::parse("registry.test/a").unwrap(), &registries);
        let asked = |of_pull: Option<Credentials>| {
            let all = found.iter().map(|place| (place.base.clone(), user(place.credentials(&of_pull))));
            all.map(|(base, user)| format!("{base} {user}")).collect::<Vec<_>>()
        };
        let mirrors = ["http://cache:5000 ", "https://other own:key", "https://known a:b"];
        assert_eq!(asked(secret("me")), [&mirrors[..], &["https://registry.test me:p"]].concat());
        assert_eq!(asked(None), [&mirrors[..], &["https://registry.test c:d"]].concat());
    }
}
