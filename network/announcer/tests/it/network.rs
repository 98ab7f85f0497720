//! A switch, a client that asks by its own socket and by its kernel, and nodes that have the address themselves where nobody
//! asks: what the announcer answers is all that leads to them.

use std::cell::{Cell, RefCell};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use announcer::{Config, frame};
use linux::netlink::{Mac, NewVeth, Rtnl};
use linux::netns::NetNs;
use linux::packet::{Kind, PacketSocket};
use serde_json::{Value, json};
use testkit::FakeApi;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

pub const V4: &str = "192.0.2.240";
pub const V6: &str = "fd00::f0";
pub const SERVICES: &str = "/api/v1/services";
pub const SERVICE: &str = "/api/v1/namespaces/default/services/web";
/// Only waited for when something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);
/// Who answers does so by then.
const MOMENT: Duration = Duration::from_millis(150);
const CLIENT: Mac = Mac([2, 0, 0, 0, 0, 7]);
/// A station that claims what is not its own.
const EVIL: Mac = Mac([2, 0, 0, 0, 0, 0x66]);
const NODES: [(&str, u8); 2] = [("a", 11), ("b", 12)];

pub struct Lan {
    pub api: FakeApi,
    switch: NetNs,
    client: NetNs,
    nodes: Vec<NetNs>,
    runtime: Runtime,
    /// Of the next link of a node.
    life: Cell<u8>,
}

/// Ends when it is dropped, as a process that is killed.
pub struct Running {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        self.task.abort();
        while !self.task.is_finished() {
            std::thread::yield_now();
        }
    }
}

pub fn service(node: &str) -> Value {
    json!({
        "metadata": {"namespace": "default", "name": "web", "uid": "1",
            "annotations": {"ferrokube.io/announced-by": format!("{V4}={node},{V6}={node}")}},
        "spec": {"type": "LoadBalancer", "clusterIP": "10.43.0.9", "ports": [{"port": 80}]},
        "status": {"loadBalancer": {"ingress": [{"ip": V4, "ipMode": "VIP"}, {"ip": V6, "ipMode": "VIP"}]}},
    })
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn own(number: u8, life: u8) -> Mac {
    Mac([2, 0, 0, 0, life, number])
}

impl Lan {
    pub fn new() -> Lan {
        let (switch, client) = (NetNs::create().unwrap(), NetNs::create().unwrap());
        let nodes = NODES.map(|_| NetNs::create().unwrap()).into();
        let mut rtnl = Rtnl::open_in(&switch).unwrap();
        rtnl.add_bridge("lan", Mac([2, 0, 0, 0, 0, 1]), 1500).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let lan = Lan { api: FakeApi::new(), switch, client, nodes, runtime, life: Cell::new(0) };
        lan.cable("client", &lan.client, CLIENT, 7);
        for (name, _) in NODES {
            lan.plug(name);
            let ns = lan.ns(name);
            ns.run(|| {
                // Addresses are on `lo`, and no kernel answers for them elsewhere.
                linux::sysctl::set("net.ipv4.conf.all.arp_ignore", "1").unwrap();
                let mut rtnl = Rtnl::open().unwrap();
                let lo = rtnl.link("lo").unwrap().unwrap().index;
                rtnl.set_up(lo, true).unwrap();
                for (address, length) in [(V4, 32), (V6, 128)] {
                    rtnl.put_address(lo, meta::Prefix::new(ip(address), length)).unwrap();
                }
            })
            .unwrap();
            for address in [V4, V6] {
                serve(ns, ip(address), name);
            }
        }
        lan
    }

    fn ns(&self, node: &str) -> &NetNs {
        let at = NODES.iter().position(|(name, _)| *name == node).unwrap();
        &self.nodes[at]
    }

    fn cable(&self, name: &str, ns: &NetNs, mac: Mac, number: u8) {
        let mut rtnl = Rtnl::open_in(&self.switch).unwrap();
        let bridge = rtnl.link("lan").unwrap().unwrap().index;
        let veth = NewVeth {
            name,
            mac: None,
            master: Some(bridge),
            mtu: 1500,
            peer_name: "eth0",
            peer_mac: Some(mac),
            peer_ns: Some(ns.as_fd()),
        };
        rtnl.add_veth(&veth).unwrap();
        ns.run(|| linux::sysctl::set("net.ipv6.conf.eth0.accept_dad", "0").unwrap()).unwrap();
        let mut rtnl = Rtnl::open_in(ns).unwrap();
        let index = rtnl.link("eth0").unwrap().unwrap().index;
        rtnl.set_up(index, true).unwrap();
        let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into());
        rtnl.put_address(index, meta::Prefix::new([192, 0, 2, number], 24)).unwrap();
        rtnl.put_address(index, meta::Prefix::new(v6, 64)).unwrap();
    }

    /// Gives a node a link, each time with another hardware address.
    pub fn plug(&self, node: &str) {
        self.life.set(self.life.get() + 1);
        let number = NODES.iter().find(|(name, _)| *name == node).unwrap().1;
        self.cable(node, self.ns(node), own(number, self.life.get()), number);
    }

    pub fn unplug(&self, node: &str) {
        Rtnl::open_in(&self.switch).unwrap().delete_link(node).unwrap();
    }

    pub fn set_up(&self, node: &str, up: bool) {
        let mut rtnl = Rtnl::open_in(self.ns(node)).unwrap();
        let index = rtnl.link("eth0").unwrap().unwrap().index;
        rtnl.set_up(index, up).unwrap();
        if up {
            // With the link the kernel took its IPv6 address away.
            let number = NODES.iter().find(|(name, _)| *name == node).unwrap().1;
            let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into());
            rtnl.put_address(index, meta::Prefix::new(v6, 64)).unwrap();
        }
    }

    pub fn elect(&self, node: &str) {
        self.api.put(SERVICES, service(node));
    }

    pub fn forget_service(&self) {
        self.api.delete(SERVICES, "default", "web");
    }

    pub fn announcer(&self, node: &str) -> Running {
        self.announcer_of(node, &self.api)
    }

    pub fn announcer_of(&self, node: &str, api: &FakeApi) -> Running {
        let path = format!("/proc/{}/fd/{}", std::process::id(), self.ns(node).as_fd().as_raw_fd());
        let config = Config { node: node.to_owned(), own_ranges: Vec::new(), netns: Some(path.into()) };
        let stop = CancellationToken::new();
        let _inside = self.runtime.enter();
        Running { task: self.runtime.spawn(announcer::run(config, api.client(), stop.clone())), stop }
    }

    pub fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < PATIENCE, "not in time: {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The node that a connection leads to.
    pub fn reached(&self, address: &str) -> Option<&'static str> {
        let to = SocketAddr::new(ip(address), 80);
        let said = self.client.run(|| {
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_millis(300)).ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            Some(text)
        });
        let said = said.unwrap()?;
        NODES.iter().map(|(name, _)| *name).find(|name| *name == said)
    }

    /// Who says that the address is his, when somebody asks.
    pub fn answers(&self, address: &str) -> Vec<&'static str> {
        match ip(address) {
            IpAddr::V4(v4) => self.asked(address, &who_has(Ipv4Addr::new(192, 0, 2, 7), v4)),
            IpAddr::V6(v6) => self.asked(address, &solicitation(v6)),
        }
    }

    /// Who says so to somebody who has no address yet.
    pub fn probed(&self, address: &str) -> Vec<&'static str> {
        let IpAddr::V4(v4) = ip(address) else { panic!() };
        self.asked(address, &who_has(Ipv4Addr::UNSPECIFIED, v4))
    }

    fn asked(&self, address: &str, question: &[u8]) -> Vec<&'static str> {
        let ears = self.ears();
        let socket = if ip(address).is_ipv6() { &ears.sockets[1] } else { &ears.sockets[0] };
        socket.send(question).unwrap();
        std::thread::sleep(MOMENT);
        ears.hear();
        // Announcements that happen to come are for all, answers for the client.
        let heard = ears.heard.borrow();
        let mut who: Vec<_> = heard.iter().filter(|w| w.addr == ip(address) && !w.to_all).map(|w| w.by).collect();
        who.sort_unstable();
        who.dedup();
        who
    }

    /// Has somebody else say that the address is his.
    pub fn claim(&self, address: &str) {
        let ears = self.ears();
        for frame in frame::announcements(ip(address), EVIL) {
            ears.sockets[0].send(&frame).unwrap();
        }
    }

    pub fn ears(&self) -> Ears {
        let open = |kind| {
            let index = Rtnl::open().unwrap().link("eth0").unwrap().unwrap().index;
            PacketSocket::open(index, kind).unwrap()
        };
        let sockets = self.client.run(|| [Kind::Arp, Kind::NeighbourDiscovery].map(open)).unwrap();
        Ears { sockets, heard: RefCell::default() }
    }
}

/// What the client's link hears.
pub struct Ears {
    sockets: [PacketSocket; 2],
    heard: RefCell<Vec<Word>>,
}

struct Word {
    addr: IpAddr,
    by: &'static str,
    to_all: bool,
}

impl Ears {
    fn hear(&self) {
        let mut buffer = [0; 512];
        for socket in &self.sockets {
            while let Ok(read) = socket.receive(&mut buffer) {
                let Some(claim) = frame::read(&buffer[..read]).and_then(|heard| heard.claim) else { continue };
                let by = NODES.iter().find(|(_, number)| claim.mac.0[5] == *number).map_or("?", |(name, _)| name);
                self.heard.borrow_mut().push(Word { addr: claim.addr, by, to_all: buffer[0] & 1 == 1 });
            }
        }
    }

    /// What has been said so far counts no more.
    pub fn forget(&self) {
        self.hear();
        self.heard.borrow_mut().clear();
    }

    /// Whether a node has told everybody that the address is its own.
    pub fn announced(&self, address: &str, by: &str) -> bool {
        self.hear();
        self.heard.borrow().iter().any(|word| word.addr == ip(address) && word.by == by && word.to_all)
    }
}

/// Answers TCP with a name.
fn serve(ns: &NetNs, address: IpAddr, name: &'static str) {
    let listener = ns.run(|| TcpListener::bind((address, 80)).unwrap()).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = std::io::Write::write_all(&mut stream.unwrap(), name.as_bytes());
        }
    });
}

/// An ARP request, as RFC 826 has it.
fn who_has(asker: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 1];
    let ethernet = [&[0xff; 6][..], &CLIENT.0, &[8, 6]].concat();
    [&ethernet[..], &head, &CLIENT.0, &asker.octets(), &[0; 6], &target.octets()].concat()
}

/// A neighbour solicitation, as RFC 4861 has it, from fd00::7.
fn solicitation(target: Ipv6Addr) -> Vec<u8> {
    let source = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 7);
    let group = frame::solicited_node(target);
    let [.., x, y, z] = target.octets();
    let mut message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &[1, 1], &CLIENT.0].concat();
    let pseudo = [&source.octets()[..], &group.octets(), &[0, 0, 0, 32, 0, 0, 0, 58], &message].concat();
    let words: u32 = pseudo.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (words & 0xffff) + (words >> 16);
    let checksum = !(((folded & 0xffff) + (folded >> 16)) as u16);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let ethernet = [&[0x33, 0x33, 0xff, x, y, z][..], &CLIENT.0, &[0x86, 0xdd]].concat();
    let head = [0x60, 0, 0, 0, 0, 32, 58, 255];
    [&ethernet[..], &head, &source.octets(), &group.octets(), &message].concat()
}
