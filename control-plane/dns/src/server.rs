//! The sockets: worker threads for UDP, tasks for TCP, and the way of a question between them. Does I/O.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use linux::sockets::{UdpWorker, Waker, udp_shared};
use parking_lot::RwLock;
use serving::{Connection, Listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::answer::{self, Responder};
use crate::chain::{self, Asked, Live, Step};
use crate::settings::Counts;
use crate::table::Table;
use crate::wire::{Question, code};

/// Questions that wait for upstreams at once, as upstream's configuration for cluster DNS has it; each costs a socket.
const MOST_WAITING: usize = 1000;
/// Questions are short; whoever adds more options than this is cut, and gets an error.
const LONGEST_QUESTION: usize = 1500;
/// A connection that asks nothing for so long is closed.
const IDLE: Duration = Duration::from_secs(10);

/// Stack of the threads that read questions: messages are walked in loops, never by recursion.
const THREAD_STACK: usize = 2 * 1024 * 1024;

/// What all sockets share.
#[derive(Debug)]
pub struct Shared {
    pub table: RwLock<Table>,
    live: RwLock<Arc<Live>>,
    /// Another configuration is in force: names may have to be made anew.
    pub changed: Notify,
    /// Until it is known what is to be in force, only what the table knows is answered.
    settled: AtomicBool,
    slots: Arc<Semaphore>,
    pub counts: Counts,
    pub questions: AtomicU64,
}

impl Shared {
    pub fn new(table: Table, live: Live) -> Self {
        Shared {
            table: RwLock::new(table),
            live: RwLock::new(Arc::new(live)),
            changed: Notify::new(),
            settled: AtomicBool::new(false),
            slots: Arc::new(Semaphore::new(MOST_WAITING)),
            counts: Counts::default(),
            questions: AtomicU64::new(0),
        }
    }

    /// The configuration in force.
    pub fn live(&self) -> Arc<Live> {
        self.live.read().clone()
    }

    /// Brings another one into force.
    pub fn set(&self, live: Live) {
        *self.live.write() = Arc::new(live);
        self.changed.notify_one();
    }

    pub fn settle(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    /// A place among those who wait; none when there are too many.
    fn slot(&self) -> Option<OwnedSemaphorePermit> {
        let settled = self.settled.load(Ordering::Relaxed);
        self.slots.clone().try_acquire_owned().ok().filter(|_| settled)
    }
}

/// The threads of the UDP sockets.
#[derive(Debug)]
pub struct Workers {
    waker: Waker,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Workers {
    /// Opens the sockets of an address and starts a thread for each.
    pub fn start(address: SocketAddr, count: usize, shared: &Arc<Shared>) -> std::io::Result<Self> {
        let waker = Waker::new()?;
        let runtime = Handle::current();
        let mut threads = Vec::new();
        for i in 0..count {
            let socket = Arc::new(udp_shared(address)?);
            let mut worker = UdpWorker::new(socket.clone(), waker.clone(), LONGEST_QUESTION)?;
            let (shared, runtime) = (shared.clone(), runtime.clone());
            let work = move || {
                let mut responder = Responder::new();
                while let Ok(true) = worker.receive() {
                    serve_batch(&mut worker, &mut responder, &shared, (&socket, address), &runtime);
                }
            };
            let thread = std::thread::Builder::new().name(format!("dns-{i}")).stack_size(THREAD_STACK);
            threads.push(thread.spawn(work)?);
        }
        Ok(Workers { waker, threads })
    }

    pub fn stop(self) {
        self.waker.wake();
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

fn serve_batch(
    worker: &mut UdpWorker,
    responder: &mut Responder,
    shared: &Arc<Shared>,
    (socket, local): (&Arc<UdpSocket>, SocketAddr),
    runtime: &Handle,
) {
    let live = shared.live();
    let _inside = runtime.enter();
    let table = shared.table.read();
    let mut count = 0;
    let done = worker.answer(|message, peer, out| {
        count += 1;
        let Some(question) = answer::read(message, true, out) else { return };
        let asked = Asked { message, question: &question, udp: true, peer, local };
        match chain::answer(&live, responder, &table, asked, out) {
            Step::Done => {}
            Step::Beside(refresh) => {
                if let Some(slot) = shared.slot() {
                    runtime.spawn(async move {
                        let _slot = slot;
                        refresh.run().await;
                    });
                }
            }
            Step::Wait(wait) => {
                let Some(slot) = shared.slot() else {
                    return answer::fail(message, &question, true, code::SERVFAIL, out);
                };
                out.clear();
                let socket = socket.clone();
                runtime.spawn(async move {
                    let _slot = slot;
                    let _ = socket.send_to(&wait.run().await, peer);
                });
            }
        }
    });
    shared.questions.fetch_add(count, Ordering::Relaxed);
    if let Err(error) = done {
        tracing::debug!(%error, "answers could not be sent");
    }
}

/// Answers TCP connections until `shutdown`.
pub fn serve_tcp(listener: Listener, local: SocketAddr, shared: Arc<Shared>, shutdown: CancellationToken) {
    tokio::spawn(async move {
        loop {
            let connection = tokio::select! {
                () = shutdown.cancelled() => return,
                connection = listener.accept() => connection,
            };
            let (shared, shutdown) = (shared.clone(), shutdown.clone());
            tokio::spawn(async move {
                let slot = connection.slot().clone();
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = slot.must_close() => {}
                    _ = converse(connection, local, &shared) => {}
                }
            });
        }
    });
}

async fn converse(mut stream: Connection, local: SocketAddr, shared: &Arc<Shared>) -> std::io::Result<()> {
    let mut responder = Responder::new();
    let peer = stream.address.unwrap_or(local);
    let slot = stream.slot().clone();
    loop {
        let message = tokio::time::timeout(IDLE, question(&mut stream)).await??;
        let _turn = slot.begin();
        let out = answer_stream(&mut responder, &message, (peer, local), shared).await;
        if out.is_empty() {
            return Ok(());
        }
        tokio::time::timeout(IDLE, stream.write_all(&out)).await??;
    }
}

/// The next question of a connection: whole within one deadline, however its bytes come.
async fn question(stream: &mut Connection) -> std::io::Result<Vec<u8>> {
    let len = stream.read_u16().await?;
    let mut message = vec![0; usize::from(len)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// The answer with its length before it; nothing to a message that gets none.
async fn answer_stream(
    responder: &mut Responder,
    message: &[u8],
    (peer, local): (SocketAddr, SocketAddr),
    shared: &Arc<Shared>,
) -> Vec<u8> {
    shared.questions.fetch_add(1, Ordering::Relaxed);
    let mut out = Vec::new();
    if let Some(question) = answer::read(message, false, &mut out) {
        out = answer_question(responder, message, &question, (peer, local), shared, out).await;
    }
    if out.is_empty() {
        return out;
    }
    let mut framed = (out.len() as u16).to_be_bytes().to_vec();
    framed.append(&mut out);
    framed
}

async fn answer_question(
    responder: &mut Responder,
    message: &[u8],
    question: &Question,
    (peer, local): (SocketAddr, SocketAddr),
    shared: &Arc<Shared>,
    mut out: Vec<u8>,
) -> Vec<u8> {
    let asked = Asked { message, question, udp: false, peer, local };
    let step = chain::answer(&shared.live(), responder, &shared.table.read(), asked, &mut out);
    match step {
        Step::Done => {}
        Step::Beside(refresh) => {
            if let Some(slot) = shared.slot() {
                tokio::spawn(async move {
                    let _slot = slot;
                    refresh.run().await;
                });
            }
        }
        Step::Wait(wait) => match shared.slot() {
            Some(_slot) => out = wait.run().await,
            None => answer::fail(message, question, false, code::SERVFAIL, &mut out),
        },
    }
    out
}
