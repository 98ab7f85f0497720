//! Subresources that lead to kubelets, pods and services: log, exec, attach, portforward, proxy. I/O: resolves the names
//! of nodes.

use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::{Method, Response, StatusCode};
use kinds::{Action, Subresource};
use meta::{Gvr, Status};
use serde_json::{Value, json};

use crate::admission::Operation;
use crate::cache::Entry;
use crate::config::Config;
use crate::http::answer::Answer;
use crate::http::body::{Body, RequestBody};
use crate::http::call::Call;
use crate::proxy::target::{self, ProxiedName, escape, with_query};
use crate::proxy::{Backend, Proxy, Trust, page};
use crate::registry::Served;
use crate::registry::verbs::Verbs;

/// Options of a log request that the kubelet takes as they are.
const LOG_OPTIONS: [&str; 9] = [
    "follow",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "tailLines",
    "limitBytes",
    "stream",
    "insecureSkipTLSVerifyBackend",
];

/// Bytes that a kubelet's refusal may have: a sentence, and a node may be anybody's.
const MAX_REFUSAL: usize = 64 << 10;

/// Leads clients to kubelets, pods and services.
pub struct Connections {
    pub verbs: Arc<Verbs>,
    /// Reaches kubelets, pods and services.
    pub proxy: Arc<Proxy>,
    pub config: Arc<Config>,
}

impl Connections {
    pub async fn connect(
        &self,
        call: &Call,
        served: &Arc<Served>,
        sub: &Subresource,
        body: RequestBody,
    ) -> Result<Answer, Status> {
        let proxied = match sub.action {
            Action::Proxy => Some(ProxiedName::parse(&call.info.name)?),
            _ => None,
        };
        let name = proxied.as_ref().map_or(call.info.name.as_str(), |proxied| proxied.name);
        if takes_over(call, served, sub) {
            self.verbs.require(call, served, "create")?;
        }
        let key = self.verbs.objects.key_of(call, served, name)?;
        let Some(entry) = self.verbs.objects.live(served, &key).await? else {
            return Err(Status::not_found(&served.gvr(), name));
        };
        let what = (Operation::Connect, call.info.subresource.as_str());
        self.verbs.admit_posted(call, served, what, name, &mut json!({}), None).await?;
        if let Some(proxied) = proxied {
            return self.proxy_to(call, served, &entry, &proxied, body).await;
        }
        let object = served.object(&entry).await?;
        let Some(backend) = self.pod_backend(call, sub, &object).await? else {
            return Ok(Answer::Raw(crate::http::respond::response(200, "text/plain", Body::empty())));
        };
        let response = self.proxy.forward(call, &backend, body).await?;
        self.relay(sub, response).await.map(Answer::Raw)
    }

    /// The kubelet's path for a request about a pod; `None` when the pod has no node yet and a log is asked for.
    async fn pod_backend(&self, call: &Call, sub: &Subresource, pod: &Value) -> Result<Option<Backend>, Status> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text(&pod["metadata"]["namespace"]), text(&pod["metadata"]["name"]));
        let node = text(&pod["spec"]["nodeName"]);
        let log = sub.action == Action::Log;
        let path = match sub.action {
            Action::PortForward => format!("/portForward/{namespace}/{name}"),
            _ => {
                let container = target::container(pod, call.query.text("container"))?;
                let word = match sub.action {
                    Action::Log => "containerLogs",
                    Action::Attach => "attach",
                    _ => "exec",
                };
                format!("/{word}/{namespace}/{name}/{container}")
            }
        };
        if node.is_empty() {
            return if log {
                Ok(None)
            } else {
                Err(Status::bad_request(format!("pod {name} does not have a host assigned")))
            };
        }
        let query = if log { log_query(call)? } else { stream_query(call) };
        self.kubelet(&node, with_query(&path, &query)).await.map(Some)
    }

    async fn kubelet(&self, node: &str, path_and_query: String) -> Result<Backend, Status> {
        const NODES: Gvr = Gvr::new("", "v1", "nodes");
        let Some(entry) = self.verbs.objects.find("", "nodes", "", node).await? else {
            return Err(Status::not_found(&NODES, node));
        };
        target::kubelet(&entry.object(), &self.config.kubelet_preferred_address_types, path_and_query)
    }

    /// A kubelet's refusal becomes a Status; everything else goes on as it is.
    async fn relay(&self, sub: &Subresource, response: Response<Body>) -> Result<Response<Body>, Status> {
        let code = response.status();
        if code.is_success() || code == StatusCode::SWITCHING_PROTOCOLS || sub.action != Action::Log {
            return Ok(response);
        }
        let body = http_body_util::Limited::new(response.into_body(), MAX_REFUSAL);
        let body = http_body_util::BodyExt::collect(body).await.map_err(Status::internal)?.to_bytes();
        let message = String::from_utf8_lossy(&body).trim().to_owned();
        Err(match code.as_u16() {
            404 => Status::failure(
                404,
                meta::Reason::NotFound,
                format!("the server could not find the requested resource: {message}"),
            ),
            400..=499 => Status::bad_request(message),
            _ => Status::internal(message),
        })
    }

    async fn proxy_to(
        &self,
        call: &Call,
        served: &Arc<Served>,
        entry: &Arc<Entry>,
        proxied: &ProxiedName<'_>,
        body: RequestBody,
    ) -> Result<Answer, Status> {
        if call.info.tail.is_empty() && matches!(call.method, Method::GET | Method::HEAD) {
            return Ok(Answer::Raw(redirect(&with_query(&format!("{}/", call.info.path), call.raw_query()))));
        }
        let tail = if call.info.tail.is_empty() { "/" } else { &call.info.tail };
        let path = with_query(tail, call.raw_query());
        let object = served.object(entry).await?;
        let mut backend = if object["status"]["podIP"].is_string() || object["spec"]["containers"].is_array() {
            pod(&object, proxied)?
        } else if object["status"]["daemonEndpoints"].is_object() || object["status"]["nodeInfo"].is_object() {
            self.node(proxied).await?
        } else {
            self.service(&object, proxied).await?
        };
        if proxied.https && backend.trust == Trust::Plain {
            backend.trust = Trust::Anyone;
        }
        backend.path_and_query = path;
        backend.forwarded = vec![
            ("x-forwarded-host", call.header(header::HOST).to_owned()),
            ("x-forwarded-proto", "https".to_owned()),
            ("x-forwarded-uri", call.info.path.clone()),
        ];
        let mut response = self.proxy.forward(call, &backend, body).await?;
        let prefix = call.info.path.strip_suffix(call.info.tail.as_str()).unwrap_or(&call.info.path).to_owned();
        rewrite_location(&mut response, &prefix, &backend);
        Ok(Answer::Raw(page::behind(response, &prefix, format!("{}:{}", backend.host, backend.port))))
    }

    /// A node's kubelet; with another port asked for, whatever listens there, under the rules for pods.
    async fn node(&self, proxied: &ProxiedName<'_>) -> Result<Backend, Status> {
        let mut backend = self.kubelet(proxied.name, String::new()).await?;
        if proxied.port.is_empty() || proxied.port == backend.port.to_string() {
            return Ok(backend);
        }
        let bad = || Status::bad_request(format!("invalid node request {}", meta::text::quote(proxied.port)));
        backend.port = proxied.port.parse().map_err(|_| bad())?;
        backend.trust = Trust::Plain;
        let found = tokio::net::lookup_host((backend.host.as_str(), backend.port)).await;
        let found: Vec<_> = found.map_err(|error| Status::bad_request(error.to_string()))?.collect();
        // What was looked at is what is dialed.
        backend.host = found.first().map(|at| at.ip().to_string()).unwrap_or_default();
        for at in found {
            target::proxyable(&at.ip().to_string())?;
        }
        Ok(backend)
    }

    async fn service(&self, service: &Value, proxied: &ProxiedName<'_>) -> Result<Backend, Status> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text(&service["metadata"]["namespace"]), text(&service["metadata"]["name"]));
        let port_name = service_port(service, proxied.port).map_err(Status::service_unavailable)?;
        let mut addresses: Vec<(Value, u16)> = Vec::new();
        if let Some(endpoints) = self.verbs.objects.lookup("", "endpoints", &namespace, &name) {
            let endpoints = endpoints.object();
            for subset in endpoints["subsets"].as_array().into_iter().flatten() {
                let ports = subset["ports"].as_array().into_iter().flatten();
                let port = ports.filter(|port| port["name"].as_str().unwrap_or_default() == port_name);
                let Some(port) = port.filter_map(|port| port["port"].as_u64()).next() else { continue };
                for address in subset["addresses"].as_array().into_iter().flatten() {
                    addresses.push((address.clone(), port as u16));
                }
            }
        }
        // Endpoints are written by users: only one that is the address of a pod of the namespace is gone to.
        while !addresses.is_empty() {
            let (address, port) = addresses.swap_remove(rand::random::<u32>() as usize % addresses.len());
            let pod = address["targetRef"]["name"].as_str().unwrap_or_default();
            let pod = self.verbs.objects.find("", "pods", &namespace, pod).await?;
            if pod.is_some_and(|pod| target::backs(&pod.object(), &address, &namespace)) {
                let host = text(&address["ip"]);
                return Ok(Backend {
                    trust: Trust::Plain,
                    host,
                    port,
                    path_and_query: String::new(),
                    forwarded: vec![],
                });
            }
        }
        let name = meta::text::quote(&name);
        Err(Status::service_unavailable(format!("no endpoints available for service {name}")))
    }
}

/// Whether the request runs something in a pod or opens a way into it, so that `create` is asked for whatever the
/// method: a WebSocket begins with GET, for which `get` alone was authorised. A node's proxy leads to the same streams
/// of its kubelet by an upgrade, which upstream leaves at the method's verb.
fn takes_over(call: &Call, served: &Served, sub: &Subresource) -> bool {
    match sub.action {
        Action::Exec | Action::Attach | Action::PortForward => true,
        Action::Proxy => !served.namespaced() && call.headers.contains_key(header::UPGRADE),
        _ => false,
    }
}

/// The name of the service port that is asked for by number or name, or is the only one.
fn service_port<'a>(service: &'a Value, wanted: &'a str) -> Result<&'a str, String> {
    let name = |port: &'a Value| port["name"].as_str().unwrap_or_default();
    let ports = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let asked = service["metadata"]["name"].as_str().unwrap_or_default();
    match (wanted.parse::<u64>(), ports) {
        (Ok(number), _) => {
            let found = ports.iter().find(|port| port["port"].as_u64() == Some(number));
            let none = || format!("no service port {number} found for service {}", meta::text::quote(asked));
            found.map(name).ok_or_else(none)
        }
        (_, [only]) if wanted.is_empty() => Ok(name(only)),
        _ if ports.iter().any(|port| name(port) == wanted) => Ok(wanted),
        _ => {
            let asked = if wanted.is_empty() { asked.to_owned() } else { format!("{asked}:{wanted}") };
            Err(format!("no endpoints available for service {}", meta::text::quote(&asked)))
        }
    }
}

fn pod(pod: &Value, proxied: &ProxiedName<'_>) -> Result<Backend, Status> {
    let name = proxied.name;
    let Some(host) = pod["status"]["podIP"].as_str().filter(|ip| !ip.is_empty()) else {
        return Err(Status::bad_request(format!("pod {name} does not have a pod IP yet")));
    };
    target::proxyable(host)?;
    let containers = || pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers().flat_map(|c| c["ports"].as_array().into_iter().flatten());
    let port = match proxied.port {
        "" => {
            ports.next().and_then(|port| port["containerPort"].as_u64()).unwrap_or(if proxied.https { 443 } else { 80 })
        }
        text => match text.parse() {
            Ok(number) => number,
            Err(_) => ports
                .find(|port| port["name"] == text)
                .and_then(|port| port["containerPort"].as_u64())
                .ok_or_else(|| Status::service_unavailable(format!("no port {text} in pod {name}")))?,
        },
    };
    let port = u16::try_from(port).map_err(|_| Status::bad_request(format!("{port} is no port")))?;
    Ok(Backend {
        trust: Trust::Plain,
        host: host.to_owned(),
        port,
        path_and_query: String::new(),
        forwarded: Vec::new(),
    })
}

fn redirect(to: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(header::LOCATION, to);
    }
    response
}

/// A redirect of the backend to itself stays behind the proxy.
fn rewrite_location(response: &mut Response<Body>, prefix: &str, backend: &Backend) {
    let Some(location) = response.headers().get(header::LOCATION).and_then(|l| l.to_str().ok()) else { return };
    let own =
        [format!("http://{}:{}", backend.host, backend.port), format!("https://{}:{}", backend.host, backend.port)];
    let path = own.iter().find_map(|own| location.strip_prefix(own.as_str())).unwrap_or(location);
    if !path.starts_with('/') {
        return;
    }
    if let Ok(value) = HeaderValue::from_str(&format!("{prefix}{path}")) {
        response.headers_mut().insert(header::LOCATION, value);
    }
}

fn log_query(call: &Call) -> Result<String, Status> {
    for option in ["sinceSeconds", "tailLines", "limitBytes"] {
        call.query.integer(option)?;
    }
    let pairs = call.query.iter().filter(|(key, _)| LOG_OPTIONS.contains(key));
    Ok(pairs.map(|(key, value)| format!("{key}={}", escape(value))).collect::<Vec<_>>().join("&"))
}

/// The kubelet's words for the streams of exec and attach; commands and ports as they are.
fn stream_query(call: &Call) -> String {
    let mut parts = Vec::new();
    for (ours, theirs) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if call.query.flag(ours) {
            parts.push(format!("{theirs}=1"));
        }
    }
    for key in ["command", "port", "ports"] {
        for value in call.query.all(key) {
            let key = if key == "ports" { "port" } else { key };
            parts.push(format!("{key}={}", escape(value)));
        }
    }
    parts.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_port_is_asked_for_by_name_by_number_or_not_at_all() {
        let service = |ports: Value| json!({"metadata": {"name": "web"}, "spec": {"ports": ports}});
        let one = service(json!([{"name": "page", "port": 80, "targetPort": 8080}]));
        let two = service(json!([{"name": "page", "port": 80}, {"name": "stats", "port": 81}]));
        for (wanted, name) in [("", "page"), ("page", "page"), ("80", "page")] {
            assert_eq!(service_port(&one, wanted), Ok(name), "{wanted:?}");
        }
        assert_eq!(service_port(&two, "81"), Ok("stats"));
        let refused = |wanted| service_port(&two, wanted).expect_err(wanted);
        assert_eq!(refused("8080"), "no service port 8080 found for service \"web\"");
        assert_eq!(refused("http"), "no endpoints available for service \"web:http\"");
        assert_eq!(refused(""), "no endpoints available for service \"web\"");
    }
}
