//! The server: what every request shares ([`Core`]), and the way of a request through it ([`Server`]).
//!
//! [`Server::handle`] is the entry for components in the same process: it skips TLS and authentication (the caller
//! says who it is) but neither authorisation nor admission. The listener takes the same way after authenticating.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU16, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use jiff::Timestamp;
use meta::Status;
use parking_lot::Mutex;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::admission;
use crate::authn::jwt::{Signer, Verifier};
use crate::authn::{self, Authenticator, Credentials, UserInfo};
use crate::authz::{self, Attributes, Authorizer, Decision};
use crate::cache::hub::Hub;
use crate::cache::{Cache, Entry, HeaderSpec};
use crate::config::Config;
use crate::error::Error;
use crate::http::answer::Answer;
use crate::http::body::{self, Body, RequestBody};
use crate::http::call::Call;
use crate::http::request::{Query, RequestInfo};
use crate::http::respond;
use crate::proxy::{Dialer, Proxy};
use crate::registry::{Registry, Served};
use crate::storage::Store;
use crate::storage::lease::Leases;

/// What every request shares.
pub struct Core {
    pub config: Config,
    pub store: Arc<dyn Store>,
    pub hub: Arc<Hub>,
    pub registry: ArcSwap<Registry>,
    pub(crate) leases: Leases,
    /// Highest revision that this server has written: its own writes are always read back.
    pub(crate) committed: AtomicI64,
    pub(crate) authenticators: Vec<Box<dyn Authenticator>>,
    pub(crate) authorizers: Vec<Box<dyn Authorizer>>,
    admission: Vec<&'static admission::Row>,
    /// Reaches kubelets, pods and services.
    pub(crate) proxy: Proxy,
    /// Node ports in use.
    pub(crate) node_ports: Arc<Cache>,
    /// Signs service-account tokens.
    pub(crate) token_signer: Option<Signer>,
    /// Public keys of service-account tokens.
    pub(crate) token_keys: Vec<Verifier>,
    /// Port of the listener; what `--secure-port` says until it is bound.
    pub(crate) port: AtomicU16,
    /// Cancelled when the server stops: long answers end.
    pub stopping: CancellationToken,
}

impl Core {
    pub fn new(
        config: Config,
        store: Arc<dyn Store>,
        hub: Arc<Hub>,
        dialer: Arc<dyn Dialer>,
        stopping: CancellationToken,
    ) -> Result<Core, Error> {
        let proxy = Proxy::new(&config, dialer)?;
        let registry = Registry::builtin(&hub);
        let ports = Bytes::from(format!("{}/ranges/servicenodeports/", config.etcd_prefix));
        let node_ports = hub.declare(ports, HeaderSpec::new([]), None);
        let enabled = |row: &&admission::Row| {
            let named = |list: &[String]| list.iter().any(|name| name == row.plugin.name());
            (row.default_on || named(&config.enable_admission_plugins)) && !named(&config.disable_admission_plugins)
        };
        let admission = admission::ADMISSION.iter().filter(enabled).collect();
        Ok(Core {
            registry: ArcSwap::from_pointee(registry),
            store,
            hub,
            leases: Leases::default(),
            committed: AtomicI64::new(0),
            authenticators: Vec::new(),
            authorizers: Vec::new(),
            admission,
            proxy,
            node_ports,
            token_signer: None,
            token_keys: Vec::new(),
            port: AtomicU16::new(config.secure_port),
            stopping,
            config,
        })
    }

    pub fn admission(&self) -> &[&'static admission::Row] {
        &self.admission
    }

    pub fn last_commit(&self) -> i64 {
        self.committed.load(Ordering::Acquire)
    }

    /// An object by resource and name: from the cache, or from the store when the cache has not heard of it.
    pub async fn find(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Entry>>, Status> {
        let registry = self.registry.load_full();
        let Some(served) = registry.any(group, plural) else { return Ok(None) };
        let store = self.stored(served)?;
        let key = store.cache.key(namespace, name);
        if let Some(entry) = store.cache.get(&key) {
            return Ok(Some(entry));
        }
        self.live(served, &key).await
    }

    /// Every object of a resource (of a namespace, when one is given), as the cache has them.
    pub fn objects(&self, group: &str, plural: &str, namespace: &str) -> Vec<Value> {
        self.entries(group, plural, namespace).iter().map(|entry| entry.object()).collect()
    }

    /// Like [`Core::objects`], unparsed.
    pub fn entries(&self, group: &str, plural: &str, namespace: &str) -> Vec<Arc<Entry>> {
        let registry = self.registry.load();
        let Some(cache) = registry.cache(group, plural) else { return Vec::new() };
        cache.snapshot().range(&cache.namespace_prefix(namespace), &Bytes::new()).cloned().collect()
    }

    /// Asks the authorisers.
    pub fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        authz::decide(&self.authorizers, attributes)
    }
}

/// A running server. Cloning shares it.
#[derive(Clone)]
pub struct Server {
    pub core: Arc<Core>,
}

impl Server {
    /// Answers a request of an identified caller.
    pub async fn handle(&self, request: Request<RequestBody>, user: Arc<UserInfo>) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let raw_query = parts.uri.query().unwrap_or_default().to_owned();
        let query = Query::parse(Some(&raw_query));
        let info = RequestInfo::parse(&parts.method, parts.uri.path(), &query);
        let audit_id = match parts.headers.get(respond::AUDIT_ID).and_then(|id| id.to_str().ok()) {
            Some(id) if !id.is_empty() && id.len() <= 64 => id.to_owned(),
            _ => meta::uid::new_uid(),
        };
        let mut call = Call {
            method: parts.method,
            info,
            query,
            raw_query,
            headers: parts.headers,
            user,
            audit_id,
            now: Timestamp::now(),
            upgrade: Mutex::new(parts.extensions.remove::<hyper::upgrade::OnUpgrade>()),
            warnings: Arc::new(Mutex::new(Vec::new())),
        };
        let response = match self.answer(&mut call, body).await {
            Ok(answer) => respond::respond(&call, answer),
            Err(status) => respond::encode_status(&call, &status),
        };
        respond::dress(&call, response)
    }

    /// Authenticates, then [`Server::handle`].
    pub fn serve(
        self,
        request: Request<RequestBody>,
        certificates: Arc<[rustls::pki_types::CertificateDer<'static>]>,
    ) -> BoxFuture<'static, Response<Body>> {
        Box::pin(async move { self.serve_as_presented(request, &certificates).await })
    }

    async fn serve_as_presented(
        &self,
        request: Request<RequestBody>,
        certificates: &[rustls::pki_types::CertificateDer<'static>],
    ) -> Response<Body> {
        let audiences = self.core.config.audiences();
        let credentials = Credentials { headers: request.headers(), certificates, audiences: &audiences };
        match authn::authenticate(&self.core.authenticators, &credentials, self.core.config.anonymous_auth).await {
            Ok(caller) => self.handle(request, Arc::new(caller.user)).await,
            Err(status) => {
                let body = serde_json::to_vec(&status.to_value()).unwrap_or_default();
                respond::response(status.code, "application/json", Bytes::from(body))
            }
        }
    }

    async fn answer(&self, call: &mut Call, body: RequestBody) -> Result<Answer, Status> {
        self.authorize(call)?;
        if !call.info.resource_request {
            return crate::discovery::serve(&self.core, call).await;
        }
        let registry = self.core.registry.load_full();
        let info = &call.info;
        let Some(served) = registry.get(&info.group, &info.version, &info.resource) else {
            return Err(Status::no_such_path());
        };
        // A collection has the name of its field selector.
        let one = !info.name.is_empty() && !matches!(info.verb, "list" | "watch" | "deletecollection");
        let outside = served.namespaced() && info.namespace.is_empty() && one;
        if outside || (!info.namespace.is_empty() && info.in_namespace && !served.namespaced()) {
            return Err(Status::no_such_path());
        }
        if let Some(warning) = &served.deprecation {
            call.warn(warning.clone());
        }
        if !info.subresource.is_empty() {
            return self.core.subresource(call, served, body).await;
        }
        self.core.verb(call, served, body).await
    }

    fn authorize(&self, call: &Call) -> Result<(), Status> {
        let mut attributes = Attributes::of(&call.info, &call.user);
        attributes.field_selector = call.query.text("fieldSelector");
        attributes.label_selector = call.query.text("labelSelector");
        match self.core.decide(&attributes) {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(authz::forbidden(&attributes, &reason)),
        }
    }
}

impl Core {
    async fn verb(&self, call: &Call, served: &Arc<Served>, body: RequestBody) -> Result<Answer, Status> {
        use kinds::Verbs;
        let all_namespaces = served.namespaced() && call.info.namespace.is_empty();
        let wanted = match call.info.verb {
            "get" => Verbs::GET,
            "list" => Verbs::LIST,
            "watch" => Verbs::WATCH,
            "create" if !all_namespaces => Verbs::CREATE,
            "update" if !all_namespaces => Verbs::UPDATE,
            "patch" if !all_namespaces => Verbs::PATCH,
            "delete" => Verbs::DELETE,
            "deletecollection" if !all_namespaces => Verbs::DELETE_COLLECTION,
            _ => return Err(Status::method_not_allowed()),
        };
        if !served.kind.verbs.has(wanted) {
            return Err(Status::method_not_allowed());
        }
        match call.info.verb {
            "get" => self.get(call, served).await,
            "list" => self.list(call, served).await,
            "watch" => self.watch(call, served).await,
            "create" => {
                if !call.info.name.is_empty() {
                    return Err(Status::method_not_allowed());
                }
                let body = body::read(body).await?;
                if served.store.is_none() {
                    return self.review(call, served, &body).await;
                }
                self.create(call, served, &body).await
            }
            "update" => {
                let body = body::read(body).await?;
                self.update(call, served, crate::registry::update::Part::Main, &body).await
            }
            "patch" => {
                let body = body::read(body).await?;
                self.patch(call, served, crate::registry::update::Part::Main, &body).await
            }
            "delete" => self.delete(call, served, &body::read(body).await?).await,
            _ => self.delete_collection(call, served, &body::read(body).await?).await,
        }
    }
}
