//! `selfsubjectrulesreviews` of authorization.k8s.io.

use crate::kind::{Action, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("authorization.k8s.io", "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews")
        .answers(Action::RulesReview)
}
