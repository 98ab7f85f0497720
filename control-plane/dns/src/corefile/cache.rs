//! `cache`: how long answers of others are kept. Pure.

use std::time::Duration;

use super::blocks::Directive;
use super::values;
use super::words::{Word, Wrong};
use crate::cache::{Kept, Prefetch, Settings, Stale};

/// Upstream's bounds: seconds of answers and of denials, and the least that either is kept.
const SUCCESS_TTL: u32 = 3600;
const DENIAL_TTL: u32 = 1800;
const LEAST_TTL: u32 = 5;
const SERVFAIL: Duration = Duration::from_secs(5);
const MOST_SERVFAIL: Duration = Duration::from_secs(300);
/// Upstream's capacity, in messages, and the most that can be asked for; memory has its own bound.
const CAPACITY: u64 = 9984;
const LEAST_CAPACITY: u64 = 1024;
const MOST_CAPACITY: u64 = 10_000_000;
/// A day and a week: nothing is asked from the cache for longer.
const MOST_TTL: u64 = 86_400;
const MOST_STALE: Duration = Duration::from_secs(7 * 86_400);
const STALE: Duration = Duration::from_secs(3600);

pub fn parse(directive: &Directive) -> Result<Settings, Wrong> {
    let kept = |ttl| Kept { capacity: CAPACITY as usize, most: ttl, least: LEAST_TTL, without: Vec::new() };
    let mut cache = Settings {
        zones: Vec::new(),
        success: kept(SUCCESS_TTL),
        denial: kept(DENIAL_TTL),
        servfail: SERVFAIL.as_secs() as u32,
        prefetch: None,
        stale: None,
        keep_ttl: false,
    };
    let mut zones = directive.args.as_slice();
    if let Some((first, rest)) = zones.split_first()
        && first.text.bytes().all(|b| b.is_ascii_digit())
    {
        let ttl = values::number(first, 1..=MOST_TTL)? as u32;
        (cache.success.most, cache.denial.most) = (ttl, ttl);
        zones = rest;
    }
    cache.zones = values::zones(zones)?;
    for line in &directive.body {
        option(&mut cache, &line[0], &line[1..])?;
    }
    Ok(cache)
}

fn option(cache: &mut Settings, name: &Word, rest: &[Word]) -> Result<(), Wrong> {
    match name.text.as_str() {
        "success" => kept(&mut cache.success, name, rest)?,
        "denial" => kept(&mut cache.denial, name, rest)?,
        "prefetch" => cache.prefetch = prefetch(name, rest)?,
        "serve_stale" => cache.stale = Some(stale(rest)?),
        "servfail" => {
            cache.servfail = values::duration(values::one(name, rest)?, MOST_SERVFAIL)?.as_secs() as u32;
        }
        "keepttl" => {
            values::none(name, rest)?;
            cache.keep_ttl = true;
        }
        "disable" => {
            let (which, zones) =
                rest.split_first().ok_or_else(|| name.wrong("success or denial is wanted after it"))?;
            let kept = match which.text.as_str() {
                "success" => &mut cache.success,
                "denial" => &mut cache.denial,
                _ => return Err(which.wrong("what can be disabled is success or denial")),
            };
            kept.without = match zones.is_empty() {
                true => vec![values::root()],
                false => values::zones(zones)?,
            };
        }
        _ => {
            let known = "success, denial, prefetch, serve_stale, servfail, disable, keepttl";
            return Err(name.wrong(format!("no option of cache here; there are {known}")));
        }
    }
    Ok(())
}

/// `CAPACITY [TTL] [MINTTL]`.
fn kept(kept: &mut Kept, name: &Word, rest: &[Word]) -> Result<(), Wrong> {
    let capacity = rest.first().ok_or_else(|| name.wrong("a capacity is wanted after it"))?;
    kept.capacity = values::number(capacity, 0..=MOST_CAPACITY)?.max(LEAST_CAPACITY) as usize;
    if let Some(word) = rest.get(1) {
        kept.most = values::number(word, 1..=MOST_TTL)? as u32;
    }
    if let Some(word) = rest.get(2) {
        kept.least = values::number(word, 0..=MOST_TTL)? as u32;
    }
    rest.get(3).map_or(Ok(()), |word| Err(word.wrong(format!("{} takes a capacity and two numbers", name.text))))
}

/// `AMOUNT [[DURATION] [PERCENTAGE%]]`; an amount of zero is none.
fn prefetch(name: &Word, rest: &[Word]) -> Result<Option<Prefetch>, Wrong> {
    const MINUTE: Duration = Duration::from_secs(60);
    const DAY: Duration = Duration::from_secs(86_400);
    let amount = rest.first().ok_or_else(|| name.wrong("how many questions make a name popular is wanted after it"))?;
    let mut prefetch =
        Prefetch { amount: values::number(amount, 0..=u64::from(u32::MAX))? as u32, gap: MINUTE, percent: 10 };
    if let Some(word) = rest.get(1) {
        prefetch.gap = values::duration(word, DAY)?;
    }
    if let Some(word) = rest.get(2) {
        let percent = word.text.strip_suffix('%').and_then(|t| t.parse().ok()).filter(|p| (10..=90).contains(p));
        prefetch.percent = percent.ok_or_else(|| word.wrong("a share from 10% to 90% is wanted"))?;
    }
    match rest.get(3) {
        Some(word) => Err(word.wrong("prefetch takes three values")),
        None => Ok((prefetch.amount > 0).then_some(prefetch)),
    }
}

/// `[DURATION] [immediate [RESPONSE_TTL [RECHECK]] | verify [TIMEOUT [RESPONSE_TTL [RECHECK]]]]`.
fn stale(rest: &[Word]) -> Result<Stale, Wrong> {
    const MOST_WAIT: Duration = Duration::from_secs(10);
    const MOST_RESPONSE: Duration = Duration::from_secs(3600);
    let mut stale = Stale { up_to: STALE, verify: None, ttl: 0, recheck: Duration::ZERO };
    let mut words = rest.iter();
    if let Some(word) = words.next() {
        stale.up_to = values::duration(word, MOST_STALE)?;
    }
    match words.next() {
        None => return Ok(stale),
        Some(word) if word.text == "immediate" => {}
        Some(word) if word.text == "verify" => {
            let wait = words.next().map(|word| values::duration(word, MOST_WAIT)).transpose()?;
            stale.verify = Some(wait.filter(|wait| !wait.is_zero()));
        }
        Some(word) => return Err(word.wrong("serve_stale refreshes immediate or verify")),
    }
    if let Some(word) = words.next() {
        stale.ttl = values::duration(word, MOST_RESPONSE)?.as_secs() as u32;
    }
    if let Some(word) = words.next() {
        stale.recheck = values::duration(word, MOST_SERVFAIL)?;
    }
    words.next().map_or(Ok(stale), |word| Err(word.wrong("serve_stale takes no more values")))
}
