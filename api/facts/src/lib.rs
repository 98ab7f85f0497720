//! What Kubernetes means by the fields of its objects, where more than one component must come to the same answer:
//! upstream's component-helpers. A scheduler that tolerates a taint which the kubelet does not, binds pods that are
//! refused for ever; so each question has one function here, with upstream's cases as its test table.
//!
//! | module | answers | upstream |
//! |---|---|---|
//! | [`labels`] | which labels a `LabelSelector` selects | `metav1.LabelSelectorAsSelector` |
//! | [`node_selector`] | which nodes `nodeSelector` and required node affinity allow | `component-helpers/scheduling/corev1/nodeaffinity` |
//! | [`taints`] | which taints a toleration is for | `Toleration.ToleratesTaint` |
//! | [`pods`], [`nodes`] | phase, conditions, readiness | `pkg/api/v1/pod`, `component-helpers/node` |
//! | [`resources`] | what a pod as a whole asks for and is limited to | `component-helpers/resource` |
//! | [`ports`] | whether two host ports get in each other's way | `framework.HostPortInfo` |
//! | [`owners`] | who manages an object | `metav1.GetControllerOf` |
//! | [`announcing`] | which node answers for a load balancer's address | ours |
//!
//! Pure, on the typed objects of k8s-openapi. Knows nothing of caches, plans or components; what works on JSON before
//! an object is typed (defaults, validation, columns) is in `kinds`, and how a selector is written in `meta::labels`.

#![warn(missing_docs)]

pub mod announcing;
pub mod labels;
pub mod node_selector;
pub mod nodes;
pub mod owners;
pub mod pods;
pub mod ports;
pub mod resources;
pub mod taints;
