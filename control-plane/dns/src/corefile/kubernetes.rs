//! `kubernetes`: which names of the cluster there are. Pure.

use std::collections::BTreeSet;

use super::Facts;
use super::blocks::Directive;
use super::values::{self, Fall};
use super::words::{Word, Wrong};
use crate::wire::Name;

/// Upstream's default and bound of seconds.
const DEFAULT_TTL: u32 = 5;
const MOST_TTL: u64 = 3600;

/// What becomes of names like `10-42-0-5.default.pod.cluster.local`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pods {
    /// They are not there.
    #[default]
    Disabled,
    /// They are what they say, when the namespace is there.
    Insecure,
    /// They are there when a pod of the namespace has the address.
    Verified,
}

/// How names of the cluster are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    pub ttl: u32,
    pub pods: Pods,
    /// Endpoints without a host name are named for their pods.
    pub endpoint_pod_names: bool,
    /// The namespaces that have names; none: all.
    pub namespaces: Option<BTreeSet<String>>,
    /// Services without a ready endpoint are not there.
    pub ignore_empty: bool,
}

impl Records {
    /// What cluster DNS does without a configuration.
    pub fn plain(ttl: u32) -> Self {
        Records { ttl, pods: Pods::Insecure, endpoint_pod_names: false, namespaces: None, ignore_empty: false }
    }
}

/// Where they are asked for.
#[derive(Clone, Debug, Default)]
pub struct Kubernetes {
    /// The cluster's own zone, and zones of addresses.
    pub zones: Vec<Name>,
    pub fall: Fall,
}

pub fn parse(directive: &Directive, of_block: &[Name], facts: &Facts) -> Result<(Kubernetes, Records), Wrong> {
    let zones = match directive.args.is_empty() {
        true => of_block.to_vec(),
        false => values::zones(&directive.args)?,
    };
    let reverse = |zone: &Name| {
        let text = zone.to_string();
        text.ends_with("in-addr.arpa.") || text.ends_with("ip6.arpa.")
    };
    if let Some(other) = zones.iter().find(|zone| **zone != facts.domain && !reverse(zone)) {
        let at = directive.args.first().unwrap_or(&directive.name);
        return Err(at.wrong(format!(
            "the cluster's names are under {}, not under {other}: `rewrite name suffix` gives them another zone",
            facts.domain
        )));
    }
    let mut kubernetes = Kubernetes { zones, fall: Fall::default() };
    let mut records = Records { pods: Pods::default(), ..Records::plain(DEFAULT_TTL) };
    for line in &directive.body {
        option(&mut kubernetes, &mut records, &line[0], &line[1..])?;
    }
    Ok((kubernetes, records))
}

fn option(kubernetes: &mut Kubernetes, records: &mut Records, name: &Word, rest: &[Word]) -> Result<(), Wrong> {
    match name.text.as_str() {
        "pods" => {
            let mode = values::one(name, rest)?;
            records.pods = match mode.text.as_str() {
                "disabled" => Pods::Disabled,
                "insecure" => Pods::Insecure,
                "verified" => Pods::Verified,
                _ => return Err(mode.wrong("pods is disabled, insecure or verified")),
            };
        }
        "endpoint_pod_names" => {
            values::none(name, rest)?;
            records.endpoint_pod_names = true;
        }
        "ttl" => records.ttl = values::number(values::one(name, rest)?, 0..=MOST_TTL)? as u32,
        "fallthrough" => kubernetes.fall = Fall::parse(rest)?,
        "namespaces" if rest.is_empty() => return Err(name.wrong("namespaces are wanted after it")),
        "namespaces" => {
            let all = records.namespaces.get_or_insert_default();
            all.extend(rest.iter().map(|word| word.text.clone()));
        }
        "ignore" => {
            let what = values::one(name, rest)?;
            if what.text != "empty_service" {
                return Err(what.wrong("what can be ignored is empty_service"));
            }
            records.ignore_empty = true;
        }
        "endpoint" | "tls" | "kubeconfig" => {
            return Err(name.wrong("this server has its own way to the API server: leave this out"));
        }
        _ => {
            let known = "pods, endpoint_pod_names, ttl, fallthrough, namespaces, ignore";
            return Err(name.wrong(format!("no option of kubernetes here; there are {known}")));
        }
    }
    Ok(())
}
