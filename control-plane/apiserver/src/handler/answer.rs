//! From what was decided to what is sent: the log's last word, the encoding that the client accepts, the measurement,
//! the upgrade to another protocol, and what every response carries.

use http::Response;
use meta::Status;

use crate::http::answer::Answer;
use crate::http::body::Body;
use crate::http::call::Call;
use crate::http::{respond, websocket};
use crate::ops::metrics::Measure;
use crate::server::Core;

/// Answers a call that went its way.
pub fn answer(core: &Core, call: &Call, measure: Measure, outcome: Result<Answer, Status>) -> Response<Body> {
    // Before it is encoded: the log shows objects, not bytes.
    if let Some(trail) = &call.trail {
        trail.answered(&outcome);
    }
    let response = match outcome {
        Ok(answer) => respond::respond(call, answer),
        Err(status) => respond::encode_status(call, &status),
    };
    let response = match &call.trail {
        Some(trail) => trail.follow(response, call.info.is_long_running()),
        None => response,
    };
    // After the log, around it: a stream is counted as long as its client reads.
    let response = core.metrics.end(measure, call, response);
    // Last, because these change the form of the body and not what it says.
    respond::dress(call, websocket::upgrade(call, response))
}

/// Answers a call that nobody is known to have sent. Its metric is the one of failed authentications.
pub fn refuse(call: &Call, status: &Status) -> Response<Body> {
    respond::dress(call, respond::encode_status(call, status))
}
