//! Candidates over a server that hangs, is late, fails, and carries out what nobody waits for any more; on virtual time.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// What happens to one request. Times in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Fate {
    before: u64,
    after: u64,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    Answered,
    /// Carried out, and nobody hears of it.
    Unheard,
    /// Neither carried out nor answered.
    Hangs,
    Fails,
}

const AT_ONCE: Fate = Fate { before: 1, after: 1, outcome: Outcome::Answered };

#[derive(Default)]
struct Server {
    lease: Option<Value>,
    version: u64,
    requests: usize,
    /// What happens to the first requests; those after them are answered at once.
    fates: Vec<Fate>,
    /// How many writes were refused because another came first.
    conflicts: usize,
}

impl Server {
    fn fate(&mut self) -> Fate {
        self.requests += 1;
        self.fates.get(self.requests - 1).copied().unwrap_or(AT_ONCE)
    }

    fn carry_out(&mut self, method: &Method, body: &[u8]) -> (u16, Value) {
        let version = |lease: &Option<Value>| lease.as_ref().map(|l| l["metadata"]["resourceVersion"].clone());
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        match (method, &self.lease) {
            (&Method::GET, Some(lease)) => return (200, lease.clone()),
            (&Method::GET, None) => return refused(404, "NotFound"),
            (&Method::POST, Some(_)) => return refused(409, "AlreadyExists"),
            (&Method::PUT, lease) if version(lease) != Some(body["metadata"]["resourceVersion"].clone()) => {
                self.conflicts += 1;
                return refused(409, "Conflict");
            }
            _ => {}
        }
        // As every server: what changes nothing is not written.
        if self.lease.as_ref().is_none_or(|lease| lease["spec"] != body["spec"]) {
            self.version += 1;
            let mut lease = body;
            lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.lease = Some(lease);
        }
        (200, self.lease.clone().unwrap_or_default())
    }
}

fn refused(code: u16, reason: &str) -> (u16, Value) {
    (code, json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason}))
}

fn client(server: &Arc<Mutex<Server>>) -> kube::Client {
    let server = server.clone();
    crate::in_process(tower::service_fn(move |request: Request<Body>| {
        let server = server.clone();
        // What has been sent is carried out though its sender waits no more.
        let served = tokio::spawn(async move {
            let fate = server.lock().fate();
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap_or_default();
            tokio::time::sleep(Duration::from_millis(fate.before)).await;
            let (code, answer) = match fate.outcome {
                Outcome::Answered | Outcome::Unheard => server.lock().carry_out(&parts.method, &body),
                Outcome::Hangs => std::future::pending().await,
                Outcome::Fails => refused(500, "InternalError"),
            };
            tokio::time::sleep(Duration::from_millis(fate.after)).await;
            if fate.outcome == Outcome::Unheard {
                std::future::pending().await
            }
            let code = StatusCode::from_u16(code).unwrap_or_default();
            let body = http_body_util::Full::new(bytes::Bytes::from(answer.to_string()));
            let mut response = Response::new(body);
            *response.status_mut() = code;
            response
        });
        async move { Ok::<_, Infallible>(served.await.expect("a server doesn't panic")) }
    }))
}

/// Who leads: counted in and out, and never two.
#[derive(Default)]
struct Leaders {
    now: AtomicUsize,
    most: AtomicUsize,
    terms: AtomicUsize,
}

struct Leading(Arc<Leaders>);

impl Leading {
    fn begin(leaders: &Arc<Leaders>) -> Leading {
        let now = leaders.now.fetch_add(1, Ordering::SeqCst) + 1;
        leaders.most.fetch_max(now, Ordering::SeqCst);
        leaders.terms.fetch_add(1, Ordering::SeqCst);
        Leading(leaders.clone())
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Leads until the token says no more, `winds_down` included.
fn work(leaders: &Arc<Leaders>, winds_down: Duration) -> impl FnOnce(CancellationToken) -> WorkFuture + use<> {
    let leaders = leaders.clone();
    move |held| {
        Box::pin(async move {
            let _leading = Leading::begin(&leaders);
            held.cancelled().await;
            tokio::time::sleep(winds_down).await;
        })
    }
}

type WorkFuture = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a host takes for the time.
#[derive(Debug, Clone, Copy)]
enum Clock {
    Off(i64),
    Stands,
    RunsBack,
}

impl Clock {
    fn wall(self) -> Arc<dyn Fn() -> Timestamp + Send + Sync> {
        let began = Instant::now();
        Arc::new(move || {
            let passed = began.elapsed().as_secs() as i64;
            let second = match self {
                Clock::Off(seconds) => passed + seconds,
                Clock::Stands => 0,
                Clock::RunsBack => -passed,
            };
            Timestamp::from_second(1_000_000 + second).expect("in range")
        })
    }
}

fn candidate(name: &str, clock: Clock) -> Candidate {
    Candidate { wall: clock.wall(), ..Candidate::new("part", name) }
}

/// One host: begins, and again and again tries to lead; is told to stop, or dies, at a time.
#[derive(Debug, Clone, Copy)]
struct Host {
    clock: Clock,
    begins: u64,
    lives: u64,
    dies: bool,
}

fn hosts() -> impl Strategy<Value = Vec<Host>> {
    let clock = prop_oneof![(-7200i64..7200).prop_map(Clock::Off), Just(Clock::Stands), Just(Clock::RunsBack)];
    let host = (clock, 0u64..20, 5u64..90, any::<bool>());
    let host = host.prop_map(|(clock, begins, lives, dies)| Host { clock, begins, lives, dies });
    prop::collection::vec(host, 2..5)
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let outcome = prop_oneof![
        6 => Just(Outcome::Answered),
        2 => Just(Outcome::Unheard),
        1 => Just(Outcome::Hangs),
        1 => Just(Outcome::Fails),
    ];
    let delay = || prop_oneof![3 => 0u64..50, 1 => 0u64..12_000];
    let fate = (delay(), delay(), outcome).prop_map(|(before, after, outcome)| Fate { before, after, outcome });
    prop::collection::vec(fate, 0..120)
}

async fn live(host: Host, name: String, server: Arc<Mutex<Server>>, leaders: Arc<Leaders>) {
    tokio::time::sleep(SECOND * host.begins as u32).await;
    let shutdown = CancellationToken::new();
    let life = tokio::spawn({
        let (shutdown, client) = (shutdown.clone(), client(&server));
        async move {
            for term in 0.. {
                let candidate = candidate(&format!("{name}-{term}"), host.clock);
                // It needs nearly all of the time that it has.
                let work = work(&leaders, Duration::from_millis(4_900));
                candidate.lead(client.clone(), shutdown.clone(), work).await;
                if shutdown.is_cancelled() {
                    return;
                }
            }
        }
    });
    tokio::time::sleep(SECOND * host.lives as u32).await;
    if host.dies {
        life.abort();
    }
    shutdown.cancel();
    let _ = life.await;
}

fn on_virtual_time<F: Future>(work: impl FnOnce() -> F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async { work().await })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever clocks hosts have and whatever happens to requests, no two lead at once; and when the server is well
    /// again, somebody leads within two terms.
    #[test]
    fn no_two_lead_at_once(hosts in hosts(), fates in fates()) {
        let (most, led) = on_virtual_time(|| async {
            let server = Arc::new(Mutex::new(Server { fates, ..Server::default() }));
            let leaders = Arc::new(Leaders::default());
            let named = hosts.iter().enumerate();
            let lives: Vec<_> = named
                .map(|(n, host)| tokio::spawn(live(*host, format!("host{n}"), server.clone(), leaders.clone())))
                .collect();
            futures::future::join_all(lives).await;
            server.lock().fates.clear();
            let (last, terms) = (leaders.clone(), leaders.terms.load(Ordering::SeqCst));
            let survivor = Host { clock: Clock::Off(-3600), begins: 0, lives: 45, dies: false };
            live(survivor, "last".into(), server, leaders).await;
            (last.most.load(Ordering::SeqCst), last.terms.load(Ordering::SeqCst) > terms)
        });
        prop_assert!(most <= 1, "{most} led at once");
        prop_assert!(led, "nobody led in the end");
    }
}

fn server(fates: Vec<Fate>) -> Arc<Mutex<Server>> {
    Arc::new(Mutex::new(Server { fates, ..Server::default() }))
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_ends_a_term_at_its_deadline() {
    let (server, leaders) = (server(Vec::new()), Arc::new(Leaders::default()));
    let a = candidate("a", Clock::Off(0));
    let led = tokio::spawn(a.lead(client(&server), CancellationToken::new(), work(&leaders, Duration::ZERO)));
    tokio::time::sleep(SECOND).await;
    assert_eq!(leaders.now.load(Ordering::SeqCst), 1);
    server.lock().fates = vec![Fate { outcome: Outcome::Hangs, ..AT_ONCE }; 1000];
    let began = Instant::now();
    tokio::time::timeout(20 * SECOND, async {
        while leaders.now.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(SECOND / 10).await
        }
    })
    .await
    .expect("it stops");
    assert!((8..=10).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    led.await.expect("ended");
}

#[tokio::test(start_paused = true)]
async fn a_term_is_counted_from_when_its_renewal_was_sent() {
    let late = Fate { after: 4_500, ..AT_ONCE };
    let mut fates = vec![AT_ONCE, late];
    fates.resize(1000, Fate { outcome: Outcome::Hangs, ..AT_ONCE });
    let (server, leaders) = (server(fates), Arc::new(Leaders::default()));
    let a = candidate("a", Clock::Off(0));
    let led = tokio::spawn(a.lead(client(&server), CancellationToken::new(), work(&leaders, Duration::ZERO)));
    tokio::time::sleep(9 * SECOND).await;
    assert_eq!(leaders.now.load(Ordering::SeqCst), 1);
    tokio::time::sleep(SECOND * 3 / 2).await;
    assert_eq!(leaders.now.load(Ordering::SeqCst), 0, "others count from before the answer came");
    led.abort();
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_no_loss() {
    let (server, leaders) = (server(Vec::new()), Arc::new(Leaders::default()));
    let (shutdown, a) = (CancellationToken::new(), candidate("a", Clock::Off(0)));
    let led = tokio::spawn(a.lead(client(&server), shutdown.clone(), work(&leaders, Duration::ZERO)));
    for _ in 0..600 {
        tokio::time::sleep(SECOND / 10).await;
        // Somebody else writes a label, between our look and our write sooner or later.
        let mut server = server.lock();
        server.version += 1;
        let version = server.version.to_string();
        if let Some(lease) = &mut server.lease {
            lease["metadata"]["resourceVersion"] = json!(version);
        }
        // Slow enough for that.
        server.fates = vec![Fate { before: 30, after: 30, outcome: Outcome::Answered }; 10_000];
    }
    assert!(server.lock().conflicts > 3, "{}", server.lock().conflicts);
    assert_eq!(leaders.terms.load(Ordering::SeqCst), 1);
    assert_eq!(leaders.now.load(Ordering::SeqCst), 1);
    shutdown.cancel();
    led.await.expect("ended");
}

#[tokio::test(start_paused = true)]
async fn a_stop_gives_the_lease_to_who_waits() {
    let (server, leaders) = (server(Vec::new()), Arc::new(Leaders::default()));
    let (shutdown, never) = (CancellationToken::new(), CancellationToken::new());
    let first = candidate("a", Clock::Off(0)).lead(client(&server), shutdown.clone(), work(&leaders, 3 * SECOND));
    let first = tokio::spawn(first);
    tokio::time::sleep(SECOND).await;
    let second = candidate("b", Clock::Off(3600)).lead(client(&server), never, work(&leaders, Duration::ZERO));
    let second = tokio::spawn(second);
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(leaders.terms.load(Ordering::SeqCst), 1, "it waits though its clock is an hour ahead");
    shutdown.cancel();
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(leaders.terms.load(Ordering::SeqCst), 1, "the first still winds down");
    assert!(first.await.expect("ended").is_some());
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(leaders.terms.load(Ordering::SeqCst), 2, "and then need not wait for the end of a term");
    assert_eq!(leaders.most.load(Ordering::SeqCst), 1);
    second.abort();
}
