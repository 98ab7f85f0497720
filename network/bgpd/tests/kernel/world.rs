//! A host with two links to neighbours, the kernel's thread on it, and what its tables have.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bgpd::kernel::{Command, Config, Event, Kernel, Status, Wish};
use linux::netlink::{NewVeth, Route, Rtnl};
use linux::netns::NetNs;
use meta::Prefix;
use tokio::sync::mpsc;

/// Long enough for a loaded machine; only waited for when something is wrong.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Tries until it holds; after [`PATIENCE`] fails with the last reason.
pub fn eventually<T>(mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) if Instant::now() > deadline => panic!("not within {PATIENCE:?}: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// How many routes are many: as the world has, by `--full`.
pub fn many() -> usize {
    if testkit::full() { 100_000 } else { 5_000 }
}

/// By these next hops.
pub fn by(hops: &[&str]) -> Option<Arc<Wish>> {
    Some(Arc::new(Wish::by(bgpd::kernel::METRIC, hops.iter().map(|hop| ip(hop)))))
}

pub struct World {
    pub ns: NetNs,
    pub rtnl: Rtnl,
    /// The neighbours' end.
    pub far: NetNs,
    pub links: [u32; 2],
}

impl World {
    /// `eth1` and `eth2` with the networks 192.0.N.0/24 and fd00:N::/64.
    pub fn new() -> World {
        let (ns, far) = (NetNs::create().unwrap(), NetNs::create().unwrap());
        let mut rtnl = Rtnl::open_in(&ns).unwrap();
        let links = [1, 2].map(|n| {
            let (name, peer_ns) = (format!("eth{n}"), Some(far.as_fd()));
            let veth =
                NewVeth { name: &name, mac: None, master: None, mtu: 1500, peer_name: &name, peer_mac: None, peer_ns };
            rtnl.add_veth(&veth).unwrap();
            let mut far = Rtnl::open_in(&far).unwrap();
            let other_end = far.link(&name).unwrap().unwrap().index;
            far.set_up(other_end, true).unwrap();
            let index = rtnl.link(&name).unwrap().unwrap().index;
            rtnl.set_up(index, true).unwrap();
            rtnl.put_address(index, prefix(&format!("192.0.{n}.5/24"))).unwrap();
            rtnl.put_address(index, prefix(&format!("fd00:{n}::5/64"))).unwrap();
            index
        });
        let mut world = World { ns, rtnl, far, links };
        eventually(|| {
            let links = world.rtnl.links().unwrap();
            links
                .iter()
                .filter(|link| !link.loopback)
                .all(|link| link.carrier)
                .then_some(())
                .ok_or(format!("{links:?}"))
        });
        world
    }

    /// The far end of a link goes up or down: here it has a carrier, or none.
    pub fn carrier(&self, link: usize, on: bool) {
        let mut far = Rtnl::open_in(&self.far).unwrap();
        let index = far.link(&format!("eth{}", link + 1)).unwrap().unwrap().index;
        far.set_up(index, on).unwrap();
    }

    /// The thread, in this host.
    pub fn start(&self, config: Config) -> Running {
        let (sender, events) = mpsc::channel(16);
        let kernel = self.ns.run(|| Kernel::start(config, sender).unwrap()).unwrap();
        Running { kernel, events }
    }

    /// Routes to a prefix in a table, whoever made them.
    pub fn to(&mut self, table: u32, dst: &str) -> Vec<Route> {
        let dst = prefix(dst);
        self.rtnl.routes_of(Some(table), |route| (route.dst == dst).then_some(route)).unwrap()
    }

    /// The gateways of the only route to a prefix in the main table, once they are these.
    pub fn leads(&mut self, dst: &str, expected: &[&str]) {
        let expected: Vec<IpAddr> = expected.iter().map(|hop| ip(hop)).collect();
        eventually(|| {
            let routes = self.to(254, dst);
            let mut gateways: Vec<IpAddr> =
                routes.iter().flat_map(|r| &r.next_hops).filter_map(|hop| hop.gateway).collect();
            gateways.sort_unstable();
            let number = usize::from(!expected.is_empty());
            (gateways == expected && routes.len() == number).then_some(()).ok_or(format!("{dst}: {routes:?}"))
        });
    }

    /// How many routes of ours a table has.
    pub fn count(&mut self, table: u32, protocol: u8) -> usize {
        self.rtnl.routes_of(Some(table), |route| (route.protocol == protocol).then_some(())).unwrap().len()
    }
}

pub struct Running {
    pub kernel: Kernel,
    pub events: mpsc::Receiver<Event>,
}

impl Running {
    pub fn say(&self, command: Command) {
        self.kernel.commands.blocking_send(command).unwrap();
    }

    pub fn want(&self, dst: &str, wish: Option<Arc<Wish>>) {
        self.say(Command::Want(vec![(prefix(dst), wish)]));
    }

    /// Reads events until there is this one.
    pub fn hears(&mut self, expected: &Event) {
        self.hears_all(std::slice::from_ref(expected));
    }

    /// Reads events until there were these, in any order.
    pub fn hears_all(&mut self, expected: &[Event]) {
        let mut heard = Vec::new();
        eventually(|| {
            while let Ok(event) = self.events.try_recv() {
                heard.push(event);
            }
            let missing = expected.iter().find(|event| !heard.contains(event));
            missing.map_or(Ok(()), |event| Err(format!("{event:?} is not among {heard:?}")))
        });
    }

    /// Everything up to the end of the first list.
    pub fn listed(&mut self) -> Vec<Event> {
        let mut heard = Vec::new();
        eventually(|| {
            while let Ok(event) = self.events.try_recv() {
                if event == Event::Listed {
                    return Ok(());
                }
                heard.push(event);
            }
            Err(format!("{heard:?}"))
        });
        heard
    }

    pub fn status(&self, what: &str, holds: impl Fn(&Status) -> bool) {
        eventually(|| {
            let status = self.kernel.status.borrow().clone();
            holds(&status).then_some(()).ok_or(format!("{what}: {status:?}"))
        });
    }

    /// As kill -9 leaves it: nothing is taken back.
    pub fn killed(self) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(self.kernel.end());
    }
}
