//! `bgp show`: a question to the daemon, its answer as a table, as JSON, or again every second. I/O: the control socket, the
//! terminal, the clock.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use bgpd::config::CONTROL_SOCKET;
use bgpd::config::settings::FamilyName;
use bgpd::control::view::{Families, FilterView, NeighborView, RouteView, Summary};
use bgpd::control::{Command, Which, Who, client};
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use meta::Prefix;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::table;
use crate::cli::Output;
use crate::commands::misc::print;
use crate::fault::Fault;

/// Between two looks of `--watch`.
const EVERY: Duration = Duration::from_secs(1);
/// A look that takes long is taken less often: so many times what it takes.
const SHARE: u32 = 10;
/// Rows of a table that are printed at once: columns are as wide as these need.
const ROWS: usize = 1000;

/// What the table does not say of itself.
const NEIGHBORS_HELP: &str = "SINCE: since when there is a session, or none. RECEIVED: prefixes that he has told, those \
that the import filter refuses, too; `neighbors ADDRESS` says how many were accepted, and how many he is told.";

/// `ferrokube bgp show`
#[derive(Debug, Args)]
pub struct Show {
    #[command(subcommand)]
    what: What,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Output::Table, global = true)]
    output: Output,
    /// Look again every second; as JSON each look is a line, {"time": …, "items": […]}
    #[arg(short, long, global = true)]
    watch: bool,
    /// The daemon's control-socket
    #[arg(long, default_value = CONTROL_SOCKET, value_name = "FILE", global = true)]
    socket: PathBuf,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The daemon itself: AS, addresses, how many neighbours and prefixes, what the kernel has
    Summary,
    /// Neighbours; one alone with all that is known of him, and what he is told
    #[command(after_help = NEIGHBORS_HELP)]
    Neighbors {
        /// This one alone, by his address, or by his link where he has none (eth1)
        #[arg(value_name = "ADDRESS")]
        neighbor: Option<Who>,
    },
    /// Routes, the best path of each
    #[command(after_help = table::MARKS_HELP)]
    Routes {
        /// Of one family
        #[arg(long, value_enum)]
        family: Option<Family>,
        /// Inside of a prefix
        #[arg(long, value_name = "PREFIX")]
        within: Option<Prefix>,
        /// That a neighbour told
        #[arg(long, value_name = "ADDRESS", conflicts_with = "to")]
        from: Option<Who>,
        /// That a neighbour is told, as he is told them
        #[arg(long, value_name = "ADDRESS")]
        to: Option<Who>,
        /// All paths
        #[arg(long)]
        all: bool,
    },
    /// All paths to a prefix, or by which an address is reached, with the reason for the place of each
    #[command(after_help = table::MARKS_HELP)]
    Route {
        /// A prefix such as 10.0.0.0/8, or an address
        #[arg(value_name = "PREFIX")]
        prefix: String,
    },
    /// Filters, and who has them
    Filters,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Family {
    Ipv4,
    Ipv6,
}

impl What {
    fn command(&self) -> Command {
        match self {
            What::Summary => Command::Summary,
            What::Neighbors { neighbor } => Command::Neighbors { neighbor: neighbor.clone() },
            What::Routes { family, within, from, to, .. } => Command::Routes(Which {
                family: family.map(|family| match family {
                    Family::Ipv4 => FamilyName::Ipv4,
                    Family::Ipv6 => FamilyName::Ipv6,
                }),
                within: *within,
                from: from.clone(),
                to: to.clone(),
            }),
            What::Route { prefix } => Command::Route { prefix: prefix.clone() },
            What::Filters => Command::Filters,
        }
    }
}

pub fn run(show: &Show) -> Result<()> {
    if !show.watch {
        return look(show);
    }
    loop {
        let now = meta::time::format(Timestamp::now());
        if show.output == Output::Table {
            // Home, and all below it gone.
            let clear = if std::io::stdout().is_terminal() { "\x1b[H\x1b[J" } else { "" };
            print(&format!("{clear}{now}\n"))?;
        }
        let began = Instant::now();
        match show.output {
            Output::Json => items(show, &format!("{{\"time\":\"{now}\",\"items\":["), ",", "]}\n")?,
            Output::Table => tables(show)?,
        }
        std::thread::sleep(EVERY.max(began.elapsed() * SHARE));
    }
}

fn look(show: &Show) -> Result<()> {
    match show.output {
        Output::Json => json(show),
        Output::Table => tables(show),
    }
}

/// Asks what was meant.
fn ask<T: DeserializeOwned>(show: &Show, each: impl FnMut(T) -> Result<()>) -> Result<()> {
    put(show, &show.what.command(), each)
}

/// Asks; an item that is not what this program knows is of a daemon of another version.
fn put<T: DeserializeOwned>(show: &Show, command: &Command, mut each: impl FnMut(T) -> Result<()>) -> Result<()> {
    let mut failed = None;
    let asked = client::ask(&show.socket, command, |item| {
        let item =
            serde_json::from_value(item).map_err(|error| format!("the daemon is of another version: {error}"))?;
        each(item).map_err(|error| {
            let told = error.to_string();
            failed = Some(error);
            told
        })
    });
    match (asked, failed) {
        (_, Some(error)) => Err(error),
        (asked, None) => asked.map_err(|why| Fault::failed(why).into()),
    }
}

fn json(show: &Show) -> Result<()> {
    if matches!(show.what, What::Summary) {
        return ask(show, |item: Value| print(&format!("{item:#}\n")));
    }
    items(show, "[\n", ",\n", "\n]\n")
}

/// An item at a time: a table of a million routes is never here as a whole.
fn items(show: &Show, begin: &str, between: &str, end: &str) -> Result<()> {
    let is_one = matches!(&show.what, What::Neighbors { neighbor: Some(_) });
    let mut before = begin;
    ask(show, |mut item: Value| {
        let address = item["address"].as_str().filter(|_| is_one).and_then(|address| address.parse().ok());
        let one = address.map(|address| Who::on(address, item["interface"].as_str().map(str::to_owned)));
        if let (Some(one), Some(fields)) = (one, item.as_object_mut()) {
            let Exchanged { accepted, told } = exchanged(show, one)?;
            fields.extend([("accepted".to_owned(), json!(accepted)), ("told".to_owned(), json!(told))]);
        }
        print(&format!("{before}{item}"))?;
        before = between;
        Ok(())
    })?;
    // A list without items is on one line.
    let nothing = || if begin == "[\n" { "[]\n".to_owned() } else { format!("{begin}{end}") };
    print(&if before == begin { nothing() } else { end.to_owned() })
}

/// What one neighbour has told that is used or could be, and what he is told.
#[derive(Clone, Copy, Debug, Default)]
struct Exchanged {
    accepted: Families<u32>,
    told: Families<u32>,
}

/// Counted here, a page of routes at a time: the daemon keeps no such numbers, and need not stop to make them.
fn exchanged(show: &Show, neighbor: Who) -> Result<Exchanged> {
    let mut counts = Exchanged::default();
    let count = |which: Which, counts: &mut Families<u32>| {
        put(show, &Command::Routes(which), |route: RouteView| {
            let paths = route.paths.iter().filter(|path| !path.refused).count();
            let of = if route.prefix.is_ipv6() { &mut counts.ipv6 } else { &mut counts.ipv4 };
            *of = of.saturating_add(u32::try_from(paths).unwrap_or(u32::MAX));
            Ok(())
        })
    };
    count(Which { from: Some(neighbor.clone()), ..Which::default() }, &mut counts.accepted)?;
    count(Which { to: Some(neighbor), ..Which::default() }, &mut counts.told)?;
    Ok(counts)
}

fn tables(show: &Show) -> Result<()> {
    match &show.what {
        What::Summary => ask(show, |summary: Summary| print(&table::summary(&summary))),
        What::Neighbors { neighbor: Some(_) } => ask(show, |neighbor: NeighborView| {
            // By one address several may have been meant, each on a link of his own.
            let one = Who::on(neighbor.address, neighbor.interface.clone());
            let Exchanged { accepted, told } = exchanged(show, one)?;
            print(&table::neighbor(&neighbor, accepted, told))
        }),
        What::Neighbors { neighbor: None } => {
            rows(show, table::NEIGHBORS, "no neighbors", |neighbor| vec![table::neighbor_row(neighbor)])
        }
        What::Routes { all, from, to, .. } => {
            let all = *all || from.is_some() || to.is_some();
            let mut marks = BTreeSet::new();
            rows(show, table::ROUTES, "no routes", |route| {
                table::note_marks(route, all, &mut marks);
                table::route_rows(route, all)
            })?;
            print(&table::legend(&marks))
        }
        What::Route { .. } => {
            let mut marks = BTreeSet::new();
            ask(show, |route: RouteView| {
                table::note_marks(&route, true, &mut marks);
                print(&table::route(&route))
            })?;
            print(&table::legend(&marks))
        }
        What::Filters => {
            let mut any = false;
            ask(show, |filter: FilterView| {
                any = true;
                print(&table::filter(&filter))
            })?;
            if any { Ok(()) } else { print("no filters\n") }
        }
    }
}

fn rows<T: DeserializeOwned, const N: usize>(
    show: &Show,
    head: [&str; N],
    none: &str,
    mut of: impl FnMut(&T) -> Vec<[String; N]>,
) -> Result<()> {
    let (mut table, mut any) = (table::Table::new(head), false);
    ask(show, |item: T| {
        of(&item).into_iter().for_each(|row| {
            any = true;
            table.add(row);
        });
        if table.len() >= ROWS { print(&table.take()) } else { Ok(()) }
    })?;
    if any { print(&table.take()) } else { print(&format!("{none}\n")) }
}
