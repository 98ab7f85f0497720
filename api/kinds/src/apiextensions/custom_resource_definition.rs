//! `customresourcedefinitions` of apiextensions.k8s.io.

use crate::kind::{Column, Kind, NameRule};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions")
        .short(&["crd", "crds"])
        .category("api-extensions")
        .stored_at("/registry/apiextensions.k8s.io/customresourcedefinitions")
        .status()
        .columns(vec![Column::name(), Column::text("Scope"), Column::text("Versions"), Column::date("Created At"), Column::text("Group").wide(), Column::text("Kind").wide(), Column::text("ShortNames").wide(), Column::boolean("Established").wide()])
        .names(NameRule::Any)
        .conditional_update()
        .generations()
}
