//! The backend udp beside the kernel's VXLAN, which the backend vxlan has, and beside upstream's udp: one TCP stream, four, and small datagrams between
//! pods of two hosts in network namespaces, with links of 1500 and of 9000 bytes. Both ends and both hosts share the cores.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use linux::datagrams::{self, Inbox, MOST_MESSAGES, Message};
use linux::netns::NetNs;
use testkit::{Host, Running, binary, eventually, output};

use crate::Plan;
use crate::table::{Figure, Row, figure};
use crate::upstream::cell;

const ADDRESSES: [&str; 2] = ["198.51.100.1", "198.51.100.2"];
const SOON: Duration = Duration::from_secs(20);
const PORT: u16 = 5001;
const SMALL: usize = 64;

pub fn run(plan: &Plan) -> Result<Vec<Row>> {
    let time = plan.or_quick(Duration::from_secs(5), Duration::from_millis(300));
    let upstream = cell(plan.upstream.flannel());
    let mut rows = Vec::new();
    for mtu in [1500, 9000] {
        let kernel = cell(measure(&Node::Ours, "vxlan", mtu, time));
        let ours = measure(&Node::Ours, "udp", mtu, time)?;
        let theirs = match &upstream {
            Ok(program) => cell(measure(&Node::Upstreams(program.clone()), "udp", mtu, time)),
            Err(why) => Err(why.clone()),
        };
        let goals = [("one TCP stream", "1×"), ("four TCP streams", "1×"), ("64-byte datagrams", "0.5×")];
        for (beside, theirs) in [("kernel VXLAN", kernel), ("upstream's udp", theirs)] {
            for (n, (what, goal)) in goals.into_iter().enumerate() {
                let goal = if beside == "kernel VXLAN" { goal } else { "" };
                let theirs = theirs.as_ref().map(|all| all[n]).map_err(Clone::clone);
                let what = format!("flannel, MTU {mtu}: {what} by udp beside {beside}");
                rows.push(Row::rate(what, goal, ours[n], theirs));
            }
        }
    }
    Ok(rows)
}

/// Whose program carries the packets.
enum Node {
    Ours,
    /// Made of upstream's own packages: `tests/flannel`.
    Upstreams(PathBuf),
}

/// A stream, four, small packets.
fn measure(node: &Node, backend: &str, mtu: u32, time: Duration) -> Result<[Figure; 3]> {
    let dir = std::env::temp_dir().join(format!("bench-flannel-{}-{backend}-{mtu}", std::process::id()));
    let measured = Pair::new(node, backend, mtu, &dir).and_then(|pair| {
        let gigabits = |bytes: u64| figure(bytes as f64 * 8.0 / time.as_secs_f64() / 1e9, "Gbit/s");
        let (one, four) = (pair.streams(1, time)?, pair.streams(4, time)?);
        let packets = pair.datagrams(time)?;
        Ok([gigabits(one), gigabits(four), figure(packets as f64 / time.as_secs_f64(), "/s")])
    });
    let _ = std::fs::remove_dir_all(&dir);
    measured.with_context(|| format!("{backend}, MTU {mtu}"))
}

/// Two hosts with flannel and a pod each.
struct Pair {
    pods: [Pod; 2],
    _running: Vec<Running>,
    _hosts: [Host; 2],
}

struct Pod {
    ns: NetNs,
    address: IpAddr,
}

impl Pair {
    fn new(node: &Node, backend: &str, mtu: u32, dir: &Path) -> Result<Pair> {
        let hosts = [Host::new()?, Host::new()?];
        hosts[0]
            .sh(&format!("ip link add wire mtu {mtu} type veth peer name wire mtu {mtu} netns {}", hosts[1].pid()))?;
        for (host, address) in hosts.iter().zip(ADDRESSES) {
            host.sh(&format!(
                "ip address add {address}/24 dev wire; ip link set wire up; sysctl -qw net.ipv4.ip_forward=1"
            ))?;
        }
        let url = format!("http://{}:2379", ADDRESSES[0]);
        let mut etcd = hosts[0].command(binary());
        etcd.arg("etcd").arg("--data-dir").arg(dir.join("etcd"));
        etcd.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        let mut running = vec![Running::start(&mut etcd)?];
        let conf = format!(r#"{{"Network": "10.5.0.0/16", "Backend": {{"Type": "{backend}"}}}}"#);
        eventually(SOON, || {
            let mut etcdctl = hosts[0].command("etcdctl");
            let put =
                etcdctl.env("ETCDCTL_API", "3").args(["--endpoints", &url, "put", "/coreos.com/network/config", &conf]);
            output(put, "")?.ok()
        })?;
        let mut pods = Vec::new();
        for (n, host) in hosts.iter().enumerate() {
            let file = dir.join(format!("{n}/subnet.env"));
            let mut flannel = match node {
                Node::Ours => {
                    let mut flannel = host.command(binary());
                    flannel.arg("flannel");
                    flannel
                }
                Node::Upstreams(program) => host.command(program),
            };
            flannel.args(["-iface=wire", "--etcd-endpoints", &url]).arg("--subnet-file").arg(&file);
            running.push(Running::start(&mut flannel)?);
            pods.push(Pod::behind(host, &file).with_context(|| running.last().map(Running::said).unwrap_or_default())?);
        }
        let pods = <[Pod; 2]>::try_from(pods).map_err(|_| anyhow::anyhow!("two hosts have two pods"))?;
        eventually(SOON, || pods[0].ping(&pods[1]))?;
        Ok(Pair { pods, _running: running, _hosts: hosts })
    }

    /// Bytes that come through in all streams.
    fn streams(&self, count: usize, time: Duration) -> Result<u64> {
        let [from, to] = &self.pods;
        let at = SocketAddr::new(to.address, PORT);
        let listener = to.inside(|| Ok(TcpListener::bind(at)?))?;
        let total = Arc::new(AtomicU64::new(0));
        let mut threads = Vec::new();
        for _ in 0..count {
            let mut sender = from.inside(|| Ok(TcpStream::connect_timeout(&at, SOON)?))?;
            let (mut receiver, total) = (listener.accept()?.0, total.clone());
            threads.push(std::thread::spawn(move || {
                let mut buffer = vec![0; 256 << 10];
                while let Ok(read @ 1..) = receiver.read(&mut buffer) {
                    total.fetch_add(read as u64, Ordering::Relaxed);
                }
            }));
            threads.push(std::thread::spawn(move || {
                let (bytes, began) = (vec![0; 256 << 10], Instant::now());
                while began.elapsed() < time && sender.write_all(&bytes).is_ok() {}
            }));
        }
        std::thread::sleep(time);
        let came = total.load(Ordering::Relaxed);
        threads.into_iter().for_each(|thread| drop(thread.join()));
        Ok(came)
    }

    /// Small datagrams that come through.
    fn datagrams(&self, time: Duration) -> Result<u64> {
        let [from, to] = &self.pods;
        let (IpAddr::V4(source), IpAddr::V4(address)) = (from.address, to.address) else { bail!("IPv4") };
        let at = SocketAddrV4::new(address, PORT);
        let receiver = to.inside(|| Ok(datagrams::bind(at)?))?;
        let sender = from.inside(|| Ok(datagrams::bind(SocketAddrV4::new(source, 0))?))?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let counting = std::thread::spawn(move || {
            let (mut inbox, mut count) = (Inbox::new(MOST_MESSAGES), 0u64);
            while !told.load(Ordering::Relaxed) {
                match inbox.receive(&receiver) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        std::thread::sleep(Duration::from_micros(50))
                    }
                    Err(_) => break,
                    Ok(()) => {
                        count += inbox
                            .messages()
                            .map(|(bytes, segment)| bytes.len().div_ceil(segment.max(1)) as u64)
                            .sum::<u64>()
                    }
                }
            }
            count
        });
        let (buffer, began) = ([0; SMALL], Instant::now());
        let pieces: Vec<_> = (0..MOST_MESSAGES).map(|_| 0..SMALL).collect();
        let messages: Vec<_> =
            (0..MOST_MESSAGES).map(|n| Message { to: at, segment: SMALL, bytes: SMALL, pieces: n..n + 1 }).collect();
        while began.elapsed() < time {
            datagrams::send(&sender, &buffer, &pieces, &messages, |_, _| ());
        }
        stop.store(true, Ordering::Relaxed);
        counting.join().map_err(|_| anyhow::anyhow!("a thread broke off"))
    }
}

impl Pod {
    /// As CNI would make it.
    fn behind(host: &Host, file: &Path) -> Result<Pod> {
        let told = |name: &str| {
            eventually(SOON, || {
                let text = std::fs::read_to_string(file)?;
                let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
                value.map(str::to_owned).with_context(|| text.clone())
            })
        };
        let (subnet, mtu) = (told("FLANNEL_SUBNET")?, told("FLANNEL_MTU")?);
        let gateway = subnet.split('/').next().unwrap_or_default();
        let start = gateway.rsplit_once('.').map_or("", |(start, _)| start);
        let address = format!("{start}.2");
        host.sh(&format!(
            "set -e; mkdir -p /run/netns; mount -t tmpfs tmpfs /run/netns
             ip link add pods mtu {mtu} type bridge; ip address add {subnet} dev pods; ip link set pods up
             ip netns add pod; ip link add eth0 mtu {mtu} netns pod type veth peer name port mtu {mtu}
             ip link set port master pods up; ip -n pod link set lo up; ip -n pod link set eth0 up
             ip -n pod address add {address}/24 dev eth0; ip -n pod route add default via {gateway}"
        ))?;
        let ns = NetNs::open(format!("/proc/{}/root/run/netns/pod", host.pid()))?;
        Ok(Pod { ns, address: address.parse()? })
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.ns.run(work)?
    }

    /// Whether the other refuses what nobody waits for: so it is reached.
    fn ping(&self, other: &Pod) -> Result<()> {
        let to = SocketAddr::new(other.address, 9);
        let refused = self.inside(|| Ok(TcpStream::connect_timeout(&to, Duration::from_millis(500))))?;
        match refused {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => bail!("somebody waits at {to}"),
        }
    }
}
