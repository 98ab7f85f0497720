//! Whole speakers, sessions and routes together, over a simulated wire with a simulated clock: three who meet, a reflector
//! with two clients, links that break, speakers that are killed.

use std::net::Ipv4Addr;
use std::time::Duration;

use bgp::attribute::Attributes;
use bgp::decision::Options;
use bgp::family::{Families, Family};
use bgp::message::frame;
use bgp::policy::Source;
use bgp::rib::{PeerConfig, PeerId, Rib, Speaker, own_next_hop};
use bgp::session::config::{PrefixLimit, RemoteAs};
use bgp::session::{Action, Config, Input, Neighbour, Way};
use meta::Prefix;
use proptest::prelude::*;

const LATENCY: Duration = Duration::from_millis(5);
/// How many bytes a speaker gives his neighbour at once.
const WINDOW: usize = 16 << 10;
/// Selection_Deferral_Timer (RFC 4724 4.1).
const HEARS: Duration = Duration::from_secs(60);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// One end of a link.
struct Port {
    neighbour: Neighbour,
    peer: PeerId,
    /// The other end: node and port.
    to: (usize, usize),
    client: bool,
    /// He has told all.
    told: bool,
    /// Which connection of each way is his.
    view: [Option<u64>; 2],
}

struct Node {
    number: u32,
    rib: Rib,
    ports: Vec<Port>,
    own: PeerId,
    routes: Vec<Prefix>,
    /// How often a best path of its has changed.
    moves: usize,
    /// After a restart it hears no longer than this before it speaks.
    hears_until: Duration,
}

enum Passing {
    Syn,
    Connected,
    Bytes(Vec<u8>),
    Closed,
    /// No connection could be made: not from the wire.
    Failed,
}

/// When it arrives, in which order, where, on whose connection, which of them, what.
type OnWire = (Duration, u64, (usize, usize), Way, u64, Passing);

#[derive(Default)]
struct World {
    now: Duration,
    nodes: Vec<Node>,
    wire: Vec<OnWire>,
    order: u64,
    /// Links that pass nothing, by their lower end.
    broken: Vec<(usize, usize)>,
    /// What waits for one of them: TCP loses nothing, it sends again.
    stalled: Vec<OnWire>,
}

fn identifier(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, node as u8 + 1)
}

fn prefix(n: usize) -> Prefix {
    Prefix::new(Ipv4Addr::new(192, 168, n as u8, 0), 24)
}

impl World {
    fn node(&mut self, number: u32) -> usize {
        let node = self.nodes.len();
        let (rib, own) = table(node, number);
        self.nodes.push(Node {
            number,
            rib,
            ports: Vec::new(),
            own,
            routes: Vec::new(),
            moves: 0,
            hears_until: Duration::ZERO,
        });
        node
    }

    /// A link; `client` says whether the second is a client of the first.
    fn link(&mut self, one: usize, two: usize, client: bool, limit: Option<u32>) {
        let ports = [self.nodes[one].ports.len(), self.nodes[two].ports.len()];
        for (at, (here, there)) in [(one, two), (two, one)].into_iter().enumerate() {
            let mut config = self.config(here, there);
            config.prefix_limits[0] = limit.map(|most| PrefixLimit { most, restart: None });
            let peer = self.peer(here, there, client && at == 0);
            let neighbour = Neighbour::new(config, false);
            let to = (there, ports[1 - at]);
            let port = Port { neighbour, peer, to, client: client && at == 0, told: false, view: [None; 2] };
            self.nodes[here].ports.push(port);
        }
        for (node, port) in [(one, ports[0]), (two, ports[1])] {
            self.input((node, port), Input::Start);
        }
    }

    fn config(&self, here: usize, there: usize) -> Config {
        let (own, his) = (self.nodes[here].number, self.nodes[there].number);
        let mut config = Config::new(own, RemoteAs::Number(his), identifier(here));
        (config.families, config.seed) = (Families::ALL, (here * 31 + there) as u64);
        config
    }

    fn peer(&mut self, here: usize, there: usize, client: bool) -> PeerId {
        let internal = self.nodes[here].number == self.nodes[there].number;
        let source = if internal { Source::Internal } else { Source::External };
        let mut config = PeerConfig::new(source, identifier(there).into(), self.nodes[here].number);
        config.own_addresses[0] = Some(identifier(here).into());
        config.client = client;
        self.nodes[here].rib.add_peer(config).expect("room")
    }

    fn originate(&mut self, node: usize, route: Prefix) {
        let node = &mut self.nodes[node];
        node.routes.push(route);
        let set = Attributes::local(own_next_hop(Family::Ipv4Unicast));
        node.rib.originate(node.own, route, set, 0);
    }

    /// Killed and started again: the kernel's routes are still there.
    fn kill(&mut self, node: usize) {
        let (rib, own) = table(node, self.nodes[node].number);
        (self.nodes[node].rib, self.nodes[node].own) = (rib, own);
        for route in std::mem::take(&mut self.nodes[node].routes) {
            self.originate(node, route);
        }
        // RFC 4724 4.1: it says nothing before it has heard all.
        self.nodes[node].rib.hold_back(true);
        self.nodes[node].hears_until = self.now + HEARS;
        for port in 0..self.nodes[node].ports.len() {
            let Port { to, client, .. } = self.nodes[node].ports[port];
            let peer = self.peer(node, to.0, client);
            let neighbour = Neighbour::new(self.config(node, to.0), true);
            let port_of = &mut self.nodes[node].ports[port];
            let view = std::mem::take(&mut port_of.view);
            (port_of.neighbour, port_of.peer, port_of.told) = (neighbour, peer, false);
            for way in Way::BOTH {
                if let Some(connection) = view[way as usize] {
                    self.send(to, way.other(), connection, Passing::Closed, LATENCY);
                }
            }
            self.input((node, port), Input::Start);
        }
    }

    fn send(&mut self, to: (usize, usize), way: Way, connection: u64, passing: Passing, after: Duration) {
        self.order += 1;
        self.wire.push((self.now + after, self.order, to, way, connection, passing));
    }

    fn works(&self, (node, port): (usize, usize)) -> bool {
        let to = self.nodes[node].ports[port].to.0;
        !self.broken.contains(&(node.min(to), node.max(to)))
    }

    fn port(&mut self, (node, port): (usize, usize)) -> &mut Port {
        &mut self.nodes[node].ports[port]
    }

    fn input(&mut self, at: (usize, usize), input: Input) {
        let now = self.now;
        let actions = self.port(at).neighbour.step(input, now);
        self.act(at, actions, None);
    }

    fn act(&mut self, at: (usize, usize), actions: Vec<Action>, waiting: Option<u64>) {
        let (to, peer, works) = (self.port(at).to, self.port(at).peer, self.works(at));
        for action in actions {
            match action {
                Action::Connect => {
                    self.order += 1;
                    let connection = self.order;
                    self.port(at).view[Way::Outgoing as usize] = Some(connection);
                    match works {
                        true => self.send(to, Way::Incoming, connection, Passing::Syn, LATENCY),
                        false => self.send(at, Way::Outgoing, connection, Passing::Failed, seconds(1)),
                    }
                }
                Action::Accept => {
                    let connection = waiting.expect("one that waits");
                    self.port(at).view[Way::Incoming as usize] = Some(connection);
                    self.send(to, Way::Outgoing, connection, Passing::Connected, LATENCY);
                }
                Action::Refuse(bytes) => {
                    let connection = waiting.expect("one that waits");
                    for passing in [Passing::Connected, Passing::Bytes(bytes), Passing::Closed] {
                        self.send(to, Way::Outgoing, connection, passing, LATENCY);
                    }
                }
                Action::Send(way, bytes) => {
                    let connection = self.port(at).view[way as usize];
                    if let Some(connection) = connection {
                        self.send(to, way.other(), connection, Passing::Bytes(bytes), LATENCY);
                    }
                }
                Action::Close(way) => {
                    if let Some(connection) = self.port(at).view[way as usize].take() {
                        self.send(to, way.other(), connection, Passing::Closed, LATENCY);
                    }
                }
                Action::Up(_, negotiated) => self.nodes[at.0].rib.up(peer, &negotiated),
                Action::Down { kept, .. } => self.nodes[at.0].rib.down(peer, kept),
                Action::Failed(_) => {}
                Action::Stale(fate) => self.nodes[at.0].rib.fate(peer, fate),
                Action::Resend(family) => self.nodes[at.0].rib.refresh(peer, family),
                Action::RefreshBegins(family) => self.nodes[at.0].rib.refresh_begins(peer, family),
                Action::EndOfRib(_) => {
                    self.port(at).told = true;
                    let node = &mut self.nodes[at.0];
                    if node.ports.iter().all(|port| port.told) {
                        node.rib.hold_back(false);
                    }
                }
            }
        }
        self.tell(at.0);
    }

    /// What a node's routes have to say goes out.
    fn tell(&mut self, node: usize) {
        if self.now >= self.nodes[node].hears_until {
            self.nodes[node].rib.hold_back(false);
        }
        let moves = self.nodes[node].rib.publish().len();
        self.nodes[node].moves += moves;
        for port in 0..self.nodes[node].ports.len() {
            let (peer, to) = (self.nodes[node].ports[port].peer, self.nodes[node].ports[port].to);
            let way = Way::BOTH.into_iter().find(|way| self.nodes[node].ports[port].view[*way as usize].is_some());
            let Some(way) = way.filter(|_| self.nodes[node].ports[port].neighbour.negotiated().is_some()) else {
                continue;
            };
            let connection = self.nodes[node].ports[port].view[way as usize].expect("a connection");
            loop {
                let bytes = self.nodes[node].rib.flush(peer, WINDOW);
                if bytes.is_empty() {
                    break;
                }
                self.send(to, way.other(), connection, Passing::Bytes(bytes), LATENCY);
            }
        }
    }

    fn arrive(&mut self, at: (usize, usize), way: Way, connection: u64, passing: Passing) {
        let now = self.now;
        if !matches!(passing, Passing::Syn) && self.port(at).view[way as usize] != Some(connection) {
            return;
        }
        match passing {
            // Whoever has given up sends no more of it.
            Passing::Syn if self.gave_up(at, connection) => {}
            Passing::Syn => {
                let actions = self.port(at).neighbour.step(Input::Connected(Way::Incoming), now);
                self.act(at, actions, Some(connection));
            }
            Passing::Connected => self.input(at, Input::Connected(way)),
            Passing::Closed | Passing::Failed => {
                self.port(at).view[way as usize] = None;
                self.input(at, Input::ConnectionLost(way));
            }
            Passing::Bytes(bytes) => self.hear(at, way, connection, &bytes),
        }
    }

    fn gave_up(&mut self, at: (usize, usize), connection: u64) -> bool {
        let from = self.port(at).to;
        self.port(from).view[Way::Outgoing as usize] != Some(connection)
    }

    fn hear(&mut self, at: (usize, usize), way: Way, connection: u64, bytes: &[u8]) {
        let now = self.now;
        let mut rest = bytes;
        while self.port(at).view[way as usize] == Some(connection) {
            let node = &mut self.nodes[at.0];
            let port = &mut node.ports[at.1];
            let (message, taken) = match frame(rest, port.neighbour.extended(way)) {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(notification) => panic!("our own header: {notification}"),
            };
            rest = &rest[taken..];
            let (mut actions, update) = port.neighbour.received(way, message, now);
            if let Some(update) = update {
                assert_eq!(update.faults, []);
                node.rib.update(port.peer, &update, now.as_secs() as u32);
                let told = node.rib.told(port.peer, Family::Ipv4Unicast);
                actions.extend(port.neighbour.step(Input::Prefixes(Family::Ipv4Unicast, told), now));
            }
            self.act(at, actions, None);
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        for (_, order, to, way, connection, passing) in std::mem::take(&mut self.stalled) {
            self.wire.push((self.now, order, to, way, connection, passing));
        }
        loop {
            let next = self.wire.iter().enumerate().min_by_key(|(_, (due, order, ..))| (*due, *order));
            let next = next.map(|(at, (due, ..))| (at, *due));
            let mut timer: Option<(Duration, (usize, usize))> = None;
            for (node, port) in self.ports() {
                let due = self.nodes[node].ports[port].neighbour.due();
                timer = [timer, due.map(|due| (due, (node, port)))].into_iter().flatten().min();
            }
            match (next, timer) {
                (Some((at, due)), timer) if due <= end && timer.is_none_or(|(timer, _)| due <= timer) => {
                    self.now = self.now.max(due);
                    let passing = self.wire.remove(at);
                    if self.works(passing.2) || matches!(passing.5, Passing::Failed) {
                        let (_, _, to, way, connection, passing) = passing;
                        self.arrive(to, way, connection, passing);
                    } else {
                        self.stalled.push(passing);
                    }
                }
                (_, Some((due, at))) if due <= end => {
                    self.now = self.now.max(due);
                    self.input(at, Input::Time);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    fn ports(&self) -> Vec<(usize, usize)> {
        let of = |(node, at): (usize, &Node)| (0..at.ports.len()).map(move |port| (node, port)).collect::<Vec<_>>();
        self.nodes.iter().enumerate().flat_map(of).collect()
    }

    /// Where a node sends packets for a prefix.
    fn next_hop(&self, node: usize, route: Prefix) -> Option<String> {
        let best = self.nodes[node].rib.best(&route)?;
        best.accepted.map(|set| set.next_hop.address().to_string())
    }
}

fn table(node: usize, number: u32) -> (Rib, PeerId) {
    let identifier = identifier(node);
    let mut rib = Rib::new(Speaker { number, identifier, cluster_id: identifier, options: Options::default() });
    let own = rib.add_peer(PeerConfig::new(Source::Static, identifier.into(), number)).expect("room");
    (rib, own)
}

/// A reflector, 0, and its clients, each with a route of its own.
fn cluster(clients: usize) -> World {
    let mut world = World::default();
    let reflector = world.node(64512);
    for client in 1..=clients {
        let node = world.node(64512);
        world.originate(node, prefix(client));
        world.link(reflector, node, true, None);
    }
    world.run(seconds(30));
    world
}

#[test]
fn clients_of_a_reflector_know_the_ways_to_each_other() {
    let world = cluster(5);
    for from in 1..=5 {
        for to in (1..=5).filter(|to| *to != from) {
            let wanted = identifier(to).to_string();
            assert_eq!(world.next_hop(from, prefix(to)), Some(wanted), "{from} to {to}, not by the reflector");
        }
    }
}

#[test]
fn a_reflector_that_is_killed_moves_no_packet() {
    let mut world = cluster(3);
    let moves = |world: &World| world.nodes[1..].iter().map(|node| node.moves).collect::<Vec<_>>();
    let before = moves(&world);
    world.kill(0);
    world.run(seconds(120));
    assert_eq!(moves(&world), before, "nobody's best path has moved");
    let best = world.nodes[1].rib.best(&prefix(2)).expect("a path");
    assert!(!best.stale && world.nodes[0].ports.iter().all(|port| port.neighbour.negotiated().is_some()));
}

#[test]
fn a_client_that_is_killed_and_back_is_never_missed() {
    let mut world = cluster(3);
    world.kill(1);
    for _ in 0..600 {
        world.run(Duration::from_millis(100));
        let wanted = Some(identifier(1).to_string());
        assert_eq!((world.next_hop(2, prefix(1)), world.next_hop(3, prefix(1))), (wanted.clone(), wanted));
    }
    let best = world.nodes[0].rib.best(&prefix(1)).expect("a path");
    assert!(!best.stale, "it has been told again");
    assert_eq!(world.next_hop(1, prefix(2)), Some(identifier(2).to_string()));
}

#[test]
fn a_client_that_stays_away_is_forgotten_when_its_time_is_over() {
    let mut world = cluster(2);
    world.broken.push((0, 1));
    // He was heard up to thirty seconds ago: 60 to 90 of the hold time are left, and then 120 of the restart time.
    world.run(seconds(60 + 115));
    assert!(world.next_hop(2, prefix(1)).is_some());
    world.run(seconds(60));
    assert_eq!(world.next_hop(2, prefix(1)), None);
    world.broken.clear();
    world.run(seconds(150));
    assert!(world.next_hop(2, prefix(1)).is_some() && world.next_hop(1, prefix(2)).is_some());
}

#[test]
fn between_ases_a_route_goes_the_shorter_way_and_the_longer_when_that_breaks() {
    let mut world = World::default();
    let [a, b, c] = [1, 2, 3].map(|number| world.node(number));
    world.originate(a, prefix(0));
    world.link(a, b, false, None);
    world.link(b, c, false, None);
    world.link(a, c, false, None);
    world.run(seconds(30));
    assert_eq!(world.next_hop(c, prefix(0)), Some(identifier(a).to_string()));
    // Stopped, not lost: nothing is kept.
    world.input((a, 1), Input::Stop("rewiring".into()));
    world.run(seconds(2));
    assert_eq!(world.next_hop(c, prefix(0)), Some(identifier(b).to_string()));
    assert_eq!(world.nodes[c].rib.best(&prefix(0)).map(|path| path.received.as_path.to_string()), Some("2 1".into()));
    world.input((a, 0), Input::Stop("all of it".into()));
    world.run(seconds(2));
    assert_eq!(
        (world.next_hop(b, prefix(0)), world.next_hop(c, prefix(0))),
        (None, None),
        "no path is hunted for long"
    );
}

#[test]
fn whoever_tells_too_much_is_stopped() {
    let mut world = World::default();
    let [a, b] = [1, 2].map(|number| world.node(number));
    (0..20).for_each(|n| world.originate(a, prefix(n)));
    world.link(a, b, false, Some(10));
    world.run(seconds(300));
    assert!(world.nodes[b].ports[0].neighbour.negotiated().is_none());
    assert_eq!(world.nodes[b].rib.summary().prefixes, [0, 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Links that break and heal, speakers that are killed: a while after it all is over, everybody knows every way.
    #[test]
    fn in_the_end_every_way_is_known(blows in proptest::collection::vec((0..4usize, 0..4u8, 1..60_000u64), 0..12)) {
        let mut world = World::default();
        let ring: Vec<usize> = (1..=4).map(|number| world.node(number)).collect();
        for (at, node) in ring.iter().enumerate() {
            world.originate(*node, prefix(at));
            let next = ring[(at + 1) % ring.len()];
            world.link(*node, next, false, None);
        }
        world.run(seconds(30));
        for (at, blow, millis) in blows {
            let next = (at + 1) % 4;
            let link = (at.min(next), at.max(next));
            match blow {
                0 => world.broken.push(link),
                1 => world.broken.retain(|broken| *broken != link),
                2 => world.kill(at),
                _ => {}
            }
            world.run(Duration::from_millis(millis));
        }
        world.broken.clear();
        world.run(seconds(600));
        for from in 0..4 {
            for to in (0..4).filter(|to| *to != from) {
                let opposite = (from + 2) % 4 == to;
                let path = world.nodes[from].rib.best(&prefix(to)).and_then(|best| best.accepted.map(|set| set.as_path.length()));
                prop_assert_eq!(path, Some(if opposite { 2 } else { 1 }), "{} to {}", from, to);
            }
        }
    }
}
