//! What each [`kinds::Action`] does, of a subresource or of a kind that is never stored. Dispatch is on the action in
//! the kind's row, never on a name.

mod binding;
mod components;
mod connect;
mod eviction;
mod scale;
mod token;

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use kinds::{Action, Verbs};
use meta::Status;
use serde_json::Value;

use super::update::Part;
use super::{Served, admit};
use crate::admission::{Asked, CallOptions, Operation, Request};
use crate::http::answer::Answer;
use crate::http::body::{self, RequestBody};
use crate::http::call::Call;
use crate::server::Core;

fn verb_of(method: &Method) -> Option<Verbs> {
    Some(match *method {
        Method::GET | Method::HEAD => Verbs::GET,
        Method::POST => Verbs::CREATE,
        Method::PUT => Verbs::UPDATE,
        Method::PATCH => Verbs::PATCH,
        Method::DELETE => Verbs::DELETE,
        _ => return None,
    })
}

impl Core {
    /// Answers a request for a subresource.
    pub async fn subresource(&self, call: &Call, served: &Arc<Served>, body: RequestBody) -> Result<Answer, Status> {
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
            Action::Scale(paths) => self.scale(call, served, paths, body).await,
            Action::Binding => self.bind(call, served, Some(&call.info.name), &body::read(body).await?).await,
            Action::Eviction => self.evict(call, served, sub, &body::read(body).await?).await,
            Action::Token => self.issue_token(call, served, sub, body).await,
            Action::Log | Action::Exec | Action::Attach | Action::PortForward | Action::Proxy => {
                self.connect(call, served, sub, body).await
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
    pub async fn act(
        &self,
        call: &Call,
        served: &Arc<Served>,
        action: &Action,
        body: &Bytes,
    ) -> Result<Answer, Status> {
        let Action::BindingOf(target) = action else {
            return self.review(call, served, action, body).await;
        };
        let registry = self.registry.load_full();
        let target = registry.get(&target.group, &target.version, &target.resource);
        self.bind(call, target.ok_or_else(Status::no_such_path)?, None, body).await
    }

    /// Asks admission about what was posted to a subresource of an object.
    async fn admit_posted(
        &self,
        call: &Call,
        served: &Served,
        (operation, subresource): (Operation, &str),
        name: &str,
        object: &mut Value,
        options: Option<&dyn CallOptions>,
    ) -> Result<(), Status> {
        let namespace = &call.info.namespace;
        let asked = Asked { operation, kind: &served.kind, subresource, namespace, name, options };
        let mut request = Request::new(admit::by(call), asked, object, None);
        self.admission.admit(&mut request, self).await?;
        self.admission.validate(&request, self).await
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
            Method::GET | Method::HEAD => self.get(call, served).await,
            Method::PUT => self.update(call, served, part, &body::read(body).await?).await,
            Method::PATCH => self.patch(call, served, part, &body::read(body).await?).await,
            _ => Err(Status::method_not_allowed()),
        }
    }
}
