//! From nothing to a Ready node and an answering DNS, and what the idle cluster uses: memory and CPU of every process.
//! Theirs is etcd, the control plane, containerd, kubelet, kube-proxy and CoreDNS.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::Plan;
use crate::dns::{CoreDns, ask};
use crate::machine::{Percentiles, cpu_of, rss_of};
use crate::ours::Ours;
use crate::table::{Row, figure};
use crate::upstream::{ControlPlane, Node, cell};

/// Seconds to Ready, MB and percent of a core when idle.
struct Life {
    start: f64,
    rss: f64,
    cpu: f64,
}

pub fn run(plan: &Plan) -> Result<Vec<Row>> {
    let ours = ours(plan)?;
    let theirs = cell(theirs(plan));
    let of = |pick: fn(&Life) -> f64, unit| theirs.as_ref().map(|l| figure(pick(l), unit)).map_err(Clone::clone);
    Ok(vec![
        Row::cost("start to Ready and DNS, p50", "2 s", figure(ours.start, "s"), of(|l| l.start, "s")),
        Row::cost("idle, everything in: RSS", "80 MB", figure(ours.rss, "MB"), of(|l| l.rss, "MB")),
        Row::cost("idle, everything in: CPU", "0.5 % of a core", figure(ours.cpu, "%"), of(|l| l.cpu, "%")),
    ])
}

fn ours(plan: &Plan) -> Result<Life> {
    let mut starts = Vec::new();
    for _ in 1..plan.or_quick(10, 2) {
        starts.push(start(&Ours::fresh()?)?);
    }
    let ours = Ours::fresh()?;
    starts.push(start(&ours)?);
    let (rss, cpu) = idle(plan, &ours.pids()?)?;
    Ok(Life { start: Percentiles::of(starts)?.at(0.5), rss, cpu })
}

/// Seconds until the command has returned and DNS has answered.
fn start(ours: &Ours) -> Result<f64> {
    let began = Instant::now();
    ours.cluster.up()?;
    ask((ours.dns()?, 53).into(), "kubernetes.default.svc.cluster.local", Duration::from_secs(5))?;
    Ok(began.elapsed().as_secs_f64())
}

fn theirs(plan: &Plan) -> Result<Life> {
    let mut plane = ControlPlane::start(&plan.upstream)?;
    plane.add_controllers(&plan.upstream)?;
    let node = Node::start(&plan.upstream, &plane)?;
    let dns = CoreDns::start(&plan.upstream, &plane.kubeconfig())?;
    ask(dns.address, "kubernetes.default.svc.cluster.local", Duration::from_secs(30))?;
    let start = plane.began.elapsed().as_secs_f64();
    let (rss, cpu) = idle(plan, &[plane.pids(), node.pids(), vec![dns.pid()]].concat())?;
    Ok(Life { start, rss, cpu })
}

/// Memory in MB, and CPU in percent of a core over a minute, after what starting leaves to do has ended.
fn idle(plan: &Plan, pids: &[u32]) -> Result<(f64, f64)> {
    ensure!(!pids.is_empty(), "the cluster has no process");
    std::thread::sleep(Duration::from_secs(plan.or_quick(30, 2)));
    let (cpu, began) = (cpu_of(pids)?, Instant::now());
    std::thread::sleep(Duration::from_secs(plan.or_quick(60, 5)));
    let used = cpu_of(pids)? - cpu;
    Ok((rss_of(pids)?, used / began.elapsed().as_secs_f64() * 100.0))
}
