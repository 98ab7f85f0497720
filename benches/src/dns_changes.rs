//! How soon after a Service is there its name answers, in a cluster of 100,000 Services: from the API server's reply to the
//! first answer with an address, of ours, then of CoreDNS beside the same API server.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::Plan;
use crate::api::{Connection, block_on, create_all};
use crate::dns::{A, CoreDns, SERVICES, answers, ask, question, service, service_name};
use crate::machine::{Percentiles, settle};
use crate::ours::Ours;
use crate::table::{Row, figure};
use crate::upstream::cell;

/// A name that is not there after this time won't be.
const PATIENCE: Duration = Duration::from_secs(30);
/// The range by default has 65,536 addresses.
const WIDE: &str = "10.96.0.0/12";
/// Loading 100,000 Services.
const LOADING: Duration = Duration::from_secs(300);

pub fn run(plan: &Plan) -> Result<Vec<Row>> {
    let (services, changes) = (plan.or_quick(100_000, 200), plan.or_quick(100, 5));
    let cluster = Ours::up_with(&["--service-cidr", WIDE])?;
    let api = cluster.api()?;
    block_on(create_all(&api, SERVICES, services, service))?;
    let (last, address) = (service_name(services - 1), SocketAddr::from((cluster.dns()?, 53)));
    ask(address, &last, LOADING)?;
    settle(&cluster.pids()?)?;
    let measure = |server, which: Range<usize>| -> Result<Percentiles> {
        Percentiles::of(block_on(async { appear(&mut api.connect().await?, server, which).await })?)
    };
    let ours = measure(address, services..services + changes)?;
    let theirs = cell(CoreDns::start(&plan.upstream, &cluster.cluster.kubeconfig()).and_then(|dns| {
        ask(dns.address, &last, LOADING)?;
        settle(&[dns.pid()])?;
        measure(dns.address, services + changes..services + 2 * changes)
    }));
    let of = |share| theirs.as_ref().map(|p| figure(p.at(share), "ms")).map_err(Clone::clone);
    let row = |what: &str, goal, share| {
        let what = format!("DNS, {services} Services: a new one answers, {what} of {changes}");
        Row::cost(what, goal, figure(ours.at(share), "ms"), of(share))
    };
    Ok(vec![row("median", "", 0.5), row("the slowest", "100 ms", 1.0)])
}

/// Milliseconds from the reply to the answer, of each.
async fn appear(api: &mut Connection, server: SocketAddr, which: Range<usize>) -> Result<Vec<f64>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let mut times = Vec::new();
    for i in which {
        let question = question(u16::try_from(i % 65536)?, &service_name(i), A)?;
        api.request("POST", SERVICES, service(i).to_string().as_bytes()).await?.ok()?;
        let began = Instant::now();
        until_there(&socket, &question).with_context(|| service_name(i))?;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(times)
}

fn until_there(socket: &UdpSocket, question: &[u8]) -> Result<()> {
    let began = Instant::now();
    let mut answer = [0; 1500];
    while began.elapsed() < PATIENCE {
        socket.send(question)?;
        let length = socket.recv(&mut answer).unwrap_or(0);
        if length >= 12 && answer[..2] == question[..2] && answers(&answer) > 0 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    bail!("no answer after {PATIENCE:?}")
}
