//! The sockets: worker threads for UDP, tasks for TCP, and the way of a question between them. Does I/O.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use linux::sockets::{UdpWorker, Waker, udp_shared};
use parking_lot::RwLock;
use serving::{Connection, Listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::answer::{self, Outcome, Reply, Responder};
use crate::cache;
use crate::forward::{Forwarder, Resolved};
use crate::table::Table;
use crate::wire::{self, Name, Question, Section, code, flag, kind};

/// Questions are short; whoever adds more options than this is cut, and gets an error.
const LONGEST_QUESTION: usize = 1500;
/// A connection that asks nothing for so long is closed.
const IDLE: Duration = Duration::from_secs(10);

/// Stack of the threads that read questions: messages are walked in loops, never by recursion.
const THREAD_STACK: usize = 2 * 1024 * 1024;

/// What all sockets share.
#[derive(Debug)]
pub struct Shared {
    pub table: Arc<RwLock<Table>>,
    pub forwarder: Arc<Forwarder>,
    pub questions: AtomicU64,
    pub hits: AtomicU64,
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
                    serve_batch(&mut worker, &mut responder, &shared, &socket, &runtime);
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
    socket: &Arc<UdpSocket>,
    runtime: &Handle,
) {
    let table = shared.table.read();
    let mut count = 0;
    let done = worker.answer(|message, peer, out| {
        count += 1;
        let (outcome, question) = responder.respond(&table, message, true, out);
        let Some(question) = question.filter(|_| outcome != Outcome::Done) else { return };
        if outcome == Outcome::Elsewhere {
            let now = shared.forwarder.now();
            if shared.forwarder.cache.lock().answer(message, &question, true, now, out) {
                shared.hits.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        let Some(slot) = shared.forwarder.slot() else {
            return answer::fail(message, &question, true, code::SERVFAIL, out);
        };
        out.clear();
        let (shared, socket, message) = (shared.clone(), socket.clone(), message.to_vec());
        runtime.spawn(async move {
            let _slot = slot;
            let answer = elsewhere(&shared, &message, &question, outcome, true).await;
            let _ = socket.send_to(&answer, peer);
        });
    });
    shared.questions.fetch_add(count, Ordering::Relaxed);
    if let Err(error) = done {
        tracing::debug!(%error, "answers could not be sent");
    }
}

/// Asks upstreams and writes the answer.
async fn elsewhere(shared: &Shared, message: &[u8], question: &Question, outcome: Outcome, udp: bool) -> Vec<u8> {
    let mut out = Vec::new();
    match outcome {
        Outcome::Alias { records, count, target } => {
            alias(shared, message, question, (records, count, target), udp, &mut out).await;
        }
        _ => match shared.forwarder.resolve(question).await {
            Some(answer) => cache::compose(&answer.0, &answer.1, 0, message, question, udp, &mut out),
            None => answer::fail(message, question, udp, code::SERVFAIL, &mut out),
        },
    }
    out
}

/// An alias of the cluster, then what the name outside has.
async fn alias(
    shared: &Shared,
    message: &[u8],
    question: &Question,
    (records, count, target): (Vec<u8>, u16, Name),
    udp: bool,
    out: &mut Vec<u8>,
) {
    let found = match question_for(&target, question) {
        Some(other) => shared.forwarder.resolve(&other).await,
        None => None,
    };
    let mut reply = Reply::new(out, message, question, true, udp);
    reply.ready(&records, count);
    match found {
        None => reply.finish(code::SERVFAIL),
        Some(found) => {
            copy_answers(&found, &mut reply);
            reply.finish(found.0[3] & 0xf);
        }
    }
}

/// The same question about another name.
fn question_for(name: &Name, question: &Question) -> Option<Question> {
    let mut message = vec![0, 0, flag::RD, question.flags.1 & flag::CD, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(name.as_bytes());
    message.extend_from_slice(&question.kind.to_be_bytes());
    message.extend_from_slice(&question.class.to_be_bytes());
    let mut other = Question::parse(&message).ok()?;
    other.edns = question.edns;
    Some(other)
}

/// Copies addresses and aliases out of another message, with their names in full: pointers are of that message.
fn copy_answers(found: &Resolved, reply: &mut Reply<'_>) {
    let message = &found.0;
    for (section, record) in wire::records(message).unwrap_or_default() {
        if section != Section::Answer {
            continue;
        }
        let Some(owner) = wire::read_name(message, record.owner) else { continue };
        match record.kind {
            kind::CNAME | kind::PTR | kind::NS => {
                if let Some(name) = wire::read_name(message, record.data.0) {
                    reply.record(owner.as_bytes(), record.kind, record.ttl, name.as_bytes());
                }
            }
            kind::A | kind::AAAA | kind::TXT => {
                let data = &message[record.data.0..record.data.1];
                reply.record(owner.as_bytes(), record.kind, record.ttl, data);
            }
            _ => {}
        }
    }
}

/// Answers TCP connections until `shutdown`.
pub fn serve_tcp(listener: Listener, shared: Arc<Shared>, shutdown: CancellationToken) {
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
                    _ = converse(connection, &shared) => {}
                }
            });
        }
    });
}

async fn converse(mut stream: Connection, shared: &Arc<Shared>) -> std::io::Result<()> {
    let mut responder = Responder::new();
    let slot = stream.slot().clone();
    loop {
        let message = tokio::time::timeout(IDLE, question(&mut stream)).await??;
        let _turn = slot.begin();
        let out = answer_stream(&mut responder, &message, shared).await;
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
async fn answer_stream(responder: &mut Responder, message: &[u8], shared: &Arc<Shared>) -> Vec<u8> {
    shared.questions.fetch_add(1, Ordering::Relaxed);
    let mut out = Vec::new();
    let (outcome, question) = responder.respond(&shared.table.read(), message, false, &mut out);
    if let Some(question) = question.filter(|_| outcome != Outcome::Done) {
        let now = shared.forwarder.now();
        let known = outcome == Outcome::Elsewhere
            && shared.forwarder.cache.lock().answer(message, &question, false, now, &mut out);
        if !known {
            out = match shared.forwarder.slot() {
                Some(_slot) => elsewhere(shared, message, &question, outcome, false).await,
                None => {
                    answer::fail(message, &question, false, code::SERVFAIL, &mut out);
                    out
                }
            };
        }
    }
    if out.is_empty() {
        return out;
    }
    let mut framed = (out.len() as u16).to_be_bytes().to_vec();
    framed.append(&mut out);
    framed
}
