//! Chapters 1 to 3 of the benchmark: the control plane's files, the API server, the controller manager, the scheduler,
//! etcd, who logs in, and the audit log.

use super::facts::{Entry, Facts};
use super::{Row, Verdict, fail, holds, manual, na, pass, row};

const HARDENED: &str = "`up --hardened`";
const NO_LOG: &str = "there is no audit log, or nothing comes into it";
const ONE_PROCESS: &str =
    "there is no such file: components run in one process, and nothing tells them what a file could";

pub const ROWS: &[Row] = &[
    row("1.1.1", "Permissions of the API server's pod specification", no_file),
    row("1.1.2", "Owner of the API server's pod specification", no_file),
    row("1.1.3", "Permissions of the controller manager's pod specification", no_file),
    row("1.1.4", "Owner of the controller manager's pod specification", no_file),
    row("1.1.5", "Permissions of the scheduler's pod specification", no_file),
    row("1.1.6", "Owner of the scheduler's pod specification", no_file),
    row("1.1.7", "Permissions of etcd's pod specification", no_file),
    row("1.1.8", "Owner of etcd's pod specification", no_file),
    row("1.1.9", "Permissions of the pod network's files: 600 or stricter", |f| modes(f, "cni", |_| true, 0o600)),
    row("1.1.10", "Owner of the pod network's files: root", |f| owner(f, "cni")),
    row("1.1.11", "Permissions of etcd's data directory: 700 or stricter", |f| {
        modes(f, "etcd", |e| e.dir && e.path.components().count() == 1, 0o600)
    }),
    row("1.1.12", "Owner of etcd's data directory: etcd", |_| {
        na("etcd runs in the daemon's process, as root: a user of its own would own files and protect none")
    }),
    row("1.1.13", "Permissions of the administrator's kubeconfig: 600 or stricter", |f| {
        modes(f, "kubeconfig", |_| true, 0o600)
    }),
    row("1.1.14", "Owner of the administrator's kubeconfig: root", |f| owner(f, "kubeconfig")),
    row("1.1.15", "Permissions of the scheduler's kubeconfig", no_kubeconfig),
    row("1.1.16", "Owner of the scheduler's kubeconfig", no_kubeconfig),
    row("1.1.17", "Permissions of the controller manager's kubeconfig", no_kubeconfig),
    row("1.1.18", "Owner of the controller manager's kubeconfig", no_kubeconfig),
    row("1.1.19", "Owner of the certificates and their directory: root", |f| owner(f, "pki")),
    row("1.1.20", "Permissions of certificates: 644 or stricter", |f| {
        modes(f, "pki", |e| e.path.extension().is_some_and(|x| x == "crt"), 0o644)
    }),
    row("1.1.21", "Permissions of keys: 600 or stricter", |f| {
        modes(f, "pki", |e| e.path.extension().is_some_and(|x| x == "key"), 0o600)
    }),
    row("1.2.1", "Callers without a name", |f| match f.open_to_anyone.as_slice() {
        [] => manual(
            "they are let in to health and version only: load balancers and kubectl ask there",
            "nothing, unless a policy of yours forbids even that: `kube-apiserver --anonymous-auth=false`",
        ),
        open => fail(format!("they may read {}", open.join(", ")), "take the bindings of system:unauthenticated away"),
    }),
    row("1.2.2", "No token file", |_| pass("the API server takes none")),
    row("1.2.3", "DenyServiceExternalIPs", |f| {
        holds(
            f.refused.external_ips && f.plugin("DenyServiceExternalIPs"),
            "a Service with externalIPs was refused",
            "a Service with externalIPs was accepted",
            HARDENED,
        )
    }),
    row("1.2.4", "The API server shows kubelets a certificate", |f| {
        holds(f.api.kubelet_client, "it has one of its own", "it has none", "--kubelet-client-certificate")
    }),
    row("1.2.5", "The API server checks kubelets' certificates", |f| {
        holds(f.api.kubelet_ca, "by the cluster's CA", "it does not", "--kubelet-certificate-authority")
    }),
    row("1.2.6", "Authorisation is not AlwaysAllow", |f| {
        let open = f.api.authorization.is_empty() || f.api.authorization.iter().any(|mode| mode == "AlwaysAllow");
        holds(!open, f.api.authorization.join(", "), "everyone may do everything", "--authorization-mode=Node,RBAC")
    }),
    row("1.2.7", "Authorisation includes Node", |f| authorizer(f, "Node")),
    row("1.2.8", "Authorisation includes RBAC", |f| authorizer(f, "RBAC")),
    row("1.2.9", "EventRateLimit", |f| holds(f.plugin("EventRateLimit"), "it is on", "it is off", HARDENED)),
    row("1.2.10", "AlwaysAdmit is off", |f| {
        holds(
            !f.plugin("AlwaysAdmit"),
            "there is no such plugin",
            "it is on",
            "--disable-admission-plugins=AlwaysAdmit",
        )
    }),
    row("1.2.11", "AlwaysPullImages", |f| match f.plugin("AlwaysPullImages") {
        true => pass("it is on"),
        false => manual(
            "it is off: with it images that were imported, not pulled, could not be used",
            "`kube-apiserver --enable-admission-plugins=AlwaysPullImages` where tenants share nodes and a registry",
        ),
    }),
    row("1.2.12", "ServiceAccount is on", |f| on(f, "ServiceAccount")),
    row("1.2.13", "NamespaceLifecycle is on", |f| on(f, "NamespaceLifecycle")),
    row("1.2.14", "NodeRestriction is on", |f| {
        holds(f.plugin("NodeRestriction"), "it is on", "it is off", "--enable-admission-plugins=NodeRestriction")
    }),
    row("1.2.15", "No profiles from the API server", profiles),
    row("1.2.16", "Audit log: path", audit_log),
    row("1.2.17", "Audit log: kept for 30 days", |f| kept(f, |(days, _, _)| days == 0 || days >= 30)),
    row("1.2.18", "Audit log: 10 old files", |f| kept(f, |(_, files, _)| files == 0 || files >= 10)),
    row("1.2.19", "Audit log: 100 MB a file", |f| kept(f, |(_, _, megabytes)| megabytes == 0 || megabytes >= 100)),
    row("1.2.20", "Request timeout", |f| match f.api.request_timeout {
        1..=300 => pass(format!("{} s", f.api.request_timeout)),
        other => manual(format!("{other} s"), "--request-timeout"),
    }),
    row("1.2.21", "Tokens are looked up", |_| pass("a token ends with its account, Secret or pod; there is no switch")),
    row("1.2.22", "Keys that tokens are checked with", |f| {
        holds(f.api.token_keys, "the cluster's own", "none", "--service-account-key-file")
    }),
    row("1.2.23", "The API server shows etcd a certificate", |f| match f.etcd_elsewhere {
        None => pass("etcd is in its process: nothing goes over a wire"),
        Some((_, shown)) => holds(shown, "--etcd-certfile", "it shows none", "--etcd-certfile"),
    }),
    row("1.2.24", "The API server serves TLS", |_| {
        pass("with a certificate of the cluster's CA; it speaks nothing else")
    }),
    row("1.2.25", "Client certificates are checked", |f| {
        holds(f.api.client_ca, "by the cluster's CA", "they are not", "--client-ca-file")
    }),
    row("1.2.26", "etcd's certificate is checked", |f| match f.etcd_elsewhere {
        None => pass("etcd is in the API server's process"),
        Some((checked, _)) => holds(checked, "--etcd-cafile", "by no CA of its own", "--etcd-cafile"),
    }),
    row("1.2.27", "Encryption at rest", |f| match f.plain_secrets {
        0 => provider(f, |_| true),
        plain => fail(format!("{plain} Secrets are stored as they are"), HARDENED),
    }),
    row("1.2.28", "A provider that encrypts", |f| provider(f, |name| ["aescbc", "kms", "secretbox"].contains(&name))),
    row("1.2.29", "Strong ciphers only", strong_ciphers),
    row("1.2.30", "Mounted tokens don't live for a year", |f| {
        holds(!f.api.extends_tokens, "they live an hour", "they are extended to a year, upstream's default", HARDENED)
    }),
    row("1.3.1", "Ended pods are removed", |_| {
        manual("12,500 are kept, upstream's default", "`kube-controller-manager --terminated-pod-gc-threshold`")
    }),
    row("1.3.2", "No profiles from the controller manager", |_| pass("there are none")),
    row("1.3.3", "Each controller has an account of its own", |_| pass("each acts as its service account")),
    row("1.3.4", "Key that signs tokens", |_| pass("the cluster's own")),
    row("1.3.5", "The root CA is published", |_| pass("as kube-root-ca.crt in every namespace")),
    row("1.3.6", "Kubelets' serving certificates rotate", |_| pass("the daemon renews certificates while it runs")),
    row("1.3.7", "The controller manager listens on loopback", |f| loopback(f, f.port_of.controller_manager)),
    row("1.4.1", "No profiles from the scheduler", |_| pass("there are none")),
    row("1.4.2", "The scheduler listens on loopback", |f| loopback(f, f.port_of.scheduler)),
    row("2.1", "etcd serves TLS", |f| etcd(f, |f| loopback(f, f.port_of.etcd))),
    row("2.2", "etcd asks for client certificates", |f| etcd(f, |_| pass("it answers nobody else"))),
    row("2.3", "etcd's certificate does not sign itself", |f| etcd(f, |_| pass("it is signed by etcd's own CA"))),
    row("2.4", "TLS between members of etcd", |f| etcd(f, |_| na("there is one member"))),
    row("2.5", "Client certificates between members of etcd", |f| etcd(f, |_| na("there is one member"))),
    row("2.6", "Members' certificates don't sign themselves", |f| etcd(f, |_| na("there is one member"))),
    row("2.7", "etcd has a CA of its own", |f| {
        if f.etcd_elsewhere.is_some() {
            return etcd(f, |_| na(""));
        }
        let own = f.files.iter().any(|e| e.path.ends_with("pki/etcd/ca.crt"));
        if own { pass("pki/etcd/ca.crt") } else { manual("pki/etcd/ca.crt is not there", "restore it from a backup") }
    }),
    row("3.1.1", "People don't log in with client certificates", |_| {
        manual(
            "the administrator's kubeconfig holds one: it is for whoever is root on this host already",
            "give people service accounts or a front proxy, and keep that file where it is",
        )
    }),
    row("3.1.2", "People don't log in with service accounts' tokens", |_| {
        manual("it can't be told from here whose a token is", "give people an identity of their own")
    }),
    row("3.1.3", "People don't log in with bootstrap tokens", |_| pass("there are none")),
    row("3.2.1", "A minimal audit policy", audit_log),
    row("3.2.2", "The audit policy covers what matters", |f| match f.unlogged.as_deref() {
        Some([]) => pass("reads of Secrets, changes, token reviews and commands in pods were found in the log"),
        Some(missing) => fail(format!("not in the log: {}", missing.join(", ")), HARDENED),
        None => fail(NO_LOG, HARDENED),
    }),
];

/// What is said of the etcd of this process; another one is somebody else's to look at.
fn etcd(f: &Facts, own: fn(&Facts) -> Verdict) -> Verdict {
    match f.etcd_elsewhere {
        None => own(f),
        Some(_) => manual("the store is the etcd cluster of --etcd-servers", "look where it runs"),
    }
}

fn no_file(_: &Facts) -> Verdict {
    na(ONE_PROCESS)
}

fn no_kubeconfig(_: &Facts) -> Verdict {
    na("there is no such file: the component speaks to the API server in its own process")
}

/// All files below a place have at most this mode; directories may be entered besides.
fn modes(f: &Facts, place: &str, which: fn(&Entry) -> bool, most: u32) -> Verdict {
    let found: Vec<&Entry> = f.below(place).filter(|e| which(e)).collect();
    let allowed = |e: &Entry| if e.dir { most | (most & 0o444) >> 2 } else { most };
    let open = found.iter().find(|e| e.mode & !allowed(e) & 0o777 != 0);
    match open {
        Some(e) => fail(format!("{} has {:o}", e.path.display(), e.mode), "chmod it, and tell us: it was not made so"),
        None if found.is_empty() => na("there is none"),
        None => pass(format!("{} files and directories", found.len())),
    }
}

fn owner(f: &Facts, place: &str) -> Verdict {
    match f.below(place).find(|e| !e.root) {
        Some(e) => fail(format!("{} is not root's", e.path.display()), "chown root:root"),
        None if f.below(place).next().is_none() => na("there is none"),
        None => pass("root:root"),
    }
}

fn authorizer(f: &Facts, mode: &str) -> Verdict {
    let there = f.api.authorization.iter().any(|known| known == mode);
    holds(there, f.api.authorization.join(", "), f.api.authorization.join(", "), "--authorization-mode=Node,RBAC")
}

/// A plugin that is on unless it is turned off.
fn on(f: &Facts, plugin: &str) -> Verdict {
    let off = f.api.plugins_off.iter().any(|name| name == plugin);
    holds(!off, "it is on", "it is off", "take it out of --disable-admission-plugins")
}

fn profiles(f: &Facts) -> Verdict {
    holds(f.profiles.is_empty(), "there is no such page", f.profiles.join(", "), "--profiling=false")
}

/// Some request of a moment ago is in the audit log.
fn logged(f: &Facts) -> bool {
    f.unlogged.as_ref().is_some_and(|missing| missing.len() < super::facts::ASKED)
}

fn audit_log(f: &Facts) -> Verdict {
    holds(logged(f), "a request of a moment ago is in it", NO_LOG, HARDENED)
}

fn kept(f: &Facts, enough: fn((u32, u32, u64)) -> bool) -> Verdict {
    let Some(kept) = f.api.audit_kept.filter(|_| logged(f)) else { return fail(NO_LOG, HARDENED) };
    let (days, files, megabytes) = kept;
    let why = format!("{days} days, {files} old files, {megabytes} MB each");
    holds(enough(kept), why.clone(), why, HARDENED)
}

fn provider(f: &Facts, good: fn(&str) -> bool) -> Verdict {
    match f.api.encryption.as_deref() {
        Some(name) => holds(good(name), format!("Secrets are sealed by {name}"), name, HARDENED),
        None => fail("Secrets are stored as they are", HARDENED),
    }
}

/// What rustls speaks at all is within the benchmark's list.
pub fn strong_ciphers(_: &Facts) -> Verdict {
    pass("TLS 1.2 and 1.3 with AEAD suites and forward secrecy: nothing else is built in")
}

pub fn loopback(f: &Facts, port: u16) -> Verdict {
    holds(
        f.on_loopback(port),
        format!("127.0.0.1:{port}"),
        format!("port {port} is reached from elsewhere"),
        "--bind-address=127.0.0.1",
    )
}
