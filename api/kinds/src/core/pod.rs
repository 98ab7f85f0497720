//! `pods`.

use meta::Gvk;

use crate::hooks::Hooks;
use crate::kind::{Action, Column, Kind, Selectable, Verbs, Writes};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "Pod", "pods")
        .short(&["po"])
        .category("all")
        .connect("attach", "PodAttachOptions", Action::Attach, Verbs::CREATE.and(Verbs::GET))
        .foreign(
            "binding",
            Gvk::new("", "v1", "Binding"),
            vec![Gvk::new("", "v1", "Binding")],
            Action::Binding,
            Verbs::CREATE,
        )
        .writing(
            "ephemeralcontainers",
            Action::EphemeralContainers,
            Verbs::GET_PATCH_UPDATE,
            Writes { prepare: super::pod_strategy::prepare_ephemeral, validate: super::pod_validate::ephemeral },
        )
        .foreign(
            "eviction",
            Gvk::new("policy", "v1", "Eviction"),
            vec![Gvk::new("policy", "v1", "Eviction"), Gvk::new("policy", "v1beta1", "Eviction")],
            Action::Eviction,
            Verbs::CREATE,
        )
        .connect("exec", "PodExecOptions", Action::Exec, Verbs::CREATE.and(Verbs::GET))
        .own("log", Action::Log, Verbs::GET)
        .connect("portforward", "PodPortForwardOptions", Action::PortForward, Verbs::CREATE.and(Verbs::GET))
        .connect("proxy", "PodProxyOptions", Action::Proxy, Verbs::PROXY)
        .writing(
            "resize",
            Action::Resize,
            Verbs::GET_PATCH_UPDATE,
            Writes { prepare: super::pod_strategy::prepare_resize, validate: super::pod_validate::resize },
        )
        .status()
        .columns(columns())
        .selectable(vec![
            Selectable::path("spec.nodeName").indexed(),
            Selectable::path("spec.restartPolicy"),
            Selectable::path("spec.schedulerName"),
            Selectable::path("spec.serviceAccountName"),
            Selectable::path("spec.hostNetwork").or("false"),
            Selectable::path("status.phase"),
            Selectable::path("status.podIP"),
            Selectable::path("status.podIPs"),
            Selectable::path("status.nominatedNodeName"),
        ])
        .generations()
        .graceful()
        .hooks(Hooks {
            row: super::pod_print::row,
            default: super::pod_strategy::default,
            prepare_create: super::pod_strategy::prepare_create,
            prepare_update: super::pod_strategy::prepare_update,
            prepare_status: super::pod_strategy::prepare_status,
            validate: super::pod_validate::create,
            validate_update: super::pod_validate::update,
            validate_status: super::pod_validate::status,
            warnings: super::pod_spec::warnings::of_pod,
            ..Hooks::NONE
        })
}

fn columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::text("Ready"),
        Column::text("Status"),
        Column::text("Restarts"),
        Column::text("Age"),
        Column::text("IP").wide(),
        Column::text("Node").wide(),
        Column::text("Nominated Node").wide(),
        Column::text("Readiness Gates").wide(),
    ]
}
