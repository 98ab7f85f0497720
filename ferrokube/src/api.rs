//! How whatever runs here reaches its API server: in this process, or elsewhere over TLS. [`Api`] is the one place that
//! knows which; who needs a client says who it is ([`Identity`]) and gets one. Below the components: it knows nothing of
//! what runs, only whom it speaks as. I/O: reads kubeconfigs. Callers: [`crate::cluster`] for the components of a host,
//! [`crate::component`] for each alone.
//!
//! ```text
//!   Api::Here(server)                          Api::At(kubeconfigs)
//!     client(Identity::Proxy)                    client(Identity::Proxy)
//!       │ requests as system:kube-proxy            │ <folder>/kube-proxy.conf: address, CA, certificate
//!       ▼ no TLS, no token                         ▼ TLS; files are read again when they change
//!     Server::handle: authorisation, admission   the same server's listener: authentication first
//! ```

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, anyhow};
use apiserver::{Server, UserInfo};
use controller_manager::ControllerClients;
use http::{Request, Response};
use tower::service_fn;

use crate::fault::Fault;

/// The group that every identified caller is in.
const AUTHENTICATED: &str = "system:authenticated";
/// Where the accounts of controllers and of DNS are.
const SYSTEM: &str = "kube-system";

/// The API server, wherever it is. Cloning shares it.
#[derive(Clone)]
pub enum Api {
    /// In this process: requests go to the server's own entry.
    Here(Server),
    /// Elsewhere, and these say where.
    At(Kubeconfigs),
}

/// kubeconfigs: a file for whoever asks, as a component alone is given one; or a folder with a file for each identity,
/// under kubeadm's names.
#[derive(Debug, Clone)]
pub struct Kubeconfigs(PathBuf);

impl Kubeconfigs {
    pub fn new(path: &Path) -> Kubeconfigs {
        Kubeconfigs(path.to_owned())
    }

    fn of(&self, who: &Identity) -> PathBuf {
        if !self.0.is_dir() {
            return self.0.clone();
        }
        match self.0.join(who.file()) {
            // A folder of before there was flannel: what it may, the node may.
            none if *who == Identity::Flannel && !none.exists() => self.0.join(Identity::NODE_FILE),
            file => file,
        }
    }
}

/// Who speaks. Upstream's names, so that upstream's bootstrap roles are theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// Who sets up what a cluster has besides upstream's objects; only where the API server is.
    Admin,
    ControllerManager,
    Scheduler,
    Proxy,
    /// The account that CoreDNS has upstream.
    Dns,
    /// The account that flannel has upstream.
    Flannel,
    /// The kubelet of the node of this name.
    Node(String),
}

impl Identity {
    /// The account of [`Identity::Dns`].
    pub const DNS_ACCOUNT: &str = "coredns";
    /// The account of [`Identity::Flannel`], in a namespace of its own.
    pub const FLANNEL_ACCOUNT: &str = "flannel";
    pub const FLANNEL_NAMESPACE: &str = "kube-flannel";
    const NODE_FILE: &str = "kubelet.conf";

    /// Name and groups of the user.
    fn user(&self) -> (String, Vec<&'static str>) {
        match self {
            Identity::Admin => ("kubernetes-admin".into(), vec!["system:masters"]),
            Identity::ControllerManager => ("system:kube-controller-manager".into(), vec![]),
            Identity::Scheduler => ("system:kube-scheduler".into(), vec![]),
            Identity::Proxy => ("system:kube-proxy".into(), vec![]),
            Identity::Dns => account(Identity::DNS_ACCOUNT),
            Identity::Flannel => (
                format!("system:serviceaccount:{}:{}", Identity::FLANNEL_NAMESPACE, Identity::FLANNEL_ACCOUNT),
                vec!["system:serviceaccounts", "system:serviceaccounts:kube-flannel"],
            ),
            Identity::Node(name) => (format!("system:node:{name}"), vec!["system:nodes"]),
        }
    }

    /// The name of its kubeconfig.
    pub fn file(&self) -> &'static str {
        match self {
            Identity::Admin => "admin.conf",
            Identity::ControllerManager => "controller-manager.conf",
            Identity::Scheduler => "scheduler.conf",
            Identity::Proxy => "kube-proxy.conf",
            Identity::Dns => "kube-dns.conf",
            Identity::Flannel => "kube-flannel.conf",
            Identity::Node(_) => Identity::NODE_FILE,
        }
    }
}

fn account(name: &str) -> (String, Vec<&'static str>) {
    let groups = vec!["system:serviceaccounts", "system:serviceaccounts:kube-system"];
    (format!("system:serviceaccount:{SYSTEM}:{name}"), groups)
}

impl Api {
    /// The API server that a kubeconfig or a folder of them leads to.
    pub fn at(path: &Path) -> Api {
        Api::At(Kubeconfigs::new(path))
    }

    /// A client that speaks as this identity. An API server elsewhere is not asked yet: it may come later than we do.
    pub async fn client(&self, who: &Identity) -> Result<kube::Client> {
        match self {
            Api::Here(server) => Ok(in_process(server, who.user())),
            Api::At(kubeconfigs) => Ok(client::from_kubeconfig(&kubeconfigs.of(who)).await.map_err(unusable)?),
        }
    }

    /// Clients by which each controller has only the rights of its own.
    pub async fn controller_clients(&self) -> Result<ControllerClients> {
        match self {
            Api::Here(server) => {
                let server = server.clone();
                Ok(Arc::new(move |name: &str| in_process(&server, account(name))))
            }
            Api::At(kubeconfigs) => {
                let file = kubeconfigs.of(&Identity::ControllerManager);
                let accounts = client::ServiceAccounts::from_kubeconfig(&file, SYSTEM).await.map_err(unusable)?;
                Ok(Arc::new(move |name: &str| accounts.client(name)))
            }
        }
    }

    /// Has the `kubernetes` Service lead to this address of the host. An API server elsewhere says that of itself.
    pub async fn advertise(&self, address: IpAddr) -> Result<()> {
        match self {
            Api::Here(server) => server.core.advertise(address).await.map_err(|status| anyhow!("{}", status.message)),
            Api::At(_) => Ok(()),
        }
    }

    /// Keys of objects in the store that can't be read, as far as one knows from here.
    pub fn unreadable(&self) -> Vec<String> {
        match self {
            Api::Here(server) => server.core.objects.unreadable(),
            Api::At(_) => Vec::new(),
        }
    }
}

fn unusable(error: client::connect::ConnectError) -> Fault {
    Fault::failed(format!("--kubeconfig: {error}"))
}

/// A client whose requests go to the server's own entry, without TLS or a token, but through the same authorisation and
/// admission as everyone else's.
fn in_process(server: &Server, (name, groups): (String, Vec<&str>)) -> kube::Client {
    let groups = groups.into_iter().chain([AUTHENTICATED]).map(str::to_owned).collect();
    let user = Arc::new(UserInfo { name, groups, ..UserInfo::default() });
    let (server, stored) = (server.clone(), stored(server));
    client::in_process(service_fn(move |request: Request<kube::client::Body>| {
        let (server, user, stored) = (server.clone(), user.clone(), stored.clone());
        async move {
            let request = request.map(apiserver::http::body::request_body);
            let mut answer = server.handle(request, user).await;
            answer.extensions_mut().insert(stored);
            Ok::<Response<_>, std::convert::Infallible>(answer)
        }
    }))
}

/// The server's own bytes of what it sends, for informers of this process.
fn stored(server: &Server) -> client::Stored {
    let objects = server.core.objects.clone();
    client::Stored::new(move |sent| objects.stored_as(sent.group, sent.plural, sent.namespace, sent.name, sent.text))
}

#[cfg(test)]
pub mod tests {
    use apiserver::proxy::Tcp;
    use apiserver::storage::memory::MemoryStore;
    use k8s_openapi::api::core::v1::Namespace;
    use tokio_util::sync::CancellationToken;

    use super::*;

    /// An API server of its own, in this process; it ends when the guard is dropped.
    async fn server() -> (Server, tokio_util::sync::DropGuard) {
        let stop = CancellationToken::new();
        let config =
            apiserver::Config { authorization_mode: vec!["AlwaysAllow".to_owned()], ..apiserver::Config::default() };
        let store = Arc::new(MemoryStore::default());
        let server = apiserver::daemon::assemble(config, store, None, Arc::new(Tcp), &stop).await.expect("a server");
        (server, stop.drop_guard())
    }

    /// The administrator of an API server of its own, in this process; it ends when the guard is dropped.
    pub async fn admin() -> (kube::Client, tokio_util::sync::DropGuard) {
        let (server, guard) = server().await;
        let client = Api::Here(server).client(&Identity::Admin).await.expect("a client");
        (client, guard)
    }

    #[tokio::test]
    async fn informers_of_this_process_get_the_stored_bytes_themselves() {
        let (server, _guard) = server().await;
        let client = Api::Here(server.clone()).client(&Identity::Admin).await.expect("a client");
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some("a".to_owned());
        let namespaces = kube::Api::<Namespace>::all(client.clone());
        namespaces.create(&kube::api::PostParams::default(), &namespace).await.expect("created");
        let read = Request::get("/api/v1/namespaces/a").body(kube::client::Body::empty());
        let read = client.send(read.expect("a request")).await.expect("an answer");
        let stored = read.extensions().get::<client::Stored>().expect("said with each answer").clone();
        let text = read.into_body().collect_bytes().await.expect("a body");
        let text = std::str::from_utf8(&text).expect("text");
        let sent = client::stored::Sent { group: "", plural: "namespaces", namespace: "", name: "a", text };
        let cache = server.core.objects.registry.load().cache("", "namespaces").expect("a cache");
        let ours = cache.lookup("", "a").expect("stored");
        assert_eq!(stored.find(&sent).expect("the same").as_ptr(), ours.value.as_ptr());
        let later = text.replace("resourceVersion\":\"", "resourceVersion\":\"1");
        assert!(stored.find(&client::stored::Sent { text: &later, ..sent }).is_none(), "another state of it");
    }

    #[test]
    fn a_folder_has_a_file_for_each_identity_and_a_file_is_everybodys() {
        let dir = tempfile::tempdir().expect("a directory");
        let all = Kubeconfigs::new(dir.path());
        assert_eq!(all.of(&Identity::Node("n".into())), dir.path().join("kubelet.conf"));
        assert_eq!(all.of(&Identity::Proxy), dir.path().join("kube-proxy.conf"));
        assert_eq!(all.of(&Identity::Flannel), dir.path().join("kubelet.conf"), "a folder of an older version");
        std::fs::write(dir.path().join("kube-flannel.conf"), "").expect("written");
        assert_eq!(all.of(&Identity::Flannel), dir.path().join("kube-flannel.conf"));
        let one = dir.path().join("mine");
        assert_eq!(Kubeconfigs::new(&one).of(&Identity::Scheduler), one);
    }

    #[tokio::test]
    async fn a_kubeconfig_that_is_missing_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let said = Api::at(dir.path()).client(&Identity::Dns).await.err().expect("refused").to_string();
        assert!(said.contains("kube-dns.conf"), "{said}");
    }
}
