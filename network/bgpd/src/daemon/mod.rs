//! The loop: everything that happens, one thing after the other, and after each batch of it what has changed goes out.
//! I/O.
//!
//! ```text
//!  listen ──► connection ──events──┐                  ┌──► connections: messages, updates
//!  kernel ──news───────────────────┼──► the loop ─────┼──► kernel: wishes, in batches
//!  control, reload ──requests──────┘  sessions, rib   └──► answers
//! ```
//!
//! - `sessions`: what connections bring; `actions`: what sessions want done; `peers`: who there is; `addresses`: ours
//!   towards them
//! - `routes`: what goes out; `fib`: to the kernel; `locals`: routes of this host
//! - `unnumbered`: neighbours of whom only the link is known, by `routers`, which advertise and hear there
//! - `restart`: a restarted speaker hears all before it speaks; `reload`: another configuration; `asked`: what people ask
//! - `listen`, `keys`, `signed`, `connection`, `event`: sockets; `bfd`, `watching`: whether neighbours are there; `dump`, `dumping`: MRT; `metrics`
//!
//! Called by `ferrokube bgp`, by [`crate::run`].

mod actions;
mod addresses;
mod asked;
mod bfd;
mod connection;
mod dump;
mod dumping;
mod event;
mod fib;
mod keys;
mod listen;
mod locals;
mod metrics;
mod peers;
mod reload;
mod restart;
mod routers;
mod routes;
mod seldom;
mod sessions;
mod signed;
mod unnumbered;
mod watching;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bgp::rib::{Rib, Speaker};
use bgp::session::{Input, Time};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::control::{Answer, Query};
use crate::kernel;

use addresses::Addresses;
use bfd::Watchers;
use connection::Tasks;
use dump::Dump;
use event::{EVENTS, Event, Key};
use fib::Fib;
use listen::Listeners;
use locals::Locals;
use metrics::Metrics;
use peers::Peers;
use restart::Restart;
use routers::Routers;
use seldom::Seldom;

/// Events are taken for so long before what they changed goes out: the more there are, the better it is packed.
const GATHER: Duration = Duration::from_millis(20);
/// Requests that wait.
const REQUESTS: usize = 16;
/// The kernel tells all that it had by then, or it is not waited for.
const LISTING: Duration = Duration::from_secs(10);
/// At the end, connections get this long to take what was said last.
const FAREWELL: Duration = Duration::from_secs(4);
/// Without a timer, it is looked at so often whether there is one: never matters.
const LONG: Duration = Duration::from_secs(3600);

/// Why it could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A socket.
    #[error("listen: {0}: {1}{advice}", advice = listen::advice(.1))]
    Listen(SocketAddr, std::io::Error),
    /// A dump.
    #[error("mrt: {0}")]
    Dump(String),
    /// The tables.
    #[error("the tables have no room for the routes of this host")]
    Tables,
    /// It ended though it was not told to.
    #[error("the kernel's routes are not kept any more: their thread has ended")]
    Kernel,
}

/// What the daemon is asked from outside of its loop.
#[derive(Debug)]
pub enum Request {
    /// A question.
    Ask(Query, oneshot::Sender<Answer>),
    /// Another configuration; what it came to.
    Configure(Box<Config>, oneshot::Sender<Result<String, String>>),
}

/// The kernel's side: where wishes go, where news comes from.
#[derive(Debug)]
pub struct Hands {
    /// Wishes.
    pub commands: mpsc::Sender<kernel::Command>,
    /// News.
    pub news: mpsc::Receiver<kernel::Event>,
    /// How it stands there.
    pub status: watch::Receiver<kernel::Status>,
}

/// What the end is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// Neighbours are told, and the kernel's routes go.
    Told,
    /// Connections just end, and the kernel's routes stay: neighbours keep theirs for the restart time (RFC 4724).
    KeepRoutes,
}

/// A daemon that runs.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    /// Where it listens.
    pub listening: Arc<[SocketAddr]>,
    /// Its figures.
    pub registry: Arc<telemetry::Registry>,
}

impl Handle {
    /// Asks something; none when it has ended.
    pub async fn ask(&self, query: Query) -> Option<Answer> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::Ask(query, answer)).await.ok()?;
        answered.await.ok()
    }

    /// Gives it another configuration.
    ///
    /// # Errors
    /// What cannot be changed while it runs.
    pub async fn configure(&self, config: Config) -> Result<String, String> {
        let (answer, answered) = oneshot::channel();
        let ended = || "the daemon has ended".to_owned();
        self.requests.send(Request::Configure(Box::new(config), answer)).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

/// Everything.
pub struct Daemon {
    config: Config,
    began: Instant,
    /// The same in seconds since 1970.
    epoch: u32,
    rib: Rib,
    peers: Peers,
    locals: Locals,
    fib: Fib,
    hands: Option<Hands>,
    tasks: Tasks,
    listeners: Listeners,
    own: Addresses,
    watchers: Watchers,
    routers: Routers,
    /// A restart, as long as somebody may come back to what he told before.
    restart: Option<Restart>,
    /// Who may be told something.
    ready: BTreeSet<Key>,
    connections: u64,
    /// Connections of those who are no neighbours, in the log.
    strangers: Seldom,
    most_next_hops: usize,
    next_hops_looked_at: Time,
    /// Next hops for which there was no room, in the log.
    shares: Seldom,
    metrics: Metrics,
    dump: Option<Dump>,
}

/// What wakes the loop.
enum Work {
    Event(Event),
    Request(Request),
    News(kernel::Event),
    KernelLost,
    Tell,
    Time,
    End,
}

impl Daemon {
    /// Binds, and begins; `hands` are the kernel's, where it is used. It runs until `shutdown`.
    ///
    /// # Errors
    /// A socket or a file that cannot be had.
    pub fn start(
        config: Config,
        hands: Option<Hands>,
        farewell: Farewell,
        shutdown: CancellationToken,
    ) -> Result<(Handle, tokio::task::JoinHandle<Result<(), Error>>), Error> {
        let (events, receiver) = mpsc::channel(EVENTS);
        let (requests, asked) = mpsc::channel(REQUESTS);
        let listeners = Listeners::bind(&config.listen, config.vrf.as_deref(), keys::keys(&config, []), &events);
        let listeners = listeners.map_err(|(address, error)| Error::Listen(address, error))?;
        let mut rib = Rib::new(Speaker {
            number: config.number,
            identifier: config.identifier,
            cluster_id: config.cluster_id,
            options: config.options,
        });
        if config.kernel.routes && hands.is_some() {
            rib.resolve_next_hops();
        }
        let dump = dump::opened(&config.mrt).and_then(|updates| Dump::new(updates, &config.mrt, None));
        let dump = dump.map_err(Error::Dump)?;
        let locals = Locals::new(&config, &mut rib).ok_or(Error::Tables)?;
        let metrics = Metrics::new();
        let handle =
            Handle { requests, listening: listeners.addresses().into(), registry: Arc::clone(&metrics.registry) };
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let daemon = Daemon {
            began: Instant::now(),
            epoch: u32::try_from(since_1970.as_secs()).unwrap_or(u32::MAX),
            rib,
            peers: Peers::default(),
            locals,
            fib: Fib::default(),
            hands,
            tasks: Tasks { events, tracker: TaskTracker::new() },
            listeners,
            own: Addresses::new(config.vrf.clone()),
            watchers: Watchers::default(),
            routers: Routers::default(),
            restart: None,
            ready: BTreeSet::new(),
            connections: 0,
            strangers: Seldom::default(),
            most_next_hops: 0,
            next_hops_looked_at: Time::ZERO,
            shares: Seldom::default(),
            metrics,
            dump,
            config,
        };
        let running = tokio::spawn(daemon.run(receiver, asked, farewell, shutdown));
        Ok((handle, running))
    }

    fn now(&self) -> Time {
        self.began.elapsed()
    }

    async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut requests: mpsc::Receiver<Request>,
        farewell: Farewell,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        self.listed(farewell, &shutdown).await;
        self.set_keys();
        self.watchers();
        self.routers();
        for neighbor in self.config.neighbors.clone() {
            self.begin(neighbor);
        }
        // Maybe there is nobody to wait for.
        self.deferral_over();
        self.settle();
        loop {
            let work = self.next(&mut events, &mut requests, &shutdown).await;
            match work {
                Work::End => break,
                // Whoever starts it again finds routes and neighbours as they are.
                Work::KernelLost if !shutdown.is_cancelled() => {
                    self.end(Farewell::KeepRoutes).await;
                    return Err(Error::Kernel);
                }
                work => self.work(work),
            }
            let began = Instant::now();
            while began.elapsed() < GATHER && self.one_more(&mut events) {}
            self.settle();
        }
        self.end(farewell).await;
        Ok(())
    }

    /// Waits for the next thing to do.
    async fn next(
        &mut self,
        events: &mut mpsc::Receiver<Event>,
        requests: &mut mpsc::Receiver<Request>,
        shutdown: &CancellationToken,
    ) -> Work {
        let now = self.now();
        let due = [self.peers.next_due(), self.restart_due(), self.dump_due()];
        let wait = due.into_iter().flatten().min().map_or(LONG, |due| due.saturating_sub(now));
        let (commands, news) = match &mut self.hands {
            Some(hands) => (Some(&hands.commands), Some(&mut hands.news)),
            None => (None, None),
        };
        let pending = self.fib.is_pending();
        tokio::select! {
            () = shutdown.cancelled() => Work::End,
            Some(request) = requests.recv() => Work::Request(request),
            Some(event) = events.recv() => Work::Event(event),
            Some(told) = async { Some(news?.recv().await) } => told.map_or(Work::KernelLost, Work::News),
            Some(Ok(permit)) = async { Some(commands?.reserve().await) }, if pending => {
                if let Some(command) = self.fib.next() {
                    permit.send(command);
                }
                Work::Tell
            }
            () = sleep(wait) => Work::Time,
        }
    }

    /// Takes what is there already, of each kind one; whether there was something.
    fn one_more(&mut self, events: &mut mpsc::Receiver<Event>) -> bool {
        let event = events.try_recv().ok();
        let news = self.hands.as_mut().and_then(|hands| hands.news.try_recv().ok());
        let some = event.is_some() || news.is_some();
        event.into_iter().for_each(|event| self.event(event));
        news.into_iter().for_each(|news| self.news(news));
        some
    }

    /// Tells the kernel's side as much as it takes now.
    fn tell(&mut self) {
        let Some(hands) = &self.hands else { return };
        while self.fib.is_pending()
            && let Ok(room) = hands.commands.try_reserve()
            && let Some(command) = self.fib.next()
        {
            room.send(command);
        }
    }

    fn work(&mut self, work: Work) {
        match work {
            Work::Event(event) => self.event(event),
            Work::News(news) => self.news(news),
            Work::Request(Request::Ask(query, answer)) => {
                let _ = answer.send(self.answer(query));
            }
            Work::Request(Request::Configure(config, answer)) => {
                let _ = answer.send(self.configure(*config));
            }
            Work::Time => {
                let now = self.now();
                for key in self.peers.due(now) {
                    self.time(key);
                }
                self.deferral_over();
                self.dump_table();
            }
            Work::Tell => self.tell(),
            Work::KernelLost | Work::End => {}
        }
    }

    /// A neighbour of the file.
    fn begin(&mut self, neighbor: crate::config::Neighbor) {
        if let Some(key) = self.add(neighbor, None, None) {
            self.begin_session(key);
        }
    }

    /// Who is wanted has a session from now on; an unnumbered one when he has been found.
    fn begin_session(&mut self, key: Key) {
        let now = self.now();
        let Some(peer) = self.peers.get_mut(key).filter(|peer| peer.peering().enabled) else { return };
        match peer.neighbor.is_found() {
            true => self.input(key, Input::Start),
            false => drop(peer.failed(unnumbered::NOBODY.to_owned(), now)),
        }
    }

    fn news(&mut self, news: kernel::Event) {
        let now = seconds(self.now());
        match news {
            kernel::Event::Listed => {}
            kernel::Event::NextHop(address, metric) => {
                self.rib.next_hop(address, metric);
                self.deferral_over();
            }
            kernel::Event::Learned(prefix, route) => {
                self.locals.learned(prefix, route.as_ref(), &mut self.rib, now);
            }
            kernel::Event::Direct(prefix, links) => self.locals.direct(prefix, &links, &mut self.rib, now),
            kernel::Event::Link { name, up, .. } => self.link_changed(&name, up),
        }
    }

    /// A neighbour on a link that is down is not there, whatever the hold time says. One that comes, or comes back under
    /// another number, is where BFD's packets go from now on.
    fn link_changed(&mut self, name: &str, up: bool) {
        if !up && self.config.vrf.as_deref() == Some(name) {
            tracing::error!(
                vrf = name,
                "the VRF is down or gone; where it is made anew, this speaker is to be started again"
            );
        }
        for key in self.peers.keys() {
            let by_it = self.peers.get(key).filter(|peer| peer.peering().interface.as_deref() == Some(name));
            if up {
                if by_it.is_some() {
                    self.routers.again(name);
                    self.watch(key);
                }
                continue;
            }
            let ways: Vec<_> = by_it.iter().flat_map(|peer| peer.links.iter().flatten().map(|l| l.which)).collect();
            for which in ways {
                tracing::warn!(link = name, "the link of a neighbour is down");
                self.event(Event::Lost(which, None));
            }
        }
    }

    /// Everybody is told, or just left; the kernel's routes go, or stay.
    async fn end(mut self, farewell: Farewell) {
        if farewell == Farewell::Told {
            self.routers.set(Default::default(), &self.tasks);
            for key in self.peers.keys() {
                self.input(key, Input::Stop("the daemon ends".to_owned()));
                self.watch_ends(key);
            }
            if let Some(hands) = &self.hands {
                let _ = tokio::time::timeout(FAREWELL, hands.commands.send(kernel::Command::Clear)).await;
            }
        }
        let tracker = self.tasks.tracker.clone();
        drop(self);
        tracker.close();
        let _ = tokio::time::timeout(FAREWELL, tracker.wait()).await;
    }
}

/// The tables' times: whole seconds since the beginning.
fn seconds(now: Time) -> u32 {
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
}
