//! The table of controllers. A row names what upstream names: the controller, the service account it acts as, what it
//! watches. What is not in the table is not done.

use crate::setup::Setup;

pub mod bootstrap;
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
pub mod service_cidr;
pub mod service_lb;
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
    /// What `--controllers` called it before 1.28, and still may; empty when it had no other name.
    pub older: &'static str,
    /// Its service account in `kube-system`; RBAC's bootstrap roles are bound to it. Empty: the manager's own identity.
    pub account: &'static str,
    /// Resources of its shared informers; the garbage collector and quotas watch metadata of everything besides.
    pub watches: &'static [&'static str],
    /// Runs with `--controllers=*`.
    pub enabled: bool,
    pub start: fn(&mut Setup),
}

impl Controller {
    /// Whether a word of `--controllers` means this one.
    pub fn is(&self, word: &str) -> bool {
        word == self.name || (word == self.older && !word.is_empty())
    }

    /// Whether `--controllers` asks for it; the last word about it wins over `*`.
    pub fn is_wanted(&self, words: &[String]) -> bool {
        let named = words.iter().rev().find_map(|word| match word.strip_prefix('-') {
            Some(not) if self.is(not) => Some(false),
            None if self.is(word) => Some(true),
            _ => None,
        });
        named.unwrap_or(self.enabled && words.iter().any(|word| word == "*"))
    }
}

/// Every controller there is, by name.
pub const ALL: &[Controller] = &[
    Controller {
        name: "bootstrap-signer-controller",
        older: "bootstrapsigner",
        account: "bootstrap-signer",
        watches: &["configmaps", "secrets"],
        enabled: false,
        start: bootstrap::signer::start,
    },
    Controller {
        name: "certificatesigningrequest-approving-controller",
        older: "csrapproving",
        account: "certificate-controller",
        watches: &["certificatesigningrequests.certificates.k8s.io"],
        enabled: true,
        start: certificates::approving::start,
    },
    Controller {
        name: "certificatesigningrequest-cleaner-controller",
        older: "csrcleaner",
        account: "certificate-controller",
        watches: &["certificatesigningrequests.certificates.k8s.io"],
        enabled: true,
        start: certificates::cleaner::start,
    },
    Controller {
        name: "certificatesigningrequest-signing-controller",
        older: "csrsigning",
        account: "certificate-controller",
        watches: &["certificatesigningrequests.certificates.k8s.io"],
        enabled: true,
        start: certificates::signing::start,
    },
    Controller {
        name: "clusterrole-aggregation-controller",
        older: "clusterrole-aggregation",
        account: "clusterrole-aggregation-controller",
        watches: &["clusterroles.rbac.authorization.k8s.io"],
        enabled: true,
        start: clusterrole_aggregation::start,
    },
    Controller {
        name: "cronjob-controller",
        older: "cronjob",
        account: "cronjob-controller",
        watches: &["cronjobs.batch", "jobs.batch"],
        enabled: true,
        start: cronjob::start,
    },
    Controller {
        name: "daemonset-controller",
        older: "daemonset",
        account: "daemon-set-controller",
        watches: &["controllerrevisions.apps", "daemonsets.apps", "nodes", "pods"],
        enabled: true,
        start: daemonset::start,
    },
    Controller {
        name: "deployment-controller",
        older: "deployment",
        account: "deployment-controller",
        watches: &["deployments.apps", "pods", "replicasets.apps"],
        enabled: true,
        start: deployment::start,
    },
    Controller {
        name: "disruption-controller",
        older: "disruption",
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
        older: "endpoint",
        account: "endpoint-controller",
        watches: &["endpoints", "pods", "services"],
        enabled: true,
        start: endpoints::start,
    },
    Controller {
        name: "endpointslice-controller",
        older: "endpointslice",
        account: "endpointslice-controller",
        watches: &["endpointslices.discovery.k8s.io", "nodes", "pods", "services"],
        enabled: true,
        start: endpointslice::start,
    },
    Controller {
        name: "endpointslice-mirroring-controller",
        older: "endpointslicemirroring",
        account: "endpointslicemirroring-controller",
        watches: &["endpoints", "endpointslices.discovery.k8s.io", "services"],
        enabled: true,
        start: endpointslice_mirroring::start,
    },
    Controller {
        name: "garbage-collector-controller",
        older: "garbagecollector",
        account: "generic-garbage-collector",
        watches: &[],
        enabled: true,
        start: garbage_collector::start,
    },
    Controller {
        name: "job-controller",
        older: "job",
        account: "job-controller",
        watches: &["jobs.batch", "pods"],
        enabled: true,
        start: job::start,
    },
    Controller {
        name: "kubelet-serving-approving-controller",
        older: "",
        account: "certificate-controller",
        watches: &["certificatesigningrequests.certificates.k8s.io", "endpointslices.discovery.k8s.io", "nodes"],
        enabled: false,
        start: certificates::serving::start,
    },
    Controller {
        name: "namespace-controller",
        older: "namespace",
        account: "namespace-controller",
        watches: &["namespaces", "pods"],
        enabled: true,
        start: namespace::start,
    },
    Controller {
        name: "node-ipam-controller",
        older: "nodeipam",
        account: "node-controller",
        watches: &["nodes"],
        enabled: true,
        start: node_ipam::start,
    },
    Controller {
        name: "node-lifecycle-controller",
        older: "nodelifecycle",
        account: "node-controller",
        watches: &["leases.coordination.k8s.io", "nodes", "pods"],
        enabled: true,
        start: node_lifecycle::start,
    },
    Controller {
        name: "persistentvolume-protection-controller",
        older: "pv-protection",
        account: "pv-protection-controller",
        watches: &["persistentvolumes"],
        enabled: true,
        start: storage_protection::start_volumes,
    },
    Controller {
        name: "persistentvolumeclaim-protection-controller",
        older: "pvc-protection",
        account: "pvc-protection-controller",
        watches: &["persistentvolumeclaims", "pods"],
        enabled: true,
        start: storage_protection::start_claims,
    },
    Controller {
        name: "pod-garbage-collector-controller",
        older: "podgc",
        account: "pod-garbage-collector",
        watches: &["nodes", "pods"],
        enabled: true,
        start: pod_gc::start,
    },
    Controller {
        name: "replicaset-controller",
        older: "replicaset",
        account: "replicaset-controller",
        watches: &["pods", "replicasets.apps"],
        enabled: true,
        start: replicaset::start,
    },
    Controller {
        name: "replicationcontroller-controller",
        older: "replicationcontroller",
        account: "replication-controller",
        watches: &["pods", "replicationcontrollers"],
        enabled: true,
        start: replicationcontroller::start,
    },
    Controller {
        name: "resourcequota-controller",
        older: "resourcequota",
        account: "resourcequota-controller",
        watches: &["persistentvolumeclaims", "pods", "resourcequotas", "services"],
        enabled: true,
        start: resourcequota::start,
    },
    Controller {
        name: "root-ca-certificate-publisher-controller",
        older: "root-ca-cert-publisher",
        account: "root-ca-cert-publisher",
        watches: &["configmaps", "namespaces"],
        enabled: true,
        start: root_ca::start,
    },
    Controller {
        name: "service-cidr-controller",
        older: "",
        account: "service-cidrs-controller",
        watches: &["ipaddresses.networking.k8s.io", "servicecidrs.networking.k8s.io"],
        enabled: true,
        start: service_cidr::start,
    },
    Controller {
        name: "service-lb-controller",
        older: "service",
        account: "service-controller",
        watches: &["endpointslices.discovery.k8s.io", "leases.coordination.k8s.io", "nodes", "services"],
        // Where there is a cloud, its own controller of this name gives addresses.
        enabled: false,
        start: service_lb::start,
    },
    Controller {
        name: "serviceaccount-controller",
        older: "serviceaccount",
        account: "service-account-controller",
        watches: &["namespaces", "serviceaccounts"],
        enabled: true,
        start: serviceaccount::start,
    },
    Controller {
        name: "serviceaccount-token-controller",
        older: "serviceaccount-token",
        account: "",
        watches: &["secrets", "serviceaccounts"],
        enabled: true,
        start: serviceaccount_token::start,
    },
    Controller {
        name: "statefulset-controller",
        older: "statefulset",
        account: "statefulset-controller",
        watches: &["controllerrevisions.apps", "persistentvolumeclaims", "pods", "statefulsets.apps"],
        enabled: true,
        start: statefulset::start,
    },
    Controller {
        name: "taint-eviction-controller",
        older: "",
        account: "node-controller",
        watches: &["nodes", "pods"],
        enabled: true,
        start: taint_eviction::start,
    },
    Controller {
        name: "token-cleaner-controller",
        older: "tokencleaner",
        account: "token-cleaner",
        watches: &["secrets"],
        enabled: false,
        start: bootstrap::cleaner::start,
    },
    Controller {
        name: "ttl-after-finished-controller",
        older: "ttl-after-finished",
        account: "ttl-after-finished-controller",
        watches: &["jobs.batch"],
        enabled: true,
        start: ttl_after_finished::start,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_chosen_by_name_star_and_minus() {
        let wants = |words: &[&str], enabled: bool| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            Controller { name: "a", older: "old", account: "", watches: &[], enabled, start: |_| {} }.is_wanted(&words)
        };
        assert!(wants(&["*"], true));
        assert!(!wants(&["*"], false), "off by default stays off with a star");
        assert!(wants(&["*", "a"], false));
        assert!(wants(&["*", "old"], false), "by the name of before");
        assert!(!wants(&["*", "-a"], true));
        assert!(!wants(&["*", "-old"], true));
        assert!(!wants(&["b"], true));
    }
}
