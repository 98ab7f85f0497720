//! The link, the hosts, their pods, and etcd.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use etcd::Etcd;
use etcd::daemon::{Config as EtcdConfig, Daemon};
use flannel::{Config, Endpoints, EtcdOptions, ManagerOptions, Masquerade, Own, Subnets, Told, Wish};
use linux::netlink::{Mac, NewVeth, Route, Rtnl};
use linux::netns::NetNs;
use meta::Prefix;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wire::etcd::{DeleteRangeRequest, PutRequest, RangeRequest};

/// Long enough for a loaded machine; only waited for when something is wrong.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const PREFIX: &str = "/coreos.com/network";
/// Etcd's host is the first of the link.
const ETCD: &str = "192.0.2.200";
const MTU: u32 = 1500;
const ECHO: u16 = 7;
/// Flannel's nftables table.
pub const TABLE: &str = "flannel-test";

/// Tries until it works; after [`PATIENCE`] fails with the last reason.
pub fn eventually<T>(mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) if Instant::now() > deadline => panic!("not within {PATIENCE:?}: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// A task in a namespace: its thread is inside, and so is whatever it starts.
pub struct Inside {
    stop: CancellationToken,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Inside {
    fn run<F>(ns: &Arc<NetNs>, work: impl FnOnce(CancellationToken) -> F + Send + 'static) -> Inside
    where
        F: Future<Output = Result<(), String>>,
    {
        let (ns, stop) = (ns.clone(), CancellationToken::new());
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            ns.enter().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(work(told))
        });
        Inside { stop, thread: Some(thread) }
    }

    /// Ends it, or waits for the end that it comes to by itself.
    pub fn end(mut self, stop: bool) -> Result<(), String> {
        if stop {
            self.stop.cancel();
        }
        let thread = self.thread.take().unwrap();
        if !stop {
            eventually(|| if thread.is_finished() { Ok(()) } else { Err("it goes on".to_owned()) });
        }
        thread.join().unwrap()
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub struct World {
    link: NetNs,
    etcd_host: Arc<NetNs>,
    pub store: Option<Etcd>,
    etcd: Option<Inside>,
    pub dir: TempDir,
}

impl World {
    /// A link with etcd on it, which holds this configuration.
    pub fn new(conf: &str) -> World {
        let link = NetNs::create().unwrap();
        Rtnl::open_in(&link).unwrap().add_bridge("switch", Mac([2, 0, 0, 0, 1, 1]), MTU).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let etcd_host = Arc::new(NetNs::create().unwrap());
        let mut world = World { link, etcd_host, store: None, etcd: None, dir };
        world.plug(&world.etcd_host, ETCD);
        world.start_etcd(|_| ());
        world.put("config", conf, 0);
        world
    }

    /// A namespace on the link.
    fn plug(&self, ns: &NetNs, address: &str) {
        let mut rtnl = Rtnl::open_in(&self.link).unwrap();
        let switch = rtnl.link("switch").unwrap().unwrap().index;
        pair(&mut rtnl, &format!("p{address}"), Some(switch), ns);
        let mut inside = Rtnl::open_in(ns).unwrap();
        up(&mut inside, &["lo", "eth0"]);
        let eth0 = inside.link("eth0").unwrap().unwrap().index;
        inside.put_address(eth0, format!("{address}/24").parse().unwrap()).unwrap();
        let last = address.rsplit('.').next().unwrap();
        inside.put_address(eth0, format!("2001:db8::{last}/64").parse().unwrap()).unwrap();
    }

    /// `first` looks at the store before anybody is served.
    pub fn start_etcd(&mut self, first: impl FnOnce(&Etcd) + Send + 'static) {
        let config = EtcdConfig {
            data_dir: self.dir.path().join("etcd"),
            listen_client_urls: vec![format!("http://{ETCD}:2379")],
            unsafe_no_fsync: true,
            ..EtcdConfig::default()
        };
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.etcd = Some(Inside::run(&self.etcd_host, move |stop| async move {
            let daemon = Daemon::start(config).await.map_err(|error| error.to_string())?;
            first(daemon.store());
            sender.send(daemon.store().clone()).unwrap();
            let store = daemon.store().clone();
            daemon.serve(stop).await;
            store.close();
            Ok(())
        }));
        self.store = receiver.recv().ok();
    }

    pub fn stop_etcd(&mut self) {
        self.store = None;
        self.etcd.take().unwrap().end(true).unwrap();
    }

    fn store(&self) -> &Etcd {
        self.store.as_ref().unwrap()
    }

    /// Puts a key below the prefix, for good or with a lease of etcd.
    pub fn put(&self, key: &str, value: &str, lease: i64) {
        put(self.store(), key, value, lease);
    }

    pub fn delete(&self, key: &str) {
        let key = format!("{PREFIX}/{key}").into();
        block(self.store().delete(DeleteRangeRequest { key, ..DeleteRangeRequest::default() })).unwrap();
    }

    /// Keys below `subnets/` with their values and leases of etcd.
    pub fn leases(&self) -> Vec<(String, String, i64)> {
        let (key, range_end) = (format!("{PREFIX}/subnets/").into(), format!("{PREFIX}/subnets0").into());
        let answer = block(self.store().range(RangeRequest { key, range_end, ..RangeRequest::default() })).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let row = |kv: &wire::etcd::KeyValue| {
            (text(&kv.key).replace(&format!("{PREFIX}/subnets/"), ""), text(&kv.value), kv.lease)
        };
        answer.kvs.iter().map(row).collect()
    }

    /// What a cluster's first host writes when it starts.
    pub fn publish(&self, conf: &str) -> Result<(), String> {
        let work = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(flannel::publish(&etcd_options(), conf)).map_err(|error| error.to_string())
        };
        self.etcd_host.run(work).unwrap()
    }

    /// The network's configuration as it is in etcd.
    pub fn config(&self) -> String {
        let key = format!("{PREFIX}/config").into();
        let answer = block(self.store().range(RangeRequest { key, ..RangeRequest::default() })).unwrap();
        String::from_utf8_lossy(&answer.kvs[0].value).into_owned()
    }

    /// A host with flannel and a pod.
    pub fn host(&self, n: u8) -> Host {
        let mut host = self.bare_host(n);
        host.start();
        host.pod();
        host
    }

    /// A host of this number without anything on it.
    pub fn bare_host(&self, n: u8) -> Host {
        let ns = Arc::new(NetNs::create().unwrap());
        let address = format!("192.0.2.{n}");
        self.plug(&ns, &address);
        for forwarding in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            ns.run(|| linux::sysctl::set(forwarding, "1").unwrap()).unwrap();
        }
        let subnet_file = self.dir.path().join(format!("host{n}/subnet.env"));
        let (telling, told) = watch::channel(Told::default());
        let (address, ip_masq) = (address.parse().unwrap(), false);
        Host { ns, address, subnet_file, flannel: None, pod: None, ip_masq, tag: None, told, telling }
    }
}

pub fn put(store: &Etcd, key: &str, value: &str, lease: i64) {
    let (key, value) = (format!("{PREFIX}/{key}").into(), value.to_owned().into());
    block(store.put(PutRequest { key, value, lease, ..PutRequest::default() })).unwrap();
}

pub fn block<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn etcd_options() -> EtcdOptions {
    EtcdOptions {
        endpoints: Endpoints { urls: vec![format!("http://{ETCD}:2379")], ..Endpoints::default() },
        prefix: PREFIX.to_owned(),
        renew_margin: Duration::from_secs(3600),
    }
}

pub struct Host {
    pub ns: Arc<NetNs>,
    pub address: Ipv4Addr,
    pub subnet_file: PathBuf,
    pub flannel: Option<Inside>,
    pod: Option<Pod>,
    pub ip_masq: bool,
    /// Written on its links.
    pub tag: Option<String>,
    /// What it was told last that others should know.
    pub told: watch::Receiver<Told>,
    telling: watch::Sender<Told>,
}

/// A namespace behind the host's bridge.
struct Pod {
    ns: NetNs,
    address: Ipv4Addr,
    address6: Option<IpAddr>,
}

impl Host {
    pub fn start(&mut self) {
        self.start_with(|| ManagerOptions::Etcd(etcd_options()));
    }

    /// With leases elsewhere.
    pub fn start_with(&mut self, manager: impl FnOnce() -> ManagerOptions + Send + 'static) {
        let (subnet_file, ip_masq, tag, told) =
            (self.subnet_file.clone(), self.ip_masq, self.tag.clone(), self.telling.clone());
        let key_file = self.subnet_file.with_file_name("wgkey");
        self.flannel = Some(Inside::run(&self.ns, move |stop| async move {
            let wish = Wish { interfaces: vec!["eth0".to_owned()], ..Wish::default() };
            let config = Config {
                manager: manager(),
                interface: watch::channel(wish).1,
                subnet_file,
                masquerade: if ip_masq { Masquerade::All } else { Masquerade::Nothing },
                table: TABLE.to_owned(),
                resync: Duration::from_millis(200),
                health: None,
                own: Own { tag, number: 0, key_file },
                told,
            };
            flannel::run(config, stop).await.map_err(|error| error.to_string())
        }));
    }

    /// Nothing is taken back at an end, so that this is what kill -9 leaves.
    pub fn stop(&mut self) {
        self.flannel.take().unwrap().end(true).unwrap();
    }

    /// Why it ended by itself.
    pub fn failed(&mut self) -> String {
        self.flannel.take().unwrap().end(false).unwrap_err()
    }

    /// A value of `subnet.env`, waited for.
    pub fn told(&self, name: &str) -> String {
        eventually(|| {
            let text = std::fs::read_to_string(&self.subnet_file).map_err(|error| error.to_string())?;
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.map(str::to_owned).ok_or(text.clone())
        })
    }

    pub fn subnet(&self) -> Prefix {
        self.told("FLANNEL_SUBNET").parse::<Prefix>().unwrap().network()
    }

    /// Of IPv6, where the file tells one.
    pub fn subnet6(&self) -> Option<Prefix> {
        let text = std::fs::read_to_string(&self.subnet_file).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("FLANNEL_IPV6_SUBNET="));
        line.map(|text| text.parse::<Prefix>().unwrap().network())
    }

    pub fn subnets(&self) -> Subnets {
        Subnets { v4: Some(self.subnet()), v6: self.subnet6() }
    }

    pub fn rtnl(&self) -> Rtnl {
        Rtnl::open_in(&self.ns).unwrap()
    }

    /// Where this host sends packets to a range, if anywhere: gateway and link.
    pub fn route(&self, dst: Prefix) -> Option<(Option<IpAddr>, String)> {
        let mut rtnl = self.rtnl();
        let route = rtnl.routes().unwrap().into_iter().find(|route| route.dst == dst && route.table == 254)?;
        let link = rtnl.link_by_index(route.index()?).unwrap()?;
        Some((route.gateway(), link.name))
    }

    /// Makes the bridge and a pod behind it that echoes.
    pub fn pod(&mut self) {
        let subnet = self.subnet();
        let mtu: u32 = self.told("FLANNEL_MTU").parse().unwrap();
        let (gateway, address) = (subnet.nth(1).unwrap(), subnet.nth(2).unwrap());
        let mut rtnl = self.rtnl();
        rtnl.add_bridge("cni0", Mac([2, 0, 0, 0, 0, 1]), mtu).unwrap();
        let bridge = rtnl.link("cni0").unwrap().unwrap().index;
        rtnl.put_address(bridge, Prefix { addr: gateway, len: subnet.len }).unwrap();
        let ns = NetNs::create().unwrap();
        pair(&mut rtnl, "veth0", Some(bridge), &ns);
        let mut inside = Rtnl::open_in(&ns).unwrap();
        up(&mut inside, &["lo", "eth0"]);
        let eth0 = inside.link("eth0").unwrap().unwrap().index;
        inside.set_mtu(eth0, mtu).unwrap();
        inside.put_address(eth0, Prefix { addr: address, len: subnet.len }).unwrap();
        inside.put_route(&Route::via(Prefix::everything(false), gateway, eth0)).unwrap();
        let mut addresses = vec![address];
        if let Some(subnet) = self.subnet6() {
            let (gateway, address) = (subnet.nth(1).unwrap(), subnet.nth(2).unwrap());
            rtnl.put_address(bridge, Prefix { addr: gateway, len: subnet.len }).unwrap();
            inside.put_address(eth0, Prefix { addr: address, len: subnet.len }).unwrap();
            inside.put_route(&Route::via(Prefix::everything(true), gateway, eth0)).unwrap();
            addresses.push(address);
        }
        addresses.iter().for_each(|address| echo(&ns, *address));
        let IpAddr::V4(address) = address else { panic!("{address}") };
        self.pod = Some(Pod { ns, address, address6: addresses.get(1).copied() });
    }

    fn pod_ref(&self) -> &Pod {
        self.pod.as_ref().unwrap()
    }

    pub fn pod_address(&self) -> Ipv4Addr {
        self.pod_ref().address
    }

    /// A UDP socket of the pod, or of the host itself.
    pub fn socket(&self, of_pod: bool) -> UdpSocket {
        let ns = if of_pod { &self.pod_ref().ns } else { &*self.ns };
        let socket = ns.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket
    }

    /// Why the pod can't open a stream there at once; none when it can, or when nobody says anything.
    pub fn refusal(&self, to: SocketAddr) -> Option<i32> {
        let connected = self.pod_ref().ns.run(|| TcpStream::connect_timeout(&to, Duration::from_millis(500))).unwrap();
        connected.err().and_then(|error| error.raw_os_error())
    }

    /// A UDP socket of the pod on a port.
    pub fn listener(&self, port: u16) -> UdpSocket {
        let pod = self.pod_ref();
        let socket = pod.ns.run(|| UdpSocket::bind((pod.address, port)).unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket
    }

    /// A datagram of this many bytes to the other host's pod comes back.
    pub fn asks(&self, other: &Host, bytes: usize) -> Result<(), String> {
        asks(&self.socket(true), SocketAddr::from((other.pod_address(), ECHO)), bytes)
    }

    /// The same by IPv6, from the pod or from the host itself.
    pub fn asks6(&self, other: &Host, of_pod: bool, bytes: usize) -> Result<(), String> {
        let ns = if of_pod { &self.pod_ref().ns } else { &*self.ns };
        let socket = ns.run(|| UdpSocket::bind("[::]:0").unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        asks(&socket, SocketAddr::from((other.pod_ref().address6.unwrap(), ECHO)), bytes)
    }

    /// The same from the host itself.
    pub fn asks_by_itself(&self, other: &Host) -> Result<(), String> {
        asks(&self.socket(false), SocketAddr::from((other.pod_address(), ECHO)), 100)
    }

    /// A stream of this many bytes to the other host's pod comes back.
    pub fn streams(&self, other: &Host, bytes: usize) -> Result<(), String> {
        let to = SocketAddr::from((other.pod_address(), ECHO));
        let stream = self.pod_ref().ns.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(2))).unwrap();
        let mut stream = stream.map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let sent: Vec<u8> = (0..bytes).map(|n| (n % 251) as u8).collect();
        let copy = sent.clone();
        let writing = std::thread::spawn(move || writer.write_all(&copy));
        let mut heard = vec![0; bytes];
        stream.read_exact(&mut heard).map_err(|error| error.to_string())?;
        writing.join().unwrap().map_err(|error| error.to_string())?;
        if heard == sent { Ok(()) } else { Err("other bytes came back".to_owned()) }
    }
}

/// A datagram comes back from there.
pub fn asks(socket: &UdpSocket, to: SocketAddr, bytes: usize) -> Result<(), String> {
    let sent: Vec<u8> = (0..bytes).map(|n| (n % 251) as u8).collect();
    socket.send_to(&sent, to).map_err(|error| error.to_string())?;
    let mut buffer = vec![0; 65_536];
    let (length, from) = socket.recv_from(&mut buffer).map_err(|error| error.to_string())?;
    if buffer[..length] == sent && from == to { Ok(()) } else { Err(format!("{length} bytes from {from}")) }
}

/// Sends back whatever comes by UDP and TCP.
fn echo(ns: &NetNs, address: IpAddr) {
    let (udp, tcp) =
        ns.run(|| (UdpSocket::bind((address, ECHO)).unwrap(), TcpListener::bind((address, ECHO)).unwrap())).unwrap();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(&buffer[..length], from);
        }
    });
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
        }
    });
}

/// Whether this kernel lacks what a backend needs: then its tests can't be made here, and say so. They run on the machine
/// of `tests/vm`.
pub fn lacks(backend: &str) -> bool {
    let lacks = flannel::lacks(backend);
    if let Some(why) = lacks {
        println!("skipped: {why}");
    }
    lacks.is_some()
}

fn pair(rtnl: &mut Rtnl, name: &str, master: Option<u32>, peer: &NetNs) {
    let (peer_name, peer_ns) = ("eth0", Some(peer.as_fd()));
    rtnl.add_veth(&NewVeth { name, mac: None, master, mtu: MTU, peer_name, peer_mac: None, peer_ns }).unwrap();
}

fn up(rtnl: &mut Rtnl, names: &[&str]) {
    for name in names {
        let index = rtnl.link(name).unwrap().unwrap().index;
        rtnl.set_up(index, true).unwrap();
    }
}
