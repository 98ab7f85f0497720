//! Clients of components in this process: requests go to the server's own entry as the component's user, without TLS
//! or a token, but through the same authorisation and admission as everyone else's.

use std::sync::Arc;

use apiserver::{Server, UserInfo};
use http::{Request, Response};
use tower::service_fn;

/// The group that every identified caller is in.
const AUTHENTICATED: &str = "system:authenticated";

/// A client that speaks as `user`.
pub fn client(server: &Server, user: &str, groups: &[&str]) -> kube::Client {
    let mut groups: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
    groups.push(AUTHENTICATED.to_owned());
    let user = Arc::new(UserInfo { name: user.to_owned(), groups, ..UserInfo::default() });
    let server = server.clone();
    client::in_process(service_fn(move |request: Request<kube::client::Body>| {
        let (server, user) = (server.clone(), user.clone());
        async move {
            let request = request.map(apiserver::http::body::request_body);
            Ok::<Response<_>, std::convert::Infallible>(server.handle(request, user).await)
        }
    }))
}

/// A client that speaks as a service account of kube-system, as each controller does.
pub fn service_account(server: &Server, name: &str) -> kube::Client {
    let user = format!("system:serviceaccount:kube-system:{name}");
    client(server, &user, &["system:serviceaccounts", "system:serviceaccounts:kube-system"])
}

#[cfg(test)]
pub mod tests {
    use apiserver::proxy::Tcp;
    use apiserver::storage::memory::MemoryStore;
    use tokio_util::sync::CancellationToken;

    use super::*;

    /// The administrator of an API server of its own, in this process; it ends when the guard is dropped.
    pub async fn admin() -> (kube::Client, tokio_util::sync::DropGuard) {
        let stop = CancellationToken::new();
        let config =
            apiserver::Config { authorization_mode: vec!["AlwaysAllow".to_owned()], ..apiserver::Config::default() };
        let store = Arc::new(MemoryStore::default());
        let server = apiserver::daemon::assemble(config, store, None, Arc::new(Tcp), &stop).await.expect("a server");
        (client(&server, "kubernetes-admin", &["system:masters"]), stop.drop_guard())
    }
}
