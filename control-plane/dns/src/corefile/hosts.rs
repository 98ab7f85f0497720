//! `hosts`: names and addresses in the file, or in another one. Pure.

use std::path::PathBuf;
use std::time::Duration;

use super::blocks::{Directive, Files};
use super::values::{self, Fall};
use super::words::{Word, Wrong};
use crate::hosts::Entries;
use crate::wire::Name;

/// What upstream's server finds in the file of its container when no other is named. A node's own file is not meant.
const CONTAINER: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";
const DEFAULT_TTL: u32 = 3600;
const DEFAULT_RELOAD: Duration = Duration::from_secs(5);
const MOST_RELOAD: Duration = Duration::from_secs(86_400);

/// The settings of `hosts`.
#[derive(Clone, Debug)]
pub struct Hosts {
    /// Empty: those of the block.
    pub zones: Vec<Name>,
    pub inline: Entries,
    /// What a key of the ConfigMap says, or a container's own file.
    pub given: Entries,
    /// A file of the node in the place of `given`.
    pub file: Option<PathBuf>,
    /// How old what was read of the file may be; zero: it is read once.
    pub reload: Duration,
    pub ttl: u32,
    pub reverse: bool,
    pub fall: Fall,
    /// Types that a hosts file can't have go on, too.
    pub fall_unsupported: bool,
}

pub fn parse(directive: &Directive, files: &Files) -> Result<Hosts, Wrong> {
    let (given, file) = match directive.args.first() {
        None => (Entries::read(CONTAINER), None),
        Some(word) if Files::holds(&word.text) => {
            let text = files.at(&word.text).ok_or_else(|| word.wrong("the ConfigMap has no such key"))?;
            (Entries::read(text), None)
        }
        Some(word) if word.text.starts_with('/') => (Entries::default(), Some(PathBuf::from(&word.text))),
        Some(word) => return Err(word.wrong("a file is named by its whole path, like /etc/coredns/NodeHosts")),
    };
    let mut hosts = Hosts {
        zones: values::zones(directive.args.get(1..).unwrap_or_default())?,
        inline: Entries::default(),
        given,
        file,
        reload: DEFAULT_RELOAD,
        ttl: DEFAULT_TTL,
        reverse: true,
        fall: Fall::default(),
        fall_unsupported: false,
    };
    for line in &directive.body {
        option(&mut hosts, &line[0], &line[1..])?;
    }
    if hosts.fall_unsupported && !hosts.fall.any() {
        return Err(directive.name.wrong("fallthrough_unsupported wants fallthrough beside it"));
    }
    Ok(hosts)
}

fn option(hosts: &mut Hosts, name: &Word, rest: &[Word]) -> Result<(), Wrong> {
    match name.text.as_str() {
        "fallthrough" => hosts.fall = Fall::parse(rest)?,
        "fallthrough_unsupported" => {
            values::none(name, rest)?;
            hosts.fall_unsupported = true;
        }
        "no_reverse" => {
            values::none(name, rest)?;
            hosts.reverse = false;
        }
        "ttl" => hosts.ttl = values::number(values::one(name, rest)?, 1..=65_535)? as u32,
        "reload" => hosts.reload = values::duration(values::one(name, rest)?, MOST_RELOAD)?,
        address => {
            let addr = address.parse().map_err(|_| name.wrong("neither an address nor an option of hosts"))?;
            if rest.is_empty() {
                return Err(name.wrong("names are wanted after the address"));
            }
            for word in rest {
                let name = values::name(word, &word.text)?;
                hosts.inline.add(addr, name).map_err(|full| word.wrong(full))?;
            }
        }
    }
    Ok(())
}
