//! Refuses configuration that guards others and that this server cannot enforce yet: webhooks and admission policies.
//!
//! Storing such an object and ignoring it would leave a cluster open that its owner believes closed. A plugin of our
//! own, not of upstream's: a row goes when the mechanism comes.

use async_trait::async_trait;
use meta::{Reason, Status};

use crate::admission::{Mutating, Plugin, Request, World};

/// `(group, plural, what is missing)`.
const REFUSED: [(&str, &str, &str); 6] = [
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", "calling admission webhooks"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", "calling admission webhooks"),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies", "evaluating admission policies"),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings", "evaluating admission policies"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", "evaluating admission policies"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings", "evaluating admission policies"),
];

pub struct RefuseUnenforced;

fn missing(request: &Request<'_>) -> Option<&'static str> {
    let row = REFUSED.iter().find(|(group, plural, _)| request.kind.group == *group && request.kind.plural == *plural);
    row.map(|(_, _, what)| *what)
}

impl Plugin for RefuseUnenforced {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.writes() && missing(request).is_some()
    }
}

#[async_trait]
impl Mutating for RefuseUnenforced {
    async fn admit(&self, request: &mut Request<'_>, _world: &dyn World) -> Result<(), Status> {
        let what = missing(request).unwrap_or_default();
        let message = format!(
            "{} {} is refused: this server does not support {what} yet, and would not enforce what it stores",
            request.kind.resource(),
            meta::text::quote(request.name)
        );
        Err(Status::failure(422, Reason::Invalid, message))
    }
}
