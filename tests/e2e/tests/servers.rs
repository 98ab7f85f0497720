//! Several servers on an etcd cluster, and a node that has a way to each: whichever dies, and whichever member of etcd,
//! clients and the node go on, and nothing that was acknowledged is lost.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};
use testkit::image::BUSYBOX;
use testkit::lan::NETWORK;
use testkit::runner::Test;
use testkit::{Cluster, Etcd, Lan, Own, Running, Signal, eventually, output};

pub const TESTS: &[Test] = &[("two_servers_on_an_etcd_cluster_and_any_may_die", any_may_die)];

const STARTS_WITHIN: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(20);
/// A leader that died holds its lease for 15 s, and others look every two.
const LED_AGAIN: Duration = Duration::from_secs(40);
/// A server that died is led to until its lease, of 15 s, is over, and somebody looks, every 10.
const LED_TO: Duration = Duration::from_secs(40);
const NODE: &str = "worker";

fn any_may_die(cluster: &Cluster) -> Result<()> {
    let lan = Lan::new(250)?;
    let mut etcd = Etcd::start(&lan.host, &format!("{NETWORK}.250"), &cluster.dir.join("etcd"))?;
    let (first, second, third) = (cluster.elsewhere("s1")?, cluster.elsewhere("s2")?, cluster.elsewhere("w1")?);
    for (host, last) in [(&first, 1), (&second, 2), (&third, 3)] {
        lan.join(host, last)?;
    }
    let url = starts_alone(&first, &second, &etcd)?;
    joins(&first, &second)?;
    let agent = node(&first, &third, &url)?;
    same_cluster(&first, &second)?;
    let pod = json!({"spec": {"nodeName": NODE, "tolerations": [{"operator": "Exists"}]}}).to_string();
    third.import_busybox(BUSYBOX)?;
    second.kubectl(&["run", "there", "--image", BUSYBOX, "--overrides", &pod, "--", "sleep", "1000"])?;
    second.ready("there")?;

    let writer = Writer::start(&second);
    // The first server, as by a power cut: its supervisor goes with it.
    for role in ["supervisor", "daemon"] {
        kill(&first, role)?;
    }
    works(&second, &agent, "after-a-server").context("the first server is dead")?;
    let leader = etcd.leader()?;
    etcd.kill(leader)?;
    works(&second, &agent, "after-a-member").with_context(|| format!("etcd's leader, m{leader}, is dead"))?;
    etcd.run(leader)?;
    etcd.wait(SOON)?;
    let acknowledged = writer.stop()?;
    let kept = names(&second)?;
    let lost: Vec<_> = acknowledged.difference(&kept).collect();
    ensure!(
        acknowledged.len() > 10 && lost.is_empty(),
        "of {} that were acknowledged these are lost: {lost:?}",
        acknowledged.len()
    );

    first.up()?;
    led_to(&second, &[1, 2])?;
    // And now the other one.
    second.run(&["down"])?.ok()?;
    led_to(&first, &[1])?;
    works(&first, &agent, "after-the-other").context("the second server is down")?;
    agent.signal(Signal::TERM)?;
    eventually(SOON, || {
        ensure!(third.pids("daemon")?.is_empty(), "it still runs");
        Ok(())
    })
}

/// The first server begins a cluster; another that does not join it is refused. Where others reach the first.
fn starts_alone(first: &Own, second: &Own, etcd: &Etcd) -> Result<String> {
    let [cert, key] = etcd.client();
    let flags = [
        "--etcd-servers",
        &etcd.servers(),
        "--etcd-cafile",
        &etcd.ca(),
        "--etcd-certfile",
        &cert,
        "--etcd-keyfile",
        &key,
    ];
    let config = |own: &Own, name: &str, last: u8| -> Result<String> {
        let file = own.dir.join("config.yaml");
        fs::write(&file, format!("nodeName: {name}\nnodeIP: {NETWORK}.{last}\n"))?;
        Ok(file.display().to_string())
    };
    let (here, there) = (config(first, "first", 1)?, config(second, "second", 2)?);
    first.run(&[&["up", "--config", &here], &flags[..]].concat())?.ok()?;
    let said = second.run(&[&["up", "--config", &there], &flags[..]].concat())?.fails()?;
    ensure!(said.contains("token create --control-plane"), "{said}");
    ensure!(!second.data_dir().join("cluster.json").exists(), "nothing is left of what was refused");
    let record: Value = serde_json::from_slice(&fs::read(first.data_dir().join("cluster.json"))?)?;
    Ok(format!("https://{NETWORK}.1:{}", record["apiPort"]))
}

/// The second joins it, without a node, by the command that the first has printed.
fn joins(first: &Own, second: &Own) -> Result<()> {
    let printed = first.run(&["token", "create", "--control-plane"])?.ok()?;
    let words: Vec<&str> = printed.split_whitespace().skip(2).collect();
    let nodes_token = first.run(&["token", "create"])?.ok()?;
    let config = second.dir.join("config.yaml").display().to_string();
    let up = ["up", "--disable-node", "--config", &config];
    let said = second.run(&[&up[..], &words[..2], &["--token", nodes_token.trim()]].concat())?.fails()?;
    ensure!(said.contains("it is for nodes"), "{said}");
    let said = second.run(&[&up[..], &words, &["--api-port", "7443"]].concat())?.fails()?;
    ensure!(said.contains("takes what is the cluster's"), "{said}");
    second.run(&[&up[..], &words].concat())?.ok()?;
    let same = |name: &str| {
        Ok::<_, anyhow::Error>(fs::read(first.data_dir().join(name))? == fs::read(second.data_dir().join(name))?)
    };
    ensure!(same("pki/ca.key")? && same("pki/sa.key")? && !same("pki/apiserver.crt")?, "keys of the cluster");
    for part in ["etcd", "runtime", "kubelet", "pki/kubelet.crt"] {
        ensure!(!second.data_dir().join(part).exists(), "{part}: it is a control plane alone");
    }
    Ok(())
}

/// A node that was told of the first server alone, by a token in a file.
fn node(first: &Own, third: &Own, url: &str) -> Result<Running> {
    let file = third.dir.join("token");
    fs::write(&file, first.run(&["token", "create"])?.ok()?)?;
    let address = format!("{NETWORK}.3");
    let token = file.display().to_string();
    let join = ["agent", "--server", url, "--token-file", &token, "--node-name", NODE, "--node-ip", &address];
    let agent = Running::start(&mut third.command(&join))?;
    agent.expect(STARTS_WITHIN, &format!("Ready. The node {NODE} is in the cluster"))?;
    eventually(SOON, || {
        let known = fs::read_to_string(third.data_dir().join("servers.json"))?;
        ensure!(known.contains(&format!("{NETWORK}.1:")) && known.contains(&format!("{NETWORK}.2:")), "{known}");
        Ok(())
    })?;
    Ok(agent)
}

fn same_cluster(first: &Own, second: &Own) -> Result<()> {
    led_to(first, &[1, 2])?;
    let nodes = second.kubectl(&["get", "nodes", "-o", "name"])?;
    ensure!(nodes == "node/first\nnode/worker\n", "{nodes}");
    // What one signs, the other believes.
    let token = first.kubectl(&["create", "token", "default"])?;
    let review =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token.trim()}});
    let review = second.kubectl_with(&["create", "-o", "json", "-f", "-"], &review.to_string())?.ok()?;
    ensure!(review.contains("\"authenticated\": true"), "{review}");
    for lease in ["kube-controller-manager", "kube-scheduler"] {
        let lease = second.get(&format!("-n kube-system lease/{lease}"))?;
        ensure!(
            lease["spec"]["leaseDurationSeconds"] == 15 && lease["spec"]["holderIdentity"].is_string(),
            "{lease:#}"
        );
    }
    Ok(())
}

/// The addresses of the `kubernetes` Service.
fn led_to(server: &Own, expected: &[u8]) -> Result<()> {
    let expected: Vec<String> = expected.iter().map(|last| format!("{NETWORK}.{last}")).collect();
    eventually(LED_TO, || {
        let slice = server.get("endpointslice/kubernetes")?;
        let found: Vec<&str> =
            slice["endpoints"].as_array().into_iter().flatten().filter_map(|e| e["addresses"][0].as_str()).collect();
        ensure!(found == expected, "{found:?}");
        Ok(())
    })
}

/// kubectl at this server, the node behind it, and who schedules: a new pod runs, and the old one is reached.
fn works(server: &Own, agent: &Running, name: &str) -> Result<()> {
    let pod = json!({"spec": {"nodeSelector": {"kubernetes.io/hostname": NODE}}}).to_string();
    eventually(LED_AGAIN, || {
        server.kubectl(&["run", name, "--image", BUSYBOX, "--overrides", &pod, "--", "sleep", "1000"]).map(drop)
    })?;
    server
        .wait_for(&format!("pod/{name}"), LED_AGAIN, |pod| pod["status"]["phase"] == "Running")
        .with_context(|| agent.said())?;
    let node = server.get(&format!("node/{NODE}"))?;
    let ready = node["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|c| c["type"] == "Ready" && c["status"] == "True");
    ensure!(ready, "{:#}", node["status"]["conditions"]);
    eventually(SOON, || {
        ensure!(server.kubectl(&["exec", "there", "--", "echo", "heard"])? == "heard\n");
        Ok(())
    })
}

fn kill(own: &Own, role: &str) -> Result<()> {
    own.pids(role)?
        .iter()
        .try_for_each(|pid| output(Command::new("kill").args(["-9", &pid.to_string()]), "")?.ok().map(drop))
}

/// Writes ConfigMaps through one server, one after the other, and notes which were acknowledged.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<BTreeSet<String>>,
}

impl Writer {
    fn start(server: &Own) -> Writer {
        let (stop, cluster) = (Arc::new(AtomicBool::new(false)), Cluster::clone(server));
        let over = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut acknowledged = BTreeSet::new();
            for n in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let name = format!("written-{n}");
                if cluster.kubectl(&["create", "configmap", &name]).is_ok() {
                    acknowledged.insert(name);
                }
            }
            acknowledged
        });
        Writer { stop, thread }
    }

    fn stop(self) -> Result<BTreeSet<String>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the writer panicked"))
    }
}

fn names(server: &Own) -> Result<BTreeSet<String>> {
    let listed = server.kubectl(&["get", "configmaps", "-o", "jsonpath={.items[*].metadata.name}"])?;
    Ok(listed.split_whitespace().map(str::to_owned).collect())
}
