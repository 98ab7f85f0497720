//! A daemon in this process, a kernel that only writes down what is wanted of it, and a peer who says what a test says.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bgp::attribute::{AsPath, Attributes, NextHop};
use bgp::family::{Families, Family};
use bgp::message::capability::Capability;
use bgp::message::nlri::Nlri;
use bgp::message::notification::Notification;
use bgp::message::open::Open;
use bgp::message::{Coding, Kind, Message, frame, pack, update};
use bgpd::config::{self, Config};
use bgpd::control::view::{NeighborView, RouteView};
use bgpd::control::{Answer, Query, Which};
use bgpd::daemon::{Daemon, Farewell, Handle, Hands};
use bgpd::kernel::{Command, Event, Status, Wish};
use meta::Prefix;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

pub const PATIENCE: Duration = Duration::from_secs(20);
/// Everybody's: addresses of loopback are everybody's own.
pub const PORT: u16 = 17_900;

thread_local! {
    /// Whether this test is alone in its network.
    static ALONE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Moves the test into a network of its own, with a loopback: ports are those of the protocols, and another run or a speaker
/// of this host may have them.
pub fn alone() {
    if ALONE.replace(true) {
        return;
    }
    let ns = linux::netns::NetNs::create().expect("a network namespace");
    ns.enter().expect("inside of it");
    let mut rtnl = linux::netlink::Rtnl::open().expect("netlink");
    let loopback = rtnl.link("lo").expect("links").expect("lo").index;
    rtnl.set_up(loopback, true).expect("lo is up");
}

/// An address of a test's own: `127.TEST.0.HOST`.
pub fn host(test: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, test, 0, host)
}

pub fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

/// A daemon.
pub struct Speaker {
    pub handle: Handle,
    pub kernel: Arc<Mutex<BTreeMap<Prefix, Option<Arc<Wish>>>>>,
    /// What the kernel was told beside wishes.
    pub told: Arc<Mutex<Vec<String>>>,
    pub news: mpsc::Sender<Event>,
    /// Whether the kernel says by now how next hops are reached.
    pub answering: watch::Sender<bool>,
    test: u8,
    own: u8,
    stop: CancellationToken,
    helper: tokio::task::JoinHandle<()>,
    running: tokio::task::JoinHandle<Result<(), bgpd::daemon::Error>>,
}

/// A file's text: what is the same in all, and the rest.
pub fn text(test: u8, own: u8, number: u32, rest: &str) -> String {
    let address = host(test, own);
    format!("router-id: 10.0.0.{own}\nas: {number}\nlisten: {{addresses: [{address}], port: {PORT}}}\n{rest}")
}

pub fn parsed(text: &str) -> Config {
    config::parse(text, config::Kind::Speaker, &|_| Err("no files here".into())).expect("a configuration")
}

/// A neighbour's line: at another host of the test, with what is usual in tests and some more.
pub fn neighbor(test: u8, own: u8, other: u8, more: &str) -> String {
    let (address, source) = (host(test, other), host(test, own));
    format!(
        "  - {{address: {address}, source-address: {source}, port: {PORT}, connect-retry-time: 500ms, \
         idle-hold-time: 200ms, longest-idle-hold-time: 500ms, {more}}}\n"
    )
}

impl Speaker {
    /// Starts one; the kernel has so many routes of an earlier process.
    pub fn start_with(test: u8, own: u8, number: u32, rest: &str, kept: usize, farewell: Farewell) -> Speaker {
        Speaker::start_as(test, own, parsed(&text(test, own, number, rest)), kept, farewell)
    }

    /// Starts one with a configuration that no file may have.
    pub fn start_as(test: u8, own: u8, config: Config, kept: usize, farewell: Farewell) -> Speaker {
        alone();
        let (commands, mut wishes) = mpsc::channel(8);
        let (news, to_daemon) = mpsc::channel(8);
        news.try_send(Event::Listed).expect("room");
        let (_, status) = watch::channel(Status { kept, ..Status::default() });
        let kernel = Arc::new(Mutex::new(BTreeMap::new()));
        let told = Arc::new(Mutex::new(Vec::new()));
        let (answering, may) = watch::channel(true);
        let (writes, notes, answers) = (Arc::clone(&kernel), Arc::clone(&told), news.clone());
        let helper = tokio::spawn(async move {
            while let Some(command) = wishes.recv().await {
                match command {
                    Command::Want(all) => writes.lock().expect("whole").extend(all),
                    // Everything is next door here.
                    Command::Track(address) => {
                        let (answers, mut may) = (answers.clone(), may.clone());
                        tokio::spawn(async move {
                            if may.wait_for(|may| *may).await.is_ok() {
                                let _ = answers.send(Event::NextHop(address, Some(0))).await;
                            }
                        });
                    }
                    other => notes.lock().expect("whole").push(format!("{other:?}")),
                }
            }
        });
        let hands = Hands { commands, news: to_daemon, status };
        let stop = CancellationToken::new();
        let (handle, running) =
            Daemon::start(config, Some(hands), farewell, stop.clone()).unwrap_or_else(|error| panic!("{error}"));
        Speaker { handle, kernel, told, news, answering, test, own, stop, running, helper }
    }

    pub fn start(test: u8, own: u8, number: u32, rest: &str) -> Speaker {
        Speaker::start_with(test, own, number, rest, 0, Farewell::Told)
    }

    /// With another configuration.
    pub async fn configure(&self, number: u32, rest: &str) -> Result<String, String> {
        self.handle.configure(parsed(&text(self.test, self.own, number, rest))).await
    }

    pub async fn neighbors(&self) -> Vec<NeighborView> {
        match self.handle.ask(Query::Neighbors(None)).await {
            Some(Answer::Neighbors(all)) => all,
            other => panic!("{other:?}"),
        }
    }

    pub async fn neighbor(&self, other: u8) -> NeighborView {
        let address = IpAddr::V4(host(self.test, other));
        self.neighbors().await.into_iter().find(|neighbor| neighbor.address == address).expect("a neighbor")
    }

    /// Waits until a neighbour's session is as a test wants it.
    pub async fn until(&self, other: u8, what: &str, fits: impl Fn(&NeighborView) -> bool) -> NeighborView {
        let end = Instant::now() + PATIENCE;
        loop {
            let neighbor = self.neighbor(other).await;
            if fits(&neighbor) {
                return neighbor;
            }
            assert!(Instant::now() < end, "{what}: {neighbor:#?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn up(&self, other: u8) -> NeighborView {
        self.until(other, "a session", |neighbor| neighbor.state == "Established").await
    }

    pub async fn route(&self, text: &str) -> Option<RouteView> {
        match self.handle.ask(Query::Page(vec![prefix(text)], Which::default())).await {
            Some(Answer::Routes(routes)) => routes.into_iter().next(),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the best path to a prefix fits; none is that there is no path that is used.
    pub async fn until_route(&self, text: &str, fits: impl Fn(Option<&bgpd::control::view::PathView>) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            let route = self.route(text).await;
            let best = route.as_ref().and_then(|route| route.paths.iter().find(|path| path.best));
            if fits(best) {
                return;
            }
            assert!(Instant::now() < end, "{text}: {route:#?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the kernel is to have of a prefix.
    pub async fn until_wish(&self, text: &str, fits: impl Fn(Option<&Wish>) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            let wish = self.kernel.lock().expect("whole").get(&prefix(text)).cloned().flatten();
            if fits(wish.as_deref()) {
                return;
            }
            assert!(Instant::now() < end, "{text}: {wish:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The kernel's side ends; what the daemon says then.
    pub async fn lose_kernel(self) -> String {
        self.helper.abort();
        drop(self.news);
        let ended = timeout(PATIENCE, self.running).await.expect("an end").expect("no panic");
        ended.expect_err("an error").to_string()
    }

    pub async fn end(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.running).await.expect("an end").expect("no panic").expect("no error");
    }
}

/// A peer whose messages are the test's.
pub struct Scripted {
    pub stream: TcpStream,
    /// What has come and was not looked at.
    pub buffer: Vec<u8>,
}

impl Scripted {
    /// Connects to a daemon, from an address.
    pub async fn connect(test: u8, from: u8, to: u8) -> Scripted {
        let end = Instant::now() + PATIENCE;
        loop {
            let socket = TcpSocket::new_v4().expect("a socket");
            // Little, so that who does not read is soon full.
            socket.set_recv_buffer_size(64 << 10).expect("set");
            socket.bind(SocketAddr::new(host(test, from).into(), 0)).expect("bound");
            match socket.connect(SocketAddr::new(host(test, to).into(), PORT)).await {
                Ok(stream) => return Scripted { stream, buffer: Vec::new() },
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Connects to a daemon that may have to rest first, until it is greeted.
    pub async fn greeted(test: u8, from: u8, to: u8) -> Scripted {
        let end = Instant::now() + PATIENCE;
        loop {
            let peer = Scripted::connect(test, from, to).await;
            let mut head = [0; 19];
            let open = loop {
                match timeout(PATIENCE, peer.stream.peek(&mut head)).await.expect("something in time") {
                    Ok(19) => break head[18] == 1,
                    Ok(0) | Err(_) => break false,
                    Ok(_) => sleep(Duration::from_millis(5)).await,
                }
            };
            if open {
                return peer;
            }
            assert!(Instant::now() < end, "nobody is greeted");
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("sent");
    }

    /// The next message; none at the end of the connection.
    pub async fn next(&mut self) -> Option<(Kind, Vec<u8>)> {
        loop {
            if let Some((message, taken)) = frame(&self.buffer, true).expect("messages") {
                let found = (message.kind, message.body.to_vec());
                self.buffer.drain(..taken);
                return Some(found);
            }
            let mut chunk = vec![0; 65536];
            match timeout(PATIENCE, self.stream.read(&mut chunk)).await.expect("something in time") {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
            }
        }
    }

    /// The next message of a kind.
    pub async fn until(&mut self, wanted: Kind) -> Vec<u8> {
        loop {
            let (kind, body) = self.next().await.unwrap_or_else(|| panic!("the end, and no {wanted:?}"));
            if kind == wanted {
                return body;
            }
        }
    }

    pub async fn notification(&mut self) -> Notification {
        Notification::read(&self.until(Kind::Notification).await).expect("a notification")
    }

    /// A session; the daemon's OPEN.
    pub async fn establish(&mut self, open: &Open) -> Open {
        self.send(&Message::Open(open.clone()).write()).await;
        let his = Open::read(&self.until(Kind::Open).await).expect("an OPEN");
        self.send(&Message::Keepalive.write()).await;
        self.until(Kind::Keepalive).await;
        his
    }

    /// Routes to prefixes, with a path.
    pub async fn announce(&mut self, from: Ipv4Addr, path: &[u32], prefixes: &[Prefix]) {
        self.send(&announcement(from, path, prefixes)).await;
    }

    pub async fn end_of_rib(&mut self) {
        self.send(&end_of_rib()).await;
    }

    /// Reads updates until so many prefixes have been told; how many at last.
    pub async fn hear(&mut self, least: usize) -> usize {
        let mut told = 0;
        while told < least {
            let body = self.until(Kind::Update).await;
            let update = update::read(&body, &coding()).expect("an update");
            told += update.announced().map(|(_, list)| list.iter().count()).sum::<usize>();
        }
        told
    }
}

/// Routes to prefixes, with a path.
pub fn announcement(from: Ipv4Addr, path: &[u32], prefixes: &[Prefix]) -> Vec<u8> {
    let set = Attributes { as_path: AsPath::sequence(path), ..Attributes::local(NextHop::V4(from)) };
    let routes: Vec<Nlri> = prefixes.iter().map(|prefix| Nlri::from(*prefix)).collect();
    let mut bytes = Vec::new();
    pack::announce(&coding(), Family::Ipv4Unicast, &set, &routes, &mut bytes).expect("packed");
    bytes
}

pub fn end_of_rib() -> Vec<u8> {
    let mut bytes = Vec::new();
    pack::end_of_rib(Family::Ipv4Unicast, &mut bytes);
    bytes
}

/// How a scripted peer writes: with numbers of four octets, and no more.
pub fn coding() -> Coding {
    Coding { four_octet_as: true, families: Families::IPV4, ..Coding::default() }
}

/// A scripted peer's OPEN.
pub fn open(number: u32, hold: u16, more: &[Capability]) -> Open {
    let mut capabilities = vec![Capability::Multiprotocol(Family::Ipv4Unicast.wire()), Capability::FourOctetAs(number)];
    capabilities.extend_from_slice(more);
    Open::new(number, hold, Ipv4Addr::new(10, 9, 9, 9), capabilities)
}
