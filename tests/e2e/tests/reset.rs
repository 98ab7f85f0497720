//! `reset` leaves the host as it was: compared before and after, whatever state the cluster is in.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use testkit::image::BUSYBOX;
use testkit::runner::Test;
use testkit::{Cluster, Host, eventually, output};

pub const TESTS: &[Test] = &[
    ("reset_leaves_the_host_as_it_was", as_it_was),
    ("reset_after_a_kill_and_of_half_a_directory", halves),
    ("reset_where_nothing_is_succeeds", nothing),
    ("reset_asks_on_a_terminal_and_wants_yes_without", asks),
    ("reset_leaves_a_directory_that_was_never_a_clusters", never),
    ("reset_leaves_foreign_files_and_takes_up_a_half_removed_directory", foreign),
    ("two_clusters_live_side_by_side", two),
];

/// A pod with everything that leaves things on the host: a port, volumes, a limit, a Service. No node port: Debian 12's
/// nft can't list the rules of one.
const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - name: web
    image: docker.io/library/busybox:test
    command: [sh, -c, "mkdir -p /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www"]
    ports: [{containerPort: 80, hostPort: 18080}]
    resources: {limits: {memory: 64Mi, cpu: 500m}}
    readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}
    volumeMounts:
    - {name: scratch, mountPath: /scratch}
    - {name: memory, mountPath: /memory}
  volumes:
  - {name: scratch, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
"#;

fn populated(own: &Cluster) -> Result<()> {
    own.up()?;
    own.import_busybox(BUSYBOX)?;
    own.apply(PODS)?;
    own.ready("web")?;
    Ok(())
}

/// What a cluster could leave, a line each. The settings and rules of the network are those of its own host; of the
/// rest of the machine only what bears its name.
fn traces(host: &Host, own: &Cluster) -> Result<BTreeSet<String>> {
    let mut lines = BTreeSet::new();
    let mut add = |what: &str, text: &str| lines.extend(text.lines().map(|l| format!("{what}: {l}")));
    add("link", &host.sh("ip -o link | cut -d: -f2- | sed 's/ qlen.*//'")?);
    add("address", &host.sh("ip -o address | cut -d: -f2- | sed 's/valid_lft.*//'")?);
    add("route", &host.sh("ip route show table all; ip rule")?);
    add("neighbour", &host.sh("ip neigh")?);
    add("nftables", &host.sh("nft list ruleset")?);
    add("sysctl", &host.sh("grep -rs '' /proc/sys/net | grep -v -e conntrack_count -e netdev_rss_key || true")?);
    add("sysctl", &host.sh("cd /proc/sys; grep -s '' kernel/panic* kernel/keys/* vm/overcommit* vm/panic* || true")?);
    // Other clusters of the real host were copied with its mounts, and come and go.
    let mounts = host.sh("cut -d' ' -f4-5 /proc/self/mountinfo")?;
    let mine = |line: &&str| !line.contains("ferrokube") || line.contains(&own.name);
    add("mount", &mounts.lines().filter(mine).collect::<Vec<_>>().join("\n"));
    for pid in host.processes()? {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        add("process", name.trim());
    }
    let places = format!(
        "find {} {} /var/lib/ferrokube /run/ferrokube /run/netns /var/lib/kubelet /var/log/pods /var/log/containers \
         /etc/cni /var/lib/cni /etc/kubernetes 2>/dev/null | \
         grep -v -e '/.kube$' -e /.kube/cache | grep -e /etc -e /var/log -e cni -e kubelet -e {} || true",
        own.data_dir().display(),
        own.home().display(),
        own.name,
    );
    add("file", &host.sh(&places)?);
    for group in groups(own) {
        add("cgroup", &group);
    }
    Ok(lines)
}

/// Groups of the cluster, in every hierarchy.
fn groups(own: &Cluster) -> Vec<String> {
    let Ok(tag) = fs::read_to_string(own.dir.join("tag")) else { return Vec::new() };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let hierarchies = mounts.lines().filter(|l| l.contains(" - cgroup")).filter_map(|l| l.split(' ').nth(4));
    hierarchies.map(|dir| Path::new(dir).join(&tag)).filter(|p| p.exists()).map(|p| p.display().to_string()).collect()
}

/// Notes the group that the cluster's containers are in.
fn note_group(own: &Cluster) -> Result<()> {
    let monitor = *own.pids("monitor")?.first().context("a container runs")?;
    let child = fs::read_to_string(format!("/proc/{monitor}/task/{monitor}/children"))?;
    let group = fs::read_to_string(format!("/proc/{}/cgroup", child.trim()))?;
    let path =
        group.lines().find_map(|l| l.split("/kubepods").next().filter(|g| g.len() < l.len())?.rsplit('/').next());
    fs::write(own.dir.join("tag"), path.with_context(|| group.clone())?)?;
    ensure!(!groups(own).is_empty(), "{group}");
    Ok(())
}

fn compare(host: &Host, own: &Cluster, before: &BTreeSet<String>) -> Result<()> {
    // A process that was killed is seen a moment longer.
    eventually(Duration::from_secs(5), || {
        let after = traces(host, own)?;
        let left: Vec<_> = after.difference(before).collect();
        let lost: Vec<_> = before.difference(&after).collect();
        ensure!(left.is_empty() && lost.is_empty(), "left behind: {left:#?}; gone: {lost:#?}");
        Ok(())
    })
}

fn as_it_was(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("reset")?;
    let host = own.host.clone().context("a host")?;
    let before = traces(&host, &own)?;
    populated(&own)?;
    note_group(&own)?;
    let during = traces(&host, &own)?;
    for what in ["link", "address", "route", "nftables", "sysctl", "mount", "process", "file", "cgroup"] {
        let new = during.difference(&before).any(|l| l.starts_with(what));
        ensure!(new, "a cluster that runs is seen by {what}: the comparison looks at the right places");
    }
    let said = own.run(&["reset", "--yes"])?.ok()?;
    ensure!(said.contains("is gone"), "{said}");
    compare(&host, &own, &before)?;
    ensure!(!own.home().join(".kube/config").exists(), "the kubeconfig that was made for it is gone");
    Ok(())
}

fn halves(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("halves")?;
    let host = own.host.clone().context("a host")?;
    let before = traces(&host, &own)?;
    let full = testkit::full();
    let more = if full { &["runtime", "etcd", "pki", "cni"][..] } else { &[] };
    for lost in ["", "cluster.json", "."].iter().chain(more) {
        populated(&own)?;
        note_group(&own)?;
        let daemon = *own.pids("daemon")?.first().context("a daemon")?;
        output(std::process::Command::new("kill").args(["-9", &daemon.to_string()]), "")?.ok()?;
        match *lost {
            "" => {}
            "." => fs::remove_dir_all(own.data_dir()).or_else(|_| unmount_and_remove(&host, &own))?,
            "cluster.json" => fs::remove_file(own.data_dir().join(lost))?,
            _ => host
                .sh(&format!("rm -rf --one-file-system {}/{lost} 2>/dev/null || true", own.data_dir().display()))
                .map(drop)?,
        }
        own.run(&["reset", "--yes"])?.ok().with_context(|| format!("without {lost:?}"))?;
        // What the merge had noted is lost with the directory.
        let _ = fs::remove_dir_all(own.home().join(".kube"));
        compare(&host, &own, &before).with_context(|| format!("without {lost:?}"))?;
    }
    Ok(())
}

/// Mounts in a directory of ours are seen in the host's mount namespace only: here it is removed as there.
fn unmount_and_remove(host: &Host, own: &Cluster) -> std::io::Result<()> {
    let script = format!("rm -rf --one-file-system {} 2>/dev/null || true", own.data_dir().display());
    host.sh(&script).map(drop).map_err(std::io::Error::other)
}

fn nothing(cluster: &Cluster) -> Result<()> {
    let own = cluster.another("nothing")?;
    for _ in 0..2 {
        let said = own.run(&["reset", "--yes"])?.ok()?;
        ensure!(said.contains("nothing to remove"), "{said}");
    }
    ensure!(!own.data_dir().exists());
    let said = own.run(&["down"])?.ok()?;
    ensure!(said.contains("There is no cluster"), "{said}");
    let status = own.run(&["status", "-o", "json"])?;
    ensure!(status.code == 1 && status.stdout.contains("\"absent\""), "{status:?}");
    Ok(())
}

fn asks(cluster: &Cluster) -> Result<()> {
    let own = cluster.another("asks")?;
    own.up()?;
    own.run(&["down"])?.ok()?;
    // `script` gives the command a terminal.
    let on_terminal = |answer: &str| -> Result<String> {
        let reset = own.command(&["reset"]);
        let words: Vec<_> = std::iter::once(reset.get_program()).chain(reset.get_args()).collect();
        let line = words.iter().map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ");
        let mut script = own.program("script".as_ref());
        script.args(["-qec", &line, "/dev/null"]).env("HOME", own.home());
        output(&mut script, answer)?.ok()
    };
    let said = on_terminal("n\n")?;
    ensure!(said.contains("[y/N]") && said.contains("Nothing was removed"), "{said}");
    let alone = own.run(&["reset"])?;
    ensure!(alone.code == 2 && alone.stderr.contains("--yes"), "nobody is there to be asked: {alone:?}");
    ensure!(own.kubeconfig().exists());
    let said = on_terminal("y\n")?;
    ensure!(said.contains("is gone") && !own.data_dir().exists(), "{said}");
    Ok(())
}

/// `mkdir -p v/pki v/docs; reset --name never --data-dir v`: entries that are called like a cluster's are none.
fn never(cluster: &Cluster) -> Result<()> {
    let own = cluster.another("never")?;
    let dir = own.data_dir();
    for name in ["pki", "etcd", "runtime", "docs"] {
        fs::create_dir_all(dir.join(name))?;
    }
    fs::write(dir.join("docs/thesis"), "important")?;
    fs::write(dir.join("pki/ca.key"), "somebody's")?;
    for args in [&["reset"][..], &["reset", "--yes"], &["down"]] {
        let said = own.run(args)?;
        ensure!(said.code == 0 && said.stdout.contains("There is no cluster"), "{said:?}");
    }
    // Another cluster's mark is none of this one's.
    let other = serde_json::json!({"name": "other", "dataDir": dir, "slot": 70, "apiPort": 7443, "podCidr": "10.8.0.0/16",
        "serviceCidr": "10.9.0.0/16", "clusterDomain": "cluster.local", "nodeName": "n", "nodeIp": null});
    fs::write(dir.join("cluster.json"), other.to_string())?;
    for command in ["reset", "down"] {
        let args = if command == "reset" { vec![command, "--yes"] } else { vec![command] };
        let said = own.run(&args)?;
        ensure!(said.code == 2 && said.stderr.contains("holds the cluster \"other\""), "{said:?}");
    }
    ensure!(fs::read_to_string(dir.join("docs/thesis"))? == "important" && dir.join("pki/ca.key").exists());
    ensure!(dir.join("etcd").exists() && dir.join("runtime").exists());
    fs::remove_dir_all(dir)?;
    Ok(())
}

fn foreign(cluster: &Cluster) -> Result<()> {
    let own = cluster.another("foreign")?;
    own.up()?;
    own.run(&["down"])?.ok()?;
    let dir = own.data_dir();
    fs::create_dir_all(dir.join("docs"))?;
    fs::write(dir.join("docs/thesis"), "important")?;
    std::os::unix::fs::symlink(dir.join("docs"), dir.join("manifests/link"))?;
    std::os::unix::fs::symlink("/etc", dir.join("kubelet/etc"))?;
    // As a reset that was cut short leaves it.
    for gone in ["pki", "etcd", "kubeconfig"] {
        let path = dir.join(gone);
        if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
    }
    // A copy of the directory is not the cluster: it must not take the cluster's processes and links with it.
    let copy = own.dir.join("copy");
    fs::create_dir_all(&copy)?;
    fs::copy(dir.join("cluster.json"), copy.join("cluster.json"))?;
    let mut command = std::process::Command::new(testkit::binary());
    command.args(["reset", "--yes", "--name", &own.name, "--data-dir"]).arg(&copy);
    let refused = output(&mut command, "")?;
    ensure!(refused.code == 2 && refused.stderr.contains(&dir.display().to_string()), "{refused:?}");
    let said = own.run(&["reset", "--yes"])?.ok()?;
    ensure!(said.contains("is gone") && said.contains(&dir.join("docs").display().to_string()), "it is named: {said}");
    let left: Vec<_> = fs::read_dir(&dir)?.flatten().map(|e| e.file_name()).collect();
    ensure!(left == ["docs"] && fs::read_to_string(dir.join("docs/thesis"))? == "important", "{left:?}");
    ensure!(Path::new("/etc/passwd").exists());
    let again = own.run(&["reset", "--yes"])?.ok()?;
    ensure!(again.contains("nothing to remove"), "{again}");
    Ok(())
}

fn two(cluster: &Cluster) -> Result<()> {
    let other = cluster.another("two")?;
    populated(&other)?;
    cluster.apply(PODS.replace("18080", "18081").as_str())?;
    cluster.ready("web")?;
    answers(cluster)?;
    answers(&other)?;
    let contexts = fs::read_to_string(other.home().join(".kube/config"))?;
    ensure!(contexts.contains(&format!("name: {}", other.name)), "{contexts}");
    let (ours, theirs) = (cluster.status()?, other.status()?);
    for field in ["server", "podCIDR", "serviceCIDR", "dataDir"] {
        ensure!(ours[field] != theirs[field], "{field}: {ours:#} {theirs:#}");
    }
    other.run(&["reset", "--yes"])?.ok()?;
    answers(cluster)?;
    let forward = fs::read_to_string("/proc/sys/net/ipv4/ip_forward")?;
    ensure!(forward.trim() == "1", "the other cluster still needs it");
    let again = cluster.kubectl(&["run", "later", "--image", BUSYBOX, "--", "sleep", "1000"]);
    again.and_then(|_| cluster.ready("later"))?;
    cluster.kubectl(&["delete", "pod/web", "service/web", "pod/later", "--now"])?;
    Ok(())
}

/// The Service answers on the node by its cluster address, and by name from a pod.
fn answers(cluster: &Cluster) -> Result<()> {
    let ip = cluster.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"])?;
    eventually(Duration::from_secs(10), || {
        let page =
            output(std::process::Command::new("curl").args(["-sS", "--max-time", "3", &format!("http://{ip}/")]), "")?;
        match page.ok()?.as_str() {
            "hello\n" => Ok(()),
            other => bail!("{other:?}"),
        }
    })?;
    let named = cluster.kubectl(&["exec", "web", "--", "nslookup", "web.default.svc.cluster.local"])?;
    ensure!(named.contains(&ip), "{named}");
    Ok(())
}
