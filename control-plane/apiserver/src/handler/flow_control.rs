//! Who gets in when many ask: room for the body while it comes, then a seat among the requests in flight.

use bytes::Bytes;
use meta::Status;

use crate::http::body::{self, RequestBody};
use crate::http::call::Call;
use crate::ops::limits::{Room, Seat, TooManyRequests};
use crate::server::Core;

/// The body, and the room that it takes until that is dropped.
pub async fn receive(core: &Core, call: &Call, body: RequestBody) -> Result<(Bytes, Room), Status> {
    let mut room = core.limits.room(&call.info, &call.user);
    let body = body::receive(body, |bytes| room.grow(bytes)).await?;
    Ok((body, room))
}

/// A seat, which is somebody else's again when it is dropped.
pub async fn admit(core: &Core, call: &Call) -> Result<Seat, TooManyRequests> {
    let outcome = core.limits.admit(call).await;
    if outcome.is_err() {
        core.metrics.terminated(&core.objects.registry.load(), call, "429");
    }
    outcome
}
