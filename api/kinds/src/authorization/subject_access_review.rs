//! `subjectaccessreviews` of authorization.k8s.io.

use crate::kind::{Kind, Verbs};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews")
        .virtual_with(Verbs::CREATE)
}
