//! `localsubjectaccessreviews` of authorization.k8s.io.

use crate::kind::{Kind, Verbs};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("authorization.k8s.io", "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews")
        .virtual_with(Verbs::CREATE)
}
