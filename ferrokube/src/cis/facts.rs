//! What the checks look at: files with their modes, what the daemon listens on, the settings that it runs with, objects
//! of the API, and what the servers answer to whom they should refuse. I/O: reads files and /proc, asks the servers.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use apiserver::config::KeyPair;
use serde_json::{Value, json};

use crate::cluster::store::elsewhere;
use crate::config::{Host, Roles};
use crate::fault::Fault;
use crate::pki::Pki;
use crate::process::Daemon;

/// Directories below these hold what containers write, with their modes.
const NOT_BELOW: [&str; 3] = ["runtime", "kubelet", "pod-logs"];

/// A file or directory of the cluster.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Relative to the data directory.
    pub path: PathBuf,
    pub mode: u32,
    pub root: bool,
    pub dir: bool,
}

/// The API server's settings that checks ask about.
#[derive(Debug, Clone, Default)]
pub struct ApiServer {
    pub plugins_on: Vec<String>,
    pub plugins_off: Vec<String>,
    pub authorization: Vec<String>,
    pub extends_tokens: bool,
    pub client_ca: bool,
    pub kubelet_client: bool,
    pub kubelet_ca: bool,
    pub token_keys: bool,
    /// Days, files and megabytes of the audit log: 0 is without bound.
    pub audit_kept: Option<(u32, u32, u64)>,
    /// What seals Secrets in the store.
    pub encryption: Option<String>,
    pub request_timeout: u64,
}

impl ApiServer {
    fn of(config: &apiserver::Config) -> ApiServer {
        ApiServer {
            plugins_on: config.enable_admission_plugins.clone(),
            plugins_off: config.disable_admission_plugins.clone(),
            authorization: config.authorization_mode.clone(),
            extends_tokens: config.service_account_extend_token_expiration,
            client_ca: config.client_ca_file.is_some(),
            kubelet_client: config.kubelet_client.is_some(),
            kubelet_ca: config.kubelet_certificate_authority.is_some(),
            token_keys: !config.service_account_key_files.is_empty(),
            audit_kept: config.audit_log.as_ref().map(|log| (log.max_age, log.max_backup, log.max_size)),
            encryption: config.encryption_provider_config.as_deref().and_then(crate::hardening::encryption::provider),
            request_timeout: config.request_timeout.as_secs(),
        }
    }
}

/// See the module's head.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub files: Vec<Entry>,
    pub listeners: Vec<SocketAddr>,
    pub port_of: Ports,
    /// Of an etcd cluster elsewhere: whether it is checked, and whether it is shown a certificate.
    pub etcd_elsewhere: Option<(bool, bool)>,
    pub api: ApiServer,
    /// `/configz` of the kubelet.
    pub kubelet: Value,
    /// Paths of the API server that answered a caller without a name, besides health and version.
    pub open_to_anyone: Vec<String>,
    /// Pages of profiles that exist, by server.
    pub profiles: Vec<String>,
    /// Why a pod or Service that asks too much was refused (`dryRun`); none: it was not.
    pub refused: Refused,
    /// Requests that were just made and are not in the audit log, by what they were about; none: there is no log.
    pub unlogged: Option<Vec<&'static str>>,
    /// Secrets that are stored as they are.
    pub plain_secrets: usize,
    pub accounts: Value,
    pub pods: Value,
    pub namespaces: Value,
    pub policies: Value,
    pub bindings: Value,
    pub roles: Value,
}

/// See [`Facts::refused`].
#[derive(Debug, Clone, Default)]
pub struct Refused {
    pub external_ips: bool,
    pub privileged: bool,
    pub host_pid: bool,
    pub host_ipc: bool,
    pub host_network: bool,
    pub host_path: bool,
    pub host_port: bool,
    pub escalation: bool,
    pub root: bool,
    pub net_raw: bool,
    pub added_capabilities: bool,
    pub any_capabilities: bool,
}

/// Ports of the cluster's servers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ports {
    pub etcd: u16,
    pub controller_manager: u16,
    pub scheduler: u16,
    pub proxy_metrics: u16,
}

impl Facts {
    pub async fn gather(host: &Host, daemon: Daemon) -> Result<Facts> {
        let client = client::from_kubeconfig(&host.kubeconfig()).await?;
        let list = async |path: &str| ask(&client, "GET", path, None).await.1["items"].take();
        if !host.roles().has(Roles::NODE) {
            anyhow::bail!(Fault::failed(
                "this host is no node: half of the checks are about one; ask a server that is"
            ));
        }
        let node = &host.node_name;
        let (code, mut configz) = ask(&client, "GET", &format!("/api/v1/nodes/{node}/proxy/configz"), None).await;
        anyhow::ensure!(code == 200, "the kubelet does not tell its configuration: {configz}");
        let mut files = Vec::new();
        walk(&host.data_dir, Path::new(""), &mut files).context("looking at files")?;
        let mut profiles = Vec::new();
        for path in ["/debug/pprof/", &format!("/api/v1/nodes/{node}/proxy/debug/pprof/")] {
            if ask(&client, "GET", path, None).await.0 == 200 {
                profiles.push(path.to_owned());
            }
        }
        let settings = crate::cluster::server_settings(host)?;
        Ok(Facts {
            files,
            listeners: listeners(daemon.pid),
            port_of: Ports {
                etcd: host.etcd_port(),
                controller_manager: host.port(10257),
                scheduler: host.port(10259),
                proxy_metrics: host.port(10249),
            },
            etcd_elsewhere: elsewhere(host).map(|etcd| (etcd.ca_file.is_some(), etcd.client.is_some())),
            api: ApiServer::of(&settings),
            kubelet: configz["kubeletconfig"].take(),
            open_to_anyone: open_to_anyone(&client).await,
            profiles,
            refused: refused(&client).await,
            unlogged: match &settings.audit_log {
                Some(log) => Some(unlogged(&client, &log.path).await),
                None => None,
            },
            plain_secrets: plain_secrets(host).await?,
            accounts: list("/api/v1/serviceaccounts").await,
            pods: list("/api/v1/pods").await,
            namespaces: list("/api/v1/namespaces").await,
            policies: list("/apis/networking.k8s.io/v1/networkpolicies").await,
            bindings: list("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings").await,
            roles: list("/apis/rbac.authorization.k8s.io/v1/clusterroles").await,
        })
    }

    /// Files whose path begins so.
    pub fn below<'a>(&'a self, place: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.files.iter().filter(move |entry| entry.path.starts_with(place))
    }

    /// The server on this port is reached from this host only.
    pub fn on_loopback(&self, port: u16) -> bool {
        let mut there = self.listeners.iter().filter(|at| at.port() == port).peekable();
        there.peek().is_some() && there.all(|at| at.ip().is_loopback())
    }

    pub fn plugin(&self, name: &str) -> bool {
        self.api.plugins_on.iter().any(|on| on == name) && !self.api.plugins_off.iter().any(|off| off == name)
    }
}

/// Status and body of a request as the administrator.
async fn ask(client: &kube::Client, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let body = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
    let request = http::Request::builder().method(method).uri(path).header("content-type", "application/json");
    let Ok(request) = request.body(body) else { return (0, Value::Null) };
    match client.request::<Value>(request).await {
        Ok(value) => (200, value),
        Err(kube::Error::Api(status)) => (status.code, json!(status.message)),
        Err(_) => (0, Value::Null),
    }
}

/// What a caller without a name may read, as the API server itself decides it.
async fn open_to_anyone(client: &kube::Client) -> Vec<String> {
    const PATHS: [&str; 8] = [
        "/api",
        "/apis",
        "/openapi/v2",
        "/metrics",
        "/logs",
        "/debug/pprof",
        "/configz",
        "/.well-known/openid-configuration",
    ];
    let mut open = Vec::new();
    for path in PATHS {
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
            "user": "system:anonymous", "groups": ["system:unauthenticated"],
            "nonResourceAttributes": {"path": path, "verb": "get"}}});
        let reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        if ask(client, "POST", reviews, Some(review)).await.1["status"]["allowed"] == true {
            open.push(path.to_owned());
        }
    }
    open
}

/// Asks for what ought to be refused; nothing is kept of it.
async fn refused(client: &kube::Client) -> Refused {
    let pod = async |spec: Value| {
        let mut whole = json!({"containers": [{"name": "c", "image": "scratch"}]});
        object(&mut whole, &spec);
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "check-"}, "spec": whole});
        ask(client, "POST", "/api/v1/namespaces/default/pods?dryRun=All", Some(pod)).await.0 == 403
    };
    let container = |more: Value| {
        let mut container = json!({"name": "c", "image": "scratch"});
        object(&mut container, &more);
        json!({"containers": [container]})
    };
    let context = |context: Value| container(json!({"securityContext": context}));
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"generateName": "check-"},
        "spec": {"ports": [{"port": 80}], "externalIPs": ["192.0.2.1"]}});
    let service = ask(client, "POST", "/api/v1/namespaces/default/services?dryRun=All", Some(service)).await.0;
    Refused {
        external_ips: service == 403,
        privileged: pod(context(json!({"privileged": true}))).await,
        host_pid: pod(json!({"hostPID": true})).await,
        host_ipc: pod(json!({"hostIPC": true})).await,
        host_network: pod(json!({"hostNetwork": true})).await,
        host_path: pod(json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]})).await,
        host_port: pod(container(json!({"ports": [{"containerPort": 80, "hostPort": 80}]}))).await,
        escalation: pod(context(json!({"allowPrivilegeEscalation": true}))).await,
        root: pod(context(json!({"runAsUser": 0}))).await,
        net_raw: pod(context(json!({"capabilities": {"add": ["NET_RAW"]}}))).await,
        added_capabilities: pod(context(json!({"capabilities": {"add": ["SYS_ADMIN"]}}))).await,
        any_capabilities: pod(context(json!({"capabilities": {"drop": []}}))).await,
    }
}

/// Requests that the audit log is asked for.
pub const ASKED: usize = 4;
/// The end of the audit log that is searched for requests of a moment ago.
const LOG_END: u64 = 1 << 20;

/// Asks for what an audit log has to tell of, and looks which of it is not in the log.
async fn unlogged(client: &kube::Client, log: &Path) -> Vec<&'static str> {
    let mark = format!("check-cis-{}", std::process::id());
    let namespace = "/api/v1/namespaces/default";
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "none"}});
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "check-"}});
    let asked: [_; ASKED] = [
        ("reads of Secrets", "GET", format!("{namespace}/secrets/{mark}"), None),
        ("commands in pods", "POST", format!("{namespace}/pods/{mark}/exec?command=true&stdout=true"), None),
        ("changes", "POST", format!("{namespace}/configmaps?dryRun=All&fieldManager={mark}"), Some(map)),
        (
            "token reviews",
            "POST",
            format!("/apis/authentication.k8s.io/v1/tokenreviews?fieldManager={mark}"),
            Some(review),
        ),
    ];
    let mut missing = Vec::new();
    for (what, method, path, body) in asked {
        ask(client, method, &path, body).await;
        let uri = json!(path).to_string();
        if !end_of(log).is_ok_and(|text| text.contains(&uri)) {
            missing.push(what);
        }
    }
    missing
}

fn end_of(file: &Path) -> std::io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = fs::File::open(file)?;
    let from = file.metadata()?.len().saturating_sub(LOG_END);
    file.seek(SeekFrom::Start(from))?;
    let mut end = Vec::new();
    file.take(LOG_END).read_to_end(&mut end)?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}

/// Asks etcd itself.
async fn plain_secrets(host: &Host) -> Result<usize> {
    let pki = Pki::of(host);
    let client = pki.pair("etcd/healthcheck-client");
    let own = || apiserver::storage::remote::Config {
        endpoints: vec![format!("https://127.0.0.1:{}", host.etcd_port())],
        ca_file: Some(pki.etcd_ca()),
        client: Some(KeyPair { cert_file: client.cert, key_file: client.key }),
    };
    let store = apiserver::storage::remote::connect(elsewhere(host).unwrap_or_else(own));
    let store = store.await.context("asking etcd")?;
    Ok(crate::hardening::encryption::plain(&store).await.context("asking etcd")?.len())
}

fn object(into: &mut Value, fields: &Value) {
    for (name, value) in fields.as_object().into_iter().flatten() {
        into[name] = value.clone();
    }
}

fn walk(root: &Path, below: &Path, found: &mut Vec<Entry>) -> std::io::Result<()> {
    let data = fs::symlink_metadata(root.join(below))?;
    found.push(Entry {
        path: below.to_owned(),
        mode: data.mode() & 0o7777,
        root: data.uid() == 0 && data.gid() == 0,
        dir: data.is_dir(),
    });
    let inside = !NOT_BELOW.iter().any(|name| below == Path::new(name));
    if data.is_dir() && inside {
        for entry in fs::read_dir(root.join(below))? {
            match walk(root, &below.join(entry?.file_name()), found) {
                // A file of the store that was done with.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
    }
    Ok(())
}

/// TCP addresses that a process listens on.
fn listeners(pid: i32) -> Vec<SocketAddr> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let sockets: Vec<String> = links
        .filter_map(|link| {
            fs::read_link(link.path()).ok()?.to_str()?.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned)
        })
        .collect();
    let table = |name: &str| fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
    [table("tcp"), table("tcp6")]
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| listener(line, &sockets))
        .collect()
}

/// The address of a line of /proc/net/tcp, if it listens and is one of these sockets.
fn listener(line: &str, sockets: &[String]) -> Option<SocketAddr> {
    const LISTEN: &str = "0A";
    let words: Vec<&str> = line.split_whitespace().collect();
    if *words.get(3)? != LISTEN || !sockets.iter().any(|inode| words.get(9) == Some(&inode.as_str())) {
        return None;
    }
    let (address, port) = words.get(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Words of four bytes, each in the order of the host.
    let mut bytes = Vec::new();
    for at in (0..address.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Facts {
        /// A cluster of one pod, as `up` makes it, or `up --hardened`.
        pub fn sample(hardened: bool) -> Facts {
            let entry = |path: &str, dir: bool| Entry {
                path: path.into(),
                mode: if dir { 0o700 } else { 0o600 },
                root: true,
                dir,
            };
            let dirs = ["", "etcd", "pki", "cni", "manifests"].map(|path| entry(path, true));
            let files = ["pki/ca.crt", "pki/ca.key", "cni/network.json", "kubeconfig"].map(|path| entry(path, false));
            let plugins: &[&str] = if hardened {
                &["NodeRestriction", "DenyServiceExternalIPs", "EventRateLimit"]
            } else {
                &["NodeRestriction"]
            };
            let account = if hardened {
                json!({"metadata": {"name": "default", "namespace": "default"}, "automountServiceAccountToken": false})
            } else {
                json!({"metadata": {"name": "default", "namespace": "default"}})
            };
            Facts {
                files: [&dirs[..], &files[..]].concat(),
                listeners: [2379, 10249, 10257, 10259].map(|port| SocketAddr::from(([127, 0, 0, 1], port))).into(),
                port_of: Ports { etcd: 2379, controller_manager: 10257, scheduler: 10259, proxy_metrics: 10249 },
                api: ApiServer {
                    plugins_on: plugins.iter().map(|name| (*name).to_owned()).collect(),
                    authorization: vec!["Node".into(), "RBAC".into()],
                    extends_tokens: !hardened,
                    client_ca: true,
                    kubelet_client: true,
                    kubelet_ca: true,
                    token_keys: true,
                    request_timeout: 60,
                    audit_kept: hardened.then_some((30, 10, 100)),
                    encryption: hardened.then(|| "secretbox".to_owned()),
                    ..ApiServer::default()
                },
                kubelet: json!({"authentication": {"anonymous": {"enabled": false}, "x509": {"clientCAFile": "/ca"}},
                    "authorization": {"mode": "Webhook"}, "tlsCertFile": "/crt",
                    "podPidsLimit": if hardened { 4096 } else { -1 }, "seccompDefault": hardened}),
                refused: Refused {
                    external_ips: hardened,
                    privileged: hardened,
                    host_path: hardened,
                    ..Refused::default()
                },
                unlogged: hardened.then(Vec::new),
                plain_secrets: usize::from(!hardened),
                accounts: json!([account]),
                pods: json!([]),
                namespaces: json!([{"metadata": {"name": "default"}}]),
                policies: json!([]),
                bindings: json!([]),
                roles: json!([]),
                ..Facts::default()
            }
        }
    }

    #[test]
    fn lines_of_the_kernels_table_are_read() {
        let line = "   0: 0100007F:0947 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0 0 10 0";
        let sockets = ["4242".to_owned()];
        assert_eq!(listener(line, &sockets), "127.0.0.1:2375".parse().ok());
        assert_eq!(listener(line, &[]), None, "another process's");
        assert_eq!(listener(&line.replace(" 0A ", " 01 "), &sockets), None, "a connection");
        let six = "0: 00000000000000000000000001000000:1770 0:0 0A 0:0 0:0 0 0 0 4242";
        assert_eq!(listener(six, &sockets), "[::1]:6000".parse().ok());
    }
}
