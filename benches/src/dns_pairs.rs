//! The pair of questions that a C library asks for every name: A and AAAA at once, from one socket of their own. Behind
//! address translation one of the two is lost now and then, and the program waits for five seconds. A million pairs, 64 at
//! a time, at the address of the DNS Service; CoreDNS is asked where it listens.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use crate::Plan;
use crate::api::{block_on, create_all};
use crate::dns::{A, AAAA, CoreDns, SERVICES, answers, ask, question, service, service_name};
use crate::machine::Percentiles;
use crate::ours::Ours;
use crate::table::{Row, figure};
use crate::upstream::cell;

const AT_ONCE: usize = 64;
/// The C library's own patience before it asks again.
const AGAIN: Duration = Duration::from_secs(5);
/// An answer that somebody would notice, in milliseconds.
const SLOW: f64 = 1000.0;

/// Of all pairs, in milliseconds.
struct Pairs {
    most: f64,
    slowest: f64,
    slow: f64,
}

pub fn run(plan: &Plan) -> Result<Vec<Row>> {
    let pairs = plan.or_quick(1_000_000, 2_000);
    let cluster = Ours::up()?;
    block_on(create_all(&cluster.api()?, SERVICES, 1, service))?;
    let (name, address) = (service_name(0), SocketAddr::from((cluster.dns()?, 53)));
    ask(address, &name, Duration::from_secs(30))?;
    let ours = measure(address, &name, pairs)?;
    let theirs = cell(CoreDns::start(&plan.upstream, &cluster.cluster.kubeconfig()).and_then(|dns| {
        ask(dns.address, &name, Duration::from_secs(60))?;
        measure(dns.address, &name, pairs)
    }));
    let row = |what: &str, goal, pick: fn(&Pairs) -> f64, unit| {
        let theirs = theirs.as_ref().map(|p| figure(pick(p), unit)).map_err(Clone::clone);
        Row::cost(format!("DNS, {pairs} pairs of A and AAAA: {what}"), goal, figure(pick(&ours), unit), theirs)
    };
    Ok(vec![
        row("p99.9", "", |p| p.most, "ms"),
        row("the slowest", "1 s", |p| p.slowest, "ms"),
        row("slower than 1 s", "none", |p| p.slow, "pairs"),
    ])
}

fn measure(server: SocketAddr, name: &str, pairs: usize) -> Result<Pairs> {
    let part = || -> Result<Vec<f64>> { (0..pairs / AT_ONCE).map(|_| pair(server, name)).collect() };
    let times = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(part)).collect();
        let mut all = Vec::with_capacity(pairs);
        for thread in threads {
            all.extend(thread.join().map_err(|_| anyhow!("a thread broke off"))??);
        }
        Ok::<_, anyhow::Error>(all)
    })?;
    let slow = times.iter().filter(|time| **time > SLOW).count() as f64;
    let times = Percentiles::of(times)?;
    Ok(Pairs { most: times.at(0.999), slowest: times.at(1.0), slow })
}

/// How long both answers take, in milliseconds.
fn pair(server: SocketAddr, name: &str) -> Result<f64> {
    const TRIES: usize = 3;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(AGAIN))?;
    let questions = [question(1, name, A)?, question(2, name, AAAA)?];
    let mut answered = [false; 2];
    let began = Instant::now();
    for _ in 0..TRIES {
        for (question, _) in questions.iter().zip(answered).filter(|(_, answered)| !answered) {
            socket.send(question)?;
        }
        let mut answer = [0; 1500];
        while let Ok(length) = socket.recv(&mut answer) {
            ensure!(length >= 12, "an answer of {length} bytes");
            let which = usize::from(answer[1]).saturating_sub(1).min(1);
            ensure!(which == 1 || answers(&answer) > 0, "{server} has no address for {name}");
            answered[which] = true;
            if answered == [true; 2] {
                return Ok(began.elapsed().as_secs_f64() * 1000.0);
            }
        }
    }
    Err(anyhow!("{server} does not answer for {name}"))
}
