//! `forward`: who is asked for what this server does not know. Pure.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::blocks::Directive;
use super::values;
use super::words::{Word, Wrong};
use crate::wire::Name;

/// Upstream's own bound.
const MOST_SERVERS: usize = 15;
const PORT: u16 = 53;
const TLS_PORT: u16 = 853;
const MINUTE: Duration = Duration::from_secs(60);

/// In which order servers are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    #[default]
    Random,
    RoundRobin,
    Sequential,
    /// Who answered last is asked first: what cluster DNS does without a configuration.
    Preferred,
}

/// A server, by DNS or by DNS over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub address: SocketAddr,
    pub tls: bool,
    /// The name that its certificate must have; none: its address.
    pub tls_name: Option<String>,
}

/// Where servers come from, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    Server(Server),
    /// A resolver configuration, such as /etc/resolv.conf.
    File(PathBuf),
}

/// Files of `tls`: an authority in place of the system's, and a certificate with its key to be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    pub ca: Option<PathBuf>,
    pub pair: Option<(PathBuf, PathBuf)>,
}

/// The settings of one `forward`.
#[derive(Clone, Debug)]
pub struct Forward {
    pub from: Vec<Name>,
    pub to: Vec<To>,
    pub except: Vec<Name>,
    pub policy: Policy,
    pub force_tcp: bool,
    pub expire: Duration,
    pub most_idle: usize,
    pub read_timeout: Duration,
    /// Health checks that must fail one after another; zero: servers are never down.
    pub max_fails: u32,
    pub check_every: Duration,
    pub check_name: Name,
    pub check_recursion: bool,
    /// Questions at once; more are refused. None: as many as the server has room for.
    pub max_concurrent: Option<usize>,
    pub fail_fast: bool,
    /// Codes with which the next server is asked, and those with which the next `forward` is.
    pub failover: Vec<u8>,
    pub next: Vec<u8>,
    pub tls: Tls,
    pub tls_name: Option<String>,
}

impl Forward {
    /// Upstream's defaults.
    pub fn new(from: Vec<Name>, to: Vec<To>) -> Self {
        Forward {
            from,
            to,
            except: Vec::new(),
            policy: Policy::default(),
            force_tcp: false,
            expire: Duration::from_secs(10),
            most_idle: usize::MAX,
            read_timeout: Duration::from_secs(2),
            max_fails: 2,
            check_every: Duration::from_millis(500),
            check_name: Name::root(),
            check_recursion: true,
            max_concurrent: None,
            fail_fast: false,
            failover: Vec::new(),
            next: Vec::new(),
            tls: Tls::default(),
            tls_name: None,
        }
    }
}

pub fn parse(directive: &Directive) -> Result<Forward, Wrong> {
    let [from, to @ ..] = directive.args.as_slice() else {
        return Err(directive.name.wrong("a zone and servers are wanted after it"));
    };
    if to.is_empty() {
        return Err(from.wrong("servers are wanted after the zone"));
    }
    if let Some(word) = to.get(MOST_SERVERS) {
        return Err(word.wrong(format!("more than {MOST_SERVERS} servers")));
    }
    let to = to.iter().map(server).collect::<Result<_, _>>()?;
    let mut forward = Forward::new(values::zone(from, &from.text)?, to);
    for line in &directive.body {
        option(&mut forward, &line[0], &line[1..])?;
    }
    let by_name = |to: &To| matches!(to, To::Server(Server { tls_name: Some(_), .. }));
    if forward.tls_name.is_some() && forward.to.iter().any(by_name) {
        return Err(directive.name.wrong("either tls_servername or names of each server after %"));
    }
    Ok(forward)
}

fn server(word: &Word) -> Result<To, Wrong> {
    if word.text.starts_with('/') {
        return Ok(To::File(PathBuf::from(&word.text)));
    }
    let (tls, text) = match word.text.split_once("://") {
        None => (false, word.text.as_str()),
        Some(("dns", text)) => (false, text),
        Some(("tls", text)) => (true, text),
        Some(_) => return Err(word.wrong("servers are asked by dns:// and tls:// alone")),
    };
    let wrong = || word.wrong("an address of a server is wanted, like 10.0.0.10 or tls://9.9.9.9, or a file's path");
    let port = if tls { TLS_PORT } else { PORT };
    // tls://9.9.9.9%dns.quad9.net:853: the name stands between address and port.
    let (address, tls_name) = match text.split_once('%').filter(|_| tls) {
        None => (values::address(text, port), None),
        Some((address, name)) => match name.rsplit_once(':') {
            None => (values::address(address, port), Some(name)),
            Some((name, port)) => (port.parse().ok().and_then(|p| values::address(address, p)), Some(name)),
        },
    };
    let address = address.ok_or_else(wrong)?;
    Ok(To::Server(Server { address, tls, tls_name: tls_name.map(str::to_owned) }))
}

fn option(forward: &mut Forward, name: &Word, rest: &[Word]) -> Result<(), Wrong> {
    let one = || values::one(name, rest);
    match name.text.as_str() {
        "except" if rest.is_empty() => return Err(name.wrong("names are wanted after it")),
        "except" => forward.except.extend(values::zones(rest)?),
        "force_tcp" => {
            values::none(name, rest)?;
            forward.force_tcp = true;
        }
        // What is done anyway: UDP first, and TCP for what is too long.
        "prefer_udp" => values::none(name, rest)?,
        "expire" => forward.expire = values::duration(one()?, MINUTE)?,
        "max_idle_conns" => forward.most_idle = most(values::number(one()?, 0..=10_000)?),
        "read_timeout" => forward.read_timeout = values::duration(one()?, MINUTE)?,
        "max_fails" => forward.max_fails = values::number(one()?, 0..=1_000_000)? as u32,
        "policy" => {
            let word = one()?;
            forward.policy = match word.text.as_str() {
                "random" => Policy::Random,
                "round_robin" => Policy::RoundRobin,
                "sequential" => Policy::Sequential,
                _ => return Err(word.wrong("a policy is random, round_robin or sequential")),
            };
        }
        "health_check" => health_check(forward, name, rest)?,
        "max_concurrent" => forward.max_concurrent = Some(values::number(one()?, 0..=1_000_000)? as usize),
        "failfast_all_unhealthy_upstreams" => {
            values::none(name, rest)?;
            forward.fail_fast = true;
        }
        "failover" => forward.failover = codes(name, rest)?,
        "next" => forward.next = codes(name, rest)?,
        "tls_servername" => forward.tls_name = Some(one()?.text.clone()),
        "tls" => {
            let path = |word: &Word| PathBuf::from(&word.text);
            forward.tls = match rest {
                [] => Tls::default(),
                [ca] => Tls { ca: Some(path(ca)), pair: None },
                [cert, key] => Tls { ca: None, pair: Some((path(cert), path(key))) },
                [cert, key, ca] => Tls { ca: Some(path(ca)), pair: Some((path(cert), path(key))) },
                [_, _, _, word, ..] => return Err(word.wrong("tls takes a certificate, a key and an authority")),
            };
        }
        _ => {
            let known = "except, force_tcp, prefer_udp, expire, max_idle_conns, read_timeout, max_fails, policy, \
                         health_check, max_concurrent, failfast_all_unhealthy_upstreams, failover, next, tls, \
                         tls_servername";
            return Err(name.wrong(format!("no option of forward here; there are {known}")));
        }
    }
    if forward.max_concurrent == Some(0) {
        forward.max_concurrent = None;
    }
    Ok(())
}

/// Zero stands for no bound.
fn most(number: u64) -> usize {
    if number == 0 { usize::MAX } else { number as usize }
}

fn codes(name: &Word, rest: &[Word]) -> Result<Vec<u8>, Wrong> {
    if rest.is_empty() {
        return Err(name.wrong("response codes are wanted after it"));
    }
    rest.iter()
        .map(|word| match values::rcode(word)? {
            0 => Err(word.wrong("NOERROR is an answer")),
            code => Ok(code),
        })
        .collect()
}

/// `DURATION [no_rec] [domain FQDN]`.
fn health_check(forward: &mut Forward, name: &Word, rest: &[Word]) -> Result<(), Wrong> {
    const LEAST: Duration = Duration::from_millis(100);
    let (every, mut words) = rest.split_first().ok_or_else(|| name.wrong("a duration is wanted after it"))?;
    forward.check_every = values::duration(every, MINUTE)?.max(LEAST);
    while let Some((word, rest)) = words.split_first() {
        words = rest;
        match word.text.as_str() {
            "no_rec" => forward.check_recursion = false,
            "domain" => {
                let (domain, rest) = words.split_first().ok_or_else(|| word.wrong("a name is wanted after it"))?;
                forward.check_name = values::name(domain, &domain.text)?;
                words = rest;
            }
            _ => return Err(word.wrong("no word of health_check: there are no_rec and domain")),
        }
    }
    Ok(())
}
