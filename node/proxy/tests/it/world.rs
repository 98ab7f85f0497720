//! A node with pods on a bridge, and a machine outside that uses the node as its gateway.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use linux::netlink::{Mac, NewVeth, Route, Rtnl};
use linux::netns::NetNs;
use meta::Prefix;
use proxy::{Applier, Config, Model, Node, Settings, render_service};

/// Long enough for a loaded machine; only waited for when something is wrong.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct World {
    pub host: NetNs,
    pub outside: NetNs,
    pub pods: Vec<NetNs>,
    pub applier: Applier,
    pub model: Model,
    pub settings: Settings,
}

/// The outside machine's address; the node is 192.168.7.1. Pods are 10.42.0.2, 10.42.0.3, …
pub const OUTSIDE: &str = "192.168.7.2";

impl World {
    pub fn new(pods: u8) -> Self {
        Self::with(pods, Config { cluster_cidr: vec!["10.42.0.0/16".parse().unwrap()], ..Config::default() })
    }

    pub fn with(pods: u8, config: Config) -> Self {
        let (host, outside) = (NetNs::create().unwrap(), NetNs::create().unwrap());
        host.run(|| {
            linux::sysctl::set("net.ipv4.ip_forward", "1").unwrap();
            let mut rtnl = Rtnl::open().unwrap();
            let lo = rtnl.link("lo").unwrap().unwrap().index;
            rtnl.set_up(lo, true).unwrap();
            rtnl.add_bridge("br0", Mac([2, 0, 0, 0, 0, 1]), 1400).unwrap();
            let bridge = rtnl.link("br0").unwrap().unwrap().index;
            rtnl.put_address(bridge, "10.42.0.1/24".parse().unwrap()).unwrap();
            linux::sysctl::set("net.ipv4.conf.br0.send_redirects", "0").unwrap();
            linux::sysctl::set("net.ipv4.conf.br0.route_localnet", "1").unwrap();
            pair(&mut rtnl, "uplink", None, &outside);
            let uplink = rtnl.link("uplink").unwrap().unwrap().index;
            rtnl.put_address(uplink, "192.168.7.1/24".parse().unwrap()).unwrap();
        })
        .unwrap();
        configure(&outside, "192.168.7.2/24", "192.168.7.1");
        let pods: Vec<_> = (0..pods)
            .map(|i| {
                let pod = NetNs::create().unwrap();
                let mut rtnl = Rtnl::open_in(&host).unwrap();
                let bridge = rtnl.link("br0").unwrap().unwrap().index;
                let name = format!("veth{i}");
                pair(&mut rtnl, &name, Some(bridge), &pod);
                let port = rtnl.link(&name).unwrap().unwrap().index;
                rtnl.set_hairpin(port, true).unwrap();
                configure(&pod, &format!("10.42.0.{}/32", i + 2), "10.42.0.1");
                pod
            })
            .collect();
        let ranges = config.cluster_cidr.clone();
        let mut applier = host.run(|| Applier::open(config, ranges)).unwrap().unwrap();
        let model = Model::default();
        applier.replace(&model.whole()).unwrap();
        let settings = Settings { node: Node { name: "here".into(), ..Node::default() }, ..Settings::default() };
        World { host, outside, pods, applier, model, settings }
    }

    /// Lets the proxy know a Service as it is now; gives the change for a look.
    pub fn set(&mut self, service: &Arc<Service>, slices: &[Arc<EndpointSlice>]) -> proxy::Change {
        let name: proxy::Name = format!("default/{}", service.metadata.name.as_deref().unwrap_or_default()).into();
        let slices: Vec<&EndpointSlice> = slices.iter().map(|s| &**s).collect();
        let rendered = render_service(service, &slices, &self.settings, self.model.rendered(&name));
        let change = self.model.set(&name, rendered);
        self.applier.apply([&change.transaction]).unwrap();
        change
    }
}

fn pair(rtnl: &mut Rtnl, name: &str, master: Option<u32>, peer: &NetNs) {
    let veth =
        NewVeth { name, mac: None, master, mtu: 1400, peer_name: "eth0", peer_mac: None, peer_ns: Some(peer.as_fd()) };
    rtnl.add_veth(&veth).unwrap();
}

fn configure(ns: &NetNs, address: &str, gateway: &str) {
    let mut rtnl = Rtnl::open_in(ns).unwrap();
    for name in ["lo", "eth0"] {
        let index = rtnl.link(name).unwrap().unwrap().index;
        rtnl.set_up(index, true).unwrap();
    }
    let index = rtnl.link("eth0").unwrap().unwrap().index;
    rtnl.put_address(index, address.parse().unwrap()).unwrap();
    let gateway: IpAddr = gateway.parse().unwrap();
    rtnl.put_route(&Route::link(Prefix::host(gateway), index)).unwrap();
    rtnl.put_route(&Route::via(Prefix::new(Ipv4Addr::UNSPECIFIED, 0), gateway, index)).unwrap();
}

/// Answers TCP on a port with its own name and the client's address.
pub fn serve_tcp(ns: &NetNs, port: u16, name: &'static str) {
    let listener = ns.run(|| TcpListener::bind(("0.0.0.0", port)).unwrap()).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip();
            let _ = stream.write_all(format!("{name} {peer}").as_bytes());
        }
    });
}

pub fn serve_udp(ns: &NetNs, port: u16, name: &'static str) {
    let socket = ns.run(|| UdpSocket::bind(("0.0.0.0", port)).unwrap()).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(format!("{name} {}", peer.ip()).as_bytes(), peer);
        }
    });
}

pub fn tcp(ns: &NetNs, to: &str) -> std::io::Result<String> {
    tcp_within(ns, to, PATIENCE)
}

pub fn tcp_within(ns: &NetNs, to: &str, patience: Duration) -> std::io::Result<String> {
    let to: SocketAddr = to.parse().unwrap();
    ns.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, patience)?;
        stream.set_read_timeout(Some(patience))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })
    .unwrap()
}

/// A UDP client that keeps its port.
pub fn client(ns: &NetNs, to: &str) -> UdpSocket {
    let to: SocketAddr = to.parse().unwrap();
    ns.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(to).unwrap();
        socket
    })
    .unwrap()
}

pub fn ask(socket: &UdpSocket) -> std::io::Result<String> {
    socket.send(b"who?")?;
    let mut buffer = [0; 64];
    let read = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..read]).into_owned())
}
