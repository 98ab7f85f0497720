//! Who is calling: asks the authenticators about what the connection and the headers present. I/O: measures how long
//! that takes.

use std::sync::Arc;
use std::time::Instant;

use meta::Status;

use crate::authn::{self, Credentials};
use crate::http::call::Call;
use crate::server::Core;

/// Gives the call its caller; or the 401 that ends it. Clients who prove who they are get a better place among the
/// connections of the port.
pub async fn authenticate(core: &Core, call: &mut Call, peer: &serving::Peer) -> Result<(), Status> {
    let started = Instant::now();
    let audiences = &core.authenticators.audiences;
    let credentials = Credentials { headers: &call.headers, certificates: &peer.certificates, audiences };
    match core.authenticators.caller(&credentials).await {
        Ok(caller) => {
            core.metrics.authenticated(Some(&caller.user.name), started);
            if caller.user.name != authn::ANONYMOUS {
                peer.know();
            }
            authn::strip_token_protocol(&mut call.headers);
            call.identify(Arc::new(caller.user));
            Ok(())
        }
        Err(status) => {
            core.metrics.authenticated(None, started);
            Err(status)
        }
    }
}
