//! The handler chain: the one way of a request through the server, whoever sent it. This file is the list of its stages;
//! each is a file beside it, and what a stage decides with is elsewhere (`authn`, `authz`, `audit`, `ops::limits`).
//!
//! ```text
//! the listener ─► authenticate ─┐
//!                               ├─► audit ─► impersonate ─► authorise ─► deadline ─► flow control ─► route ─┐
//! the same process ─────────────┘                                                     local │ page ◄───────┤
//!                                                                                           ▼              │
//! response ◄─ dress ◄─ upgrade ◄─ measure ◄─ log ◄─ encode ◄───────────────────────────  answer ◄──────────┘
//! ```
//!
//! A stage either lets the call go on or ends it with a `Status`, which is answered the same way as what a verb answers.
//! Upstream's chain has the same stages, with one difference: there flow control comes before authorisation, and a
//! request holds its seat while its body is on the way. Here authorisation reads memory alone and so costs less than a
//! seat, and a body is received from nobody who may not send it; a seat is taken when the body is there, so that
//! clients that send slowly hold up nobody.
//!
//! I/O: waits on tokio's clock, so that no request takes longer than it may.

mod answer;
mod audit;
mod authenticate;
mod authorize;
mod deadline;
mod flow_control;
mod impersonate;
mod route;

use std::sync::Arc;

use futures::future::BoxFuture;
use http::{Request, Response};
use meta::Status;

use crate::authn::UserInfo;
use crate::http::answer::Answer;
use crate::http::body::{self, Body, RequestBody};
use crate::http::call::Call;
use crate::server::{Core, Server};

impl Server {
    /// Answers a request that came over the network.
    pub fn serve(self, request: Request<RequestBody>, peer: serving::Peer) -> BoxFuture<'static, Response<Body>> {
        Box::pin(async move {
            let core = &self.core;
            let (parts, body) = request.into_parts();
            let mut call = Call::new(parts, peer.address.map(|address| address.ip()));
            // First, because everything after it goes by who is calling.
            match authenticate::authenticate(core, &mut call, &peer).await {
                Ok(()) => follow(core, call, body).await,
                Err(status) => {
                    // The log is told of those, too, whom no later stage hears of.
                    audit::refused(core, &call, &status);
                    answer::refuse(&call, &status)
                }
            }
        })
    }

    /// Answers a request of a component in this process, which says who it is: it skips TLS and authentication, but
    /// neither authorisation nor admission.
    pub async fn handle(&self, request: Request<RequestBody>, user: Arc<UserInfo>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let mut call = Call::new(parts, None);
        call.identify(user);
        follow(&self.core, call, body).await
    }
}

/// The way of a call whose caller is known, from the log's first word of it to the last.
async fn follow(core: &Core, mut call: Call, body: RequestBody) -> Response<Body> {
    // Before anything can refuse the call: the log has who asked, for what, and as whom, however it ends.
    let logged = audit::begin(core, &mut call);
    let measure = core.metrics.begin(&core.objects.registry.load(), &call, http_body::Body::size_hint(&body).exact());
    let outcome = match logged {
        Ok(()) => decide(core, &mut call, body).await,
        Err(status) => Err(status),
    };
    answer::answer(core, &call, measure, outcome)
}

/// What is answered to a call that the log knows of.
async fn decide(core: &Core, call: &mut Call, body: RequestBody) -> Result<Answer, Status> {
    // Before all that goes by the user: from here on that is whom the caller acts as.
    impersonate::impersonate(core, call)?;
    // Before the body: who may not ask is told without being waited for, and takes no seat of others.
    authorize::authorize(core, call)?;
    // Watches and streams live as long as their clients want, so they take no seat either.
    if call.info.is_long_running() {
        return route::route(core, call, body).await;
    }
    // Around all that waits: a slow body, a queue, the store.
    let allowed = deadline::allowed(core, call)?;
    match tokio::time::timeout(allowed, whole(core, call, body)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(deadline::missed(core, call)),
    }
}

/// What is answered to a request that is taken in as a whole.
async fn whole(core: &Core, call: &mut Call, body: RequestBody) -> Result<Answer, Status> {
    let (body, _room) = flow_control::receive(core, call, body).await?;
    // Right before the work: while a client sends, its seat would be nobody's.
    let _seat = match flow_control::admit(core, call).await {
        Ok(seat) => seat,
        Err(full) => return Ok(full.answer()),
    };
    // As soon as there is a body, and a request that goes on.
    audit::body(core, call, &body);
    // Last: everything before it is the same, whoever answers.
    route::route(core, call, body::request_body(Body::from(body))).await
}
