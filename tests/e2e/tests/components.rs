//! Each component alone, under its upstream name and with upstream's flags: together, as processes of their own with
//! identities of their own, they are a cluster. And the pod network's plugins by the CNI protocol.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::image::{busybox_archive, oci_layout};
use testkit::runner::Test;
use testkit::{Cluster, Own, Registry, binary, eventually, output};

use crate::authority::Authority;

pub const TESTS: &[Test] =
    &[("components_by_hand_are_a_cluster", by_hand), ("cni_plugins_speak_the_protocol", plugins)];

const NODE: &str = "hand";

/// A cluster made of processes, with the files that they share.
struct Hand {
    own: Own,
    dir: PathBuf,
    authority: Authority,
    processes: Vec<Child>,
}

/// A kubelet alone leaves its groups, as upstream's does, and a failed test its containers in them.
pub fn clear_groups(name: &str) {
    let clean = r#"cat /dev/null $(find /sys/fs/cgroup -path "*/$1*" -name cgroup.procs) | sort -u | xargs -r kill -9; sleep 0.2
        find /sys/fs/cgroup -depth -type d -path "*/$1*" -exec rmdir {} +"#;
    let _ = Command::new("sh").args(["-c", clean, "clean", name]).status();
}

impl Drop for Hand {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            let _ = Command::new("kill").arg(process.id().to_string()).status();
            let ended = eventually(Duration::from_secs(5), || process.try_wait()?.context("still runs"));
            if ended.is_err() {
                println!("    {} had to be killed", process.id());
                let _ = process.kill();
            }
            let _ = process.wait();
        }
        clear_groups(&self.own.name);
    }
}

impl Hand {
    fn new(own: Own) -> Result<Hand> {
        let dir = own.dir.join("hand");
        fs::create_dir_all(dir.join("net.d"))?;
        // By links, as people install programs that are several.
        for name in crate::commands::COMPONENTS {
            symlink(binary(), dir.join(name))?;
        }
        Ok(Hand { authority: Authority::new(dir.clone())?, own, dir, processes: Vec::new() })
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn kubeconfig(&self, name: &str, subject: &str) -> Result<String> {
        self.authority.kubeconfig(name, subject, "https://127.0.0.1:6443")
    }

    fn start(&mut self, name: &str, args: &[&str]) -> Result<()> {
        let log = fs::File::create(self.dir.join(format!("{name}.log")))?;
        let mut command = self.own.program(&self.dir.join(name));
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.processes.push(command.spawn()?);
        Ok(())
    }

    /// What every process said at last: for a test that failed.
    fn logs(&self) -> String {
        let log = |name: &&str| {
            let text = fs::read_to_string(self.dir.join(format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(8)..].join("\n"))
        };
        crate::commands::COMPONENTS.iter().map(log).collect()
    }

    fn etcd(&mut self) -> Result<()> {
        let (data, url) = (self.file("etcd-data"), "http://127.0.0.1:2379");
        self.start("etcd", &["--data-dir", &data, "--listen-client-urls", url, "--advertise-client-urls", url])?;
        eventually(Duration::from_secs(10), || self.etcdctl(&["put", "by", "hand"]))?;
        ensure!(self.etcdctl(&["get", "by", "--print-value-only"])? == "hand\n");
        Ok(())
    }

    fn etcdctl(&self, args: &[&str]) -> Result<String> {
        let mut command = self.own.program(Path::new("etcdctl"));
        output(command.env("ETCDCTL_API", "3").args(["--endpoints", "http://127.0.0.1:2379"]).args(args), "")?.ok()
    }

    /// A configuration by which Secrets are encrypted.
    fn encryption(&self) -> Result<String> {
        let config = json!({
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
            "resources": [{"resources": ["secrets"], "providers": [
                {"secretbox": {"keys": [{"name": "key1", "secret": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}]}},
                {"identity": {}},
            ]}],
        });
        fs::write(self.file("encryption.json"), config.to_string())?;
        Ok(self.file("encryption.json"))
    }

    fn control_plane(&mut self) -> Result<()> {
        let names = "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:192.0.2.2,IP:10.96.0.1";
        self.authority.certificate("apiserver", "/CN=kube-apiserver", names)?;
        self.authority.certificate("to-kubelet", "/O=system:masters/CN=kube-apiserver-kubelet-client", "")?;
        self.authority.openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "sa.key"])?;
        let admin = self.kubeconfig("admin", "/O=system:masters/CN=admin")?;
        fs::create_dir_all(self.own.data_dir())?;
        fs::copy(admin, self.own.kubeconfig())?;
        let [ca, cert, key, sa, to, to_key, ca_key] =
            ["ca.crt", "apiserver.crt", "apiserver.key", "sa.key", "to-kubelet.crt", "to-kubelet.key", "ca.key"]
                .map(|f| self.file(f));
        let (issuer, encryption) = ("https://kubernetes.default.svc.cluster.local", self.encryption()?);
        self.start(
            "kube-apiserver",
            &[
                "--etcd-servers=http://127.0.0.1:2379",
                "--encryption-provider-config",
                &encryption,
                "--encryption-provider-config-automatic-reload=true",
                "--service-cluster-ip-range=10.96.0.0/16",
                // Its name resolves nowhere.
                "--kubelet-preferred-address-types=InternalIP",
                "--authorization-mode=Node,RBAC",
                "--client-ca-file",
                &ca,
                "--tls-cert-file",
                &cert,
                "--tls-private-key-file",
                &key,
                "--service-account-issuer",
                issuer,
                "--service-account-signing-key-file",
                &sa,
                "--service-account-key-file",
                &sa,
                "--kubelet-client-certificate",
                &to,
                "--kubelet-client-key",
                &to_key,
                "--kubelet-certificate-authority",
                &ca,
                "--advertise-address=192.0.2.2",
            ],
        )?;
        let manager = self.kubeconfig("manager", "/CN=system:kube-controller-manager")?;
        self.start(
            "kube-controller-manager",
            &[
                "--kubeconfig",
                &manager,
                "--use-service-account-credentials",
                "--allocate-node-cidrs=true",
                "--cluster-cidr=10.88.0.0/16",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--root-ca-file",
                &ca,
                "--service-account-private-key-file",
                &sa,
                "--cluster-signing-cert-file",
                &ca,
                "--cluster-signing-key-file",
                &ca_key,
            ],
        )?;
        let scheduler = self.kubeconfig("scheduler", "/CN=system:kube-scheduler")?;
        self.start("kube-scheduler", &["--kubeconfig", &scheduler])?;
        eventually(Duration::from_secs(30), || self.own.kubectl(&["get", "serviceaccount", "default"])).map(drop)
    }

    fn node(&mut self) -> Result<()> {
        let network = json!({"cniVersion": "1.0.0", "name": "by-hand", "plugins": [
            {"type": "bridge", "bridge": "hand0", "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
             "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/24"}]], "dataDir": self.file("ipam")}},
            {"type": "portmap", "capabilities": {"portMappings": true}}]});
        fs::write(self.dir.join("net.d/10-hand.conflist"), network.to_string())?;
        let [socket, root, state, net, pods] =
            ["cri.sock", "runtime-root", "runtime-state", "net.d", "kubelet-root"].map(|f| self.file(f));
        let group = format!("/{}", self.own.name);
        self.start(
            "container-runtime",
            &[
                "--address",
                &socket,
                "--root",
                &root,
                "--state",
                &state,
                "--cni-conf-dir",
                &net,
                "--cgroup-root",
                &group,
            ],
        )?;
        let node = self.kubeconfig("node", &format!("/O=system:nodes/CN=system:node:{NODE}"))?;
        self.authority.certificate("kubelet", &format!("/CN={NODE}"), &format!("DNS:{NODE},IP:192.0.2.2"))?;
        let [ca, cert, key] = ["ca.crt", "kubelet.crt", "kubelet.key"].map(|f| self.file(f));
        let kubelet = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": format!("unix://{socket}"),
            "authentication": {"anonymous": {"enabled": false}, "x509": {"clientCAFile": ca}},
            "tlsCertFile": cert, "tlsPrivateKeyFile": key,
            "cgroupRoot": group, "clusterDNS": ["192.0.2.2"], "maxPods": 50, "syncFrequency": "0s",
        });
        fs::write(self.file("kubelet.yaml"), kubelet.to_string())?;
        let config = self.file("kubelet.yaml");
        self.start(
            "kubelet",
            &[
                "--kubeconfig",
                &node,
                "--config",
                &config,
                "--hostname-override",
                NODE,
                "--node-ip=192.0.2.2",
                "--root-dir",
                &pods,
                "--node-labels=made=by-hand",
                "--max-pods=20",
            ],
        )?;
        let proxy = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": self.kubeconfig("proxy", "/CN=system:kube-proxy")?},
            "hostnameOverride": NODE, "clusterCIDR": "10.88.0.0/16", "mode": "nftables",
        });
        fs::write(self.file("proxy.yaml"), proxy.to_string())?;
        self.start("kube-proxy", &["--config", &self.file("proxy.yaml")])?;
        let dns = self.kubeconfig("dns", "/CN=dns")?;
        let resources = "--resource=services,namespaces,endpointslices.discovery.k8s.io";
        self.own.kubectl(&["create", "clusterrole", "dns", "--verb=list,watch", resources])?;
        self.own.kubectl(&["create", "clusterrolebinding", "dns", "--clusterrole=dns", "--user=dns"])?;
        self.start("kube-dns", &["--kubecfg-file", &dns, "--dns-bind-address=192.0.2.2"])
    }
}

fn by_hand(cluster: &Cluster) -> Result<()> {
    let mut hand = Hand::new(cluster.elsewhere("hand")?)?;
    hand.own.host.as_ref().context("a host")?.sh("mount -t tmpfs tmpfs /var/log")?;
    let done = hand.etcd().and_then(|()| hand.control_plane()).and_then(|()| hand.node()).and_then(|()| runs(&hand));
    done.with_context(|| hand.logs())
}

/// What lies in etcd of a Secret is encrypted, of other objects it is not, and clients see no difference.
fn is_encrypted(hand: &Hand) -> Result<()> {
    hand.own.kubectl(&["create", "secret", "generic", "sealed", "--from-literal=p=TOPSECRET"])?;
    hand.own.kubectl(&["create", "configmap", "open", "--from-literal=p=TOPSECRET"])?;
    let lies = |key: &str| hand.etcdctl(&["get", key, "--write-out=fields"]);
    let sealed = lies("/registry/secrets/default/sealed")?;
    ensure!(sealed.contains("k8s:enc:secretbox:v1:key1:") && !sealed.contains("apiVersion"), "{sealed}");
    ensure!(lies("/registry/configmaps/default/open")?.contains("TOPSECRET"));
    let seen = hand.own.kubectl(&["get", "secret", "sealed", "-o", "jsonpath={.data.p}"])?;
    ensure!(seen == "VE9QU0VDUkVU", "{seen}");
    hand.own.kubectl(&["delete", "secret/sealed", "configmap/open"]).map(drop)
}

fn runs(hand: &Hand) -> Result<()> {
    is_encrypted(hand)?;
    let own = &hand.own;
    let ready = |n: &Value| {
        let conditions = n["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    let node = own.wait_for(&format!("node/{NODE}"), Duration::from_secs(30), ready)?;
    let told = (&node["status"]["capacity"]["pods"], &node["metadata"]["labels"]["made"]);
    ensure!(told == (&json!("20"), &json!("by-hand")), "flags and file of the kubelet: {node:#}");
    let registry = Registry::start(own)?;
    let (archive, layout) = (own.dir.join("app.tar"), own.dir.join("app"));
    busybox_archive(&archive, "app:1")?;
    oci_layout(&archive, &layout, "app:1")?;
    registry.push(&layout, "app")?;
    let image = format!("{}/app:1", registry.address);
    own.kubectl(&["create", "deployment", "web", "--image", &image, "--", "httpd", "-f", "-h", "/var/www"])?;
    own.kubectl(&["expose", "deployment", "web", "--port=80"])?;
    own.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    own.kubectl(&["run", "client", "--image", &image, "--", "sh", "-c", "echo started; sleep 1000"])?;
    let pod = own.ready("client")?;
    ensure!(pod["status"]["podIP"].as_str().is_some_and(|ip| ip.starts_with("10.88.0.")), "{}", pod["status"]);
    ensure!(own.kubectl(&["logs", "client"])? == "started\n", "kube-apiserver reaches the kubelet");
    let ip = own.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"])?;
    eventually(Duration::from_secs(10), || {
        let named = own.kubectl(&["exec", "client", "--", "nslookup", "web.default.svc.cluster.local"])?;
        ensure!(named.contains(&ip), "{named}");
        let get = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {ip} 80");
        let page = own.kubectl(&["exec", "client", "--", "sh", "-c", &get])?;
        ensure!(page.ends_with("hello\n"), "{page:?}");
        Ok(())
    })?;
    let leader = own.kubectl(&["-n", "kube-system", "get", "lease", "kube-scheduler", "-o", "jsonpath={.spec}"])?;
    ensure!(leader.contains("holderIdentity"), "the scheduler holds its lease: {leader}");
    own.kubectl(&["delete", "deployment/web", "service/web", "pod/client", "--now", "--cascade=foreground"])?;
    eventually(Duration::from_secs(20), || {
        let pods = own.kubectl(&["get", "pods", "--no-headers"])?;
        ensure!(pods.trim().is_empty() || pods.contains("No resources"), "{pods}");
        Ok(())
    })?;
    let links = own.host.as_ref().context("a host")?.sh("ip -o link show master hand0")?;
    ensure!(links.is_empty(), "no link leaks: {links}");
    Ok(())
}

fn plugins(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("cni")?;
    let host = own.host.clone().context("a host")?;
    let dir = own.dir.join("plugins");
    fs::create_dir_all(&dir)?;
    for plugin in ["bridge", "host-local", "loopback", "portmap"] {
        symlink(binary(), dir.join(plugin))?;
    }
    let call = |plugin: &str, command: &str, config: &Value| {
        let mut call = host.command(dir.join(plugin));
        call.env("CNI_COMMAND", command).env("CNI_CONTAINERID", "one").env("CNI_IFNAME", "eth0");
        call.env("CNI_NETNS", "/run/netns/one").env("CNI_PATH", &dir).env_remove("CNI_ARGS");
        output(&mut call, &config.to_string())
    };
    let mut said: Vec<Value> = Vec::new();
    for plugin in ["bridge", "host-local", "loopback", "portmap"] {
        let version: Value = serde_json::from_str(&call(plugin, "VERSION", &json!({"cniVersion": "1.0.0"}))?.ok()?)?;
        ensure!(version["supportedVersions"].as_array().is_some_and(|v| v.iter().any(|v| v == "1.1.0")), "{version}");
        said.push(version);
    }
    host.sh("mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && ip netns add one")?;
    let config = json!({"cniVersion": "1.0.0", "name": "n", "type": "bridge", "bridge": "test0", "isGateway": true,
        "ipam": {"type": "host-local", "subnet": "10.99.0.0/24", "dataDir": own.dir.join("ipam")}});
    let added: Value = serde_json::from_str(&call("bridge", "ADD", &config)?.ok()?)?;
    ensure!(added["ips"][0]["address"] == "10.99.0.2/24", "{added}");
    let address = host.sh("ip -n one -o address show eth0")?;
    ensure!(address.contains("10.99.0.2/24"), "{address}");
    call("loopback", "ADD", &json!({"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}))?.ok()?;
    ensure!(host.sh("ip -n one -o link show lo")?.contains("UP"));
    let refused = call("bridge", "ADD", &json!({"cniVersion": "9.0", "name": "n", "type": "bridge"}))?;
    let error: Value = serde_json::from_str(&refused.stdout)?;
    ensure!(refused.code == 1 && error["code"] == 1, "{error}");
    call("bridge", "DEL", &config)?.ok()?;
    ensure!(host.sh("ip -o link show master test0")?.is_empty(), "nothing is left in the bridge");
    Ok(())
}
