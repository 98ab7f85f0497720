//! What is looked at. Nothing is changed by looking; no look takes longer than a few seconds, and one that can't be made
//! is told as such. I/O: /proc, netlink, nftables, the API server, DNS, and kube-proxy's health port of other nodes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use flannel::backend::{ipip, udp, vxlan, wireguard};
use http::header::DATE;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1 as core;
use kube::api::ListParams;
use kube::{Api, Client};
use linux::netlink::wireguard::{WIREGUARD, WireGuard};
use linux::netlink::{self, LinkKind};
use meta::Prefix;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::config::{Host, Network, Roles};
use crate::preflight::{self, Kernel};
use crate::process::Daemon;
use crate::{firewall, node_address};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// More other nodes than this aren't asked: one that can't be reached costs [`PATIENCE`].
const MOST_WAYS: usize = 20;
/// kube-proxy's health, open on every node; it answers anybody.
const HEALTH: u16 = 10256;
/// Bytes of a request that fills several packets.
const WHOLE: usize = 6_000;

/// See the module's head.
#[derive(Debug, Clone)]
pub struct Facts {
    pub kernel_version: String,
    /// The sentence of the first thing that the kernel lacks.
    pub kernel_lacks: Option<String>,
    /// Of which version cgroups are; none: there are none.
    pub cgroup_v2: Option<bool>,
    /// fs.inotify.max_user_watches.
    pub watches: Option<u64>,
    pub disk: Option<Disk>,
    /// How many seconds from now the newest of the cluster's own files was written; negative: before.
    pub future: Option<i64>,
    /// A sentence for each tool that drops what pods send, or why it couldn't be looked at.
    pub firewall: Result<Vec<String>, String>,
    /// The cluster's daemon lives.
    pub runs: bool,
    /// net.ipv4.ip_forward.
    pub forwarding: Option<String>,
    /// The link by which others reach this host, and the one that pods' packets to other hosts go in.
    pub outer: Option<Link>,
    pub inner: Option<Link>,
    /// Bytes that the network adds to a packet.
    pub overhead: u32,
    /// What must be open between hosts for it.
    pub tunnel: Option<String>,
    pub nodes: Result<Vec<Node>, String>,
    /// Seconds of the API server's clock ahead of this host's, where it is another host.
    pub server_apart: Option<i64>,
    pub ways: Vec<Way>,
    /// How long cluster DNS took, or what was wrong; none where no node is.
    pub cluster_dns: Option<Result<Duration, String>>,
    /// Servers that names outside the cluster are asked of, and how long each took.
    pub upstreams: Vec<(String, Option<Duration>)>,
    /// What would be in the way of a start; none: it runs.
    pub start: Option<Result<(), String>>,
}

/// Percent that are free.
#[derive(Debug, Clone)]
pub struct Disk {
    pub path: PathBuf,
    pub free: u64,
    pub free_inodes: u64,
}

#[derive(Debug, Clone)]
pub struct Link {
    pub name: String,
    pub mtu: u32,
}

#[derive(Debug, Clone)]
pub struct Node {
    pub name: String,
    pub ready: bool,
    /// Seconds since its lease was renewed, by the clock here.
    pub lease_age: Option<i64>,
}

/// The way to another node.
#[derive(Debug, Clone)]
pub struct Way {
    pub node: String,
    pub address: IpAddr,
    pub reach: Reach,
    /// Bytes of a whole packet.
    pub size: u32,
}

/// How far packets come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    Nothing,
    /// To the node's own address, not to the pods' side of it.
    Direct,
    /// There too, but no large ones.
    Small,
    Whole,
}

impl Facts {
    pub async fn gather(host: &Host) -> Facts {
        let runs = Daemon::find(host).is_some();
        let (outer, inner) = links(host).unwrap_or_default();
        let (inner, (overhead, tunnel)) =
            (inner.as_ref().map(shown), inner.as_ref().map(|link| carrier(host, link)).unwrap_or_default());
        let client = if runs { client(host).await } else { Err("the cluster doesn't run here".to_owned()) };
        let (nodes, ways, server_apart) = match &client {
            Ok(client) => others(host, client, inner.as_ref().or(outer.as_ref())).await,
            Err(why) => (Err(why.clone()), Vec::new(), None),
        };
        let is_node = runs && host.roles().has(Roles::NODE);
        Facts {
            kernel_version: rustix::system::uname().release().to_string_lossy().into_owned(),
            kernel_lacks: Kernel::look().lacks(),
            cgroup_v2: linux::cgroup::Cgroups::detect().ok().map(|found| found.is_v2()),
            watches: number("fs.inotify.max_user_watches"),
            disk: disk(host),
            future: future(host),
            firewall: firewall::walls(host).map(|walls| firewall::told(&walls)).map_err(|error| format!("{error:#}")),
            runs,
            forwarding: linux::sysctl::get("net.ipv4.ip_forward").ok(),
            outer,
            inner,
            overhead,
            tunnel,
            nodes,
            server_apart,
            ways,
            cluster_dns: if is_node { Some(cluster_dns(host).await) } else { None },
            upstreams: upstreams(host).await,
            start: (!runs).then(|| preflight::check(host, Some(host)).map_err(|error| format!("{error:#}"))),
        }
    }
}

fn number(name: &str) -> Option<u64> {
    linux::sysctl::get(name).ok()?.trim().parse().ok()
}

/// As an administrator where the control plane is, else as the node.
async fn client(host: &Host) -> Result<Client, String> {
    let config = match host.roles().has(Roles::CONTROL_PLANE) {
        true => host.kubeconfig(),
        false => host.pki().join("kubelet.conf"),
    };
    client::from_kubeconfig(&config).await.map_err(|error| format!("{}: {error:#}", config.display()))
}

fn disk(host: &Host) -> Option<Disk> {
    let there = host.data_dir.ancestors().find(|dir| dir.exists())?;
    let stat = rustix::fs::statvfs(there).ok()?;
    let percent = |free: u64, all: u64| (free * 100).checked_div(all).unwrap_or(100);
    Some(Disk {
        path: host.data_dir.clone(),
        free: percent(stat.f_bavail, stat.f_blocks),
        free_inodes: percent(stat.f_favail, stat.f_files),
    })
}

fn future(host: &Host) -> Option<i64> {
    let written = |path: PathBuf| std::fs::metadata(path).ok()?.modified().ok();
    let newest = [host.log(), host.pki(), host.data_dir.join("etcd"), host.data_dir.clone()];
    let newest = newest.into_iter().filter_map(written).max()?;
    Some(match newest.duration_since(SystemTime::now()) {
        Ok(ahead) => ahead.as_secs() as i64,
        Err(behind) => -(behind.duration().as_secs() as i64),
    })
}

/// The link that has the node's address, and flannel's.
fn links(host: &Host) -> Option<(Option<Link>, Option<netlink::Link>)> {
    let mut rtnl = netlink::Rtnl::open().ok()?;
    let own = node_address::of(host);
    let addresses = rtnl.addresses(None).ok()?;
    let index = addresses.iter().find(|address| address.prefix.addr == own)?.index;
    let links = rtnl.links().ok()?;
    let outer = links.iter().find(|link| link.index == index).map(shown);
    // Another cluster's has its pods' addresses.
    let is_ours = |link: &netlink::Link| {
        addresses.iter().any(|a| a.index == link.index && host.cluster.pod_cidr.contains(a.prefix.addr))
    };
    let inner = match host.cluster.network() {
        Network::Bridge | Network::Cni => None,
        Network::Flannel => links.into_iter().find(|link| link.name.starts_with("flannel") && is_ours(link)),
    };
    Some((outer, inner))
}

fn shown(link: &netlink::Link) -> Link {
    Link { name: link.name.clone(), mtu: link.mtu }
}

/// What carries packets between hosts by this link: the bytes that it adds, and what must be open for it.
fn carrier(host: &Host, inner: &netlink::Link) -> (u32, Option<String>) {
    match &inner.kind {
        Some(LinkKind::Vxlan(link)) => {
            (vxlan::overhead(host.cluster.has_ipv6()), Some(format!("UDP port {} (VXLAN)", link.port)))
        }
        Some(LinkKind::Ipip(_)) => (ipip::OVERHEAD, Some("IP protocol 4 (IPIP)".to_owned())),
        Some(LinkKind::Other(kind)) if kind == WIREGUARD => {
            (wireguard::OVERHEAD, Some(format!("UDP port {} (WireGuard)", port(inner).unwrap_or_default())))
        }
        _ => (udp::OVERHEAD, Some(format!("UDP port {}", host.cluster.net_conf()["Backend"]["Port"]))),
    }
}

/// That of a WireGuard link.
fn port(link: &netlink::Link) -> Option<u16> {
    WireGuard::open().and_then(|mut kernel| kernel.device(link.index)).map(|device| device.port).ok()
}

/// Other nodes: how they are by the API, and how far packets come.
async fn others(
    host: &Host,
    client: &Client,
    widest: Option<&Link>,
) -> (Result<Vec<Node>, String>, Vec<Way>, Option<i64>) {
    let apart = if host.roles().has(Roles::CONTROL_PLANE) { None } else { server_apart(client).await };
    let (every, all) = (Api::<core::Node>::all(client.clone()), ListParams::default());
    let leases = Api::<Lease>::namespaced(client.clone(), "kube-node-lease");
    let both = async { tokio::join!(every.list(&all), leases.list(&all)) };
    let (list, leases) = match tokio::time::timeout(PATIENCE, both).await {
        // Nodes may read their own lease alone.
        Ok((Ok(list), leases)) => (list.items, leases.map(|list| list.items).unwrap_or_default()),
        Ok((Err(error), _)) => return (Err(format!("the API server says: {error}")), Vec::new(), apart),
        Err(_) => return (Err("no API server answers".to_owned()), Vec::new(), apart),
    };
    let nodes = list.iter().map(|node| described(node, &leases)).collect();
    let elsewhere = list.iter().filter(|node| node.metadata.name.as_deref() != Some(&host.node_name) && is_ready(node));
    let size = widest.map_or(0, |link| link.mtu);
    let asked = elsewhere.take(MOST_WAYS).filter_map(|node| way(host, node, size));
    (Ok(nodes), futures::future::join_all(asked).await, apart)
}

fn is_ready(node: &core::Node) -> bool {
    node.status.as_ref().is_some_and(facts::nodes::is_ready)
}

fn described(node: &core::Node, leases: &[Lease]) -> Node {
    let name = node.metadata.name.clone().unwrap_or_default();
    let lease = leases.iter().find(|lease| lease.metadata.name.as_ref() == Some(&name));
    let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0));
    let lease_age = renewed.map(|at| seconds_between(at, Timestamp::now()));
    Node { ready: is_ready(node), name, lease_age }
}

fn seconds_between(from: Timestamp, to: Timestamp) -> i64 {
    to.as_second() - from.as_second()
}

/// The server says the time with every answer.
async fn server_apart(client: &Client) -> Option<i64> {
    let request = http::Request::get("/version").body(kube::client::Body::empty()).ok()?;
    let asked = Timestamp::now();
    let answer = tokio::time::timeout(PATIENCE, client.send(request)).await.ok()?.ok()?;
    let said = jiff::fmt::rfc2822::parse(answer.headers().get(DATE)?.to_str().ok()?).ok()?.timestamp();
    Some(seconds_between(asked, said))
}

fn way(host: &Host, node: &core::Node, size: u32) -> Option<impl Future<Output = Way> + use<>> {
    let name = node.metadata.name.clone()?;
    let addresses = node.status.as_ref()?.addresses.as_deref().unwrap_or_default();
    let internal = addresses.iter().find(|address| address.type_ == "InternalIP")?;
    let address: IpAddr = internal.address.parse().ok()?;
    // The first address of a node's range is its bridge's, with flannel as with ours.
    let pods: Prefix = node.spec.as_ref()?.pod_cidr.as_ref()?.parse().ok()?;
    let (pods, port) = (pods.nth(1)?, host.port(HEALTH));
    Some(async move {
        let reach = match () {
            () if !answers((address, port).into(), 0).await => Reach::Nothing,
            () if !answers((pods, port).into(), 0).await => Reach::Direct,
            () if !answers((pods, port).into(), WHOLE).await => Reach::Small,
            () => Reach::Whole,
        };
        Way { node: name, address, reach, size }
    })
}

/// Whether a health port says anything to a request with so many bytes of padding.
async fn answers(to: SocketAddr, padding: usize) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(to).await?;
        let padding = "x".repeat(padding);
        let request =
            format!("GET /healthz HTTP/1.1\r\nHost: {to}\r\nX-Padding: {padding}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.read_exact(&mut [0; 5]).await
    };
    matches!(tokio::time::timeout(PATIENCE, asked).await, Ok(Ok(_)))
}

async fn cluster_dns(host: &Host) -> Result<Duration, String> {
    let server = SocketAddr::from((host.cluster.dns_ip(), 53));
    let name = format!("kubernetes.default.svc.{}", host.cluster.cluster_domain);
    let began = Instant::now();
    let asked = crate::cluster::dns_answers(server, host.cluster.cluster_domain.clone());
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(())) => Ok(began.elapsed()),
        Ok(Err(error)) => Err(format!("{server}: {error:#}")),
        Err(_) => Err(format!("{server} doesn't know {name}")),
    }
}

/// The servers that cluster DNS asks for other names, each asked for the root's servers: any that resolves knows them.
async fn upstreams(host: &Host) -> Vec<(String, Option<Duration>)> {
    let conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let resolved = std::fs::read_to_string(linux::resolved::FILE).ok();
    let own: Vec<_> = host.cluster.dns_ips().into_iter().map(|ip| SocketAddr::new(ip, 53)).collect();
    let servers = dns::upstreams(&conf, resolved.as_deref(), &own).servers;
    let asked = servers.into_iter().map(|server| async move { (server.ip().to_string(), resolves(server).await) });
    futures::future::join_all(asked).await
}

async fn resolves(server: SocketAddr) -> Option<Duration> {
    // Recursion desired; the root, NS, IN.
    const QUESTION: [u8; 17] = [0x66, 0x6b, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
    let local: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let began = Instant::now();
    let asked = async {
        let socket = UdpSocket::bind((local, 0)).await?;
        socket.connect(server).await?;
        socket.send(&QUESTION).await?;
        socket.recv(&mut [0; 512]).await
    };
    let answered = tokio::time::timeout(PATIENCE, asked).await.ok()?.ok()?;
    (answered >= 12).then(|| began.elapsed())
}
