//! What the audit log is told at each point of the chain; the rest a stage tells the call's trail itself. Without an
//! audit log there is no trail, and this costs nothing.

use bytes::Bytes;
use codec::{DecodeError, Decoded, Form};
use meta::Status;
use serde_json::Value;

use crate::http::call::Call;
use crate::registry::options::FieldValidation;
use crate::registry::{Registry, decode};
use crate::server::Core;

/// Begins the trail of a call; refuses one that could not be logged and must not go on so.
pub fn begin(core: &Core, call: &mut Call) -> Result<(), Status> {
    if let Some(audit) = &core.audit {
        call.trail = audit.begin(call)?;
    }
    Ok(())
}

/// Logs a call whose credentials were refused, under the ID that its answer carries.
pub fn refused(core: &Core, call: &Call, status: &Status) {
    if let Some(audit) = &core.audit {
        audit.unauthenticated(call, status);
    }
}

/// Logs the body of a call, where the policy wants it.
pub fn body(core: &Core, call: &Call, body: &Bytes) {
    if let Some(trail) = call.trail.as_ref().filter(|trail| trail.wants_request() && !body.is_empty()) {
        trail.asked(shown(&core.objects.registry.load(), call, body));
    }
}

/// What the audit log shows of a body: a patch as it is, an object as it was sent. Null for what can't be read, which is
/// refused and told a moment later.
fn shown(registry: &Registry, call: &Call, body: &Bytes) -> Value {
    let kind = call.header(http::header::CONTENT_TYPE);
    let any = |decoded: Result<Decoded, DecodeError>| decoded.map(|decoded| decoded.object).unwrap_or_default();
    if kind.contains("yaml") {
        return any(codec::yaml::decode(body, Form::Any));
    }
    if !kind.contains("protobuf") {
        return any(codec::json::decode(body, Form::Any));
    }
    let served = registry.get(&call.info.group, &call.info.version, &call.info.resource);
    let sub = served.and_then(|served| served.kind.subresource(&call.info.subresource));
    let decoded = match (served, sub, call.info.verb) {
        (_, _, "delete" | "deletecollection") => decode::decode_options(call, body, "DeleteOptions"),
        (_, Some(sub), _) => decode::decode_as(call, &sub.kind, body, FieldValidation::Ignore),
        (Some(served), None, _) => decode::decode(call, served, body, FieldValidation::Ignore),
        _ => return Value::Null,
    };
    decoded.unwrap_or_default()
}
