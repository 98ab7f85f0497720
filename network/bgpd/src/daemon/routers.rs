//! This speaker as a router on the links of unnumbered neighbours: it advertises itself there, as FRR does, and hears who
//! else does (RFC 4861 6.2). What the kernel makes of others' advertisements is its own business: nothing of it is set here.
//! I/O: a socket of ICMPv6 and a task for each link. Called by the loop, by `unnumbered`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use bgp::router::{self, ALL_NODES, ALL_ROUTERS, Heard, INTERVAL, LEAST_INTERVAL, LIFETIME, TYPES};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use super::addresses::index_of;
use super::connection::Tasks;
use super::event::{Advertised, Event};

/// An advertisement with the most options that a packet of Ethernet has room for; a longer one is cut, and so unsound.
const MAX_MESSAGE: usize = 1500;
/// Between two messages that are read: who sends more loses them, and nobody else notices.
const PACE: Duration = Duration::from_millis(100);
/// The same router is told again after this long.
const AGAIN: Duration = Duration::from_secs(1);
/// Until a link that cannot be used is looked at again.
const RETRY: Duration = Duration::from_secs(1);

/// Links on which this speaker is a router; each has a task.
#[derive(Debug, Default)]
pub struct Routers(BTreeMap<String, Router>);

#[derive(Debug)]
struct Router {
    /// Told: the last advertisement says that there is no router any more. Dropped: nothing does.
    end: oneshot::Sender<()>,
    again: Arc<Notify>,
}

impl Routers {
    /// These links, and no others.
    pub fn set(&mut self, wanted: BTreeSet<String>, tasks: &Tasks) {
        let gone: Vec<String> = self.0.keys().filter(|link| !wanted.contains(*link)).cloned().collect();
        for router in gone.iter().filter_map(|link| self.0.remove(link)) {
            let _ = router.end.send(());
        }
        for link in wanted {
            self.0.entry(link.clone()).or_insert_with(|| {
                let (end, ended) = oneshot::channel();
                let again = Arc::new(Notify::new());
                tasks.tracker.spawn(run(link, tasks.events.clone(), ended, Arc::clone(&again)));
                Router { end, again }
            });
        }
    }

    /// A link has come up, or somebody on it may not know yet that this speaker is there.
    pub fn again(&self, link: &str) {
        if let Some(router) = self.0.get(link) {
            router.again.notify_one();
        }
    }
}

async fn run(link: String, events: mpsc::Sender<Event>, mut end: oneshot::Receiver<()>, again: Arc<Notify>) {
    loop {
        let why = match Speaking::on(&link) {
            Ok(mut speaking) => match speaking.until(&events, &mut end, &again).await {
                Ok(()) => return,
                Err(error) => error.to_string(),
            },
            Err(error) => match index_of(&link) {
                None => format!("there is no interface {link}"),
                Some(_) if error.kind() == io::ErrorKind::PermissionDenied => {
                    format!(
                        "interface {link}: Router Advertisements can't be read by this process: that needs CAP_NET_RAW"
                    )
                }
                Some(_) => format!("interface {link}: {error}"),
            },
        };
        if events.send(Event::Router { link: link.clone(), news: Advertised::Failed(why) }).await.is_err() {
            return;
        }
        tokio::select! {
            _ = &mut end => return,
            () = again.notified() => {}
            () = sleep(RETRY) => {}
        }
    }
}

/// On a link.
struct Speaking {
    link: String,
    index: u32,
    socket: UdpSocket,
    /// The next advertisement, and when the last was.
    next: Instant,
    last: Option<Instant>,
    /// Who was told last.
    told: Option<(Ipv6Addr, Instant)>,
}

impl Speaking {
    fn on(link: &str) -> io::Result<Speaking> {
        let socket = UdpSocket::from_std(linux::hops::icmp6(link, ALL_ROUTERS, &TYPES)?)?;
        let index = index_of(link).ok_or(io::ErrorKind::NotFound)?;
        let (link, next) = (link.to_owned(), Instant::now());
        Ok(Speaking { link, index, socket, next, last: None, told: None })
    }

    /// Advertises and hears, until the end of it or of the link.
    async fn until(
        &mut self,
        events: &mpsc::Sender<Event>,
        end: &mut oneshot::Receiver<()>,
        again: &Notify,
    ) -> io::Result<()> {
        self.send(ALL_ROUTERS, &router::solicitation()).await?;
        loop {
            tokio::select! {
                told = &mut *end => {
                    if told.is_ok() {
                        let _ = self.send(ALL_NODES, &router::advertisement(Duration::ZERO)).await;
                    }
                    return Ok(());
                }
                () = again.notified() => self.soon(),
                () = sleep_until(self.next) => {
                    self.send(ALL_NODES, &router::advertisement(LIFETIME)).await?;
                    let now = Instant::now();
                    if self.last.is_none() {
                        let _ = events.send(Event::Router { link: self.link.clone(), news: Advertised::Begun }).await;
                    }
                    (self.last, self.next) = (Some(now), now + INTERVAL);
                }
                ready = self.socket.readable() => {
                    ready?;
                    self.hear(events)?;
                    sleep(PACE).await;
                }
            }
        }
    }

    /// The next advertisement as soon as may be.
    fn soon(&mut self) {
        let earliest = self.last.map_or_else(Instant::now, |last| last + LEAST_INTERVAL);
        self.next = self.next.min(earliest);
    }

    async fn send(&self, to: Ipv6Addr, message: &[u8]) -> io::Result<()> {
        let to = SocketAddrV6::new(to, 0, 0, self.index);
        let sent = self.socket.send_to(message, SocketAddr::from(to)).await;
        let told = |error: io::Error| {
            let why = match error.kind() {
                io::ErrorKind::AddrNotAvailable => "it has no address of its own (fe80::) yet".to_owned(),
                _ => error.to_string(),
            };
            io::Error::new(error.kind(), format!("interface {}: {why}", self.link))
        };
        sent.map(drop).map_err(told)
    }

    /// One message.
    fn hear(&mut self, events: &mpsc::Sender<Event>) -> io::Result<()> {
        let mut buffer = [0; MAX_MESSAGE];
        let received = self.socket.try_io(Interest::READABLE, || linux::hops::receive(&self.socket, &mut buffer));
        let received = match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            received => received?,
        };
        let SocketAddr::V6(from) = received.from else { return Ok(()) };
        let message = buffer.get(..received.length).unwrap_or_default();
        // What came before the socket was bound to its link may be of another.
        match router::read(message, *from.ip(), received.ttl).filter(|_| from.scope_id() == self.index) {
            Some(Heard::Solicitation) => self.soon(),
            Some(Heard::Advertisement) => {
                let now = Instant::now();
                if self.told.is_none_or(|(told, at)| told != *from.ip() || now.duration_since(at) >= AGAIN) {
                    self.told = Some((*from.ip(), now));
                    // Where the loop does not keep up, he advertises himself again.
                    let news = Advertised::From(*from.ip());
                    let _ = events.try_send(Event::Router { link: self.link.clone(), news });
                }
            }
            None => {}
        }
        Ok(())
    }
}
