//! `tokenreviews` of authentication.k8s.io.

use crate::kind::{Kind, Verbs};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("authentication.k8s.io", "v1", "TokenReview", "tokenreviews").virtual_with(Verbs::CREATE)
}
