//! Routes in the kernel's tables, and out of them.
//!
//! ```text
//!                 Command::Want ──► plan ──► batches of changes ──► the kernel
//!                                    ▲
//!                                    │ where its next hops are
//!  Event::{NextHop, Learned, ◄───── ways ◄── lists, and news of every change ──┘
//!          Direct, Link}
//! ```
//!
//! - `wish`: what is wanted of a prefix, and the shape that it takes in the kernel
//! - `plan`: what is wanted beside what is there, and the changes that make one of the other
//! - `ways`: what others have put there, and by which of it a next hop is reached
//! - `news`: what of that the speaker is told
//! - `task`: the loop, in a thread of its own, as netlink blocks
//!
//! Routes of ours are those of one protocol number in one table. They outlive the process: those that are found at the
//! start stay until the speaker says [`Command::Loaded`], or [`Config::keep`] is over, so that a process that was killed
//! and started again moves no packet. Whatever removes or changes one of ours, it is put back; what is another protocol's is
//! never touched, and where it takes the same destination with the same metric, ours waits until it is gone.
//!
//! Called by the daemon.

mod news;
mod plan;
mod task;
mod ways;
mod wish;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use linux::netlink::{Monitor, RouteKind, Rtnl, TABLE_MAIN, Topic};
use meta::Prefix;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot, watch};

pub use wish::{Hop, Target, Wish};

/// The number by which the kernel's tables tell routes of this speaker from others: `ip route show proto 71`. Not BGP's
/// own, 186: FRR's zebra takes routes with that number for its own and removes them when it starts, and BIRD's 12 is
/// BIRD's. Not [`linux::netlink::PROTOCOL`] either: flannel's routes in the same table are no business of this speaker.
pub const PROTOCOL: u8 = 71;

/// The metric of a route where nobody said one: below an administrator's, as BIRD's.
pub const METRIC: u32 = 32;

/// News that nobody has read yet: a flap of 20,000 routes of somebody else. When there is more, everything is listed.
const NEWS: usize = 16 << 20;
/// Commands that wait; each is a batch.
const COMMANDS: usize = 64;

/// Which routes are whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The table where routes are put, and where those of other protocols are learned from.
    pub table: u32,
    /// The table that says where next hops are. The same one, unless `table` is one that rules of an administrator lead to:
    /// such has no routes to the links.
    pub ways: u32,
    /// See [`PROTOCOL`]. Two speakers with one table need two.
    pub protocol: u8,
    /// How often everything is listed, beside the news of each change.
    pub scan: Duration,
    /// How long routes of an earlier process stay when nobody says [`Command::Loaded`].
    pub keep: Duration,
    /// Whether routes of other protocols are told.
    pub learn: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            table: TABLE_MAIN,
            ways: TABLE_MAIN,
            protocol: PROTOCOL,
            scan: Duration::from_secs(60),
            // BIRD's longest wait for End-of-RIB.
            keep: Duration::from_secs(240),
            learn: true,
        }
    }
}

/// What the speaker says.
#[derive(Clone, Debug)]
pub enum Command {
    /// These prefixes shall have these routes, or none.
    Want(Vec<(Prefix, Option<Arc<Wish>>)>),
    /// The way to this next hop shall be told by [`Event::NextHop`], now and whenever it changes.
    Track(IpAddr),
    /// That is no longer of interest.
    Forget(IpAddr),
    /// All that an earlier process had is wanted again by now, or never will be: what is left of it goes.
    Loaded,
    /// All routes of ours go: the end of a speaker that shall leave nothing.
    Clear,
}

/// What the kernel says. Each tells the state of one thing; when several states follow one another faster than they are
/// taken, the last is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Everything that was there at the start has been told.
    Listed,
    /// The metric of the way to a next hop that is tracked: 0 on a link of this host, else that of the route. None when
    /// there is no way.
    NextHop(IpAddr, Option<u32>),
    /// The best route of another protocol to a prefix, or that there is none any more. Without those that the kernel makes
    /// with addresses.
    Learned(Prefix, Option<Learned>),
    /// The links that are up and have an address of this range; none when it is gone. Without loopback and link-local
    /// ranges.
    Direct(Prefix, Vec<String>),
    /// A link: its number, and whether packets can go there. When it is gone, they can't.
    Link {
        /// Its name.
        name: String,
        /// Its number.
        index: u32,
        /// Up, and somebody at the other end.
        up: bool,
    },
}

/// A route of another protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// Whose: 4 an administrator's, 3 one that nobody named, …
    pub protocol: u8,
    /// The lowest of those to the prefix.
    pub metric: u32,
    /// What becomes of packets.
    pub kind: RouteKind,
    /// Routers and links.
    pub hops: Vec<LearnedHop>,
}

/// Where a route of another protocol leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LearnedHop {
    /// None: the prefix is on the link.
    pub gateway: Option<IpAddr>,
    /// The link's name.
    pub link: String,
}

/// How it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Prefixes that shall have a route.
    pub wanted: usize,
    /// Routes of ours in the kernel.
    pub there: usize,
    /// Of those, ones of an earlier process that nobody has wanted yet.
    pub kept: usize,
    /// Wanted routes that the kernel refused, or that give way to another protocol's.
    pub refused: usize,
    /// What it said to the last of those.
    pub refusal: Option<String>,
}

/// The thread's handle. When it is dropped the thread ends, and routes stay as they are.
#[derive(Debug)]
pub struct Kernel {
    /// Bounded: who says more than the kernel takes waits.
    pub commands: mpsc::Sender<Command>,
    /// How it stands, whenever that changes.
    pub status: watch::Receiver<Status>,
    ended: oneshot::Receiver<()>,
}

/// Why it could not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Netlink failed.
    #[error(transparent)]
    Netlink(#[from] linux::netlink::Error),
    /// No thread.
    #[error("starting the thread of the kernel's routes: {0}")]
    Thread(#[from] std::io::Error),
}

impl Kernel {
    /// Begins, in the network namespace of the calling thread.
    pub fn start(config: Config, events: mpsc::Sender<Event>) -> Result<Kernel, StartError> {
        let topics = [Topic::Links, Topic::Addresses, Topic::Routes];
        let monitor = Monitor::open(&topics)?;
        monitor.hold(NEWS);
        let rtnl = Rtnl::open()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let inside = runtime.enter();
        // The successor is unsafe; what it asks for holds here: the descriptor is owned and never changes.
        #[allow(deprecated)]
        let monitor = AsyncFd::with_interest(monitor, Interest::READABLE)?;
        drop(inside);
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (told, status) = watch::channel(Status::default());
        let (end, ended) = oneshot::channel();
        let task = task::Task::new(config, rtnl, told);
        std::thread::Builder::new().name("kernel routes".to_owned()).spawn(move || {
            runtime.block_on(task.run(monitor, receiver, events));
            let _ = end.send(());
        })?;
        Ok(Kernel { commands, status, ended })
    }

    /// Ends it and waits until it has done what it was told.
    pub async fn end(self) {
        drop(self.commands);
        let _ = self.ended.await;
    }
}
