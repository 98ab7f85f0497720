//! As whom the caller acts: the `Impersonate-*` headers, if there are any and the caller has the right.

use std::sync::Arc;

use meta::Status;

use crate::authn::impersonation;
use crate::http::call::Call;
use crate::server::Core;

/// From here on the call's user is whom the headers name. Its caller stays who sent it: the log has both.
pub fn impersonate(core: &Core, call: &mut Call) -> Result<(), Status> {
    let Some(wanted) = impersonation::wanted(&call.headers)? else { return Ok(()) };
    let became = impersonation::impersonate(&call.attributes(), wanted, |asked| core.authorizers.decide(asked))?;
    if let Some(trail) = &call.trail {
        trail.impersonates(&became);
    }
    call.user = Arc::new(became);
    Ok(())
}
