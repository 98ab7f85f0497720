//! `serviceaccounts`.

use meta::Gvk;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Action, Column, Kind, Verbs};
use crate::value::items_mut;

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "ServiceAccount", "serviceaccounts")
        .short(&["sa"])
        .foreign(
            "token",
            Gvk::new("authentication.k8s.io", "v1", "TokenRequest"),
            vec![Gvk::new("authentication.k8s.io", "v1", "TokenRequest")],
            Action::Token,
            Verbs::CREATE,
        )
        .columns(vec![Column::name(), Column::text("Age")])
        .hooks(Hooks {
            prepare_create: |o, _| clean_secrets(o),
            prepare_update: |o, _, _| clean_secrets(o),
            ..Hooks::NONE
        })
}

/// Only the names of secrets are kept.
fn clean_secrets(account: &mut Value) {
    for secret in items_mut(account, "secrets") {
        if let Some(map) = secret.as_object_mut() {
            map.retain(|key, _| key == "name");
        }
    }
}
