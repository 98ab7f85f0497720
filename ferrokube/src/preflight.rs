//! What must be true of this host before anything is started. Each check ends in one sentence that says what to do;
//! nothing has been made when it fails. I/O: reads /proc and binds ports for a moment.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};

use anyhow::Result;
use meta::Prefix;

use crate::config::{Cluster, Host, Roles, pool, record};
use crate::fault::Fault;
use crate::firewall;
use crate::layout::FOLDERS;

/// An address of loopback that nothing is bound to by its name.
const ANY_LOOPBACK: Ipv4Addr = Ipv4Addr::new(127, 107, 56, 53);

/// Fails unless the caller is root.
pub fn root(command: &str) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let sentence = format!("`ferrokube {command}` needs root to make namespaces, mounts and links: try sudo");
    Err(Fault::failed(sentence).into())
}

/// What a second family needs of a host whose cluster had one before.
pub fn family(host: &Host, before: &Cluster) -> Result<()> {
    if host.roles().has(Roles::NODE) {
        if host.cluster.has_ipv6() {
            ipv6()?;
        }
        ranges(host, Some(before), &own_addresses(host)?)?;
    }
    Ok(())
}

/// What links of the cluster's own have: flannel may have followed to a second family already.
fn own_addresses(host: &Host) -> Result<Vec<IpAddr>> {
    let mut rtnl = linux::netlink::Rtnl::open()?;
    let (tag, bridge) = (host.tag(), host.bridge());
    let links = rtnl.links()?.into_iter().filter(|link| link.alias.as_ref() == Some(&tag) || link.name == bridge);
    let own: Vec<u32> = links.map(|link| link.index).collect();
    Ok(rtnl.addresses(None)?.into_iter().filter(|a| own.contains(&a.index)).map(|a| a.prefix.addr).collect())
}

/// Everything else that a start needs. `before` is what was written down of the host.
pub fn check(host: &Host, before: Option<&Host>) -> Result<()> {
    let node = host.roles().has(Roles::NODE);
    if let Some(sentence) = Kernel::look().lacks().filter(|_| node) {
        return Err(Fault::failed(sentence).into());
    }
    if host.roles().has(Roles::CONTROL_PLANE) {
        store(host)?;
    }
    data_dir(host)?;
    registries(host)?;
    load_balancer_pool(host)?;
    ports(host)?;
    if node && host.cluster.has_ipv6() {
        ipv6()?;
    }
    // A cluster that ran before is in its own range: its bridge is still there.
    if node {
        ranges(host, before.map(|before| &before.cluster).filter(|_| ran_before(host)), &[])?;
    }
    if node { firewall(host) } else { Ok(()) }
}

/// Controllers of cgroups that limit what pods use.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// What of the kernel matters here.
pub struct Kernel {
    /// /proc/filesystems.
    filesystems: String,
    /// There are modules, which a mount may load.
    modules: bool,
    /// Names in /proc/self/ns.
    namespaces: Vec<String>,
    /// Controllers of cgroups that pods need and this kernel lacks; none where there are no cgroups at all.
    controllers: Option<Vec<&'static str>>,
    /// What a look at the nftables rules ended with.
    nftables: Result<(), String>,
}

impl Kernel {
    pub fn look() -> Kernel {
        let names = |dir: &str| {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            entries.filter_map(|e| e.file_name().into_string().ok()).collect::<Vec<_>>()
        };
        let look_at_rules = || linux::nft::Nft::open()?.chains();
        Kernel {
            filesystems: fs::read_to_string("/proc/filesystems").unwrap_or_default(),
            modules: !names("/lib/modules").is_empty(),
            namespaces: names("/proc/self/ns"),
            controllers: linux::cgroup::Cgroups::detect()
                .ok()
                .map(|found| CONTROLLERS.into_iter().filter(|name| !found.has(name)).collect()),
            nftables: look_at_rules().map(drop).map_err(|e: linux::netlink::Error| e.to_string()),
        }
    }

    /// The sentence about the first thing that is missing.
    pub fn lacks(&self) -> Option<String> {
        let lacks =
            |what: &str, option: &str| Some(format!("this kernel lacks {what}: use one that is built with {option}"));
        // A kernel that has it as a module lists it only once it is loaded.
        if !self.modules && !self.filesystems.lines().any(|l| l.ends_with("\toverlay")) {
            return lacks("overlayfs", "CONFIG_OVERLAY_FS");
        }
        let namespaces = [
            ("mnt", "CONFIG_NAMESPACES"),
            ("pid", "CONFIG_PID_NS"),
            ("net", "CONFIG_NET_NS"),
            ("ipc", "CONFIG_IPC_NS"),
            ("uts", "CONFIG_UTS_NS"),
        ];
        if let Some((name, option)) = namespaces.iter().find(|(name, _)| !self.namespaces.iter().any(|n| n == name)) {
            return lacks(&format!("{name} namespaces"), option);
        }
        let Some(controllers) = &self.controllers else {
            let sentence = "no cgroup hierarchy with cpu, memory and pids is mounted on /sys/fs/cgroup: mount cgroup2 \
                there, or boot with systemd.unified_cgroup_hierarchy=1";
            return Some(sentence.to_owned());
        };
        if !controllers.is_empty() {
            let words: Vec<String> = controllers.iter().map(|name| format!("cgroup_enable={name}")).collect();
            return Some(format!(
                "the kernel was booted without the {} controller of cgroups: add {} to its command line (GRUB: \
                 GRUB_CMDLINE_LINUX in /etc/default/grub, then update-grub; Raspberry Pi: /boot/firmware/cmdline.txt) \
                 and reboot",
                controllers.join(" and "),
                words.join(" ")
            ));
        }
        if let Err(error) = &self.nftables {
            return lacks(&format!("nftables ({error})"), "CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET");
        }
        None
    }
}

/// Rules of others that drop what pods send can't be overruled by ours: a cluster behind them would look well and
/// reach nothing.
fn firewall(host: &Host) -> Result<()> {
    let told = firewall::told(&firewall::walls(host)?);
    // The daemon opens it before it starts anything, and whenever it closes again.
    if told.is_empty() || host.open_firewall { Ok(()) } else { Err(Fault::failed(told.join("; and ")).into()) }
}

/// A mistake in the registries' file would be told by pods that wait for their images.
fn registries(host: &Host) -> Result<()> {
    let path = host.registries();
    if host.options.registries.is_some() && !path.exists() {
        return Err(Fault::usage(format!("--registries {}: there is no such file", path.display())).into());
    }
    let read = runtime::images::Registries::read(&path);
    let checked = read.and_then(|all| all.check().map_err(|why| format!("{}: {why}", path.display())));
    checked.map_err(|why| Fault::failed(why).into())
}

/// A pool that holds an address which somebody has would take it from him.
fn load_balancer_pool(host: &Host) -> Result<()> {
    if host.cluster.load_balancer_pool().is_empty() {
        return Ok(());
    }
    if let Some(record) = record::read(host)? {
        pool::beside_nodes(&host.cluster, &record).map_err(Fault::usage)?;
    }
    let mut rtnl = linux::netlink::Rtnl::open()?;
    let own = rtnl.addresses(None)?.into_iter().map(|address| (address.prefix.addr, "this host's own"));
    let hops = rtnl.routes()?.into_iter().flat_map(|route| route.next_hops);
    let routers = hops.filter_map(|hop| Some((hop.gateway?, "a router's of this host")));
    Ok(pool::beside(&host.cluster, own.chain(routers)).map_err(Fault::usage)?)
}

/// What a store is of no use without; the last two of one that is in this process.
const VITAL: [&str; 5] = ["pki/ca.crt", "pki/ca.key", "pki/sa.key", "pki/etcd/ca.crt", "pki/etcd/ca.key"];
const ETCDS: usize = 2;

/// A directory that held a cluster and lost a part must not be started over silently.
fn store(host: &Host) -> Result<()> {
    let dir = &host.data_dir;
    let there = |part: &str| dir.join(part).exists();
    let elsewhere = host.cluster.has_etcd_elsewhere();
    let vital = if elsewhere { &VITAL[..VITAL.len() - ETCDS] } else { &VITAL[..] };
    let mut lost: Vec<_> = vital.iter().copied().filter(|part| !there(part)).collect();
    if elsewhere && lost.len() == vital.len() && !ran_before(host) {
        // A first start that was cut short, or none yet.
        lost.clear();
    } else if !elsewhere && !there("etcd") {
        // A first start that was cut short left keys and no store; one that came as far as a node had a store.
        if ran_before(host) || !host.exists() && lost.len() < VITAL.len() {
            lost.push("etcd");
        } else {
            lost.clear();
        }
    }
    if !host.exists() && (there("etcd") || !lost.is_empty()) {
        lost.push("cluster.json");
    }
    if !lost.is_empty() {
        let sentence = format!(
            "{} is half removed ({} missing): restore it from a backup, or `ferrokube reset --name {}`",
            dir.display(),
            lost.join(", "),
            host.cluster.name
        );
        return Err(Fault::failed(sentence).into());
    }
    Ok(())
}

/// A directory that somebody uses for something else must not become a cluster's.
fn data_dir(host: &Host) -> Result<()> {
    let dir = &host.data_dir;
    let foreign = |entry: fs::DirEntry| !FOLDERS.iter().any(|folder| entry.file_name() == *folder);
    if !host.exists() && fs::read_dir(dir).is_ok_and(|entries| entries.flatten().any(foreign)) {
        let sentence =
            format!("{} holds files that aren't a cluster's: empty it, or choose another --data-dir", dir.display());
        return Err(Fault::failed(sentence).into());
    }
    Ok(())
}

/// A former start came as far as a node with a range of pod addresses.
fn ran_before(host: &Host) -> bool {
    host.node_range_file().exists()
}

fn ports(host: &Host) -> Result<()> {
    let anywhere = host.every_address();
    let here = IpAddr::from(Ipv4Addr::LOCALHOST);
    let control_plane = [
        (host.bind_address(), host.cluster.api_port, "the API server"),
        (here, host.port(10257), "kube-controller-manager's health"),
        (here, host.port(10259), "kube-scheduler's health"),
    ];
    let etcd = [(here, host.etcd_port(), "etcd")];
    let joined = [(here, host.servers_port(), "the node's way to the API servers")];
    let node = [
        (anywhere, host.kubelet_port(), "the kubelet"),
        (here, host.port(10248), "the kubelet's health"),
        (anywhere, host.port(10256), "kube-proxy's health"),
        (here, host.port(10249), "kube-proxy's metrics"),
        // Only who listens on port 53 of every address is in the way of the address that DNS gets.
        (ANY_LOOPBACK.into(), 53, "cluster DNS"),
    ];
    // Those of what is left to the cluster are its pods'.
    let node = node.iter().filter(|(_, port, _)| match *port {
        53 => !host.cluster.leaves("kube-dns"),
        port if port == host.port(10256) || port == host.port(10249) => !host.cluster.leaves("kube-proxy"),
        _ => true,
    });
    let node: Vec<_> = node.copied().collect();
    let of = |role, ports: &[(IpAddr, u16, &'static str)]| if host.roles().has(role) { ports.to_vec() } else { vec![] };
    let mut tcp = [of(Roles::CONTROL_PLANE, &control_plane), of(Roles::NODE, &node)].concat();
    if !host.cluster.has_etcd_elsewhere() {
        tcp.extend(of(Roles::CONTROL_PLANE, &etcd));
    }
    if host.has_joined() {
        tcp.extend(joined);
    }
    let udp = match host.cluster.leaves("kube-dns") {
        true => Ok(()),
        false => UdpSocket::bind((ANY_LOOPBACK, 53)).map(drop),
    };
    let tried =
        tcp.into_iter().map(|(address, port, whose)| (port, whose, TcpListener::bind((address, port)).map(drop)));
    for (port, whose, bound) in tried.chain([(53, "cluster DNS", udp)]) {
        if let Err(e) = bound {
            let hint = match e.kind() {
                std::io::ErrorKind::AddrNotAvailable => "--bind-address must be an address of this host",
                _ if port == host.cluster.api_port => "choose another with --api-port, or stop what listens there",
                _ => "stop what listens there",
            };
            let sentence = format!("port {port} of {whose} can't be used ({e}): {hint}");
            return Err(Fault::failed(sentence).into());
        }
    }
    Ok(())
}

/// Pods and Services of IPv6 need a host that speaks it: DNS has an address on loopback.
fn ipv6() -> Result<()> {
    let sentence = match linux::sysctl::get("net/ipv6/conf/lo/disable_ipv6").as_deref() {
        Ok("0") => return Ok(()),
        Ok(_) => {
            "--pod-cidr has a range of IPv6, which is switched off on this host: `sysctl -w \
             net.ipv6.conf.all.disable_ipv6=0` (and /etc/sysctl.d), or say a range of IPv4 alone"
        }
        Err(_) => {
            "--pod-cidr has a range of IPv6, and this kernel has none: boot it without ipv6.disable=1, or say a range of \
             IPv4 alone"
        }
    };
    Err(Fault::failed(sentence).into())
}

/// The host must not be in one of the cluster's ranges already, but for those in which it has been `before`, and by what
/// is the cluster's `own`.
fn ranges(host: &Host, before: Option<&Cluster>, own: &[IpAddr]) -> Result<()> {
    let had = |range: &Prefix| {
        before.is_some_and(|before| before.pod_cidr.iter().chain(before.service_cidr.iter()).any(|had| had == *range))
    };
    let pods = host.cluster.pod_cidr.iter().map(|range| (range, "--pod-cidr"));
    let all = pods.chain(host.cluster.service_cidr.iter().map(|range| (range, "--service-cidr")));
    for (range, flag) in all.filter(|(range, _)| !had(range)) {
        let any: IpAddr = if range.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let Ok(probe) = UdpSocket::bind((any, 0)) else { continue };
        // Connecting a datagram socket sends nothing: it asks the kernel for the route and its source address.
        let to = range.nth(2).unwrap_or(range.addr);
        let source = probe.connect((to, 9)).and_then(|()| probe.local_addr()).map(|a| a.ip());
        if let Ok(source) = source
            && range.contains(source)
            && !own.contains(&source)
        {
            let sentence = format!("this host is in {range} already ({source}): choose another range with {flag}");
            return Err(Fault::failed(sentence).into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Kernel {
        Kernel {
            filesystems: "nodev\tproc\nnodev\toverlay\n".into(),
            modules: false,
            namespaces: ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"].map(str::to_owned).to_vec(),
            controllers: Some(Vec::new()),
            nftables: Ok(()),
        }
    }

    #[test]
    fn a_missing_kernel_feature_is_named_with_its_option() {
        assert_eq!(whole().lacks(), None);
        let of = |kernel: Kernel| kernel.lacks().unwrap_or_default();
        let no_overlay = || Kernel { filesystems: "nodev\tproc\n".into(), ..whole() };
        assert!(of(no_overlay()).contains("CONFIG_OVERLAY_FS"));
        assert_eq!(Kernel { modules: true, ..no_overlay() }.lacks(), None, "a mount may load it");
        let mut blind = whole();
        blind.namespaces.retain(|n| n != "net");
        assert_eq!(of(blind), "this kernel lacks net namespaces: use one that is built with CONFIG_NET_NS");
        assert!(of(Kernel { controllers: None, ..whole() }).contains("mount cgroup2"));
        let no_memory = of(Kernel { controllers: Some(vec!["memory"]), ..whole() });
        assert!(no_memory.contains("without the memory controller") && no_memory.contains("add cgroup_enable=memory "));
        let error = Err("no such protocol".into());
        assert!(of(Kernel { nftables: error, ..whole() }).contains("nftables (no such protocol)"));
    }
}
