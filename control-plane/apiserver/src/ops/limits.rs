//! How much is taken on at once and for how long: requests in flight, and the time that one may take. Pure.
//!
//! Requests that live long by nature (watches, logs, streams) count for neither. Callers of system:masters get in even
//! when the server is full, so that an administrator can still help; the cluster's own have places that nobody else
//! takes; one caller alone takes no more than half of any. A seat is taken when the body is there: a client that sends
//! slowly holds up nobody.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use http::header::{self, HeaderValue};
use parking_lot::Mutex;

use crate::authn::service_account::USER_PREFIX;
use crate::authn::{ANONYMOUS, MASTERS, UserInfo};
use crate::authz::node;
use crate::http::answer::Answer;
use crate::http::call::Call;
use crate::http::request::RequestInfo;
use crate::http::respond::response;

/// Seconds after which a refused client is asked to come back.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// The accounts of the cluster's own controllers.
const SYSTEM_ACCOUNTS: &str = "system:serviceaccounts:kube-system";

/// Whether a request changes nothing.
pub fn reads_only(info: &RequestInfo) -> bool {
    matches!(info.verb, "get" | "list" | "watch" | "head")
}

/// Whether a health check asks: it must be answered by a server that is full, too.
fn probes(info: &RequestInfo) -> bool {
    !info.resource_request && matches!(info.path.split('/').nth(1), Some("healthz" | "livez" | "readyz"))
}

/// Who has to get through even when others ask too much, until priority and fairness comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rank {
    /// Takes no seat of anybody's: an administrator, a health check.
    Exempt,
    /// A heartbeat of a node or of an elected leader: without it the cluster believes them dead.
    Heartbeat,
    /// Nodes, controllers, the scheduler and what else is the cluster's own.
    System,
    Other,
}

fn rank(info: &RequestInfo, user: &UserInfo) -> Rank {
    let member = |wanted: &str| user.groups.iter().any(|group| group == wanted);
    if member(MASTERS) || probes(info) {
        return Rank::Exempt;
    }
    let component = user.name.starts_with("system:") && !user.name.starts_with(USER_PREFIX) && user.name != ANONYMOUS;
    if !component && !member(node::GROUP) && !member(SYSTEM_ACCOUNTS) {
        return Rank::Other;
    }
    match (info.group.as_str(), info.resource.as_str()) {
        ("coordination.k8s.io", "leases") => Rank::Heartbeat,
        _ => Rank::System,
    }
}

/// Places, or bytes, that callers share. One caller alone gets at most half of them.
#[derive(Debug)]
struct Share {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<String, usize>,
}

impl Share {
    fn new(most: usize) -> Arc<Share> {
        Arc::new(Share { most, taken: Mutex::default() })
    }

    /// `None` when that many are not left, or this caller has had its half.
    fn take(self: &Arc<Share>, user: &str, units: usize) -> Option<Held> {
        let mut held = Held { share: self.clone(), user: user.to_owned(), units: 0 };
        held.grow(units).then_some(held)
    }
}

/// A part of a [`Share`], given back when dropped.
#[derive(Debug)]
struct Held {
    share: Arc<Share>,
    user: String,
    units: usize,
}

impl Held {
    fn grow(&mut self, units: usize) -> bool {
        let mut taken = self.share.taken.lock();
        let own = taken.by.get(&self.user).copied().unwrap_or(0);
        if taken.all + units > self.share.most || own + units > self.share.most.div_ceil(2) {
            return false;
        }
        taken.all += units;
        match taken.by.get_mut(&self.user) {
            Some(own) => *own += units,
            None => drop(taken.by.insert(self.user.clone(), units)),
        }
        self.units += units;
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut taken = self.share.taken.lock();
        taken.all -= self.units;
        if let Some(own) = taken.by.get_mut(&self.user) {
            *own -= self.units;
            if *own == 0 {
                taken.by.remove(&self.user);
            }
        }
    }
}

/// Requests in flight, reading or writing: all places of a flag, some of them kept for the cluster's own.
#[derive(Debug)]
struct InFlight {
    running: Arc<AtomicUsize>,
    /// `None` is no limit.
    lanes: Option<Lanes>,
}

#[derive(Debug)]
struct Lanes {
    heartbeats: Arc<Share>,
    system: Arc<Share>,
    others: Arc<Share>,
}

/// One of this many places is kept for heartbeats, and one of that many for the rest of the cluster's own: a quarter of
/// all together, near upstream's shares of priority levels. They take others' places, too, when theirs are gone.
const PER_HEARTBEAT: usize = 20;
const PER_SYSTEM: usize = 5;

impl InFlight {
    fn new(most: usize) -> InFlight {
        let (heartbeats, system) = (most / PER_HEARTBEAT, most / PER_SYSTEM);
        let lanes = (most > 0).then(|| Lanes {
            heartbeats: Share::new(heartbeats),
            system: Share::new(system),
            others: Share::new(most - heartbeats - system),
        });
        InFlight { running: Arc::default(), lanes }
    }

    fn enter(&self, rank: Rank, user: &str) -> Option<Seat> {
        let held = match (&self.lanes, rank) {
            (None, _) | (_, Rank::Exempt) => None,
            (Some(lanes), rank) => {
                let own: &[&Arc<Share>] = match rank {
                    Rank::Heartbeat => &[&lanes.heartbeats, &lanes.system, &lanes.others],
                    Rank::System => &[&lanes.system, &lanes.others],
                    _ => &[&lanes.others],
                };
                Some(own.iter().find_map(|share| share.take(user, 1))?)
            }
        };
        self.running.fetch_add(1, Ordering::Relaxed);
        Some(Seat { running: self.running.clone(), _held: held })
    }
}

/// A request's seat among those in flight; given back when dropped.
#[derive(Debug)]
pub struct Seat {
    running: Arc<AtomicUsize>,
    _held: Option<Held>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes of request bodies that are held at once, 85 of the largest size: bodies are read before a seat is taken, so
/// places don't bound them. The cluster's own have a quarter of that to themselves.
const BODY_BYTES: usize = 256 << 20;
const SYSTEM_BODY_BYTES: usize = BODY_BYTES / 4;

/// Requests in flight.
#[derive(Debug)]
pub struct Limits {
    reading: InFlight,
    writing: InFlight,
    bodies: Arc<Share>,
    system_bodies: Arc<Share>,
}

impl Limits {
    /// At most this many of each sort at once; 0 is no limit.
    pub fn new(reading: usize, writing: usize) -> Limits {
        Limits {
            reading: InFlight::new(reading),
            writing: InFlight::new(writing),
            bodies: Share::new(BODY_BYTES),
            system_bodies: Share::new(SYSTEM_BODY_BYTES),
        }
    }

    /// A seat for a request that is not long-running, or its refusal. What admits by limits alone never waits for a
    /// seat; whoever calls waits for the answer nevertheless, since what queues would.
    pub async fn admit(&self, call: &Call) -> Result<Seat, TooManyRequests> {
        self.enter(&call.info, &call.user).ok_or(TooManyRequests)
    }

    fn enter(&self, info: &RequestInfo, user: &UserInfo) -> Option<Seat> {
        let sort = if reads_only(info) { &self.reading } else { &self.writing };
        sort.enter(rank(info, user), &user.name)
    }

    /// Room for the body of a request, asked for as it comes.
    pub fn room(&self, info: &RequestInfo, user: &UserInfo) -> Room {
        let share = match rank(info, user) {
            Rank::Exempt => None,
            Rank::Heartbeat | Rank::System => Some(self.system_bodies.clone()),
            Rank::Other => Some(self.bodies.clone()),
        };
        Room { held: share.map(|share| Held { share, user: user.name.clone(), units: 0 }) }
    }

    /// The counts of those that read and those that write; they go on counting.
    pub fn running(&self) -> (Arc<AtomicUsize>, Arc<AtomicUsize>) {
        (self.reading.running.clone(), self.writing.running.clone())
    }
}

/// The room that one body takes, until the request is answered.
#[derive(Debug)]
pub struct Room {
    /// `None` is no limit.
    held: Option<Held>,
}

impl Room {
    /// Room for so many bytes more; false when there is none.
    pub fn grow(&mut self, bytes: usize) -> bool {
        self.held.as_mut().is_none_or(|held| held.grow(bytes))
    }
}

/// No seat is free.
#[derive(Debug)]
pub struct TooManyRequests;

impl TooManyRequests {
    /// The refusal as upstream writes it: a page, and no Status.
    pub fn answer(&self) -> Answer {
        let text = "Too many requests, please try again later.\n";
        let mut answer = response(StatusCode::TOO_MANY_REQUESTS.as_u16(), "text/plain; charset=utf-8", text);
        answer.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        answer.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Answer::Raw(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    use crate::http::request::Query;

    fn info(method: Method, target: &str) -> RequestInfo {
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
        RequestInfo::parse(&method, path, &Query::parse(query))
    }

    fn user(name: &str, group: &str) -> UserInfo {
        UserInfo { name: name.to_owned(), groups: vec![group.to_owned()], ..UserInfo::default() }
    }

    #[test]
    fn a_full_server_refuses_all_but_its_masters_until_a_place_is_free() {
        let limits = Limits::new(2, 1);
        let (read, write) = (info(Method::GET, "/api/v1/pods"), info(Method::POST, "/api/v1/namespaces/a/pods"));
        let first = limits.enter(&read, &user("a", "")).expect("room");
        let _second = limits.enter(&read, &user("b", "")).expect("room");
        assert!(limits.enter(&read, &user("c", "")).is_none());
        let _writer = limits.enter(&write, &user("a", "")).expect("writers have places of their own");
        assert!(limits.enter(&write, &user("b", "")).is_none());
        let master = limits.enter(&read, &user("m", MASTERS)).expect("masters get in");
        let probe =
            limits.enter(&info(Method::GET, "/livez/ping"), &user(ANONYMOUS, "")).expect("health checks get in");
        assert_eq!(limits.running().0.load(Ordering::Relaxed), 4);
        assert!(limits.enter(&read, &user("c", "")).is_none());
        drop((first, master, probe));
        assert!(limits.enter(&read, &user("c", "")).is_some());
        let open = Limits::new(0, 1);
        assert!((0..10).map(|_| open.enter(&read, &user("a", ""))).collect::<Option<Vec<_>>>().is_some());
    }

    #[test]
    fn one_caller_stops_neither_others_nor_the_cluster() {
        let limits = Limits::new(400, 200);
        let write = info(Method::POST, "/api/v1/namespaces/a/pods");
        let lease = info(Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n");
        let fill = |user: &UserInfo, info: &RequestInfo| -> Vec<Seat> {
            std::iter::from_fn(|| limits.enter(info, user)).collect()
        };
        let flood = fill(&user("system:serviceaccount:a:flood", "system:serviceaccounts"), &write);
        assert_eq!(flood.len(), 75, "half of what the cluster's own leave");
        let second = fill(&user("b", ""), &write);
        assert_eq!(second.len(), 75);
        assert!(limits.enter(&write, &user("c", "")).is_none());
        assert!(limits.enter(&write, &user(ANONYMOUS, "")).is_none());
        let component = user("system:kube-scheduler", "");
        let own = fill(&component, &write);
        assert_eq!(own.len(), 20, "half of the system's");
        let node = user("system:node:n", node::GROUP);
        let account = user("system:serviceaccount:kube-system:job-controller", SYSTEM_ACCOUNTS);
        assert!(limits.enter(&write, &node).is_some() && limits.enter(&write, &account).is_some());
        let _rest = (fill(&node, &write), fill(&account, &write));
        assert!(limits.enter(&write, &node).is_none());
        assert!(limits.enter(&lease, &node).is_some(), "heartbeats have places of their own");
        assert!(limits.enter(&lease, &user("d", "")).is_none(), "which are not for everybody");
        drop(second);
        assert!(
            limits.enter(&write, &component).is_some(),
            "the cluster's own take others' places when theirs are gone"
        );
    }

    #[test]
    fn bodies_take_room_until_their_request_is_answered() {
        let limits = Limits::new(400, 200);
        let write = info(Method::POST, "/api/v1/namespaces/a/pods");
        let room = |name: &str| limits.room(&write, &user(name, ""));
        let (mut a, mut b, mut c) = (room("a"), room("b"), room("c"));
        assert!(a.grow(BODY_BYTES / 4) && a.grow(BODY_BYTES / 4) && !a.grow(1), "one caller has half");
        assert!(b.grow(BODY_BYTES / 2) && !c.grow(1));
        assert!(limits.room(&write, &user("system:node:n", node::GROUP)).grow(1 << 20));
        assert!(limits.room(&write, &user("m", MASTERS)).grow(BODY_BYTES));
        drop(a);
        assert!(c.grow(1));
    }
}
