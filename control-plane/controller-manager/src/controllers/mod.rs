//! The table of controllers. A row names what upstream names: the controller, the service account it acts as, what it
//! watches. What is not in the table is not done.

use crate::setup::Setup;

pub mod certificates;
pub mod clusterrole_aggregation;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod endpointslice;
pub mod endpointslice_mirroring;
pub mod garbage_collector;
pub mod job;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod pod_gc;
pub mod replicaset;
pub mod replicationcontroller;
pub mod resourcequota;
pub mod root_ca;
pub mod serviceaccount;
pub mod serviceaccount_token;
pub mod services;
pub mod statefulset;
pub mod storage_protection;
pub mod taint_eviction;
pub mod ttl_after_finished;

/// One controller.
pub struct Controller {
    /// As `--controllers` and upstream's logs call it.
    pub name: &'static str,
    /// Its service account in `kube-system`; RBAC's bootstrap roles are bound to it. Empty: the manager's own identity.
    pub account: &'static str,
    /// Resources of its shared informers; the garbage collector and quotas watch metadata of everything besides.
    pub watches: &'static [&'static str],
    /// Runs with `--controllers=*`.
    pub enabled: bool,
    pub start: fn(&mut Setup),
}

/// Every controller there is, by name.
pub const ALL: &[Controller] = &[
    Controller {
        name: "certificatesigningrequest-approving-controller",
        account: "certificate-controller",
        watches: &["certificatesigningrequests.certificates.k8s.io"],
        enabled: true,
        start: certificates::approving::start,
    },
    Controller {
        name: "certificatesigningrequest-cleaner-controller",
        account: "certificate-controller",
        watches: &["certificatesigningrequests.certificates.k8s.io"],
        enabled: true,
        start: certificates::cleaner::start,
    },
    Controller {
        name: "certificatesigningrequest-signing-controller",
        account: "certificate-controller",
        watches: &["certificatesigningrequests.certificates.k8s.io"],
        enabled: true,
        start: certificates::signing::start,
    },
    Controller {
        name: "clusterrole-aggregation-controller",
        account: "clusterrole-aggregation-controller",
        watches: &["clusterroles.rbac.authorization.k8s.io"],
        enabled: true,
        start: clusterrole_aggregation::start,
    },
    Controller {
        name: "cronjob-controller",
        account: "cronjob-controller",
        watches: &["cronjobs.batch", "jobs.batch"],
        enabled: true,
        start: cronjob::start,
    },
    Controller {
        name: "daemonset-controller",
        account: "daemon-set-controller",
        watches: &["controllerrevisions.apps", "daemonsets.apps", "nodes", "pods"],
        enabled: true,
        start: daemonset::start,
    },
    Controller {
        name: "deployment-controller",
        account: "deployment-controller",
        watches: &["deployments.apps", "pods", "replicasets.apps"],
        enabled: true,
        start: deployment::start,
    },
    Controller {
        name: "disruption-controller",
        account: "disruption-controller",
        watches: &[
            "deployments.apps",
            "poddisruptionbudgets.policy",
            "pods",
            "replicasets.apps",
            "replicationcontrollers",
            "statefulsets.apps",
        ],
        enabled: true,
        start: disruption::start,
    },
    Controller {
        name: "endpoints-controller",
        account: "endpoint-controller",
        watches: &["endpoints", "pods", "services"],
        enabled: true,
        start: endpoints::start,
    },
    Controller {
        name: "endpointslice-controller",
        account: "endpointslice-controller",
        watches: &["endpointslices.discovery.k8s.io", "nodes", "pods", "services"],
        enabled: true,
        start: endpointslice::start,
    },
    Controller {
        name: "endpointslice-mirroring-controller",
        account: "endpointslicemirroring-controller",
        watches: &["endpoints", "endpointslices.discovery.k8s.io", "services"],
        enabled: true,
        start: endpointslice_mirroring::start,
    },
    Controller {
        name: "garbage-collector-controller",
        account: "generic-garbage-collector",
        watches: &[],
        enabled: true,
        start: garbage_collector::start,
    },
    Controller {
        name: "job-controller",
        account: "job-controller",
        watches: &["jobs.batch", "pods"],
        enabled: true,
        start: job::start,
    },
    Controller {
        name: "namespace-controller",
        account: "namespace-controller",
        watches: &["namespaces", "pods"],
        enabled: true,
        start: namespace::start,
    },
    Controller {
        name: "node-ipam-controller",
        account: "node-controller",
        watches: &["nodes"],
        enabled: true,
        start: node_ipam::start,
    },
    Controller {
        name: "node-lifecycle-controller",
        account: "node-controller",
        watches: &["leases.coordination.k8s.io", "nodes", "pods"],
        enabled: true,
        start: node_lifecycle::start,
    },
    Controller {
        name: "persistentvolume-protection-controller",
        account: "pv-protection-controller",
        watches: &["persistentvolumes"],
        enabled: true,
        start: storage_protection::start_volumes,
    },
    Controller {
        name: "persistentvolumeclaim-protection-controller",
        account: "pvc-protection-controller",
        watches: &["persistentvolumeclaims", "pods"],
        enabled: true,
        start: storage_protection::start_claims,
    },
    Controller {
        name: "pod-garbage-collector-controller",
        account: "pod-garbage-collector",
        watches: &["nodes", "pods"],
        enabled: true,
        start: pod_gc::start,
    },
    Controller {
        name: "replicaset-controller",
        account: "replicaset-controller",
        watches: &["pods", "replicasets.apps"],
        enabled: true,
        start: replicaset::start,
    },
    Controller {
        name: "replicationcontroller-controller",
        account: "replication-controller",
        watches: &["pods", "replicationcontrollers"],
        enabled: true,
        start: replicationcontroller::start,
    },
    Controller {
        name: "resourcequota-controller",
        account: "resourcequota-controller",
        watches: &["persistentvolumeclaims", "pods", "resourcequotas", "services"],
        enabled: true,
        start: resourcequota::start,
    },
    Controller {
        name: "root-ca-certificate-publisher-controller",
        account: "root-ca-cert-publisher",
        watches: &["configmaps", "namespaces"],
        enabled: true,
        start: root_ca::start,
    },
    Controller {
        name: "serviceaccount-controller",
        account: "service-account-controller",
        watches: &["namespaces", "serviceaccounts"],
        enabled: true,
        start: serviceaccount::start,
    },
    Controller {
        name: "serviceaccount-token-controller",
        account: "",
        watches: &["secrets", "serviceaccounts"],
        enabled: true,
        start: serviceaccount_token::start,
    },
    Controller {
        name: "statefulset-controller",
        account: "statefulset-controller",
        watches: &["controllerrevisions.apps", "persistentvolumeclaims", "pods", "statefulsets.apps"],
        enabled: true,
        start: statefulset::start,
    },
    Controller {
        name: "taint-eviction-controller",
        account: "node-controller",
        watches: &["nodes", "pods"],
        enabled: true,
        start: taint_eviction::start,
    },
    Controller {
        name: "ttl-after-finished-controller",
        account: "ttl-after-finished-controller",
        watches: &["jobs.batch"],
        enabled: true,
        start: ttl_after_finished::start,
    },
];
