//! From a call on a resource to the verb that it asks for: which verbs there are where, and who does each.

use std::sync::Arc;

use http::Method;
use kinds::Verbs;
use meta::Status;

use super::Served;
use super::update::Part;
use crate::http::answer::Answer;
use crate::http::body::{self, RequestBody};
use crate::http::call::Call;
use crate::server::Core;

impl Core {
    /// Answers a call on a resource that is served here, or on a subresource.
    pub async fn resource(&self, call: &Call, served: &Arc<Served>, body: RequestBody) -> Result<Answer, Status> {
        if !call.info.subresource.is_empty() {
            return self.subresource(call, served, body).await;
        }
        check(call, served)?;
        call.accepted(served.custom, true)?;
        if served.kind.action == Some(kinds::Action::ComponentHealth) {
            return self.components(call, served).await;
        }
        match call.info.verb {
            "get" => self.get(call, served).await,
            "list" => self.list(call, served).await,
            "watch" => self.watch(call, served).await,
            "create" => {
                let body = body::read(body).await?;
                match &served.kind.action {
                    Some(action) => self.act(call, served, action, &body).await,
                    None => self.create(call, served, &body).await,
                }
            }
            "update" => self.update(call, served, Part::Main, &body::read(body).await?).await,
            "patch" => self.patch(call, served, Part::Main, &body::read(body).await?).await,
            "delete" => self.delete(call, served, &body::read(body).await?).await,
            _ => self.delete_collection(call, served, &body::read(body).await?).await,
        }
    }
}

/// Whether the kind has the verb, and the path is one for it.
fn check(call: &Call, served: &Served) -> Result<(), Status> {
    let all_namespaces = served.namespaced() && call.info.namespace.is_empty();
    let nameless = call.info.name.is_empty();
    let (wanted, has_place) = match call.info.verb {
        "get" => (Verbs::GET, call.method != Method::HEAD),
        "list" => (Verbs::LIST, call.method != Method::HEAD),
        // The old paths that begin with /watch/ are for GET alone.
        "watch" => (Verbs::WATCH, call.method == Method::GET),
        "create" => (Verbs::CREATE, !all_namespaces && nameless),
        "update" => (Verbs::UPDATE, !all_namespaces && !nameless),
        "patch" => (Verbs::PATCH, !all_namespaces && !nameless),
        "delete" => (Verbs::DELETE, true),
        "deletecollection" => (Verbs::DELETE_COLLECTION, !all_namespaces),
        _ => return Err(Status::method_not_allowed()),
    };
    if !has_place || !served.kind.verbs.has(wanted) {
        return Err(Status::method_not_allowed());
    }
    Ok(())
}
