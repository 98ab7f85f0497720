//! What is kept, for how long, and what is asked anew.

use super::*;
use crate::wire::TO_QUESTION;

fn question(name: &str) -> Vec<u8> {
    let mut bytes = vec![7, 7, flag::RD, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(Name::parse(name).unwrap().as_bytes());
    bytes.extend_from_slice(&[0, 1, 0, 1]);
    bytes
}

fn response(name: &str, ttl: u32) -> Vec<u8> {
    let mut bytes = question(name);
    bytes[2] |= flag::QR;
    bytes[7] = 1;
    bytes[11] = 1;
    wire::push_address(&mut bytes, &TO_QUESTION, ttl, "192.0.2.1".parse().unwrap());
    bytes.extend_from_slice(&[0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0]);
    bytes
}

/// A failure, as an upstream says it.
fn failure(name: &str) -> Vec<u8> {
    let mut bytes = question(name);
    bytes[2] |= flag::QR;
    bytes[3] |= code::SERVFAIL;
    bytes
}

fn insert(cache: &mut Cache, asked: &[u8], response: &[u8], now: Duration) {
    let (mut message, ttls) = without_opt(response).unwrap();
    cache.insert(&Question::parse(asked).unwrap(), &mut message, &ttls, now);
}

fn ask(cache: &mut Cache, asked: &[u8], now: Duration) -> (Hit, Vec<u8>) {
    let mut out = Vec::new();
    (cache.answer(asked, &Question::parse(asked).unwrap(), true, now, &mut out), out)
}

fn ttl_of(answer: &[u8]) -> u32 {
    wire::records(answer).unwrap()[0].1.ttl
}

const fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn answers_age_and_go() {
    let asked = question("Example.org");
    let q = Question::parse(&asked).unwrap();
    let mut cache = Cache::default();
    insert(&mut cache, &asked, &response("example.org", 20), at(100));
    let (hit, out) = ask(&mut cache, &asked, at(105));
    assert_eq!(hit, Hit::Fresh);
    assert_eq!((ttl_of(&out), out.len()), (15, response("x.x", 0).len() + 8 - 11), "OPT is not passed on");
    assert_eq!(out[HEADER..q.end], asked[HEADER..q.end], "the client's spelling");
    assert_eq!(ask(&mut cache, &asked, at(120)).0, Hit::Miss);
    insert(&mut cache, &asked, &response("example.org", 86_400), at(200));
    assert_eq!(ttl_of(&ask(&mut cache, &asked, at(229)).1), 1, "no client keeps it longer than we do");
    assert_eq!(ask(&mut cache, &asked, at(230)).0, Hit::Miss, "nothing is kept longer than half a minute");
}

#[test]
fn memory_is_bounded_and_what_is_used_stays() {
    let mut cache = Cache::default();
    let now = at(1);
    let used = question("used.example");
    insert(&mut cache, &used, &response("used.example", 30), now);
    for i in 0..90_000 {
        let name = format!("n{i}.example");
        insert(&mut cache, &question(&name), &response(&name, 30), now);
        if i % 1000 == 0 {
            assert_eq!(ask(&mut cache, &used, now).0, Hit::Fresh, "{i}");
        }
    }
    assert!(cache.len() * OVERHEAD < MOST_BYTES);
    let mut settings = Settings::plain();
    (settings.success.capacity, settings.denial.capacity) = (1024, 1024);
    let mut small = Cache::new(settings, MOST_BYTES);
    for i in 0..10_000 {
        let name = format!("n{i}.example");
        insert(&mut small, &question(&name), &response(&name, 30), now);
    }
    assert!(small.len() <= 2048 + 1, "{}", small.len());
}

#[test]
fn times_have_a_floor_a_ceiling_and_zones_without() {
    let mut settings = Settings::plain();
    (settings.success.least, settings.success.most) = (5, 10);
    settings.success.without = vec![Name::parse("never.example").unwrap()];
    let mut cache = Cache::new(settings, MOST_BYTES);
    let (short, never) = (question("short.example"), question("a.never.example"));
    insert(&mut cache, &short, &response("short.example", 1), at(0));
    insert(&mut cache, &never, &response("a.never.example", 9), at(0));
    assert_eq!((ask(&mut cache, &short, at(4)).0, ask(&mut cache, &short, at(5)).0), (Hit::Fresh, Hit::Miss));
    assert_eq!(ask(&mut cache, &never, at(1)).0, Hit::Miss);
}

#[test]
fn popular_answers_are_fetched_before_they_end() {
    let mut settings = Settings::plain();
    settings.prefetch = Some(Prefetch { amount: 3, gap: at(60), percent: 20 });
    let mut cache = Cache::new(settings, MOST_BYTES);
    let asked = question("hot.example");
    insert(&mut cache, &asked, &response("hot.example", 30), at(0));
    let hits: Vec<_> = [1, 2, 3, 10, 24].map(|s| ask(&mut cache, &asked, at(s)).0).into();
    assert_eq!(hits, [Hit::Fresh, Hit::Fresh, Hit::Fresh, Hit::Fresh, Hit::Refresh]);
    assert_eq!(ask(&mut cache, &asked, at(24)).0, Hit::Fresh, "one is on its way");
    assert_eq!(ask(&mut cache, &asked, at(25)).0, Hit::Refresh);
}

#[test]
fn stale_answers_are_given_while_nobody_has_a_better_one() {
    let mut settings = Settings::plain();
    settings.stale = Some(Stale { up_to: at(3600), verify: None, ttl: 0, recheck: at(30) });
    let mut cache = Cache::new(settings.clone(), MOST_BYTES);
    let asked = question("gone.example");
    insert(&mut cache, &asked, &response("gone.example", 10), at(0));
    let (hit, out) = ask(&mut cache, &asked, at(11));
    assert_eq!((hit, ttl_of(&out)), (Hit::Refresh, 0));
    insert(&mut cache, &asked, &failure("gone.example"), at(12));
    assert_eq!(ask(&mut cache, &asked, at(13)).0, Hit::Fresh, "a failure takes no answer's place, and is waited after");
    assert_eq!(ask(&mut cache, &asked, at(41)).0, Hit::Refresh);
    assert_eq!(ask(&mut cache, &asked, at(3610)).0, Hit::Miss);
    settings.stale = Some(Stale { up_to: at(60), verify: Some(Some(at(1))), ttl: 30, recheck: at(0) });
    let mut cache = Cache::new(settings, MOST_BYTES);
    insert(&mut cache, &asked, &response("gone.example", 10), at(0));
    let (hit, out) = ask(&mut cache, &asked, at(11));
    assert_eq!((hit, ttl_of(&out)), (Hit::Verify(Some(at(1))), 30));
}
