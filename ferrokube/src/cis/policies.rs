//! Chapter 5 of the benchmark: roles, service accounts, what pods may ask for, network policies. Most of it is about what
//! people put into the cluster: what can be asked is asked, the rest is theirs to judge.

use serde_json::Value;

use super::{Row, Verdict, fail, holds, manual, pass, row};

const HARDENED: &str = "`up --hardened`, or the label pod-security.kubernetes.io/enforce on each namespace";
const RESTRICTED: &str = "the label pod-security.kubernetes.io/enforce=restricted on each namespace";
const YOURS: &str = "look at the roles of your own: `kubectl get clusterroles,roles -A`";

pub const ROWS: &[Row] = &[
    row("5.1.1", "cluster-admin is bound only where it is needed", |f| {
        let more =
            names(&f.bindings, |b| b["roleRef"]["name"] == "cluster-admin" && b["metadata"]["name"] != "cluster-admin");
        match more.as_slice() {
            [] => pass("the binding of system:masters is the only one"),
            more => manual(more.join(", "), "look whether each is needed"),
        }
    }),
    row("5.1.2", "Few may read Secrets", |_| theirs("who may read Secrets")),
    row("5.1.3", "Few wildcards in roles", |f| {
        let wild = |role: &Value| {
            let rules = role["rules"].as_array().into_iter().flatten();
            rules
                .into_iter()
                .any(|rule| ["verbs", "resources", "apiGroups"].iter().any(|field| has(&rule[*field], "*")))
        };
        let ours = |role: &Value| {
            let bootstrap = role["metadata"]["labels"]["kubernetes.io/bootstrapping"] == "rbac-defaults";
            !bootstrap && wild(role)
        };
        match names(&f.roles, ours).as_slice() {
            [] => pass("only roles of upstream's own have some"),
            more => manual(more.join(", "), "name what they need"),
        }
    }),
    row("5.1.4", "Few may create pods", |_| theirs("who may create pods")),
    row("5.1.5", "Default service accounts are not used", |f| {
        let open =
            names(&f.accounts, |a| a["metadata"]["name"] == "default" && a["automountServiceAccountToken"] != false);
        let used = |p: &Value| p["spec"]["serviceAccountName"] == "default" && mounts_token(p);
        let pods = names(&f.pods, used);
        holds(
            open.is_empty() && pods.is_empty(),
            "none mounts a token",
            format!("{} accounts `default` mount tokens, {} pods use one", open.len(), pods.len()),
            "`up --hardened`, or automountServiceAccountToken: false in each account `default`",
        )
    }),
    row("5.1.6", "Tokens are mounted only where they are needed", |f| match names(&f.pods, mounts_token).as_slice() {
        [] => pass("no pod mounts one"),
        pods => manual(pods.join(", "), "automountServiceAccountToken: false where the pod doesn't ask the API"),
    }),
    row("5.1.7", "Nobody is in system:masters", |_| {
        manual(
            "the administrator's certificate, which root on this host can read, and the one that the API server shows kubelets",
            "give people a user with a binding of its own",
        )
    }),
    row("5.1.8", "Few may bind, impersonate, escalate", |_| theirs("who may bind, impersonate and escalate")),
    row("5.1.9", "Few may create persistent volumes", |_| theirs("who may create persistent volumes")),
    row("5.1.10", "Few may use the proxy of nodes", |_| theirs("who may use nodes/proxy")),
    row("5.1.11", "Few may approve certificate requests", |_| theirs("who may approve certificate requests")),
    row("5.1.12", "Few may write webhooks", |_| theirs("who may write webhook configurations")),
    row("5.1.13", "Few may create tokens", |_| theirs("who may create serviceaccounts/token")),
    row("5.2.1", "A policy for pods holds everywhere", |f| {
        refuses(f.refused.privileged, "a namespace without labels", HARDENED)
    }),
    row("5.2.2", "Privileged containers", |f| refuses(f.refused.privileged, "a privileged container", HARDENED)),
    row("5.2.3", "The host's process IDs", |f| refuses(f.refused.host_pid, "hostPID", HARDENED)),
    row("5.2.4", "The host's IPC", |f| refuses(f.refused.host_ipc, "hostIPC", HARDENED)),
    row("5.2.5", "The host's network", |f| refuses(f.refused.host_network, "hostNetwork", HARDENED)),
    row("5.2.6", "More rights than the parent", |f| stricter(f.refused.escalation, "allowPrivilegeEscalation")),
    row("5.2.7", "Containers of root", |f| stricter(f.refused.root, "a container of root")),
    row("5.2.8", "NET_RAW", |f| refuses(f.refused.net_raw, "an added NET_RAW", HARDENED)),
    row("5.2.9", "Added capabilities", |f| refuses(f.refused.added_capabilities, "an added capability", HARDENED)),
    row("5.2.10", "Any capabilities", |f| stricter(f.refused.any_capabilities, "a container that drops none")),
    row("5.2.11", "Windows' HostProcess", |_| super::na("there are no Windows nodes")),
    row("5.2.12", "hostPath volumes", |f| refuses(f.refused.host_path, "a hostPath volume", HARDENED)),
    row("5.2.13", "Host ports", |f| refuses(f.refused.host_port, "a host port", HARDENED)),
    row("5.3.1", "The pod network enforces NetworkPolicies", |_| {
        fail("they are stored and not enforced yet", "nothing yet: keep apart what must not meet")
    }),
    row("5.3.2", "Every namespace has NetworkPolicies", |f| {
        let has = |namespace: &Value| {
            let policies = f.policies.as_array().into_iter().flatten();
            policies.into_iter().any(|p| p["metadata"]["namespace"] == namespace["metadata"]["name"])
        };
        match names(&f.namespaces, |namespace| !has(namespace)).as_slice() {
            [] => manual("every namespace has some, and they are not enforced yet", "nothing yet"),
            none => fail(
                format!("{} have none; they would not be enforced yet", none.join(", ")),
                "a default policy in each",
            ),
        }
    }),
    row("5.4.1", "Secrets as files, not as variables", |f| {
        let secret = |pod: &Value| {
            let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
            containers.into_iter().any(|c| {
                let env = c["env"].as_array().into_iter().flatten();
                let from = c["envFrom"].as_array().into_iter().flatten();
                env.into_iter().any(|e| e["valueFrom"]["secretKeyRef"].is_object())
                    || from.into_iter().any(|e| e["secretRef"].is_object())
            })
        };
        match names(&f.pods, secret).as_slice() {
            [] => pass("no pod has one in a variable"),
            pods => manual(pods.join(", "), "mount them"),
        }
    }),
    row("5.4.2", "External storage of Secrets", |_| {
        manual("it is a choice of yours", "a Secret store of your organisation")
    }),
    row("5.5.1", "Where images come from is checked", |_| {
        manual("there is no ImagePolicyWebhook", "let only signed images into your registry")
    }),
    row("5.6.1", "Namespaces as borders", |f| manual(names(&f.namespaces, |_| true).join(", "), "one for each team")),
    row("5.6.2", "Seccomp profiles", |f| {
        holds(
            f.kubelet["seccompDefault"] == true,
            "pods that say nothing get RuntimeDefault",
            "pods that say nothing run unconfined",
            "`up --hardened`, or seccompProfile in each pod",
        )
    }),
    row("5.6.3", "Security contexts", |_| manual("they are in your pods", RESTRICTED)),
    row("5.6.4", "The namespace `default` is not used", |f| {
        match names(&f.pods, |pod| pod["metadata"]["namespace"] == "default").as_slice() {
            [] => pass("no pod is in it"),
            pods => manual(pods.join(", "), "put them into a namespace of their own"),
        }
    }),
];

fn theirs(what: &str) -> Verdict {
    manual(format!("upstream's roles are as upstream's; {what} besides is up to you"), YOURS)
}

fn refuses(so: bool, what: &str, set: &'static str) -> Verdict {
    holds(so, format!("{what} was refused"), format!("{what} was accepted in the namespace default"), set)
}

/// What only the level `restricted` forbids: as a default for every namespace it would keep most charts from running.
fn stricter(so: bool, what: &str) -> Verdict {
    match so {
        true => pass(format!("{what} was refused")),
        false => manual(format!("{what} was accepted in the namespace default"), RESTRICTED),
    }
}

/// Names of the objects that are so.
fn names(list: &Value, so: impl Fn(&Value) -> bool) -> Vec<String> {
    let name = |object: &Value| {
        let [namespace, name] = ["namespace", "name"].map(|f| object["metadata"][f].as_str().unwrap_or_default());
        if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
    };
    list.as_array().into_iter().flatten().filter(|object| so(object)).map(name).collect()
}

fn has(list: &Value, word: &str) -> bool {
    list.as_array().is_some_and(|list| list.iter().any(|item| item == word))
}

fn mounts_token(pod: &Value) -> bool {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    volumes.into_iter().any(|v| {
        let sources = v["projected"]["sources"].as_array().into_iter().flatten();
        sources.into_iter().any(|s| s["serviceAccountToken"].is_object())
    })
}
