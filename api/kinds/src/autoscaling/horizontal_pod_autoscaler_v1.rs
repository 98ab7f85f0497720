//! `horizontalpodautoscalers` of autoscaling.

use meta::Gvk;

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("autoscaling", "v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
        .short(&["hpa"])
        .category("all")
        .stored_as(Gvk::new("autoscaling", "v2", "HorizontalPodAutoscaler"))
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Reference"),
            Column::text("Targets"),
            Column::text("MinPods"),
            Column::text("MaxPods"),
            Column::text("Replicas"),
            Column::text("Age"),
        ])
}
