//! The configuration of cluster DNS, in the language of upstream's server: a Corefile. Pure.
//!
//! Who calls: `settings`, with the texts of two ConfigMaps, whenever one of them changes. `words` reads words, `blocks`
//! puts blocks together, here each plugin's words become settings; a file a plugin. What is not known is refused with its
//! line and word, and nothing of it comes into force. The order of plugins in a block means nothing, as upstream's: what
//! is asked first is fixed in `chain`.

mod blocks;
mod cache;
mod forward;
mod hosts;
mod kubernetes;
mod log;
mod rewrite;
mod template;
pub mod values;
mod words;

use std::net::IpAddr;

pub use blocks::Files;
use blocks::{Block, Directive};
pub use forward::{Forward, Policy, Server as Upstream, To};
pub use hosts::Hosts;
pub use kubernetes::{Kubernetes, Pods, Records};
pub use log::{Class, Log};
use values::once;
use words::Word;
pub use words::Wrong;

use crate::wire::Name;

/// What this server is, whatever its file says.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The port that it answers on.
    pub port: u16,
    /// The cluster's zone, in small letters.
    pub domain: Name,
}

/// A whole configuration.
#[derive(Clone, Debug, Default)]
pub struct Corefile {
    pub servers: Vec<Server>,
    /// How names of the cluster are made; none when no block asks for them.
    pub records: Option<Records>,
    pub pages: Pages,
}

/// What is done for questions of some zones.
#[derive(Clone, Debug, Default)]
pub struct Server {
    pub zones: Vec<Name>,
    pub errors: bool,
    pub log: Vec<Log>,
    pub loadbalance: bool,
    pub rewrites: Vec<crate::rewrite::Rule>,
    pub cache: Option<crate::cache::Settings>,
    pub templates: Vec<crate::template::Template>,
    pub hosts: Option<Hosts>,
    pub kubernetes: Option<Kubernetes>,
    pub forwards: Vec<Forward>,
}

impl Server {
    /// What is tried for each question, one after another.
    fn rules(&self) -> usize {
        let templates: usize = self.templates.iter().map(|t| 1 + t.matches.len()).sum();
        self.rewrites.len() + self.log.len() + templates
    }
}

/// Pages over HTTP, and where they are; without an address, where DNS is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pages {
    pub health: Option<(Option<IpAddr>, u16)>,
    pub ready: Option<(Option<IpAddr>, u16)>,
    pub metrics: Option<(Option<IpAddr>, u16)>,
}

/// Upstream's ports of these pages.
const HEALTH_PORT: u16 = 8080;
const READY_PORT: u16 = 8181;
const METRICS_PORT: u16 = 9153;

/// Rules are tried one after another for each question, and each takes up to 128 KiB.
const MOST_RULES: usize = 1000;
/// Each has servers, connections to them, and health checks.
const MOST_FORWARDS: usize = 1000;

/// Reads a configuration.
pub fn parse(files: &Files, facts: &Facts) -> Result<Corefile, Wrong> {
    let mut corefile = Corefile::default();
    for block in blocks::blocks(files)? {
        let server = server(&block, files, facts, &mut corefile)?;
        corefile.servers.push(server);
    }
    Ok(corefile)
}

fn server(block: &Block, files: &Files, facts: &Facts, corefile: &mut Corefile) -> Result<Server, Wrong> {
    let mut server = Server::default();
    for key in &block.keys {
        for zone in zones_of(key, facts)? {
            if server.zones.contains(&zone) || corefile.servers.iter().any(|s| s.zones.contains(&zone)) {
                return Err(key.wrong("another block has this zone already"));
            }
            server.zones.push(zone);
        }
    }
    for directive in &block.directives {
        plugin(directive, &mut server, files, facts, corefile)?;
        let all = || corefile.servers.iter().chain([&server]);
        let rules: usize = all().map(Server::rules).sum();
        let forwards: usize = all().map(|s| s.forwards.len()).sum();
        if rules > MOST_RULES || forwards > MOST_FORWARDS {
            return Err(directive.name.wrong("more than 1000 of its kind in the whole configuration"));
        }
    }
    Ok(server)
}

fn plugin(
    directive: &Directive,
    server: &mut Server,
    files: &Files,
    facts: &Facts,
    corefile: &mut Corefile,
) -> Result<(), Wrong> {
    let pages = &mut corefile.pages;
    match directive.name.text.as_str() {
        "errors" => {
            directive.bare()?;
            server.errors = true;
        }
        // A question that comes back in a circle meets itself and ends there, whenever the circle is made.
        "loop" => directive.bare()?,
        "reload" => reload(directive)?,
        "log" => server.log.push(log::parse(directive)?),
        "loadbalance" => {
            directive.without_body()?;
            match directive.args.first() {
                Some(word) if word.text != "round_robin" => return Err(word.wrong("the one policy is round_robin")),
                _ => server.loadbalance = true,
            }
        }
        "health" => page(directive, HEALTH_PORT, "lameduck", &mut pages.health)?,
        "ready" => page(directive, READY_PORT, "monitor", &mut pages.ready)?,
        "prometheus" => page(directive, METRICS_PORT, "", &mut pages.metrics)?,
        "rewrite" => server.rewrites.push(rewrite::parse(directive)?),
        "template" => server.templates.push(template::parse(directive)?),
        "cache" => once(&mut server.cache, directive, cache::parse(directive)?)?,
        "hosts" => once(&mut server.hosts, directive, hosts::parse(directive, files)?)?,
        "forward" => server.forwards.push(forward::parse(directive)?),
        "kubernetes" => {
            let (kubernetes, records) = kubernetes::parse(directive, &server.zones, facts)?;
            once(&mut server.kubernetes, directive, kubernetes)?;
            match corefile.records.replace(records.clone()) {
                Some(before) if before != records => {
                    let reason = "names are made one way for the whole cluster: say the same as in the block before";
                    return Err(directive.name.wrong(reason));
                }
                _ => {}
            }
        }
        _ => {
            let known = "errors, log, health, ready, prometheus, loop, reload, loadbalance, rewrite, cache, template, \
                         hosts, kubernetes, forward, import";
            return Err(directive.name.wrong(format!("this server has no such plugin; it has {known}")));
        }
    }
    Ok(())
}

/// The zones of a block's key: `example.org`, `.:53`, `dns://example.org`, `10.0.0.0/8`.
fn zones_of(key: &Word, facts: &Facts) -> Result<Vec<Name>, Wrong> {
    let text = key.text.trim_end_matches(',');
    let text = match text.split_once("://") {
        None => text,
        Some(("dns", rest)) => rest,
        Some(_) => return Err(key.wrong("this server speaks dns:// alone")),
    };
    let (text, port) = match text.rsplit_once(':') {
        Some((zone, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => (zone, Some(port)),
        _ => (text, None),
    };
    if port.is_some_and(|port| port.parse() != Ok(facts.port)) {
        return Err(key.wrong(format!("this server answers on port {} alone", facts.port)));
    }
    values::zone(key, if text.is_empty() { "." } else { text })
}

/// `reload`: changes are followed at once, whatever interval upstream's server would look at its file.
fn reload(directive: &Directive) -> Result<(), Wrong> {
    const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);
    directive.without_body()?;
    for word in &directive.args {
        values::duration(word, DAY)?;
    }
    directive.args.get(2).map_or(Ok(()), |word| Err(word.wrong("reload takes an interval and a jitter")))
}

/// A page's address, and its one option: both are about draining and probing of a Deployment's pods, and heard.
fn page(directive: &Directive, port: u16, option: &str, slot: &mut Option<(Option<IpAddr>, u16)>) -> Result<(), Wrong> {
    let at = match directive.args.as_slice() {
        [] => (None, port),
        [word] => page_address(word)?,
        [_, word, ..] => return Err(word.wrong(format!("{} takes one address", directive.name.text))),
    };
    for line in &directive.body {
        if line[0].text != option {
            return Err(line[0].wrong(format!("no option of {}", directive.name.text)));
        }
        values::one(&line[0], &line[1..])?;
    }
    if slot.replace(at).is_some_and(|before| before != at) {
        return Err(directive.name.wrong("another block has it at another address"));
    }
    Ok(())
}

fn page_address(word: &Word) -> Result<(Option<IpAddr>, u16), Wrong> {
    let wrong = || word.wrong("an address like :9153 or 127.0.0.1:9153 is wanted");
    let (host, port) = word.text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().ok().filter(|p| *p != 0).ok_or_else(wrong)?;
    match host {
        "" => Ok((None, port)),
        "localhost" => Ok((Some(IpAddr::from([127, 0, 0, 1])), port)),
        host => values::address(host, port).map(|a| (Some(a.ip()), port)).ok_or_else(wrong),
    }
}

#[cfg(test)]
mod tests;
