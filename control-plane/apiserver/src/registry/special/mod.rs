//! Answers a call on a resource that is served here: by the verb, or by the action of a subresource or of a kind that is
//! never stored. Dispatch is on what the kind's row says, never on a name. What each [`kinds::Action`] does is a file.

mod binding;
mod components;
mod connect;
mod eviction;
mod review;
mod scale;
mod token;

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use kinds::{Action, Verbs as VerbSet};
use meta::Status;

use self::components::Components;
use self::connect::Connections;
use self::review::Reviews;
use self::token::Tokens;
use super::Served;
use super::update::Part;
use super::verbs::Verbs;
use crate::authn::chain::Authenticators;
use crate::authn::jwt::Signer;
use crate::config::Config;
use crate::http::answer::Answer;
use crate::http::body::{self, RequestBody};
use crate::http::call::Call;
use crate::proxy::Proxy;

/// All that is done with what is served.
pub struct Resources {
    pub verbs: Arc<Verbs>,
    connections: Connections,
    components: Components,
    tokens: Tokens,
    reviews: Reviews,
}

impl Resources {
    /// `signer` is absent when this server signs no tokens.
    pub fn new(
        config: &Arc<Config>,
        verbs: Arc<Verbs>,
        proxy: Proxy,
        authenticators: Arc<Authenticators>,
        signer: Option<Signer>,
    ) -> Resources {
        let proxy = Arc::new(proxy);
        Resources {
            connections: Connections { verbs: verbs.clone(), proxy: proxy.clone(), config: config.clone() },
            components: Components { objects: verbs.objects.clone(), proxy },
            tokens: Tokens { verbs: verbs.clone(), signer, config: config.clone() },
            reviews: Reviews { authenticators, authorizers: verbs.authorizers.clone() },
            verbs,
        }
    }

    /// Answers a call on a resource that is served here, or on a subresource.
    pub async fn answer(&self, call: &Call, served: &Arc<Served>, body: RequestBody) -> Result<Answer, Status> {
        if !call.info.subresource.is_empty() {
            return self.subresource(call, served, body).await;
        }
        check(call, served)?;
        call.accepted(served.custom, true)?;
        if served.kind.action == Some(Action::ComponentHealth) {
            return self.components.answer(call, served).await;
        }
        match call.info.verb {
            "get" => self.verbs.get(call, served).await,
            "list" => self.verbs.list(call, served).await,
            "watch" => self.verbs.watch(call, served).await,
            "create" => {
                let body = body::read(body).await?;
                match &served.kind.action {
                    Some(action) => self.act(call, served, action, &body).await,
                    None => self.verbs.create(call, served, &body).await,
                }
            }
            "update" => self.verbs.update(call, served, Part::Main, &body::read(body).await?).await,
            "patch" => self.verbs.patch(call, served, Part::Main, &body::read(body).await?).await,
            "delete" => self.verbs.delete(call, served, &body::read(body).await?).await,
            _ => self.verbs.delete_collection(call, served, &body::read(body).await?).await,
        }
    }

    /// Answers a request for a subresource.
    async fn subresource(&self, call: &Call, served: &Arc<Served>, body: RequestBody) -> Result<Answer, Status> {
        let Some(sub) = served.kind.subresource(&call.info.subresource) else {
            return Err(match served.custom {
                true => Status::not_found(&served.gvr(), &call.info.name),
                false => Status::no_such_path(),
            });
        };
        let proxied = matches!(sub.action, Action::Proxy);
        // What is served here goes by the method: the verb that was authorised must be that one, and only what lies
        // behind a proxy has a path of its own.
        let deeper = !proxied && !matches!(call.info.tail.as_str(), "" | "/");
        if deeper || matches!(call.info.verb, "watch" | "proxy") {
            return Err(Status::no_such_path());
        }
        if !proxied && !verb_of(&call.method).is_some_and(|verb| sub.verbs.has(verb)) {
            return Err(Status::method_not_allowed());
        }
        if !call.tables {
            call.accepted(served.custom, true)?;
        }
        match &sub.action {
            Action::Status | Action::Finalize | Action::Approval | Action::EphemeralContainers | Action::Resize => {
                self.write_part(call, served, Part::Sub(sub), body).await
            }
            Action::Scale(paths) => self.verbs.scale(call, served, paths, body).await,
            Action::Binding => self.verbs.bind(call, served, Some(&call.info.name), &body::read(body).await?).await,
            Action::Eviction => self.verbs.evict(call, served, sub, &body::read(body).await?).await,
            Action::Token => self.tokens.issue(call, served, sub, body).await,
            Action::Log | Action::Exec | Action::Attach | Action::PortForward | Action::Proxy => {
                self.connections.connect(call, served, sub, body).await
            }
            // These are of kinds, not of subresources.
            Action::BindingOf(_)
            | Action::WhoAmI
            | Action::TokenReview
            | Action::AccessReview(_)
            | Action::RulesReview
            | Action::ComponentHealth => Err(Status::no_such_path()),
        }
    }

    /// Answers the creation of an object that is never stored.
    async fn act(&self, call: &Call, served: &Arc<Served>, action: &Action, body: &Bytes) -> Result<Answer, Status> {
        let Action::BindingOf(target) = action else {
            return self.reviews.answer(call, served, action, body).await;
        };
        let registry = self.verbs.objects.registry.load_full();
        let target = registry.get(&target.group, &target.version, &target.resource);
        self.verbs.bind(call, target.ok_or_else(Status::no_such_path)?, None, body).await
    }

    /// Subresources that show the whole object and change a part of it.
    async fn write_part(
        &self,
        call: &Call,
        served: &Arc<Served>,
        part: Part<'_>,
        body: RequestBody,
    ) -> Result<Answer, Status> {
        match call.method {
            Method::GET | Method::HEAD => self.verbs.get(call, served).await,
            Method::PUT => self.verbs.update(call, served, part, &body::read(body).await?).await,
            Method::PATCH => self.verbs.patch(call, served, part, &body::read(body).await?).await,
            _ => Err(Status::method_not_allowed()),
        }
    }
}

/// Whether the kind has the verb, and the path is one for it.
fn check(call: &Call, served: &Served) -> Result<(), Status> {
    let all_namespaces = served.namespaced() && call.info.namespace.is_empty();
    let nameless = call.info.name.is_empty();
    let (wanted, has_place) = match call.info.verb {
        "get" => (VerbSet::GET, call.method != Method::HEAD),
        "list" => (VerbSet::LIST, call.method != Method::HEAD),
        // The old paths that begin with /watch/ are for GET alone.
        "watch" => (VerbSet::WATCH, call.method == Method::GET),
        "create" => (VerbSet::CREATE, !all_namespaces && nameless),
        "update" => (VerbSet::UPDATE, !all_namespaces && !nameless),
        "patch" => (VerbSet::PATCH, !all_namespaces && !nameless),
        "delete" => (VerbSet::DELETE, true),
        "deletecollection" => (VerbSet::DELETE_COLLECTION, !all_namespaces),
        _ => return Err(Status::method_not_allowed()),
    };
    if !has_place || !served.kind.verbs.has(wanted) {
        return Err(Status::method_not_allowed());
    }
    Ok(())
}

/// The verb that a method stands for, where subresources go by it.
fn verb_of(method: &Method) -> Option<VerbSet> {
    Some(match *method {
        Method::GET | Method::HEAD => VerbSet::GET,
        Method::POST => VerbSet::CREATE,
        Method::PUT => VerbSet::UPDATE,
        Method::PATCH => VerbSet::PATCH,
        Method::DELETE => VerbSet::DELETE,
        _ => return None,
    })
}
