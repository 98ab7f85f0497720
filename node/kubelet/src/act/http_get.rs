//! One HTTP GET against a container, for probes and hooks: HTTP/1.1, TLS without a check of the certificate, redirects
//! on the same host followed. Does I/O.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use rustls::pki_types::ServerName;

use crate::act::dial::{self, authority, connect_error};

/// Upstream reads this much of an answer.
const BODY_MAX: usize = 10 << 10;
/// Go's limit, and so upstream's.
const MAX_REDIRECTS: usize = 10;

/// Where to and how.
#[derive(Debug, Clone)]
pub struct Target {
    pub tls: bool,
    pub host: String,
    pub port: u16,
    /// Path and query.
    pub path: String,
    pub headers: HeaderMap,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Target {
    /// The target of an `httpGet` of a container at `ip`.
    pub fn of(container: &Container, get: &HTTPGetAction, ip: &str, agent: &str) -> Result<Target, String> {
        let mut headers = HeaderMap::new();
        for header in get.http_headers.iter().flatten() {
            let name = HeaderName::from_bytes(header.name.as_bytes());
            let value = HeaderValue::from_str(&header.value);
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.append(name, value);
            }
        }
        if !headers.contains_key(USER_AGENT) {
            headers.insert(USER_AGENT, HeaderValue::from_str(agent).map_err(|e| e.to_string())?);
        }
        let path = get.path.as_deref().unwrap_or("/");
        Ok(Target {
            tls: get.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https")),
            host: get.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(ip).to_owned(),
            port: dial::port(container, &get.port)?,
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
            headers,
        })
    }

    fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", authority(&self.host, self.port), self.path)
    }
}

/// Sends the request. `Err` is the text that users see.
pub async fn get(target: &Target, timeout: Duration) -> Result<Answer, String> {
    match tokio::time::timeout(timeout, follow(target.clone())).await {
        Ok(answer) => answer,
        Err(_) => Err(format!(
            "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            target.url()
        )),
    }
}

async fn follow(mut target: Target) -> Result<Answer, String> {
    for _ in 0..=MAX_REDIRECTS {
        let (answer, location) = once(&target).await.map_err(|e| format!("Get \"{}\": {e}", target.url()))?;
        let next = location.filter(|_| (300..400).contains(&answer.status)).and_then(|l| redirected(&target, &l));
        match next {
            Some(next) => target = next,
            None => return Ok(answer),
        }
    }
    Err(format!("Get \"{}\": stopped after {MAX_REDIRECTS} redirects", target.url()))
}

/// The next target, if it is on the same host.
fn redirected(from: &Target, location: &str) -> Option<Target> {
    if location.starts_with('/') {
        return Some(Target { path: location.to_owned(), ..from.clone() });
    }
    let uri: http::Uri = location.parse().ok()?;
    let tls = uri.scheme_str()? == "https";
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let host = uri.host()?.trim_matches(['[', ']']).to_owned();
    let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    (host == from.host).then(|| Target { tls, host, port, path, headers: from.headers.clone() })
}

async fn once(target: &Target) -> Result<(Answer, Option<String>), String> {
    let at = authority(&target.host, target.port);
    let dial = |e: &std::io::Error| format!("dial tcp {at}: {}", connect_error(e));
    let stream = tokio::net::TcpStream::connect((target.host.as_str(), target.port)).await.map_err(|e| dial(&e))?;
    if !target.tls {
        return exchange(TokioIo::new(stream), target).await;
    }
    let name = ServerName::try_from(target.host.clone()).map_err(|e| e.to_string())?;
    // Probes talk to whatever the container presents, as upstream documents it.
    let config = serving::tls::client(None, None).map_err(|e| e.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await.map_err(|e| e.to_string())?;
    exchange(TokioIo::new(stream), target).await
}

async fn exchange<S>(stream: S, target: &Target) -> Result<(Answer, Option<String>), String>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(|e| e.to_string())?;
    let driver = tokio::spawn(connection);
    let mut request = http::Request::get(&target.path).body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    *request.headers_mut() = target.headers.clone();
    if !request.headers().contains_key(HOST) {
        let host = HeaderValue::from_str(&authority(&target.host, target.port)).map_err(|e| e.to_string())?;
        request.headers_mut().insert(HOST, host);
    }
    let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
    let status = response.status().as_u16();
    let location = response.headers().get(LOCATION).and_then(|l| l.to_str().ok()).map(str::to_owned);
    let body = Limited::new(response.into_body(), BODY_MAX).collect().await;
    let body = body.map(|b| String::from_utf8_lossy(&b.to_bytes()).into_owned()).unwrap_or_default();
    driver.abort();
    Ok((Answer { status, body }, location))
}
