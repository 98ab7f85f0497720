//! The server: what every request shares ([`Core`]), and the way of a request through it ([`Server`]).
//!
//! [`Server::handle`] is the entry for components in the same process: it skips TLS and authentication (the caller
//! says who it is) but neither authorisation nor admission. The listener takes the same way after authenticating.
//! I/O: waits on tokio's clock, so that no request takes longer than it may.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU16, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use jiff::Timestamp;
use meta::Status;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::admission::configuration::Configuration;
use crate::admission::{ADMISSION, Chain, Parts};
use crate::audit::{Asked, Audit, Peer};
use crate::authn::jwt::{Signer, Verifier};
use crate::authn::{self, Authenticator, Credentials, UserInfo, impersonation};
use crate::authz::rbac::Rbac;
use crate::authz::{self, Attributes, Authorizer, Decision};
use crate::cache::hub::Hub;
use crate::cache::{Cache, Entry};
use crate::config::Config;
use crate::crd::source::Work;
use crate::error::Error;
use crate::http::answer::Answer;
use crate::http::body::{self, Body, RequestBody};
use crate::http::call::Call;
use crate::http::request::{Query, RequestInfo};
use crate::http::{content, respond, websocket};
use crate::notes::Warnings;
use crate::ops::limits::{self, Limits};
use crate::ops::metrics::Metrics;
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
    /// What was done about CustomResourceDefinitions.
    pub definitions: Arc<Work>,
    pub(crate) leases: Leases,
    /// Highest revision that this server has written: its own writes are always read back.
    pub(crate) committed: AtomicI64,
    /// Highest revision known to be compacted to: lists of older states have expired, whoever still has them.
    pub(crate) compacted: AtomicI64,
    pub(crate) authenticators: Vec<Box<dyn Authenticator>>,
    pub(crate) authorizers: Vec<Arc<dyn Authorizer>>,
    /// Roles and bindings, whether or not they are an authoriser.
    pub(crate) rbac: Arc<Rbac>,
    pub(crate) admission: Chain,
    /// Reaches kubelets, pods and services.
    pub(crate) proxy: Proxy,
    /// Signs service-account tokens.
    pub(crate) token_signer: Option<Signer>,
    /// Public keys of service-account tokens.
    pub(crate) token_keys: Vec<Verifier>,
    /// Port of the listener; what `--secure-port` says until it is bound.
    pub(crate) port: AtomicU16,
    /// Where the `kubernetes` Service leads; what `--advertise-address` says until the host has another.
    pub(crate) advertised: Mutex<Option<IpAddr>>,
    pub(crate) limits: Limits,
    pub metrics: Metrics,
    /// `None` when no audit log is kept.
    pub(crate) audit: Option<Arc<Audit>>,
    /// What the server sets up at start is there.
    started: AtomicBool,
    /// The server is about to stop: load balancers should send no more.
    ending: AtomicBool,
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
        let registry = Registry::builtin(&hub, &config.etcd_prefix);
        let rbac = Arc::new(Rbac::new(&registry)?);
        let configuration = Configuration::read(config.admission_control_config_file.as_deref())?;
        let limits = Limits::new(config.max_requests_inflight, config.max_mutating_requests_inflight);
        let metrics = Metrics::new(&limits);
        let parts = Parts { config: &config, configuration: &configuration, hub: &hub };
        let admission = Chain::new(ADMISSION, &parts, metrics.admission_seconds.clone())?;
        let audit = Audit::new(&config)?;
        Ok(Core {
            registry: ArcSwap::from_pointee(registry),
            definitions: Arc::default(),
            store,
            hub,
            leases: Leases::default(),
            committed: AtomicI64::new(0),
            compacted: AtomicI64::new(0),
            authenticators: Vec::new(),
            authorizers: Vec::new(),
            rbac,
            admission,
            proxy,
            token_signer: None,
            token_keys: Vec::new(),
            port: AtomicU16::new(config.secure_port),
            advertised: Mutex::new(config.advertise_address),
            limits,
            metrics,
            audit,
            started: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            stopping,
            config,
        })
    }

    /// Whether everything that the server sets up at start is there.
    pub fn is_started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    pub(crate) fn set_started(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// Whether the server is about to stop, or stops.
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire) || self.stopping.is_cancelled()
    }

    pub(crate) fn set_ending(&self) {
        self.ending.store(true, Ordering::Release);
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
    pub fn entries(&self, group: &str, plural: &str, namespace: &str) -> Vec<Arc<Entry>> {
        let registry = self.registry.load();
        let Some(cache) = registry.cache(group, plural) else { return Vec::new() };
        cache.snapshot().range(&cache.namespace_prefix(namespace), &Bytes::new()).cloned().collect()
    }

    /// Store keys of everything that is served and can't be read, without the prefix of the store.
    pub fn unreadable(&self) -> Vec<String> {
        let registry = self.registry.load();
        let stores = registry.iter().filter(|served| served.native()).filter_map(|served| served.store.as_ref());
        let of = |cache: &Cache| {
            let prefix = String::from_utf8_lossy(&cache.prefix).into_owned();
            let below =
                prefix.strip_prefix(&self.config.etcd_prefix).unwrap_or(&prefix).trim_start_matches('/').to_owned();
            cache.corrupt_below(&cache.prefix).into_iter().map(move |tail| format!("{below}{tail}")).collect::<Vec<_>>()
        };
        stores.flat_map(|store| of(&store.cache)).collect()
    }

    /// Asks the authorisers.
    pub fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        authz::decide(&self.authorizers, attributes)
    }

    /// Asks the authorisers for a second verb on what the request names, because it does that verb's work, too. The
    /// refusal is in upstream's words, which are not those of a request refused at the door.
    pub fn require(&self, call: &Call, served: &Served, verb: &'static str) -> Result<(), Status> {
        if call.info.verb == verb {
            return Ok(());
        }
        let namespace = if served.namespaced() { call.info.namespace.as_str() } else { "" };
        match self.decide(&Attributes { verb, namespace, ..attributes(call) }) {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(why) | Decision::NoOpinion(why) => {
                Err(Status::forbidden(&served.gvr(), &call.info.name, why))
            }
        }
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
            tables: true,
            trail: None,
            warnings: Warnings::default(),
        };
        let unlogged = self.begin_trail(&mut call, &parts.uri, parts.extensions.get().copied());
        let measure = self.core.metrics.begin(&self.core, &call, http_body::Body::size_hint(&body).exact());
        let outcome = match unlogged {
            Some(status) => Err(status),
            None => self.within_limits(&mut call, body).await,
        };
        if let Some(trail) = &call.trail {
            trail.answered(&outcome);
        }
        let response = match outcome {
            Ok(answer) => respond::respond(&call, answer),
            Err(status) => respond::encode_status(&call, &status),
        };
        let response = match &call.trail {
            Some(trail) => trail.follow(response, limits::long_running(&call.info)),
            None => response,
        };
        let response = self.core.metrics.end(measure, &call, response);
        respond::dress(&call, websocket::upgrade(&call, response))
    }

    /// Begins what the audit log is told; the refusal of a request that could not be logged and must not go on so.
    fn begin_trail(&self, call: &mut Call, uri: &http::Uri, peer: Option<Peer>) -> Option<Status> {
        let audit = self.core.audit.as_ref()?;
        let uri = uri.path_and_query().map_or("/", |both| both.as_str());
        let asked = Asked {
            info: &call.info,
            uri,
            headers: &call.headers,
            audit_id: &call.audit_id,
            peer,
            user: Some(&call.user),
            now: call.now,
        };
        match audit.begin(&asked) {
            Ok(trail) => call.trail = trail,
            Err(status) => return Some(status),
        }
        None
    }

    /// Answers whoever may ask, if there is room, and in the time that there is.
    async fn within_limits(&self, call: &mut Call, body: RequestBody) -> Result<Answer, Status> {
        self.impersonate(call)?;
        self.authorize(call)?;
        if limits::long_running(&call.info) {
            return self.answer(call, body).await;
        }
        let core = &self.core;
        let allowed = limits::time_allowed(&call.query, core.config.request_timeout)?;
        match tokio::time::timeout(allowed, self.answer_whole(call, body)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                core.metrics.terminated(core, call, "504");
                Err(Status::timeout("request did not complete within the allotted timeout", 0))
            }
        }
    }

    /// Answers a request that is there as a whole: a place is taken when its body has come, not while it comes.
    async fn answer_whole(&self, call: &mut Call, body: RequestBody) -> Result<Answer, Status> {
        let core = &self.core;
        let mut room = core.limits.room(&call.info, &call.user);
        let body = body::receive(body, |bytes| room.grow(bytes)).await?;
        let Some(_place) = core.limits.enter(&call.info, &call.user) else {
            core.metrics.terminated(core, call, "429");
            return Ok(Answer::Raw(limits::refusal()));
        };
        if let Some(trail) = call.trail.as_ref().filter(|trail| trail.wants_request() && !body.is_empty()) {
            trail.asked(content::for_audit(core, call, &body));
        }
        self.answer(call, body::request_body(Body::from(body))).await
    }

    /// Authenticates, then [`Server::handle`].
    pub fn serve(self, request: Request<RequestBody>, peer: serving::Peer) -> BoxFuture<'static, Response<Body>> {
        Box::pin(async move { self.serve_as_presented(request, &peer).await })
    }

    async fn serve_as_presented(&self, mut request: Request<RequestBody>, peer: &serving::Peer) -> Response<Body> {
        let started = Instant::now();
        if let Some(address) = peer.address {
            request.extensions_mut().insert(Peer(address.ip()));
        }
        let audiences = self.core.config.audiences();
        let credentials = Credentials { headers: request.headers(), certificates: &peer.certificates, audiences };
        match authn::authenticate(&self.core.authenticators, &credentials, self.core.config.anonymous_auth).await {
            Ok(caller) => {
                self.core.metrics.authenticated(Some(&caller.user.name), started);
                if caller.user.name != authn::ANONYMOUS {
                    peer.know();
                }
                authn::strip_token_protocol(request.headers_mut());
                self.handle(request, Arc::new(caller.user)).await
            }
            Err(status) => {
                self.core.metrics.authenticated(None, started);
                if let Some(audit) = &self.core.audit {
                    refused_credentials(audit, &request, &status);
                }
                let body = serde_json::to_vec(&status.to_value()).unwrap_or_default();
                respond::response(status.code, "application/json", Bytes::from(body))
            }
        }
    }

    async fn answer(&self, call: &mut Call, body: RequestBody) -> Result<Answer, Status> {
        if !call.info.resource_request {
            return crate::discovery::serve(&self.core, call).await;
        }
        let registry = self.core.registry.load_full();
        let info = &call.info;
        let Some(served) = registry.get(&info.group, &info.version, &info.resource) else {
            // Below a group that nobody serves there is no API, so no Status either.
            return match registry.has_group(&info.group) {
                true => Err(Status::no_such_path()),
                false => Ok(respond::no_such_page()),
            };
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
        let sub = served.kind.subresource(&info.subresource);
        let action = sub.map(|sub| &sub.action).or(served.kind.action.as_ref());
        call.tables = action.is_none_or(kinds::Action::has_table);
        if !call.info.subresource.is_empty() {
            return self.core.subresource(call, served, body).await;
        }
        self.core.verb(call, served, body).await
    }

    /// From here on the caller is whom the `Impersonate-*` headers name, if there are any.
    fn impersonate(&self, call: &mut Call) -> Result<(), Status> {
        let Some(wanted) = impersonation::wanted(&call.headers)? else { return Ok(()) };
        let became = impersonation::impersonate(&attributes(call), wanted, |asked| self.core.decide(asked))?;
        if let Some(trail) = &call.trail {
            trail.impersonates(&became);
        }
        call.user = Arc::new(became);
        Ok(())
    }

    fn authorize(&self, call: &Call) -> Result<(), Status> {
        let attributes = attributes(call);
        let started = Instant::now();
        let decision = self.core.decide(&attributes);
        self.core.metrics.authorized(&decision, started);
        if let Some(trail) = &call.trail {
            trail.decided(&decision);
        }
        match decision {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(authz::forbidden(&attributes, &reason)),
        }
    }
}

/// Tells the audit log of a caller whose credentials were refused.
fn refused_credentials(audit: &Arc<Audit>, request: &Request<RequestBody>, status: &Status) {
    let uri = request.uri();
    let info = RequestInfo::parse(request.method(), uri.path(), &Query::parse(uri.query()));
    let audit_id = meta::uid::new_uid();
    let asked = Asked {
        info: &info,
        uri: uri.path_and_query().map_or("/", |both| both.as_str()),
        headers: request.headers(),
        audit_id: &audit_id,
        peer: request.extensions().get().copied(),
        user: None,
        now: Timestamp::now(),
    };
    audit.unauthenticated(&asked, status);
}

fn attributes(call: &Call) -> Attributes<'_> {
    Attributes {
        field_selector: call.query.text("fieldSelector"),
        label_selector: call.query.text("labelSelector"),
        ..Attributes::of(&call.info, &call.user)
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
        let nameless = call.info.name.is_empty() && matches!(call.info.verb, "update" | "patch");
        // The old paths that begin with /watch/ are for GET alone.
        let watched = call.info.verb == "watch" && call.method != Method::GET;
        if nameless || watched || call.method == Method::HEAD || !served.kind.verbs.has(wanted) {
            return Err(Status::method_not_allowed());
        }
        call.accepted(served.custom, true)?;
        if served.kind.action == Some(kinds::Action::ComponentHealth) {
            return self.components(call, served).await;
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
                if let Some(action) = &served.kind.action {
                    return self.act(call, served, action, &body).await;
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
