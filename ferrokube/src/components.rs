//! The table of all that runs, in start order: which role each component belongs to, how it is started with the others
//! of its host, and how it runs alone, under its upstream name and with upstream's flags. To find a component, begin
//! here. Called by `server`, which starts the rows of a host's roles, and by the command line for one alone.

use std::ffi::OsString;

use anyhow::Result;

use crate::cluster::{Component, control_plane, flannel, node};
use crate::component;
use crate::config::Roles;
use crate::fault::Fault;

const CONTROL_PLANE: Roles = Roles::CONTROL_PLANE;
const NODE: Roles = Roles::NODE;

/// Every component, in start order; they stop in the reverse order.
pub const COMPONENTS: &[Component] = &[
    Component {
        name: "etcd",
        step: "etcd",
        roles: CONTROL_PLANE,
        restarts: false,
        writer: "etcd",
        start: |a| Box::pin(control_plane::etcd(a)),
        alone: component::etcd::run,
    },
    Component {
        name: "kube-apiserver",
        step: "kube-apiserver",
        roles: CONTROL_PLANE,
        restarts: false,
        writer: "apiserver",
        start: |a| Box::pin(control_plane::apiserver(a)),
        alone: component::apiserver::run,
    },
    Component {
        name: "kube-controller-manager",
        step: "kube-controller-manager",
        roles: CONTROL_PLANE,
        restarts: true,
        writer: "controller_manager",
        start: |a| Box::pin(control_plane::controller_manager(a)),
        alone: component::controller_manager::run,
    },
    Component {
        name: "kube-scheduler",
        step: "kube-scheduler",
        roles: CONTROL_PLANE,
        restarts: true,
        writer: "scheduler",
        start: |a| Box::pin(control_plane::scheduler(a)),
        alone: component::scheduler::run,
    },
    Component {
        name: "container-runtime",
        step: "Container runtime and pod network",
        roles: NODE,
        restarts: false,
        writer: "runtime",
        start: |a| Box::pin(node::runtime(a)),
        alone: component::runtime::run,
    },
    Component {
        name: "flannel",
        step: "flannel: the way to pods of other hosts",
        roles: NODE,
        restarts: true,
        writer: "flannel",
        start: |a| Box::pin(flannel::start(a)),
        alone: component::flannel::run,
    },
    Component {
        name: "kube-proxy",
        step: "kube-proxy",
        roles: NODE,
        restarts: true,
        writer: "proxy",
        start: |a| Box::pin(node::proxy(a)),
        alone: component::proxy::run,
    },
    Component {
        name: "kube-dns",
        step: "Cluster DNS answers",
        roles: NODE,
        restarts: true,
        writer: "dns",
        start: |a| Box::pin(node::dns(a)),
        alone: component::dns::run,
    },
    Component {
        name: "kubelet",
        step: "kubelet: the node is Ready",
        roles: NODE,
        restarts: true,
        writer: "kubelet",
        start: |a| Box::pin(node::kubelet(a)),
        alone: component::kubelet::run,
    },
];

/// Links whose name is not the component's: upstream's name of the program, where a CNI plugin has the component's.
const LINKS: &[(&str, &str)] = &[("flanneld", "flannel")];

/// Whether a link of this name is one to a component.
pub fn is_link(name: &str) -> bool {
    let other = LINKS.iter().any(|(_, component)| *component == name);
    of(name).is_some() && !other || LINKS.iter().any(|(link, _)| *link == name)
}

/// The row of this name.
pub fn of(name: &str) -> Option<&'static Component> {
    COMPONENTS.iter().find(|component| component.name == name)
}

/// Runs the component that the first word names, alone.
pub fn run(args: &[OsString]) -> Result<()> {
    let name = args.first().and_then(|a| a.to_str()).unwrap_or_default();
    let name = LINKS.iter().find(|(link, _)| *link == name).map_or(name, |(_, component)| component);
    let Some(component) = of(name) else {
        let names: Vec<_> = COMPONENTS.iter().map(|component| component.name).collect();
        let sentence =
            format!("there is no command {name:?}: see `ferrokube --help`; components are {}", names.join(", "));
        return Err(Fault::usage(sentence).into());
    };
    match args {
        [_, only] if only == "--version" => crate::commands::misc::print(&version(component)),
        _ => (component.alone)(args),
    }
}

/// What upstream's program of this name says of its version: scripts choose flags by it.
fn version(component: &Component) -> String {
    match component.name {
        "etcd" => format!("etcd Version: {}\n", etcd::VERSION),
        _ => format!("Kubernetes {}\n", meta::version::RELEASE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_component_has_one_name_and_one_role() {
        let mut names: Vec<_> = COMPONENTS.iter().map(|component| component.name).collect();
        let of_role = |role| COMPONENTS.iter().filter(move |c| c.roles.has(role)).map(|c| c.name).collect::<Vec<_>>();
        assert_eq!(of_role(CONTROL_PLANE).len() + of_role(NODE).len(), names.len());
        assert_eq!(of_role(NODE), ["container-runtime", "flannel", "kube-proxy", "kube-dns", "kubelet"]);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COMPONENTS.len());
    }

    /// What breaks is told by the name of the table, and the help knows each.
    #[test]
    fn what_names_components_elsewhere_agrees_with_the_table() {
        for folder in crate::crash::FOLDERS {
            assert!(of(folder.1).is_some(), "{folder:?}");
        }
        for (link, name) in LINKS {
            assert!(crate::cli::MORE.contains(link) && of(name).is_some() && of(link).is_none(), "{link}");
            assert!(is_link(link) && !is_link(name), "a CNI plugin has the other name");
        }
        for component in COMPONENTS {
            assert!(crate::cli::MORE.contains(component.name), "{}", component.name);
            assert!(crate::crash::FOLDERS.iter().any(|(_, name)| *name == component.name), "{}", component.name);
        }
    }
}
