//! Routes in the kernel's tables, and out of them. Does I/O, by netlink in a thread.
//!
//! ```text
//!                 Command::Want ──► plan ──► batches of changes ──► the kernel
//!                                    ▲
//!                                    │ where its next hops are
//!  Event::{NextHop, Learned, ◄───── ways ◄── lists, and news of every change ──┘
//!          Direct, Link}
//! ```
//!
//! - `said`: configuration, commands, events
//! - `wish`: what is wanted of a prefix, and the shape that it takes in the kernel
//! - `plan`: what is wanted beside what is there, and the changes that make one of the other
//! - `vrf`: which links and which table are whose, where links have tables of their own
//! - `ways`: what others have put there, and by which of it a next hop is reached
//! - `news`: what of that the speaker is told
//! - `alone`: nobody else writes the same routes, and this process may
//! - `task`: the loop, in a thread of its own, as netlink blocks
//!
//! Routes of ours are those of one protocol number in one table. They outlive the process: those that are found at the
//! start stay until the speaker says [`Command::Loaded`], or [`Config::keep`] is over, so that a process that was killed
//! and started again moves no packet. Whatever removes or changes one of ours, it is put back; what is another protocol's is
//! never touched, and where it takes the same destination with the same metric, ours waits until it is gone.
//!
//! Called by the daemon.

mod alone;
mod news;
mod plan;
mod said;
mod task;
pub mod vrf;
mod ways;
mod wish;

use alone::Alone;
use linux::netlink::{Monitor, Rtnl, Topic};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot, watch};

pub use said::{Command, Config, Event, Learned, LearnedHop, METRIC, OF_VRF, PROTOCOL, Status};
pub use wish::{Hop, Target, Wish};

/// News that nobody has read yet: a flap of 20,000 routes of somebody else. When there is more, everything is listed.
const NEWS: usize = 16 << 20;
/// Commands that wait; each is a batch.
const COMMANDS: usize = 64;

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
    /// Somebody has these routes.
    #[error(
        "another daemon writes protocol {protocol} into table {table} of this network namespace; kernel.table or \
         kernel.protocol may say another"
    )]
    Another {
        /// Of which table.
        table: u32,
        /// Of which protocol.
        protocol: u8,
    },
    /// Whether somebody has them is not known.
    #[error("claiming the routes of a table for this process: {0}")]
    Claim(std::io::Error),
    /// The VRF.
    #[error(transparent)]
    Vrf(#[from] vrf::Error),
    /// Not the right.
    #[error("routes can't be written by this process: that needs CAP_NET_ADMIN")]
    Forbidden,
}

impl Kernel {
    /// Begins, in the network namespace of the calling thread.
    pub fn start(mut config: Config, events: mpsc::Sender<Event>) -> Result<Kernel, StartError> {
        let topics = [Topic::Links, Topic::Addresses, Topic::Routes];
        let monitor = Monitor::open(&topics)?;
        monitor.hold(NEWS);
        let mut rtnl = Rtnl::open()?;
        if let Some(name) = &config.vrf {
            let of_vrf = vrf::table(&mut rtnl, name)?;
            [&mut config.table, &mut config.ways]
                .into_iter()
                .filter(|table| **table == OF_VRF)
                .for_each(|t| *t = of_vrf);
        }
        let claimed = match config.write {
            true => {
                alone::may_write(&config, &mut rtnl)?;
                Some(Alone::claim(&config)?)
            }
            false => None,
        };
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
            drop(claimed);
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
