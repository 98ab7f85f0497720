//! The verbs as a value: what they stand on, and what several of them ask. Each verb is in the file of its name, as methods
//! of [`Verbs`]: [`create`](super::create), [`update`](super::update), [`patch`](super::patch),
//! [`delete`](super::delete), [`read`](super::read), [`watch`](super::watch). The server makes one for its clients, and
//! the same one writes what the server writes of its own.

use std::sync::Arc;
use std::time::Duration;

use meta::Status;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::Served;
use super::admit;
use super::objects::Objects;
use crate::admission::{Asked, CallOptions, Chain, Operation, Request};
use crate::authz::chain::Authorizers;
use crate::authz::rbac::Rbac;
use crate::authz::{Attributes, Decision};
use crate::http::call::Call;

/// See the module's head.
pub struct Verbs {
    pub objects: Arc<Objects>,
    pub authorizers: Arc<Authorizers>,
    /// The admission plugins that are on.
    pub admission: Chain,
    /// Roles and bindings, whether or not they are an authoriser.
    pub rbac: Arc<Rbac>,
    /// How long a watch lives at least whose client does not say.
    pub min_watch: Duration,
    /// Cancelled when the server stops: watches end.
    pub stopping: CancellationToken,
}

impl Verbs {
    /// Asks the authorisers for a second verb on what the request names, because it does that verb's work, too. The
    /// refusal is in upstream's words, which are not those of a request refused at the door.
    pub fn require(&self, call: &Call, served: &Served, verb: &'static str) -> Result<(), Status> {
        if call.info.verb == verb {
            return Ok(());
        }
        let namespace = if served.namespaced() { call.info.namespace.as_str() } else { "" };
        match self.authorizers.decide(&Attributes { verb, namespace, ..call.attributes() }) {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(why) | Decision::NoOpinion(why) => {
                Err(Status::forbidden(&served.gvr(), &call.info.name, why))
            }
        }
    }

    /// Asks admission about what was posted to a subresource of an object.
    pub(super) async fn admit_posted(
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
}
