//! Crashes: the daemon is killed while it writes and starts pods, a container's monitor is killed, the disk is full.
//! Nothing that was acknowledged is lost, what runs goes on, nothing leaks.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::image::BUSYBOX;
use testkit::manifests::MANY;
use testkit::runner::Test;
use testkit::{Cluster, built, eventually, output, tool};

pub const TESTS: &[Test] = &[
    ("killed_daemon_loses_nothing_and_leaks_nothing", killed),
    ("killed_daemon_is_back_within_a_second_and_is_told_of", back),
    ("a_component_that_panics_is_started_again_alone", alone),
    ("killed_monitor_fails_its_container_only", monitor),
    ("full_disk_lets_the_cluster_start", full_start),
    ("full_disk_refuses_writes_and_heals", full_disk),
    ("a_few_rounds_of_chaos_lose_nothing_and_leave_nothing", chaos),
];

/// Rounds of `cargo xtask chaos`, whose first have a kind of harm each: as many as take half a minute.
const ROUNDS: u64 = 6;

/// Objects that are written while the daemon is killed.
const OBJECTS: usize = 300;

fn kill(pid: i32) -> Result<()> {
    output(Command::new("kill").args(["-9", &pid.to_string()]), "")?.ok().map(drop)
}

/// Monitors with the process that each watches.
fn containers(cluster: &Cluster) -> Result<BTreeSet<(i32, String)>> {
    let monitors = cluster.pids("monitor")?.into_iter();
    let children = |pid: i32| fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    Ok(monitors.map(|pid| (pid, children(pid).trim().to_owned())).collect())
}

/// What a pod takes of the host: addresses, links, mounts, rules of Services.
fn taken(cluster: &Cluster) -> Result<Vec<String>> {
    let host = cluster.host.as_ref().context("a host")?;
    let addresses = fs::read_dir(cluster.data_dir().join("cni/addresses"))?.flatten();
    let mut taken: Vec<String> = addresses.map(|e| format!("address {}", e.file_name().to_string_lossy())).collect();
    let mut add = |what: &str, text: String| taken.extend(text.lines().map(|l| format!("{what} {l}")));
    add("link", host.sh("ip -o link | grep -o 'veth[^@:]*' || true")?);
    add("mount", host.sh(&format!("cut -d' ' -f5 /proc/self/mountinfo | grep {} || true", cluster.name))?);
    add("neighbour", host.sh("ip neigh show dev $(ip -o link show type bridge | cut -d: -f2 | head -n 1)")?);
    add("rule", host.sh("nft list ruleset | grep -v -e 'counter packets'")?);
    taken.sort();
    Ok(taken)
}

fn killed(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("crash")?;
    own.up()?;
    own.import_busybox(BUSYBOX)?;
    own.kubectl(&["run", "steady", "--image", BUSYBOX, "--", "sleep", "100000"])?;
    own.ready("steady")?;
    own.apply(MANY)?;
    let before = taken(&own)?;
    let steady = containers(&own)?;
    // Printed when it fails, so that the same moments can be tried again.
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.subsec_nanos();
    let rounds = if testkit::full() { 20 } else { 4 };
    for round in 0..rounds {
        let millis = 50 + (u64::from(seed) / 1000 * (round + 1) * 7919) % 900;
        killed_once(&own, round, Duration::from_millis(millis), &steady)
            .with_context(|| format!("round {round}, killed after {millis} ms"))?;
    }
    own.kubectl(&["scale", "deployment", "many", "--replicas=0"])?;
    own.wait_for("pods", Duration::from_secs(30), |l| l["items"].as_array().is_some_and(|i| i.len() == 1))?;
    eventually(Duration::from_secs(10), || {
        let after = taken(&own)?;
        let leaks: Vec<_> = after.iter().filter(|t| !before.contains(t)).collect();
        let lost: Vec<_> = before.iter().filter(|t| !after.contains(t)).collect();
        ensure!(leaks.is_empty() && lost.is_empty(), "leaks: {leaks:#?}; lost: {lost:#?}");
        Ok(())
    })
}

/// Kills the daemon while objects are written and pods come and go, and looks at what the next one finds.
fn killed_once(own: &Cluster, round: u64, after: Duration, steady: &BTreeSet<(i32, String)>) -> Result<()> {
    let daemon = *own.pids("daemon")?.first().context("a daemon")?;
    let replicas = format!("--replicas={}", 3 * ((round + 1) % 2));
    own.kubectl(&["scale", "deployment", "many", &replicas])?;
    let list: String = (0..OBJECTS)
        .map(|i| {
            format!(
                "{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{{\"name\":\"r{round}-{i}\"}}}}\n---\n"
            )
        })
        .collect();
    let mut writer = own.program(&tool("KUBECTL", "kubectl"));
    writer.arg("--kubeconfig").arg(own.kubeconfig()).args(["create", "-o", "name", "-f", "-"]);
    let mut writer = writer.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    writer.stdin.take().context("stdin")?.write_all(list.as_bytes())?;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(after);
            kill(daemon)
        });
    });
    // Every line is an answer of the server that the object is there.
    let lines = BufReader::new(writer.stdout.take().context("stdout")?).lines();
    let acknowledged: BTreeSet<String> = lines.map_while(|line| line.ok()).collect();
    let _ = writer.wait();
    let running = containers(own)?;
    ensure!(steady.is_subset(&running), "containers outlive the daemon: {steady:?} {running:?}");
    // Its supervisor has started the next one: this waits for it.
    own.up()?;
    ensure!(!own.pids("daemon")?.contains(&daemon), "the daemon is dead");
    let kept = own.kubectl(&["get", "configmaps", "-o", "name"])?;
    let kept: BTreeSet<String> = kept.lines().map(str::to_owned).collect();
    let lost: Vec<_> = acknowledged.difference(&kept).collect();
    ensure!(lost.is_empty(), "{} of {} acknowledged objects are lost: {lost:?}", lost.len(), acknowledged.len());
    let rolled = own.kubectl(&["rollout", "status", "deployment/many", "--timeout=60s"]);
    rolled.with_context(|| {
        let pods = own.kubectl(&["describe", "pods", "-l", "app=many"]).unwrap_or_default();
        format!("{pods}\n{}", own.log_tail())
    })?;
    let running = containers(own)?;
    ensure!(steady.is_subset(&running), "and it takes them up as they are: {steady:?} {running:?}");
    let pod = own.get("pod/steady")?;
    let status = &pod["status"]["containerStatuses"][0];
    ensure!(status["restartCount"] == 0 && status["ready"] == true, "{status:#}");
    own.kubectl(&["exec", "steady", "--", "true"])?;
    Ok(())
}

/// A debug build on a busy host starts slower than a release build: in all, until it says so.
const BACK: Duration = Duration::from_secs(15);

fn back(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("back")?;
    let host = own.host.clone().context("a host")?;
    own.up()?;
    own.import_busybox(BUSYBOX)?;
    own.apply(SERVED)?;
    own.ready("served")?;
    let service = own.kubectl(&["get", "service", "served", "-o", "jsonpath={.spec.clusterIP}"])?;
    let (before, supervisor) = (containers(&own)?, own.pids("supervisor")?);
    let daemon = *own.pids("daemon")?.first().context("a daemon")?;
    kill(daemon)?;
    // No daemon is needed for what the kernel does: pods reach Services, and the node reaches pods.
    let page = host.sh(&format!("curl -sS --max-time 3 http://{service}/"))?;
    ensure!(page == "hello\n", "Service rules outlive the daemon: {page:?}");
    let began = Instant::now();
    eventually(BACK, || {
        let status = own.status()?;
        ensure!(status["state"] == "running" && own.pids("daemon")? != [daemon], "{status:#}");
        Ok(())
    })?;
    println!("    up again after {:?}", began.elapsed());
    ensure!(own.pids("supervisor")? == supervisor, "the same supervisor");
    ensure!(containers(&own)? == before, "the same containers");
    let named = own.kubectl(&["exec", "served", "--", "nslookup", "served.default.svc.cluster.local"])?;
    ensure!(named.contains(&service), "DNS answers: {named}");
    let pod = own.get("pod/served")?;
    ensure!(pod["status"]["containerStatuses"][0]["restartCount"] == 0, "{pod:#}");
    let status = own.status()?;
    let told = &status["crashes"]["daemon"];
    ensure!(told["count"] == 1 && told["what"] == "killed by signal 9", "{status:#}");
    let table = own.run(&["status"])?.ok()?;
    ensure!(table.contains("BROKE") && table.contains("killed by signal 9") && table.contains("supervisor"), "{table}");
    let rss = fs::read_to_string(format!("/proc/{}/status", supervisor.first().context("a supervisor")?))?;
    let anonymous = rss.lines().find_map(|l| l.strip_prefix("RssAnon:")).unwrap_or_default().trim();
    let kib: u64 = anonymous.split(' ').next().unwrap_or_default().parse()?;
    // Nearly all of it are the relocated pointers of the whole program: its read-only data, not what a supervisor holds.
    ensure!(kib < 16 << 10, "a supervisor is small: {anonymous}");
    // Told to end, it ends: nobody starts anything anew.
    own.run(&["down"])?.ok()?;
    ensure!(own.pids("daemon")?.is_empty() && own.pids("supervisor")?.is_empty(), "{:#}", own.status()?);
    // A disk that takes no word of the log ends neither of them.
    let log = own.data_dir().join("daemon.log");
    fs::remove_file(&log)?;
    std::os::unix::fs::symlink("/dev/full", &log)?;
    own.up()?;
    let daemon = *own.pids("daemon")?.first().context("a daemon")?;
    kill(daemon)?;
    eventually(BACK, || {
        let status = own.status()?;
        ensure!(status["state"] == "running" && own.pids("daemon")? != [daemon], "{status:#}");
        Ok(())
    })?;
    own.ready("served")?;
    own.run(&["down"])?.ok()?;
    ensure!(own.pids("daemon")?.is_empty() && own.pids("supervisor")?.is_empty(), "{:#}", own.status()?);
    Ok(())
}

/// Each component that may is broken once: the same daemon starts it again, it does its work, and it is told.
fn alone(cluster: &Cluster) -> Result<()> {
    let full = testkit::full();
    let more = if full { &["kube-controller-manager", "kube-scheduler", "kube-proxy"][..] } else { &[] };
    for component in ["kubelet", "kube-dns"].iter().chain(more) {
        let own = cluster.elsewhere("alone")?;
        output(own.command(&["up"]).env("FERROKUBE_TEST_PANIC", component), "")?.ok()?;
        own.import_busybox(BUSYBOX)?;
        own.apply(SERVED)?;
        let daemon = own.pids("daemon")?;
        let told = eventually(Duration::from_secs(20), || {
            let status = own.status()?;
            ensure!(status["crashes"][component]["count"] == 1, "{component} has not broken yet: {status:#}");
            Ok(status)
        })?;
        let what = told["crashes"][component]["what"].as_str().unwrap_or_default().to_owned();
        ensure!(what.starts_with("panicked at ") && what.contains("FERROKUBE_TEST_PANIC"), "{what}");
        ensure!(
            own.log_tail().contains("panicked")
                || fs::read_to_string(own.data_dir().join("daemon.log"))?.contains("panicked")
        );
        own.ready("served").with_context(|| component.to_string())?;
        eventually(Duration::from_secs(20), || {
            own.kubectl(&["exec", "served", "--", "nslookup", "served.default.svc.cluster.local"]).map(drop)
        })?;
        own.kubectl(&["run", "later", "--image", BUSYBOX, "--", "sleep", "1000"])?;
        own.ready("later")?;
        let pod = own.get("pod/served")?;
        ensure!(pod["status"]["containerStatuses"][0]["restartCount"] == 0, "{pod:#}");
        let node = own.get("nodes")?["items"][0]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let metrics = own.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/metrics")])?;
        for metric in ["component_panics_total", "component_restarts_total"] {
            ensure!(metrics.contains(&format!("{metric}{{name=\"{component}\"}} 1")), "{metric} of {component}");
        }
        ensure!(own.pids("daemon")? == daemon, "the same daemon");
    }
    Ok(())
}

const SERVED: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: served, labels: {app: served}}
spec:
  containers:
  - name: web
    image: docker.io/library/busybox:test
    command: [sh, -c, "mkdir -p /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www"]
    readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: served}
spec: {selector: {app: served}, ports: [{port: 80}]}
"#;

/// With not a byte left on its disk a cluster starts: what is unchanged is not written.
fn full_start(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("fullstart")?;
    let host = own.host.clone().context("a host")?;
    let dir = own.data_dir();
    fs::create_dir_all(&dir)?;
    host.sh(&format!("mount -t tmpfs -o size=400m tmpfs {}", dir.display()))?;
    own.up()?;
    own.kubectl(&["create", "configmap", "before", "--from-literal=a=b"])?;
    own.run(&["down"])?.ok()?;
    host.sh(&format!("dd if=/dev/zero of={}/fill bs=64k 2>/dev/null || true", dir.display()))?;
    host.sh(&format!("dd if=/dev/zero of={}/fill2 bs=1 count=65536 2>/dev/null || true", dir.display()))?;
    let free = host.sh(&format!("df --output=avail -B1 {} | tail -n 1", dir.display()))?;
    ensure!(free.trim() == "0", "{free}");
    own.up().with_context(|| own.log_tail())?;
    let read = own.kubectl(&["get", "configmap", "before", "-o", "jsonpath={.data.a}"])?;
    ensure!(read == "b");
    host.sh(&format!("rm {0}/fill {0}/fill2", dir.display()))?;
    eventually(Duration::from_secs(20), || own.kubectl(&["create", "configmap", "after", "--from-literal=a=b"]))?;
    Ok(())
}

fn monitor(cluster: &Cluster) -> Result<()> {
    for (name, policy) in [("again", "Always"), ("once", "Never")] {
        let restart = format!("--restart={policy}");
        let before: BTreeSet<_> = containers(cluster)?;
        cluster.kubectl(&["run", name, "--image", BUSYBOX, &restart, "--", "sleep", "100000"])?;
        cluster.ready(name)?;
        let now = containers(cluster)?;
        let (pid, child) = now.difference(&before).next().context("a monitor")?.clone();
        kill(pid)?;
        let ended = |p: &Value| match policy {
            "Never" => p["status"]["phase"] == "Failed",
            _ => p["status"]["containerStatuses"][0]["restartCount"] == 1,
        };
        let pod = cluster.wait_for(&format!("pod/{name}"), Duration::from_secs(20), ended)?;
        let status = &pod["status"]["containerStatuses"][0];
        let end = if policy == "Never" { &status["state"] } else { &status["lastState"] }["terminated"].clone();
        ensure!(end["exitCode"] == 137 && end["message"].as_str().is_some_and(|m| m.contains("monitor")), "{status:#}");
        eventually(Duration::from_secs(5), || {
            ensure!(!fs::exists(format!("/proc/{child}"))?, "what it watched goes with it");
            Ok(())
        })?;
        if policy == "Always" {
            cluster.ready(name)?;
        }
        cluster.kubectl(&["delete", "pod", name, "--now"])?;
    }
    Ok(())
}

fn full_disk(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("full")?;
    let host = own.host.clone().context("a host")?;
    fs::create_dir_all(own.data_dir())?;
    host.sh(&format!("mount -t tmpfs -o size=400m tmpfs {}", own.data_dir().display()))?;
    own.up()?;
    let daemon = own.pids("daemon")?;
    own.kubectl(&["create", "configmap", "before", "--from-literal=a=b"])?;
    let fill = format!("dd if=/dev/zero of={}/fill bs=64k 2>/dev/null || true", own.data_dir().display());
    host.sh(&fill)?;
    // What the log has reserved may still be written: at some point it is used up.
    let big = own.dir.join("big");
    fs::write(&big, "x".repeat(900_000))?;
    let from = format!("--from-file={}", big.display());
    let mut written = Vec::new();
    let refused = loop {
        let name = format!("big-{}", written.len());
        let created = own.kubectl_with(&["create", "configmap", &name, &from], "")?;
        if created.code != 0 {
            break created.stderr;
        }
        written.push(name);
        ensure!(written.len() < 500, "the disk is full, but writes go on");
    };
    ensure!(refused.contains("space"), "a clear error: {refused}");
    let read = own.kubectl(&["get", "configmap", "before", "-o", "jsonpath={.data.a}"])?;
    ensure!(read == "b", "reads go on");
    for name in &written {
        own.kubectl(&["get", "configmap", name, "-o", "name"])?;
    }
    host.sh(&format!("rm {}/fill", own.data_dir().display()))?;
    let began = Instant::now();
    eventually(Duration::from_secs(20), || own.kubectl(&["create", "configmap", "after", "--from-literal=a=b"]))
        .with_context(|| format!("{:?} after there is space again", began.elapsed()))?;
    ensure!(own.pids("daemon")? == daemon, "without a restart");
    own.import_busybox(BUSYBOX)?;
    own.kubectl(&["run", "works", "--image", BUSYBOX, "--", "sleep", "1000"])?;
    own.ready("works")?;
    own.run(&["reset", "--yes"])?.ok()?;
    let left = host.sh(&format!("mountpoint -q {0} && ls -A {0}", own.data_dir().display()))?;
    ensure!(left.is_empty(), "the disk stays mounted, and is empty: {left}");
    Ok(())
}

fn chaos(cluster: &Cluster) -> Result<()> {
    let (name, rounds) = (format!("{}-chaos", cluster.name), ROUNDS.to_string());
    output(Command::new(built("chaos")).args(["--name", &name, "--rounds", &rounds]), "")?.ok().map(drop)
}
