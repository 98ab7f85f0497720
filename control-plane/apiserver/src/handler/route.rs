//! Where a request is answered. A resource that this server serves is local; what is about no resource is a page, such
//! as discovery, health and metrics. A group that another server serves will be a third target.

use std::sync::Arc;

use meta::Status;

use crate::discovery;
use crate::http::answer::Answer;
use crate::http::body::RequestBody;
use crate::http::call::Call;
use crate::http::request::RequestInfo;
use crate::http::respond;
use crate::registry::{Registry, Served};
use crate::server::Core;

/// Who answers.
enum Target {
    /// The verbs, on a resource of ours.
    Local(Arc<Served>),
    /// A page of the server itself.
    Page,
    /// Nobody: below a group that nobody serves there is no API, so no Status either.
    Nowhere,
}

/// Answers a call where it leads.
pub async fn route(core: &Core, call: &mut Call, body: RequestBody) -> Result<Answer, Status> {
    let target = target(&core.objects.registry.load(), &call.info)?;
    match target {
        Target::Local(served) => {
            if let Some(warning) = &served.deprecation {
                call.warn(warning.clone());
            }
            call.tables = has_table(&served, &call.info);
            core.resources.answer(call, &served, body).await
        }
        Target::Page => discovery::serve(core, call).await,
        Target::Nowhere => Ok(respond::no_such_page()),
    }
}

fn target(registry: &Registry, info: &RequestInfo) -> Result<Target, Status> {
    if !info.resource_request {
        return Ok(Target::Page);
    }
    let Some(served) = registry.get(&info.group, &info.version, &info.resource) else {
        return if registry.has_group(&info.group) { Err(Status::no_such_path()) } else { Ok(Target::Nowhere) };
    };
    // A collection has the name of its field selector.
    let one = !info.name.is_empty() && !matches!(info.verb, "list" | "watch" | "deletecollection");
    let outside = served.namespaced() && info.namespace.is_empty() && one;
    if outside || (!info.namespace.is_empty() && info.in_namespace && !served.namespaced()) {
        return Err(Status::no_such_path());
    }
    Ok(Target::Local(served.clone()))
}

/// Whether what is asked for can be shown as a table.
fn has_table(served: &Served, info: &RequestInfo) -> bool {
    let sub = served.kind.subresource(&info.subresource);
    let action = sub.map(|sub| &sub.action).or(served.kind.action.as_ref());
    action.is_none_or(kinds::Action::has_table)
}
