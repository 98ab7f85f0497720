//! `selfsubjectaccessreviews` of authorization.k8s.io.

use crate::kind::{Action, Asked, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews")
        .answers(Action::AccessReview(Asked::Caller))
}
