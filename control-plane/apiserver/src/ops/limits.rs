//! How much is taken on at once and for how long: requests in flight, and the time that one may take. Pure.
//!
//! Requests that live long by nature (watches, logs, streams) count for neither. Callers of system:masters get in even
//! when the server is full, so that an administrator can still help.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use meta::Status;

use crate::authn::{MASTERS, UserInfo};
use crate::http::body::Body;
use crate::http::request::{Query, RequestInfo};
use crate::http::respond::response;

/// Seconds after which a refused client is asked to come back.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Whether a request lives as long as its client wants.
pub fn long_running(info: &RequestInfo) -> bool {
    matches!(info.verb, "watch" | "proxy")
        || matches!(info.subresource.as_str(), "attach" | "exec" | "proxy" | "log" | "portforward")
}

/// Whether a request changes nothing.
pub fn reads_only(info: &RequestInfo) -> bool {
    matches!(info.verb, "get" | "list" | "watch" | "head")
}

/// Requests of one sort.
#[derive(Debug)]
struct Lane {
    running: Arc<AtomicUsize>,
    /// 0 is no limit.
    most: usize,
}

impl Lane {
    fn enter(&self, privileged: bool) -> Option<Place> {
        let before = self.running.fetch_add(1, Ordering::Relaxed);
        let place = Place(self.running.clone());
        (self.most == 0 || before < self.most || privileged).then_some(place)
    }
}

/// A request's place among those in flight; given back when dropped.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Requests in flight.
#[derive(Debug)]
pub struct Limits {
    reading: Lane,
    writing: Lane,
}

impl Limits {
    /// At most this many of each sort at once; 0 is no limit.
    pub fn new(reading: usize, writing: usize) -> Limits {
        let lane = |most| Lane { running: Arc::default(), most };
        Limits { reading: lane(reading), writing: lane(writing) }
    }

    /// A place for a request that is not long-running; `None` when the server is full.
    pub fn enter(&self, info: &RequestInfo, user: &UserInfo) -> Option<Place> {
        let lane = if reads_only(info) { &self.reading } else { &self.writing };
        lane.enter(user.groups.iter().any(|group| group == MASTERS))
    }

    /// The counts of those that read and those that write; they go on counting.
    pub fn running(&self) -> (Arc<AtomicUsize>, Arc<AtomicUsize>) {
        (self.reading.running.clone(), self.writing.running.clone())
    }
}

/// The answer when the server is full.
pub fn refusal() -> Response<Body> {
    let text = "Too many requests, please try again later.\n";
    let mut answer = response(StatusCode::TOO_MANY_REQUESTS.as_u16(), "text/plain; charset=utf-8", text);
    answer.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    answer.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// How long a request may take: what the server allows, or less when the client says so.
pub fn time_allowed(query: &Query, most: Duration) -> Result<Duration, Status> {
    let text = query.text("timeout");
    if text.is_empty() {
        return Ok(most);
    }
    let wrong = |why: String| Status::bad_request(format!("invalid timeout specified in the request URL - {why}"));
    let nanos = meta::duration::parse_nanos(text).map_err(wrong)?;
    match u64::try_from(nanos) {
        // None or less than nothing is the server's own.
        Ok(0) | Err(_) => Ok(most),
        Ok(nanos) => Ok(Duration::from_nanos(nanos).min(most)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    fn info(method: Method, target: &str) -> RequestInfo {
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
        RequestInfo::parse(&method, path, &Query::parse(query))
    }

    fn user(group: &str) -> UserInfo {
        UserInfo { name: "u".to_owned(), groups: vec![group.to_owned()], ..UserInfo::default() }
    }

    #[test]
    fn a_full_server_refuses_all_but_its_masters_until_a_place_is_free() {
        let limits = Limits::new(2, 1);
        let (read, write) = (info(Method::GET, "/api/v1/pods"), info(Method::POST, "/api/v1/namespaces/a/pods"));
        let first = limits.enter(&read, &user("a")).expect("room");
        let _second = limits.enter(&read, &user("a")).expect("room");
        assert!(limits.enter(&read, &user("a")).is_none());
        let _writer = limits.enter(&write, &user("a")).expect("writers have places of their own");
        assert!(limits.enter(&write, &user("a")).is_none());
        let master = limits.enter(&read, &user(MASTERS)).expect("masters get in");
        assert!(limits.enter(&read, &user("a")).is_none());
        drop((first, master));
        assert!(limits.enter(&read, &user("a")).is_some());
        let open = Limits::new(0, 1);
        assert!((0..10).map(|_| open.enter(&read, &user("a"))).collect::<Option<Vec<_>>>().is_some());
    }

    #[test]
    fn watches_and_streams_are_long() {
        for target in [
            "/api/v1/pods?watch=1",
            "/api/v1/namespaces/a/pods/x/log",
            "/api/v1/namespaces/a/pods/x/exec",
            "/api/v1/nodes/n/proxy/metrics",
        ] {
            assert!(long_running(&info(Method::GET, target)), "{target}");
        }
        for target in ["/api/v1/pods", "/api/v1/namespaces/a/pods/x/status", "/healthz"] {
            assert!(!long_running(&info(Method::GET, target)), "{target}");
        }
    }

    #[test]
    fn clients_may_ask_for_less_time_than_the_server_gives() {
        let allowed = |query| time_allowed(&Query::parse(Some(query)), Duration::from_secs(60));
        assert_eq!(allowed("").ok(), Some(Duration::from_secs(60)));
        assert_eq!(allowed("timeout=1500ms").ok(), Some(Duration::from_millis(1500)));
        assert_eq!(allowed("timeout=1h").ok(), Some(Duration::from_secs(60)));
        assert_eq!(allowed("timeout=0s").ok(), Some(Duration::from_secs(60)));
        let refused = allowed("timeout=soon").expect_err("no duration");
        assert_eq!(refused.code, 400);
        assert!(refused.message.contains("invalid timeout"), "{}", refused.message);
    }
}
