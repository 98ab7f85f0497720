//! Filters: what is taken from a neighbour and told to him, and what is changed on the way. A filter is a list of rules;
//! the first that says accept or reject ends it, one that says neither changes the route and goes on. Pure.
//!
//! ```yaml
//! name: to-the-rack
//! rules:
//!   - match: {prefixes: [{prefix: 10.0.0.0/8, lengths: {min: 24, max: 32}}], source: [static]}
//!     set: {local-preference: 200, communities: {add: ["64512:1"]}, prepend: {as: 64512, times: 2}}
//!     action: accept
//!   - match: {communities: [no-export]}
//!     action: reject
//! default: reject
//! ```
//!
//! - [`pattern`]: what a rule looks at; [`change`]: what it sets
//!
//! It is read strictly: a field that nobody knows, and a value that means nothing, is an error that names it. Called by
//! `rib` on import and export.

pub mod change;
pub mod pattern;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use meta::Prefix;
use serde::Deserialize;

pub use change::Change;
pub use pattern::Pattern;

use crate::attribute::Attributes;

/// Rules in one filter: far more than a person writes; what Calico makes is two a peer and prefix.
pub const MAX_RULES: usize = 10_000;

/// Where a route is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The configuration.
    Static,
    /// An interface's own addresses.
    Direct,
    /// The kernel, where somebody else put it.
    Kernel,
    /// A neighbour of this AS.
    Internal,
    /// A neighbour of another AS.
    External,
}

impl Source {
    /// Whether a neighbour told it.
    pub fn is_bgp(self) -> bool {
        matches!(self, Source::Internal | Source::External)
    }
}

/// Whether a neighbour is of this AS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerType {
    /// He is.
    Internal,
    /// He is of another.
    External,
}

/// The last word of a rule or filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The route is taken or told.
    Accept,
    /// It is not.
    Reject,
}

/// What a rule says when it matches.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Rule {
    /// What it must be; all of it. Without it every route is meant.
    #[serde(default, rename = "match")]
    pub pattern: Pattern,
    /// What is changed.
    #[serde(default, rename = "set")]
    pub change: Change,
    /// Without it the next rule is asked.
    #[serde(default)]
    pub action: Option<Verdict>,
}

/// A filter.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Filter {
    /// As neighbours name it.
    pub name: String,
    /// In their order.
    #[serde(default, deserialize_with = "rules")]
    pub rules: Vec<Rule>,
    /// Where no rule had the last word.
    #[serde(default = "reject")]
    pub default: Verdict,
}

fn reject() -> Verdict {
    Verdict::Reject
}

fn rules<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<Rule>, D::Error> {
    let rules = Vec::<Rule>::deserialize(from)?;
    if rules.len() > MAX_RULES {
        return Err(serde::de::Error::custom(format!("{} rules are more than {MAX_RULES}", rules.len())));
    }
    Ok(rules)
}

/// What is known of a route beside its attributes.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    /// Where it leads.
    pub prefix: Prefix,
    /// Where it is from.
    pub source: Source,
    /// The neighbour who told it, or to whom it is told.
    pub peer: Option<IpAddr>,
    /// What that neighbour is.
    pub peer_type: Option<PeerType>,
    /// By which interface it goes, where that is known.
    pub interface: Option<&'a str>,
    /// This speaker's own address towards the neighbour: what `next-hop: self` is.
    pub own_address: Option<IpAddr>,
}

impl Filter {
    /// One that takes everything as it is.
    pub fn accept_all() -> Filter {
        Filter { name: "accept".to_owned(), rules: Vec::new(), default: Verdict::Accept }
    }

    /// Judges a route and changes its attributes; `own` is the AS that `prepend` without one means.
    pub fn judge(&self, route: &Route<'_>, own: u32, set: &mut Attributes) -> Verdict {
        for rule in &self.rules {
            if !rule.pattern.fits(route, set) {
                continue;
            }
            rule.change.apply(route, own, set);
            if let Some(verdict) = rule.action {
                return verdict;
            }
        }
        self.default
    }

    /// Whether it asks for no more than a route's attributes and neighbour: then it answers for all prefixes that share
    /// them.
    pub fn is_of_attributes(&self) -> bool {
        self.rules.iter().all(|rule| rule.pattern.is_of_attributes())
    }

    /// Whether it takes everything as it is.
    pub fn is_transparent(&self) -> bool {
        self.rules.is_empty() && self.default == Verdict::Accept
    }
}
