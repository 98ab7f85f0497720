//! Who calls the kubelet's API, by certificate or token, and whether they may: both asked of the API server and kept
//! for a while. Does I/O.

use client::delegated::{Attempt, Delegated, User, bearer};
use http::{Method, Request, StatusCode};
use serving::Body;

use super::params::parts;
use super::reply::{Reply, text};
use crate::config::Config;

pub struct Auth {
    delegated: Delegated,
    node: String,
    anonymous: bool,
    tokens_allowed: bool,
    ask: bool,
}

impl Auth {
    pub fn new(client: kube::Client, config: &Config) -> Auth {
        Auth {
            delegated: Delegated::new(client),
            node: config.node_name.clone(),
            anonymous: config.server.anonymous,
            tokens_allowed: config.server.webhook_authentication,
            ask: config.server.webhook_authorization,
        }
    }

    /// `Err` is the refusal to send.
    pub async fn check(&self, certificate: Option<User>, request: &Request<Body>) -> Result<(), Reply> {
        let bearer = bearer(request.headers()).map(str::to_owned);
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let user = match (certificate, bearer) {
            (Some(user), _) => Some(user),
            (None, Some(token)) if self.tokens_allowed => self.delegated.of_token(&token).await,
            (None, None) if self.anonymous => Some(User::anonymous()),
            _ => None,
        };
        let Some(user) = user else { return Err(text(StatusCode::UNAUTHORIZED, "Unauthorized")) };
        if !self.ask {
            return Ok(());
        }
        let verb = verb(&method, &path);
        let wanted = subresources(&path);
        for sub in &wanted {
            match self.may(&user, verb, sub).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    let message = format!(
                        "Authorization error (user={}, verb={verb}, resource=nodes, subresource={wanted:?}): {error}",
                        user.name
                    );
                    return Err(text(StatusCode::INTERNAL_SERVER_ERROR, message));
                }
            }
        }
        let shown: Vec<String> = wanted.iter().map(|s| format!("{s:?}")).collect();
        let message = format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])\n",
            user.name,
            shown.join(" ")
        );
        Err(text(StatusCode::FORBIDDEN, message))
    }

    async fn may(&self, user: &User, verb: &'static str, subresource: &'static str) -> Result<bool, String> {
        let attempt = Attempt::Node { verb, node: self.node.clone(), subresource };
        self.delegated.may(user, attempt).await.map_err(|e| crate::api::message(&e))
    }
}

/// What a path is for: a WebSocket begins with GET, and what runs a command is no reading.
fn verb(method: &Method, path: &str) -> &'static str {
    let streams = ["exec", "attach", "portForward", "run"];
    if parts(path).first().is_some_and(|first| streams.contains(&first.as_str())) {
        return "create";
    }
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// Subresources of the node that allow a path; the first one is the finest.
fn subresources(path: &str) -> Vec<&'static str> {
    let below = |root: &str| path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
    if below("/stats") {
        vec!["stats"]
    } else if below("/metrics") {
        vec!["metrics"]
    } else if below("/logs") {
        vec!["log"]
    } else if below("/checkpoint") {
        vec!["checkpoint"]
    } else if below("/configz") {
        vec!["configz", "proxy"]
    } else if below("/healthz") {
        vec!["healthz", "proxy"]
    } else if below("/pods") || below("/runningpods") {
        vec!["pods", "proxy"]
    } else {
        vec!["proxy"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_map_to_subresources() {
        assert_eq!(subresources("/stats/summary"), ["stats"]);
        assert_eq!(subresources("/metrics"), ["metrics"]);
        assert_eq!(subresources("/metricsx"), ["proxy"]);
        assert_eq!(subresources("/pods"), ["pods", "proxy"]);
        assert_eq!(subresources("/exec/a/b/c"), ["proxy"]);
    }

    /// A role that may `get` nodes/proxy ran commands in any pod of the node by a WebSocket.
    #[test]
    fn a_stream_begun_with_get_needs_create_here_too() {
        for path in
            ["/exec/ns/pod/c", "/attach/ns/pod/c", "/portForward/ns/pod", "/run/ns/pod/c", "//exec/a/b", "/%65xec/a/b"]
        {
            assert_eq!(verb(&Method::GET, path), "create", "{path}");
        }
        assert_eq!((verb(&Method::GET, "/pods"), verb(&Method::GET, "/logs/exec")), ("get", "get"));
    }
}
