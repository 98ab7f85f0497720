//! Pods of two hosts reach each other by flannel: by each backend, with small packets and big ones, through Services, from
//! the hosts themselves, while a daemon is killed, with leases in an etcd, and after a change of the backend. Backends that
//! this kernel lacks are refused in a sentence; they are tried on the machine of `tests/vm`.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use linux::netlink::Rtnl;
use linux::netns::NetNs;
use serde_json::{Value, json};
use testkit::image::BUSYBOX;
use testkit::runner::Test;
use testkit::{Cluster, Own, Running, Signal, binary, eventually};

use crate::two_hosts::{FIRST, NODE, SECOND, SOON, agent, ready, up_at, wire};

pub const TESTS: &[Test] = &[
    ("pods_of_two_hosts_reach_each_other_by_vxlan", by_vxlan),
    ("pods_of_two_hosts_reach_each_other_by_udp", by_udp),
    ("pods_of_two_hosts_reach_each_other_by_host_gw", by_host_gw),
    ("pods_of_two_hosts_reach_each_other_with_leases_in_etcd", leases_in_etcd),
    ("a_pod_network_without_its_api_server_forwards_on", without_server),
    ("two_clusters_share_two_hosts", two_clusters),
    ("two_hosts_have_a_network_of_other_peoples_plugins", plugins),
    ("an_agent_follows_another_backend_and_tells_of_another_network", follows),
    ("a_backend_that_the_kernel_lacks_is_refused_before_anything_is_made", lacking),
    ("a_cluster_of_before_flannel_starts_as_it_was", before_flannel),
];

const ECHO: u16 = 7;
/// Bytes of a page that is longer than any window.
const BIG: usize = 4 << 20;

fn by_vxlan(cluster: &Cluster) -> Result<()> {
    if !has_vxlan()? {
        println!("    skipped: this kernel has no VXLAN links");
        return Ok(());
    }
    by(cluster, &["--flannel-backend", "vxlan"], 1450, true)
}

fn by_udp(cluster: &Cluster) -> Result<()> {
    by(cluster, &["--flannel-backend", "udp"], 1472, false)
}

fn by_host_gw(cluster: &Cluster) -> Result<()> {
    by(cluster, &["--flannel-backend", "host-gw"], 1500, true)
}

fn has_vxlan() -> Result<bool> {
    let host = testkit::Host::new()?;
    Ok(host.sh("ip link add probe type vxlan id 1 dstport 8472").is_ok())
}

/// Two hosts with a pod each.
struct Pair {
    first: Own,
    second: Own,
    agent: Running,
    here: Pod,
    there: Pod,
}

fn pair(cluster: &Cluster, said: &[&str]) -> Result<Pair> {
    let (first, second) = (cluster.elsewhere("first")?, cluster.elsewhere("second")?);
    wire(&first, &second)?;
    start(first, second, said)
}

fn start(first: Own, second: Own, said: &[&str]) -> Result<Pair> {
    up_at(&first, said)?;
    let agent = agent(&first, &second)?;
    pods_at(first, second, agent)
}

fn pods_at(first: Own, second: Own, agent: Running) -> Result<Pair> {
    for host in [&first, &second] {
        host.import_busybox(BUSYBOX)?;
    }
    let here = runs(&first, "here", "first")?;
    let there = runs(&first, "there", NODE).with_context(|| agent.said())?;
    Ok(Pair { first, second, agent, here, there })
}

/// A pod with a page.
fn runs(first: &Own, name: &str, node: &str) -> Result<Pod> {
    let pod = json!({"spec": {"nodeName": node, "tolerations": [{"operator": "Exists"}]}}).to_string();
    let serve = format!("dd if=/dev/zero of=/var/www/big bs={BIG} count=1 && exec httpd -f -p 80 -h /var/www");
    first.kubectl(&["run", name, "--image", BUSYBOX, "--overrides", &pod, "--", "sh", "-c", &serve])?;
    Pod::of(first, name)
}

fn by(cluster: &Cluster, said: &[&str], mtu: u32, in_kernel: bool) -> Result<()> {
    let pair = pair(cluster, said)?;
    ensure!((pair.here.mtu()?, pair.there.mtu()?) == (mtu, mtu), "{} and {}", pair.here.mtu()?, pair.there.mtu()?);
    both_ways(&pair.here, &pair.there).with_context(|| pair.agent.said())?;
    services(&pair)?;
    if in_kernel {
        killed_without_a_loss(&pair)?;
    }
    end(pair)
}

fn both_ways(here: &Pod, there: &Pod) -> Result<()> {
    for (from, to) in [(here, there), (there, here)] {
        for bytes in [1, 1000, 1400, 9000] {
            eventually(SOON, || from.asks(to, bytes)).with_context(|| format!("{bytes} bytes"))?;
        }
        eventually(SOON, || from.streams(to, BIG))?;
    }
    Ok(())
}

/// From a pod and from both hosts to a Service whose pod is on the other host.
fn services(pair: &Pair) -> Result<()> {
    let (first, second) = (&pair.first, &pair.second);
    for (pod, client, near) in [("there", "here", first), ("here", "there", second)] {
        first.kubectl(&["expose", "pod", pod, "--port=80"])?;
        let service = first.get(&format!("service {pod}"))?["spec"]["clusterIP"].as_str().context("an IP")?.to_owned();
        let get = format!("printf 'GET /big HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {service} 80 | wc -c");
        eventually(SOON, || {
            let bytes: usize = first.kubectl(&["exec", client, "--", "sh", "-c", &get])?.trim().parse()?;
            ensure!(bytes > BIG, "{bytes} bytes came");
            Ok(())
        })
        .with_context(|| format!("from {client} to the Service of {pod}"))?;
        let host = near.host.as_ref().context("a host")?;
        let address = if pod == "there" { &pair.there } else { &pair.here }.address;
        for to in [service, address.to_string()] {
            eventually(SOON, || {
                let page = host.sh(&format!("curl -sS --max-time 5 http://{to}/big | wc -c"))?;
                ensure!(page.trim() == BIG.to_string(), "{page} bytes came");
                Ok(())
            })
            .with_context(|| format!("from the host of {client} to {to}"))?;
        }
    }
    Ok(())
}

/// The way is in the kernel: nobody notices that a daemon is gone.
fn killed_without_a_loss(pair: &Pair) -> Result<()> {
    let daemons = pair.first.pids("daemon")?;
    let (here, there) = (&pair.here, &pair.there);
    let asked = std::thread::scope(|scope| {
        let asking = scope.spawn(|| here.keeps_asking(there, Duration::from_secs(3)));
        std::thread::sleep(Duration::from_millis(500));
        for pid in &daemons {
            let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
        asking.join()
    });
    let (sent, lost) = asked.map_err(|_| anyhow::anyhow!("a thread broke off"))??;
    ensure!(lost == 0 && sent > 500, "{lost} of {sent} packets were lost while the daemon was killed");
    eventually(Duration::from_secs(30), || {
        let now = pair.first.pids("daemon")?;
        ensure!(!now.is_empty() && now != daemons, "{now:?}");
        pair.first.kubectl(&["get", "--raw", "/readyz"]).map(drop)
    })?;
    eventually(SOON, || pair.here.asks(&pair.there, 1000))
}

/// Both hosts are as they were before.
fn end(pair: Pair) -> Result<()> {
    let Pair { first, second, agent, .. } = pair;
    agent.signal(Signal::TERM)?;
    eventually(SOON, || {
        ensure!(second.pids("daemon")?.is_empty(), "it still runs");
        Ok(())
    })?;
    for own in [&second, &first] {
        own.run(&["reset", "--yes"])?.ok()?;
        let host = own.host.as_ref().context("a host")?;
        let left =
            host.sh("ip -o link | grep -E 'flannel|fk[0-9]' || true; ip route show proto 70; nft list tables")?;
        ensure!(left.trim().is_empty(), "left after reset: {left}");
    }
    Ok(())
}

/// An etcd for flannel's leases on the first host, and where it is.
pub fn etcd_of_leases(first: &Own) -> Result<(Running, String)> {
    let url = format!("http://{FIRST}:12379");
    let mut etcd = first.program(&binary());
    etcd.arg("etcd").arg("--data-dir").arg(first.dir.join("leases"));
    etcd.args([
        "--listen-client-urls",
        &url,
        "--advertise-client-urls",
        &url,
        "--listen-peer-urls",
        "http://127.0.0.1:12380",
    ]);
    Ok((Running::start(&mut etcd)?, url))
}

fn leases_in_etcd(cluster: &Cluster) -> Result<()> {
    let (first, second) = (cluster.elsewhere("first")?, cluster.elsewhere("second")?);
    wire(&first, &second)?;
    let (_etcd, url) = etcd_of_leases(&first)?;
    let said = ["--flannel-backend", "host-gw", "--flannel-subnet-manager", "etcd", "--flannel-etcd-endpoints", &url];
    let pair = start(first, second, &said)?;
    both_ways(&pair.here, &pair.there).with_context(|| pair.agent.said())?;
    let host = pair.first.host.as_ref().context("a host")?;
    let keys =
        host.sh(&format!("ETCDCTL_API=3 etcdctl --endpoints {url} get --prefix --keys-only /coreos.com/network"))?;
    let leases = keys.lines().filter(|line| line.contains("/subnets/")).count();
    ensure!(leases == 2 && keys.contains("/coreos.com/network/config"), "{keys}");
    // The addresses are of the leases; the controller manager gives nodes none.
    let node = pair.first.get(&format!("node {NODE}"))?;
    ensure!(node["spec"]["podCIDR"].is_null(), "{}", node["spec"]);
    let subnet = keys.lines().filter_map(|line| line.rsplit_once('/')).map(|(_, subnet)| subnet.replace(".0-24", "."));
    ensure!(subnet.into_iter().any(|start| pair.there.address.to_string().starts_with(&start)), "{keys}");
    end(pair)
}

/// What is known of other hosts is enough, also for a daemon that has to begin again.
fn without_server(cluster: &Cluster) -> Result<()> {
    let mut pair = pair(cluster, &[])?;
    let second = pair.second.host.clone().context("a host")?;
    eventually(SOON, || pair.here.asks(&pair.there, 1000)).with_context(|| pair.agent.said())?;
    second.sh(&format!(
        "nft 'add table inet wall; add chain inet wall out {{ type filter hook output priority 0; }}; \
         add rule inet wall out ip daddr {FIRST} tcp dport 6443-6999 reject with tcp reset'"
    ))?;
    let routes = || second.sh("ip route show proto 70");
    let before = routes()?;
    let away = before.lines().find(|route| route.contains("via")).context("no route to the first")?;
    second.sh(&format!("ip route del {away}"))?;
    eventually(SOON, || {
        let now = routes()?;
        ensure!(now == before, "{now}");
        Ok(())
    })
    .context("a route that somebody took away, without a server")?;
    both_ways(&pair.here, &pair.there)?;

    let (here, there) = (&pair.here, &pair.there);
    let (sent, lost) = std::thread::scope(|scope| -> Result<_> {
        let asking = scope.spawn(|| there.keeps_asking(here, Duration::from_secs(8)));
        pair.agent.signal(Signal::KILL)?;
        eventually(SOON, || {
            ensure!(pair.second.pids("daemon")?.is_empty(), "it still runs");
            Ok(())
        })?;
        let agent = Running::start(&mut pair.second.command(&["agent"]))?;
        agent.expect(SOON, "no API server answers")?;
        pair.agent = agent;
        asking.join().map_err(|_| anyhow::anyhow!("a thread broke off"))?
    })?;
    ensure!(lost == 0 && sent > 500, "{lost} of {sent} packets were lost");
    second.sh("nft delete table inet wall")?;
    ready(&pair.agent)?;
    services(&pair)?;
    end(pair)
}

/// Each has its ranges, links, rules and ports; what one does touches the other's packets at no time.
fn two_clusters(cluster: &Cluster) -> Result<()> {
    let (first, second) = (cluster.elsewhere("first")?, cluster.elsewhere("second")?);
    wire(&first, &second)?;
    let (other_first, other_second) = (first.beside("b")?, second.beside("b")?);
    let one = start(first, second, &[])?;
    let other = start(other_first, other_second, &[])?;
    for pair in [&one, &other] {
        both_ways(&pair.here, &pair.there).with_context(|| pair.agent.said())?;
        services(pair)?;
    }
    ensure!(one.here.address != other.here.address, "{} twice", one.here.address);
    let Pair { first, second, agent, .. } = other;
    let reset = || -> Result<()> {
        agent.signal(Signal::TERM)?;
        eventually(SOON, || {
            ensure!(second.pids("daemon")?.is_empty(), "it still runs");
            Ok(())
        })?;
        [&second, &first].into_iter().try_for_each(|own| own.run(&["reset", "--yes"])?.ok().map(drop))
    };
    let (here, there) = (&one.here, &one.there);
    let (sent, lost) = std::thread::scope(|scope| -> Result<_> {
        let asking = scope.spawn(|| here.keeps_asking(there, Duration::from_secs(8)));
        reset()?;
        asking.join().map_err(|_| anyhow::anyhow!("a thread broke off"))?
    })?;
    ensure!(lost == 0 && sent > 500, "{lost} of {sent} packets were lost while the other cluster went");
    both_ways(here, there)?;
    end(one)
}

/// Debian's programs, a configuration that comes after the cluster, and routes as whoever brings such a network makes them.
fn plugins(cluster: &Cluster) -> Result<()> {
    const PROGRAMS: &str = "/usr/lib/cni";
    if !Path::new(PROGRAMS).join("bridge").exists() {
        println!("    skipped: there are no plugins in {PROGRAMS}");
        return Ok(());
    }
    let (first, second) = (cluster.elsewhere("first")?, cluster.elsewhere("second")?);
    wire(&first, &second)?;
    for own in [&first, &second] {
        let host = own.host.as_ref().context("a host")?;
        host.sh("mkdir -p /etc/cni /var/lib/cni; mount -t tmpfs none /etc/cni; mount -t tmpfs none /var/lib/cni")?;
    }
    let said = up_at(&first, &["--network", "cni"])?;
    ensure!(said.contains("not Ready before a pod network is configured in /etc/cni/net.d"), "{said}");
    let told = first.get("node first")?["status"]["conditions"].to_string();
    ensure!(told.contains("no network is configured in /etc/cni/net.d"), "{told}");
    let refused = first.run(&["node", "add"])?.fails()?;
    ensure!(refused.contains("further nodes are other machines"), "{refused}");
    // The second is told by the first what its network is.
    let agent = agent(&first, &second)?;
    let ranges = [("first", &first, FIRST), (NODE, &second, SECOND)].map(|(node, own, address)| {
        let range = first.get(&format!("node {node}"))?["spec"]["podCIDR"].as_str().context("a range")?.to_owned();
        anyhow::Ok((own, address, range))
    });
    let [one, other] = ranges;
    let (one, other) = (one?, other?);
    for ((own, _, range), (_, way, far)) in [(&one, &other), (&other, &one)] {
        let list = json!({"cniVersion": "1.0.0", "name": "theirs", "plugins": [
            {"type": "bridge", "bridge": "theirs0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
                "ipam": {"type": "host-local", "ranges": [[{"subnet": range}]], "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": true}}]});
        let host = own.host.as_ref().context("a host")?;
        let write = format!("mkdir -p /etc/cni/net.d; echo '{list}' > /etc/cni/net.d/10-theirs.conflist");
        host.sh(&format!("{write}; ip route add {far} via {way}; sysctl -qw net.ipv4.ip_forward=1"))?;
    }
    for node in ["first", NODE] {
        first
            .wait_for(&format!("node {node}"), SOON, |node| node.to_string().contains(r#""reason":"KubeletReady""#))?;
    }
    let pair = pods_at(first, second, agent)?;
    both_ways(&pair.here, &pair.there).with_context(|| pair.agent.said())?;
    services(&pair)?;
    let host = pair.second.host.clone().context("a host")?;
    let leased = || host.sh("ls /var/lib/cni/networks/theirs | grep -c '^10' || true");
    ensure!(leased()?.trim() == "1", "host-local has given out {} addresses", leased()?);
    // Somebody takes the configuration away: what is there can end.
    host.sh("rm /etc/cni/net.d/10-theirs.conflist")?;
    pair.first.kubectl(&["delete", "pod", "there", "--now"])?;
    ensure!(leased()?.trim() == "0", "host-local still has {} addresses", leased()?);
    end(pair)
}

/// The server starts again with another backend; nobody touches the agent.
fn follows(cluster: &Cluster) -> Result<()> {
    let begins = if has_vxlan()? { "vxlan" } else { "udp" };
    let pair = pair(cluster, &["--flannel-backend", begins])?;
    both_ways(&pair.here, &pair.there).with_context(|| pair.agent.said())?;
    restarts(&pair, &["--flannel-backend", "host-gw"])?;
    let moved = format!("from={begins:?} to=\"host-gw\"");
    eventually(SOON, || {
        ensure!(pair.agent.said().contains(&moved), "{}", pair.agent.said());
        Ok(())
    })?;
    let again = runs(&pair.first, "again", "first")?;
    both_ways(&again, &pair.there).with_context(|| pair.agent.said())?;
    for own in [&pair.first, &pair.second] {
        let host = own.host.as_ref().context("a host")?;
        let left = host.sh("ip -o link | grep flannel || true")?;
        ensure!(left.is_empty(), "left of {begins}: {left}");
        let routes = host.sh("ip route show proto 70")?;
        ensure!(routes.contains(" via 198.51.100."), "{routes}");
    }
    let node = pair.first.get(&format!("node {NODE}"))?;
    let annotations = &node["metadata"]["annotations"];
    ensure!(annotations["flannel.alpha.coreos.com/backend-type"] == "host-gw", "{annotations}");

    // Pods keep the network that connected them: that is told, here and on the other host.
    restarts(&pair, &["--network", "bridge"])?;
    let sentence = "the cluster has another pod network now";
    eventually(SOON, || {
        let status = pair.second.run(&["status"])?.ok()?;
        ensure!(status.contains(sentence) && status.contains("ferrokube reset"), "{status}");
        ensure!(pair.agent.said().contains(sentence), "{}", pair.agent.said());
        Ok(())
    })?;
    restarts(&pair, &["--network", "flannel"])?;
    eventually(SOON, || {
        let status = pair.second.run(&["status"])?.ok()?;
        ensure!(!status.contains(sentence), "{status}");
        Ok(())
    })?;
    let last = runs(&pair.first, "last", "first")?;
    both_ways(&last, &pair.there).with_context(|| pair.agent.said())?;
    end(pair)
}

fn restarts(pair: &Pair, said: &[&str]) -> Result<()> {
    pair.first.run(&["down"])?.ok()?;
    up_at(&pair.first, said).map(drop)
}

fn lacking(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("lacking")?;
    let host = own.host.as_ref().context("a host")?;
    for (backend, kind) in [("wireguard", "wireguard"), ("ipip", "ipip local 127.0.0.1")] {
        if host.sh(&format!("ip link add probe type {kind} && ip link del probe")).is_ok() {
            println!("    skipped: this kernel has {backend}");
            continue;
        }
        let said = own.run(&["up", "--flannel-backend", backend])?.fails()?;
        let module = format!("its module {backend}");
        ensure!(said.contains(&module) && said.contains("choose the backend vxlan, host-gw or udp"), "{said}");
        ensure!(said.trim().lines().count() == 1, "one sentence: {said}");
        ensure!(!own.data_dir().join("cluster.json").exists(), "nothing was made");
    }
    Ok(())
}

/// Its file says nothing of a pod network.
fn before_flannel(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("before")?;
    own.run(&["up", "--network", "bridge"])?.ok()?;
    let file = own.data_dir().join("cluster.json");
    let mut record: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    record.as_object_mut().context("an object")?.remove("network").context("it says its network")?;
    own.run(&["down"])?.ok()?;
    std::fs::write(&file, record.to_string())?;
    own.run(&["up"])?.ok()?;
    let after: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    ensure!(after["network"].is_null(), "{after:#}");
    let host = own.host.as_ref().context("a host")?;
    ensure!(!host.sh("ip -o link")?.contains("flannel"), "it has a link of flannel's");
    own.import_busybox(BUSYBOX)?;
    own.kubectl(&["run", "one", "--image", BUSYBOX, "--", "sleep", "1000"])?;
    own.ready("one").map(drop)
}

/// A pod's network, seen from inside.
struct Pod {
    ns: NetNs,
    address: IpAddr,
}

impl Pod {
    /// It answers whatever it is sent, from now on.
    fn of(cluster: &Cluster, name: &str) -> Result<Pod> {
        let ready = cluster.ready(name)?;
        let address = ready["status"]["podIP"].as_str().context("an address")?.parse()?;
        let link = eventually(SOON, || cluster.kubectl(&["exec", name, "--", "readlink", "/proc/self/ns/net"]))?;
        let pod = Pod { ns: namespace(link.trim())?, address };
        pod.echo()?;
        Ok(pod)
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.ns.run(work)?
    }

    fn mtu(&self) -> Result<u32> {
        Ok(Rtnl::open_in(&self.ns)?.link("eth0")?.context("no eth0")?.mtu)
    }

    fn echo(&self) -> Result<()> {
        let at = SocketAddr::new(self.address, ECHO);
        let (udp, tcp) = self.inside(|| Ok((UdpSocket::bind(at)?, TcpListener::bind(at)?)))?;
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(&buffer[..length], from);
            }
        });
        std::thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                std::thread::spawn(move || std::io::copy(&mut stream.try_clone()?, &mut &stream));
            }
        });
        Ok(())
    }

    fn socket(&self, patience: Duration) -> Result<UdpSocket> {
        let socket = self.inside(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
        socket.set_read_timeout(Some(patience))?;
        Ok(socket)
    }

    /// A datagram of so many bytes comes back.
    fn asks(&self, other: &Pod, bytes: usize) -> Result<()> {
        let (socket, sent) = (self.socket(Duration::from_millis(500))?, pattern(bytes));
        let to = SocketAddr::new(other.address, ECHO);
        socket.send_to(&sent, to)?;
        let mut buffer = vec![0; 65_536];
        let (length, from) = socket.recv_from(&mut buffer)?;
        ensure!(buffer[..length] == sent && from == to, "{length} bytes from {from}");
        Ok(())
    }

    /// A stream of so many bytes comes back.
    fn streams(&self, other: &Pod, bytes: usize) -> Result<()> {
        let to = SocketAddr::new(other.address, ECHO);
        let mut stream = self.inside(|| Ok(TcpStream::connect_timeout(&to, Duration::from_secs(2))?))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let (mut writer, sent) = (stream.try_clone()?, pattern(bytes));
        let copy = sent.clone();
        let writing = std::thread::spawn(move || writer.write_all(&copy));
        let mut heard = vec![0; bytes];
        stream.read_exact(&mut heard)?;
        match writing.join() {
            Ok(written) => written?,
            Err(_) => bail!("a thread broke off"),
        }
        ensure!(heard == sent, "other bytes came back");
        Ok(())
    }

    /// Asks every few milliseconds; how many packets it sent, and how many did not come back.
    fn keeps_asking(&self, other: &Pod, time: Duration) -> Result<(usize, usize)> {
        let (socket, to, began) =
            (self.socket(Duration::from_secs(1))?, SocketAddr::new(other.address, ECHO), Instant::now());
        let reader = socket.try_clone()?;
        let reading = std::thread::spawn(move || {
            let (mut buffer, mut heard) = ([0; 64], 0);
            while reader.recv(&mut buffer).is_ok() {
                heard += 1;
            }
            heard
        });
        let mut sent = 0;
        while began.elapsed() < time {
            socket.send_to(b"still there?", to)?;
            sent += 1;
            std::thread::sleep(Duration::from_millis(2));
        }
        let heard: usize = reading.join().map_err(|_| anyhow::anyhow!("a thread broke off"))?;
        Ok((sent, sent.saturating_sub(heard)))
    }
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n % 251) as u8).collect()
}

/// The network namespace that the kernel calls so, found by a process in it.
fn namespace(link: &str) -> Result<NetNs> {
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let path = entry.path().join("ns/net");
        if std::fs::read_link(&path).is_ok_and(|name| name.as_os_str() == link) {
            return NetNs::open(&path).context(link.to_owned());
        }
    }
    bail!("no process is in {link}")
}
