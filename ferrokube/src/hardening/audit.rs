//! The audit log of a hardened cluster: everything that anyone asks for, without its content (that would put Secrets
//! into a file), and without what the cluster's own parts do all day. Pure.

use std::path::PathBuf;

use apiserver::audit::log::{Format, Mode, Options};
use serde_json::{Value, json};

use crate::config::Host;

/// What the CIS benchmark wants: days, files that were put aside, megabytes of a file. About 1.1 GB in all.
const MAX_AGE: u32 = 30;
const MAX_BACKUP: u32 = 10;
const MAX_SIZE: u64 = 100;

pub fn policy_file(host: &Host) -> PathBuf {
    host.security().join("audit-policy.yaml")
}

/// The log, with upstream's defaults of format and mode.
pub fn log(host: &Host) -> Options {
    Options {
        path: host.audit().join("audit.log"),
        max_age: MAX_AGE,
        max_backup: MAX_BACKUP,
        max_size: MAX_SIZE,
        format: Format::Json,
        compress: false,
        mode: Mode::Blocking,
    }
}

/// JSON is YAML.
pub fn policy() -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy",
        // The end of a request says all that its beginning does.
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version"]},
            {"level": "None", "resources": [{"group": "", "resources": ["events"]},
                {"group": "events.k8s.io", "resources": ["events"]}]},
            // Heartbeats: leases of nodes and controllers, what a node says of itself.
            {"level": "None", "verbs": ["get", "update", "patch"],
                "userGroups": ["system:nodes", "system:serviceaccounts:kube-system"],
                "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]},
                    {"group": "", "resources": ["nodes", "nodes/status"]}]},
            {"level": "None", "verbs": ["get", "update", "patch"],
                "users": ["system:kube-controller-manager", "system:kube-scheduler", "system:apiserver"],
                "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
            {"level": "Metadata"},
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_is_one_that_the_api_server_reads() {
        assert!(apiserver::audit::policy::Policy::read(&policy()).is_ok());
    }
}
