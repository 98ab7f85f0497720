//! The registry client: manifests and blobs by the OCI distribution specification 1.1. Does I/O.
//!
//! TLS with the host's certificates; plain HTTP only for this host's own registries and mirrors that say `http://`.
//! Credentials go to the registry and its token server, never to a mirror or to where a blob is redirected.

mod auth;

use std::collections::BTreeMap;
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

/// Manifests and indexes are read whole; the specification lets registries refuse more than 4 MiB.
pub const MAX_DOCUMENT: usize = 4 << 20;
/// From a request to the head of its answer.
const HEAD_PATIENCE: Duration = Duration::from_secs(60);
/// From the head of an answer to the end of a document.
const DOCUMENT_PATIENCE: Duration = Duration::from_secs(60);
/// Registries send blobs from elsewhere, over a few hops at most.
const MAX_REDIRECTS: usize = 5;

/// Other places to fetch images from, by registry name; `*` stands for every registry. They are tried in order, then the
/// registry itself. An address may hold its own credentials: `https://user:password@mirror`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mirrors(pub BTreeMap<String, Vec<String>>);

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
    /// Those that the mirror's own address holds; a mirror is told no others.
    credentials: Option<Credentials>,
    /// Not a mirror.
    is_registry: bool,
}

impl Place {
    fn mirror(url: &str) -> Self {
        let url = url.trim_end_matches('/').trim_end_matches("/v2");
        let parts = url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?)));
        let Some((scheme, (user, host))) = parts else {
            return Place { base: url.to_owned(), credentials: None, is_registry: false };
        };
        let (username, password) = user.split_once(':').unwrap_or((user, ""));
        let credentials = Credentials::Password { username: username.to_owned(), password: password.to_owned() };
        Place { base: format!("{scheme}://{host}"), credentials: Some(credentials), is_registry: false }
    }

    /// What it may know of who asks: whoever runs a mirror isn't whom the pull secret was made for.
    pub fn credentials(&self, of_pull: &Option<Credentials>) -> Option<Credentials> {
        if self.is_registry { of_pull.clone() } else { self.credentials.clone() }
    }
}

/// Places to ask for a reference, in order.
pub fn places(reference: &Reference, mirrors: &Mirrors) -> Vec<Place> {
    let listed = mirrors.0.get(&reference.registry).or_else(|| mirrors.0.get("*"));
    let mut places: Vec<Place> = listed.into_iter().flatten().map(|url| Place::mirror(url)).collect();
    let host = if reference.registry == "docker.io" { "registry-1.docker.io" } else { &reference.registry };
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let local = name == "localhost" || name == "[::1]" || name.starts_with("127.");
    let base = format!("{}://{host}", if local { "http" } else { "https" });
    places.push(Place { base, credentials: None, is_registry: true });
    places
}

/// One client for all requests of a pull: connections and certificates are shared.
pub fn http_client() -> Result<Http> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| ImageError::Registry(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(Duration::from_secs(15)));
    let https = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls)
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

    #[test]
    fn where_images_are_asked_for() {
        let of = |name: &str, mirrors: &Mirrors| {
            let found = places(&Reference::parse(name).unwrap(), mirrors);
            found.into_iter().map(|place| place.base).collect::<Vec<_>>()
        };
        let none = Mirrors::default();
        assert_eq!(of("busybox", &none), ["https://registry-1.docker.io"]);
        assert_eq!(of("localhost:5000/a", &none), ["http://localhost:5000"]);
        assert_eq!(of("127.0.0.1:5000/a", &none), ["http://127.0.0.1:5000"]);
        assert_eq!(of("10.0.0.1:5000/a", &none), ["https://10.0.0.1:5000"]);
        let mirrors = Mirrors([("docker.io".to_owned(), vec!["http://cache:5000/v2/".to_owned()])].into());
        assert_eq!(of("busybox", &mirrors), ["http://cache:5000", "https://registry-1.docker.io"]);
    }

    #[test]
    fn a_mirror_learns_no_secret_of_a_pull() {
        let secret = |name: &str| Some(Credentials::Password { username: name.into(), password: "p".into() });
        let user = |credentials: Option<Credentials>| match credentials {
            Some(Credentials::Password { username, password }) => format!("{username}:{password}"),
            _ => String::new(),
        };
        let urls = ["http://cache:5000".to_owned(), "https://own:key@other/v2/".to_owned()];
        let mirrors = Mirrors([("*".to_owned(), urls.to_vec())].into());
        let found = places(&Reference::parse("registry.test/a").unwrap(), &mirrors);
        let asked: Vec<_> = found.iter().map(|p| (p.base.as_str(), user(p.credentials(&secret("me"))))).collect();
        let expected = [("http://cache:5000", ""), ("https://other", "own:key"), ("https://registry.test", "me:p")];
        assert_eq!(asked, expected.map(|(base, user)| (base, user.to_owned())));
    }
}
