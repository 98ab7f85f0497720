//! `tokenreviews` of authentication.k8s.io.

use crate::kind::{Action, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("authentication.k8s.io", "v1", "TokenReview", "tokenreviews").answers(Action::TokenReview)
}
