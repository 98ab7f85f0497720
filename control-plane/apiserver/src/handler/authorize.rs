//! Whether the user may do what is asked. I/O: measures how long the authorisers take.

use std::time::Instant;

use meta::Status;

use crate::authz::{self, Decision};
use crate::http::call::Call;
use crate::server::Core;

/// Asks the authorisers. Why they decided as they did is kept in the log, of an Allow as of a refusal; the client is told
/// of a refusal alone.
pub fn authorize(core: &Core, call: &Call) -> Result<(), Status> {
    let attributes = call.attributes();
    let started = Instant::now();
    let decision = core.authorizers.decide(&attributes);
    core.metrics.authorized(&decision, started);
    if let Some(trail) = &call.trail {
        trail.decided(&decision);
    }
    match decision {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(authz::forbidden(&attributes, &reason)),
    }
}
