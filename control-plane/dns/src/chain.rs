//! What is in force: blocks by zone, and the way of a question through one of them. Does I/O beside the quick way.
//!
//! Nearly every question is about the cluster, and goes to the name table at once: when its block has nothing that comes
//! before the table, [`Live::direct`] says so and no block is looked up. Other questions go in this order, which is
//! upstream's as far as a client can see it: rewrite, template, hosts, kubernetes, cache, forward. What was rewritten is
//! changed back, and what is to be logged is told, when the answer is there.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::answer::{self, Outcome, Reply, Responder};
use crate::cache::{self, Cache, Hit};
use crate::corefile::values::is_below;
use crate::corefile::{Corefile, Records, Server};
use crate::forward::{Forwarded, Forwarder};
use crate::hostsfile::HostsFile;
use crate::rewrite::{self, Undo};
use crate::table::Table;
use crate::template;
use crate::transform::{self, Changes};
use crate::wire::{Name, Question, code, kind};
use crate::{hosts, log};

/// Clients wait five seconds and ask again; an answer after that is for nobody.
const DEADLINE: Duration = Duration::from_millis(4500);

/// An upstream's answer, without OPT, and where its times to live are.
pub type Resolved = Arc<(Vec<u8>, Vec<u16>)>;

/// Where the answer to a question under way will be.
type Waiting = watch::Receiver<Option<Resolved>>;

/// The configuration in force.
#[derive(Debug)]
pub struct Live {
    servers: Vec<Arc<Serving>>,
    zones: FxHashMap<Name, usize>,
    most_labels: usize,
    /// Questions in the cluster's zone have nothing before the name table.
    direct: bool,
    /// How names of the cluster are made.
    pub records: Option<Records>,
    started: Instant,
}

/// One block.
#[derive(Debug)]
pub struct Serving {
    pub server: Server,
    pub cache: Option<Mutex<Cache>>,
    pub forwards: Vec<Forwarder>,
    hosts: Option<HostsFile>,
    waiting: Mutex<HashMap<Box<[u8]>, Waiting>>,
    turn: AtomicUsize,
    /// Nothing changes answers or tells them.
    plain: bool,
    pub hits: AtomicU64,
}

impl Live {
    /// Brings a configuration to life: reads the files that it names. `own` are this server's addresses.
    pub fn new(corefile: Corefile, cluster: &Name, own: &[SocketAddr]) -> Result<Self, String> {
        let caches = corefile.servers.iter().filter(|s| s.cache.is_some()).count().max(1);
        let mut live = Live {
            servers: Vec::new(),
            zones: FxHashMap::default(),
            most_labels: 0,
            direct: false,
            records: corefile.records,
            started: Instant::now(),
        };
        for (i, server) in corefile.servers.into_iter().enumerate() {
            for zone in &server.zones {
                live.zones.insert(zone.clone(), i);
                live.most_labels = live.most_labels.max(labels(zone));
            }
            live.servers.push(Arc::new(Serving::new(server, cache::MOST_BYTES / caches, own)?));
        }
        live.direct = live.is_direct(cluster);
        Ok(live)
    }

    /// Whether one block has the whole cluster, and asks the name table first and last.
    fn is_direct(&self, cluster: &Name) -> bool {
        let inside = |zone: &&Name| *zone != cluster && is_below(zone.as_bytes(), cluster.as_bytes());
        if self.zones.keys().any(|zone| inside(&zone)) {
            return false;
        }
        let of = |zone: &[u8]| self.zones.get(zone).map(|i| &self.servers[*i]);
        let Some(serving) = suffixes(cluster.as_bytes()).find_map(of) else { return false };
        let server = &serving.server;
        let kubernetes = server.kubernetes.as_ref();
        serving.plain
            && server.hosts.is_none()
            && server.templates.is_empty()
            && kubernetes.is_some_and(|k| k.zones.contains(cluster) && !k.fall.through(cluster.as_bytes()))
    }

    /// The caches' clock.
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn servers(&self) -> &[Arc<Serving>] {
        &self.servers
    }

    /// The block of the longest zone that a question is in.
    fn serving(&self, question: &Question) -> Option<&Arc<Serving>> {
        let count = question.label_count();
        (count.saturating_sub(self.most_labels)..=count)
            .filter_map(|i| question.parent(i))
            .find_map(|zone| self.zones.get(zone))
            .map(|i| &self.servers[*i])
    }
}

fn labels(zone: &Name) -> usize {
    suffixes(zone.as_bytes()).count() - 1
}

/// A name and the names above it, to the root.
fn suffixes(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = Some(0);
    std::iter::from_fn(move || {
        let here = at?;
        let len = usize::from(*name.get(here)?);
        at = (len > 0).then_some(here + 1 + len);
        name.get(here..)
    })
}

/// A question, and how it came.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub message: &'a [u8],
    pub question: &'a Question,
    pub udp: bool,
    pub peer: SocketAddr,
    pub local: SocketAddr,
}

/// What is left to do for a question.
#[derive(Debug)]
pub enum Step {
    /// The answer is written; an empty one is not to be sent.
    Done,
    /// The answer is written, and this is to be done beside it.
    Beside(Box<Refresh>),
    /// The answer is this one's.
    Wait(Box<Wait>),
}

/// An answer that is asked for anew, before somebody needs it.
#[derive(Debug)]
pub struct Refresh {
    live: Arc<Live>,
    serving: Arc<Serving>,
    question: Question,
}

impl Refresh {
    pub async fn run(self) {
        let _ = self.serving.resolve(&self.live, &self.question).await;
    }
}

/// A question that waits for upstreams.
#[derive(Debug)]
pub struct Wait {
    live: Arc<Live>,
    serving: Arc<Serving>,
    message: Vec<u8>,
    question: Question,
    udp: bool,
    /// The cluster's own records before those of a name outside, and that name.
    alias: Option<(Vec<u8>, u16, Name)>,
    /// What is good enough when there is nothing better in time.
    stale: Option<(Vec<u8>, Option<Duration>)>,
    outer: Option<Outer>,
}

/// What a client asked and is to be told, when that is another thing than what is worked on.
#[derive(Debug)]
struct Outer {
    message: Vec<u8>,
    question: Question,
    /// Whether something else was worked on.
    changed: bool,
    undo: Vec<Undo>,
    peer: SocketAddr,
    local: SocketAddr,
    began: Instant,
}

/// What became of a question within its block.
enum Inner {
    Done,
    Refresh,
    Alias(Vec<u8>, u16, Name),
    Verify(Vec<u8>, Option<Duration>),
    Ask,
}

/// Answers a question, or says what is to be waited for.
pub fn answer(live: &Arc<Live>, responder: &mut Responder, table: &Table, asked: Asked<'_>, out: &mut Vec<u8>) -> Step {
    let Asked { message, question, udp, .. } = asked;
    let in_cluster = question.labels_before(table.zone().as_bytes(), table.zone_labels());
    if live.direct
        && let Some(before) = in_cluster
        && !answer::refused(question)
        && let Outcome::Done = responder.cluster(table, message, question, before, (udp, false), out)
    {
        return Step::Done;
    }
    let Some(serving) = live.serving(question) else {
        answer::fail(message, question, udp, code::REFUSED, out);
        return Step::Done;
    };
    if serving.plain {
        let inner = serving.inner(live, responder, table, (message, question, udp), out);
        return step(live, serving, inner, (message, question), udp, None);
    }
    let began = Instant::now();
    let changed = match rewrite::request(&serving.server.rewrites, question) {
        Ok(changed) => changed,
        Err(rewrite::NoName) => {
            transform::failed(message, question, udp, out);
            return Step::Done;
        }
    };
    let seen = changed.as_ref().map_or((message, question), |changed| (changed.message.as_slice(), &changed.question));
    let inner = serving.inner(live, responder, table, (seen.0, seen.1, udp), out);
    let outer = Outer {
        message: message.to_vec(),
        question: *question,
        changed: changed.is_some(),
        undo: changed.as_ref().map(|changed| changed.undo.clone()).unwrap_or_default(),
        peer: asked.peer,
        local: asked.local,
        began,
    };
    if matches!(inner, Inner::Done | Inner::Refresh) {
        serving.finish(&outer, udp, out);
    }
    step(live, serving, inner, seen, udp, Some(outer))
}

fn step(
    live: &Arc<Live>,
    serving: &Arc<Serving>,
    inner: Inner,
    (message, question): (&[u8], &Question),
    udp: bool,
    outer: Option<Outer>,
) -> Step {
    let shared = || (live.clone(), serving.clone(), *question);
    let (alias, stale) = match inner {
        Inner::Done => return Step::Done,
        Inner::Refresh => {
            let (live, serving, question) = shared();
            return Step::Beside(Box::new(Refresh { live, serving, question }));
        }
        Inner::Alias(records, count, target) => (Some((records, count, target)), None),
        Inner::Verify(answer, patience) => (None, Some((answer, patience))),
        Inner::Ask => (None, None),
    };
    let ((live, serving, question), message) = (shared(), message.to_vec());
    Step::Wait(Box::new(Wait { live, serving, message, question, udp, alias, stale, outer }))
}

impl Serving {
    fn new(server: Server, most_bytes: usize, own: &[SocketAddr]) -> Result<Self, String> {
        let forwards: Result<Vec<_>, _> =
            server.forwards.iter().map(|forward| Forwarder::new(forward.clone(), own.to_vec())).collect();
        Ok(Serving {
            cache: server.cache.clone().map(|settings| Mutex::new(Cache::new(settings, most_bytes))),
            forwards: forwards?,
            hosts: server.hosts.as_ref().map(HostsFile::new),
            waiting: Mutex::default(),
            turn: AtomicUsize::new(0),
            plain: server.rewrites.is_empty() && server.log.is_empty() && !server.loadbalance,
            hits: AtomicU64::new(0),
            server,
        })
    }

    /// The plugins that know something themselves, and the cache.
    fn inner(
        &self,
        live: &Live,
        responder: &mut Responder,
        table: &Table,
        (message, question, udp): (&[u8], &Question, bool),
        out: &mut Vec<u8>,
    ) -> Inner {
        if answer::refused(question) {
            answer::fail(message, question, udp, code::REFUSED, out);
            return Inner::Done;
        }
        let server = &self.server;
        if template::answer(&server.templates, &server.zones, message, question, udp, out) == template::Found::Answered
        {
            return Inner::Done;
        }
        if let Some((settings, file)) = server.hosts.as_ref().zip(self.hosts.as_ref()) {
            let entries = file.entries();
            if hosts::answer(settings, &entries, &server.zones, message, question, udp, out) == hosts::Found::Answered {
                return Inner::Done;
            }
        }
        match self.kubernetes(responder, table, (message, question, udp), out) {
            Outcome::Done => return Inner::Done,
            Outcome::Alias { records, count, target } => return Inner::Alias(records, count, target),
            Outcome::Elsewhere => {}
        }
        let hit = match &self.cache {
            Some(cache) => cache.lock().answer(message, question, udp, live.now(), out),
            None => Hit::Miss,
        };
        if hit != Hit::Miss {
            self.hits.fetch_add(1, Ordering::Relaxed);
        }
        match hit {
            Hit::Fresh => Inner::Done,
            Hit::Refresh => Inner::Refresh,
            Hit::Verify(patience) => Inner::Verify(std::mem::take(out), patience),
            Hit::Miss if self.forwards.iter().any(|f| f.is_for(question.name())) => Inner::Ask,
            Hit::Miss => {
                answer::fail(message, question, udp, code::SERVFAIL, out);
                Inner::Done
            }
        }
    }

    /// Names of the cluster and of its addresses, as far as this block asks for them.
    fn kubernetes(
        &self,
        responder: &mut Responder,
        table: &Table,
        (message, question, udp): (&[u8], &Question, bool),
        out: &mut Vec<u8>,
    ) -> Outcome {
        let Some(kubernetes) = &self.server.kubernetes else { return Outcome::Elsewhere };
        let name = question.name();
        if !kubernetes.zones.iter().any(|zone| is_below(name, zone.as_bytes())) {
            return Outcome::Elsewhere;
        }
        let falls = kubernetes.fall.through(name);
        if let Some(before) = question.labels_before(table.zone().as_bytes(), table.zone_labels()) {
            return responder.cluster(table, message, question, before, (udp, falls), out);
        }
        let outcome = answer::reverse(table, message, question, udp, out);
        if outcome == Outcome::Elsewhere && !falls {
            let code = if table.is_synced() { code::NXDOMAIN } else { code::SERVFAIL };
            answer::fail(message, question, udp, code, out);
            return Outcome::Done;
        }
        outcome
    }

    /// Changes an answer back to what was asked for, and tells it.
    fn finish(&self, outer: &Outer, udp: bool, out: &mut Vec<u8>) {
        let turn = self.server.loadbalance.then(|| self.turn.fetch_add(1, Ordering::Relaxed));
        if !out.is_empty() && (outer.changed || turn.is_some()) {
            let inner = std::mem::take(out);
            let changes = Changes { undo: &outer.undo, turn };
            if !transform::write(&inner, &outer.message, &outer.question, udp, changes, out) {
                transform::failed(&outer.message, &outer.question, udp, out);
            }
        }
        let told = log::Told {
            message: &outer.message,
            question: &outer.question,
            answer: out,
            peer: outer.peer,
            local: outer.local,
            udp,
            took: outer.began.elapsed(),
        };
        log::tell(&self.server.log, &told);
    }

    /// The answer of upstreams to a question; none when nobody gives one. Equal questions wait for one answer, so a
    /// question that comes back to us in a circle waits for itself and ends with the deadline.
    async fn resolve(self: &Arc<Self>, live: &Arc<Live>, question: &Question) -> Option<Resolved> {
        let (key, len) = cache::key(question);
        let key: Box<[u8]> = key[..len].into();
        let mut receiver = {
            let mut waiting = self.waiting.lock();
            match waiting.get(&key) {
                Some(receiver) => receiver.clone(),
                None => {
                    let (sender, receiver) = watch::channel(None);
                    waiting.insert(key.clone(), receiver.clone());
                    let (this, live, question) = (self.clone(), live.clone(), *question);
                    tokio::spawn(async move {
                        let answer = tokio::time::timeout(DEADLINE, this.ask(&live, &question)).await.ok().flatten();
                        if answer.is_none() && this.server.errors {
                            log::error(&question, "no upstream answered");
                        }
                        this.waiting.lock().remove(&key);
                        let _ = sender.send(answer);
                    });
                    receiver
                }
            }
        };
        // An error means that the asking task ended: without an answer, or the value is there.
        let _ = receiver.wait_for(Option::is_some).await;
        receiver.borrow().clone()
    }

    /// Asks one `forward` after another, as far as they say that the next is to be asked.
    async fn ask(&self, live: &Live, question: &Question) -> Option<Resolved> {
        let mut found = None;
        for forward in self.forwards.iter().filter(|f| f.is_for(question.name())) {
            match forward.ask(question).await {
                Forwarded::Answer(response) => {
                    let next = forward.settings.next.contains(&(response[3] & 0xf));
                    found = Some(response);
                    if !next {
                        break;
                    }
                }
                Forwarded::Failed => break,
                Forwarded::Refused => return Some(Arc::new((refusal(question), Vec::new()))),
            }
        }
        let (mut message, ttls) = cache::without_opt(&found?)?;
        if let Some(cache) = &self.cache {
            cache.lock().insert(question, &mut message, &ttls, live.now());
        }
        Some(Arc::new((message, ttls)))
    }
}

/// What a question gets that is one too many.
fn refusal(question: &Question) -> Vec<u8> {
    let mut message = vec![0, 0, 0x81, code::REFUSED, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(question.name());
    message.extend_from_slice(&question.kind.to_be_bytes());
    message.extend_from_slice(&question.class.to_be_bytes());
    message
}

impl Wait {
    /// Asks upstreams and writes the answer.
    pub async fn run(self) -> Vec<u8> {
        let mut out = Vec::new();
        match self.alias {
            Some((ref records, count, ref target)) => self.follow(records, count, target, &mut out).await,
            None => self.plain(&mut out).await,
        }
        if let Some(outer) = &self.outer {
            self.serving.finish(outer, self.udp, &mut out);
        }
        out
    }

    async fn plain(&self, out: &mut Vec<u8>) {
        let asking = self.serving.resolve(&self.live, &self.question);
        let found = match &self.stale {
            Some((_, Some(patience))) => tokio::time::timeout(*patience, asking).await.ok().flatten(),
            _ => asking.await,
        };
        let good = |found: &Resolved| matches!(found.0[3] & 0xf, code::NOERROR | code::NXDOMAIN);
        match (found, &self.stale) {
            (Some(found), Some((stale, _))) if !good(&found) => out.clone_from(stale),
            (None, Some((stale, _))) => out.clone_from(stale),
            (Some(found), _) => cache::compose(&found.0, &found.1, 0, &self.message, &self.question, self.udp, out),
            (None, None) => answer::fail(&self.message, &self.question, self.udp, code::SERVFAIL, out),
        }
    }

    /// An alias of the cluster, then what the name outside has: from the block that has that name.
    async fn follow(&self, records: &[u8], count: u16, target: &Name, out: &mut Vec<u8>) {
        let mut found = None;
        if let Some(other) = question_for(target, &self.question)
            && let Some(serving) = self.live.serving(&other)
        {
            found = match serving.hosts_answer(&other) {
                Some(answer) => Some(Arc::new((answer, Vec::new()))),
                None => serving.resolve(&self.live, &other).await,
            };
        }
        let mut reply = Reply::new(out, &self.message, &self.question, true, self.udp);
        reply.ready(records, count);
        match found {
            None => reply.finish(code::SERVFAIL),
            Some(found) => {
                copy_answers(&found, &mut reply);
                reply.finish(found.0[3] & 0xf);
            }
        }
    }
}

impl Serving {
    /// What this block's hosts say of a name, as a whole message.
    fn hosts_answer(&self, question: &Question) -> Option<Vec<u8>> {
        let (settings, file) = self.server.hosts.as_ref().zip(self.hosts.as_ref())?;
        let mut out = Vec::new();
        let message = refusal(question);
        let found = hosts::answer(settings, &file.entries(), &self.server.zones, &message, question, false, &mut out);
        (found == hosts::Found::Answered).then_some(out)
    }
}

/// The same question about another name.
fn question_for(name: &Name, question: &Question) -> Option<Question> {
    use crate::wire::flag;
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
    use crate::wire::{self, Section};
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
