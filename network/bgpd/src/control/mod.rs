//! What people ask the daemon, and what it answers: lines of JSON over a socket that only its owner can open.
//!
//! ```text
//!  {"command": "neighbors"}                      ──►
//!                                                ◄──  {"item": {…}}      one for each
//!                                                ◄──  {"end": true}      or {"error": "…"}
//! ```
//!
//! - [`view`]: answers as data; `who`: neighbours by their names; `server`: the socket; [`client`]: the other end of it
//!
//! Called by `ferrokube bgp show`, and by whatever else speaks JSON.

pub mod client;
pub mod server;
pub mod view;
mod who;

use std::net::IpAddr;

use meta::Prefix;
use serde::{Deserialize, Serialize};

use crate::config::settings::FamilyName;
use view::{FilterView, NeighborView, RouteView, Summary};

pub use who::Who;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// How it stands.
    Summary,
    /// Neighbours.
    Neighbors {
        /// This one alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        neighbor: Option<Who>,
    },
    /// Routes.
    Routes(Which),
    /// A route and all of its paths: that of the prefix, or the longest that has an address.
    Route {
        /// Prefix or address.
        prefix: String,
    },
    /// Filters, and who has them.
    Filters,
    /// Reads the configuration again.
    Reload,
}

/// Which routes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Which {
    /// Of this family; both where none is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<FamilyName>,
    /// Inside of this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<Prefix>,
    /// That this neighbour told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Who>,
    /// That this neighbour is told, as he is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Who>,
}

/// A question to the loop: each is answered in one go, so that none holds it up.
#[derive(Clone, Debug)]
pub enum Query {
    /// How it stands.
    Summary,
    /// Neighbours.
    Neighbors(Option<Who>),
    /// All prefixes of a family.
    Prefixes(bgp::family::Family),
    /// Routes of some of them: a page.
    Page(Vec<Prefix>, Which),
    /// The longest prefix that has an address.
    Longest(IpAddr),
    /// Filters.
    Filters,
    /// Sets the figures that are made when they are read.
    Measure,
}

/// An answer.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the names are those of the queries")]
pub enum Answer {
    Summary(Box<Summary>),
    Neighbors(Vec<NeighborView>),
    Prefixes(Vec<Prefix>),
    Routes(Vec<RouteView>),
    Filters(Vec<FilterView>),
    Done,
    /// It can't be answered, and why.
    Nothing(String),
}

/// A line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// One thing.
    Item(serde_json::Value),
    /// There is no more.
    End(bool),
    /// It could not be answered.
    Error(String),
}
