//! `localsubjectaccessreviews` of authorization.k8s.io.

use crate::kind::{Action, Asked, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("authorization.k8s.io", "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews")
        .answers(Action::AccessReview(Asked::SubjectHere))
}
