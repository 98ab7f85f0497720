//! What a start asks of the nodes of its host (`--nodes N`, `--node-cidr`): that there are N at least. Judged before
//! anything is made, written down when the cluster is. I/O: reads and writes the record, asks for the host's networks.
//! Callers: `up`, `server`, `install`.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::life::{self, State};
use super::underlay;
use crate::config::record::{self, Record};
use crate::config::{Host, Network, Roles, Shape, pool};
use crate::fault::Fault;
use crate::process::Daemon;

/// How often who waits for a node looks.
const GLANCE: Duration = Duration::from_millis(20);
/// A node that says neither that it is ready nor why not is waited for no longer.
const PATIENCE: Duration = Duration::from_secs(180);

/// Nodes that are to be there: what the record will say.
#[derive(Debug, Default)]
pub struct Wish {
    record: Option<Record>,
    /// Those that are new.
    pub added: Vec<String>,
}

impl Wish {
    /// Fails in one sentence when it can't be.
    pub fn judge(host: &Host, shape: &Shape) -> Result<Wish> {
        if shape.nodes.is_none() && shape.node_cidr.is_none() {
            return Ok(Wish::default());
        }
        if !host.roles().has(Roles::CONTROL_PLANE) {
            return Err(Fault::usage("--nodes: further nodes are made where the API server is").into());
        }
        own_network(host)?;
        let known = record::read(host)?;
        let record = match (known, shape.node_cidr) {
            (Some(record), None) => record,
            (Some(record), Some(asked)) if record.range == asked => record,
            (Some(Record { range, nodes, .. }), Some(asked)) if !nodes.is_empty() => {
                let sentence = format!("--node-cidr {asked}: this host's nodes have addresses of {range}, which stay");
                return Err(Fault::usage(sentence).into());
            }
            (_, asked) => underlay::choose(host, asked)?,
        };
        pool::beside_nodes(&host.cluster, &record).map_err(Fault::usage)?;
        grow(record, &host.node_name, usize::from(shape.nodes.unwrap_or(1)))
    }

    /// Writes it down. The data directory is there.
    pub fn write(&self, host: &Host) -> Result<()> {
        let Some(record) = &self.record else { return Ok(()) };
        let _lock = record::lock(host)?;
        record::write(host, record)
    }
}

/// Plugins keep their configuration and what they gave out in places that nodes of one host share.
pub fn own_network(host: &Host) -> Result<(), Fault> {
    if host.cluster.network() != Network::Cni {
        return Ok(());
    }
    let sentence = "nodes of one host share its /etc/cni, where --network cni has the configuration of the pod network: \
                    further nodes are other machines (`token create`, `agent`)";
    Err(Fault::usage(sentence))
}

fn grow(mut record: Record, host: &str, total: usize) -> Result<Wish> {
    let there = record.nodes.len() + 1;
    if total < there && total > 1 {
        let sentence = format!("--nodes {total}: this host has {there} nodes; `ferrokube node rm NAME` removes one");
        return Err(Fault::usage(sentence).into());
    }
    let mut added = Vec::new();
    for _ in there..total {
        added.push(record.add(host, None, &[], &[])?);
    }
    Ok(Wish { record: Some(record), added })
}

/// Waits until a node that is to run does, as long as the host's daemon is there to start it.
pub fn wait_for(host: &Host, name: &str) -> Result<Duration> {
    let began = Instant::now();
    loop {
        match State::of(host, name) {
            State::Running => return Ok(began.elapsed()),
            State::Failed(why) => {
                let sentence = format!(
                    "the node {name} did not start: {why}; it is tried again, `ferrokube node ls` shows how it is"
                );
                return Err(Fault::failed(sentence).into());
            }
            State::Starting | State::Stopped => {}
        }
        if Daemon::any(host).is_none() {
            let sentence = format!("the cluster {:?} has ended meanwhile", host.cluster.name);
            return Err(Fault::failed(sentence).into());
        }
        if began.elapsed() > PATIENCE {
            let sentence =
                format!("the node {name} is not ready after {PATIENCE:?}: see `ferrokube logs --node {name}`");
            return Err(Fault::failed(sentence).into());
        }
        std::thread::sleep(GLANCE);
    }
}

/// The first node that should run and has failed to.
pub fn failed(host: &Host) -> Result<Option<(String, String)>> {
    let nodes = record::nodes(host)?.into_iter().filter(|node| !node.stopped);
    Ok(nodes.into_iter().find_map(|node| match State::of(host, &node.name) {
        State::Failed(why) => Some((node.name, why)),
        _ => None,
    }))
}

/// Forgets that a node could not be started: what comes next is another try.
pub fn forget_failure(host: &Host, name: &str) {
    if matches!(State::of(host, name), State::Failed(_)) {
        crate::fault::best_effort("a node's file", std::fs::remove_file(life::file(host, name)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_grows_to_what_is_asked_for_and_never_shrinks_by_it() {
        let grown = |nodes: usize, total: usize| {
            let mut record = Record::new("10.202.0.0/24".parse().expect("a range"));
            (0..nodes).for_each(|_| drop(record.add("h", None, &[], &[]).expect("added")));
            grow(record, "h", total).map(|wish| wish.added).map_err(|error| error.to_string())
        };
        assert_eq!(grown(0, 3), Ok(vec!["h-2".to_owned(), "h-3".to_owned()]));
        assert_eq!((grown(2, 3), grown(2, 1)), (Ok(vec![]), Ok(vec![])), "1 is what nobody said");
        assert!(grown(2, 2).is_err_and(|said| said.contains("has 3 nodes; `ferrokube node rm NAME`")));
    }
}
