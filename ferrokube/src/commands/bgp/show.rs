//! `bgp show`: a question to the daemon, its answer as a table, as JSON, or again every second. I/O: the control socket, the
//! terminal.

use std::io::IsTerminal;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use bgpd::config::CONTROL_SOCKET;
use bgpd::config::settings::FamilyName;
use bgpd::control::view::{FilterView, NeighborView, RouteView, Summary};
use bgpd::control::{Command, Which, client};
use clap::{Args, Subcommand, ValueEnum};
use meta::Prefix;
use serde::de::DeserializeOwned;
use serde_json::Value;

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

/// `ferrokube bgp show`
#[derive(Debug, Args)]
pub struct Show {
    #[command(subcommand)]
    what: What,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Output::Table, global = true)]
    output: Output,
    /// Look again every second
    #[arg(short, long, global = true)]
    watch: bool,
    /// The daemon's control-socket
    #[arg(long, default_value = CONTROL_SOCKET, value_name = "FILE", global = true)]
    socket: PathBuf,
}

#[derive(Debug, Subcommand)]
enum What {
    /// How it stands
    Summary,
    /// Neighbours; one alone with all that is known of him
    Neighbors {
        #[arg(value_name = "ADDRESS")]
        neighbor: Option<IpAddr>,
    },
    /// Routes, the best path of each
    Routes {
        /// Of one family
        #[arg(long, value_enum)]
        family: Option<Family>,
        /// Inside of a prefix
        #[arg(long, value_name = "PREFIX")]
        within: Option<Prefix>,
        /// That a neighbour told
        #[arg(long, value_name = "ADDRESS", conflicts_with = "to")]
        from: Option<IpAddr>,
        /// That a neighbour is told, as he is told them
        #[arg(long, value_name = "ADDRESS")]
        to: Option<IpAddr>,
        /// All paths
        #[arg(long)]
        all: bool,
    },
    /// All paths to a prefix, or by which an address is reached, with the reason for the place of each
    Route {
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
            What::Neighbors { neighbor } => Command::Neighbors { neighbor: *neighbor },
            What::Routes { family, within, from, to, .. } => Command::Routes(Which {
                family: family.map(|family| match family {
                    Family::Ipv4 => FamilyName::Ipv4,
                    Family::Ipv6 => FamilyName::Ipv6,
                }),
                within: *within,
                from: *from,
                to: *to,
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
        if show.output == Output::Table && std::io::stdout().is_terminal() {
            // Home, and all below it gone.
            print("\x1b[H\x1b[J")?;
        }
        let began = Instant::now();
        look(show)?;
        std::thread::sleep(EVERY.max(began.elapsed() * SHARE));
    }
}

fn look(show: &Show) -> Result<()> {
    match show.output {
        Output::Json => json(show),
        Output::Table => tables(show),
    }
}

/// Asks; an item that is not what this program knows is of a daemon of another version.
fn ask<T: DeserializeOwned>(show: &Show, mut each: impl FnMut(T) -> Result<()>) -> Result<()> {
    let mut failed = None;
    let asked = client::ask(&show.socket, &show.what.command(), |item| {
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
    // An item at a time: a table of a million routes is never here as a whole.
    let mut before = "[\n";
    ask(show, |item: Value| {
        print(&format!("{before}{item}"))?;
        before = ",\n";
        Ok(())
    })?;
    print(if before == "[\n" { "[]\n" } else { "\n]\n" })
}

fn tables(show: &Show) -> Result<()> {
    match &show.what {
        What::Summary => ask(show, |summary: Summary| print(&table::summary(&summary))),
        What::Neighbors { neighbor: Some(_) } => ask(show, |neighbor: NeighborView| print(&table::neighbor(&neighbor))),
        What::Neighbors { neighbor: None } => {
            rows(show, table::NEIGHBORS, |neighbor| vec![table::neighbor_row(neighbor)])
        }
        What::Routes { all, from, to, .. } => {
            let all = *all || from.is_some() || to.is_some();
            rows(show, table::ROUTES, |route| table::route_rows(route, all))
        }
        What::Route { .. } => ask(show, |route: RouteView| print(&table::route(&route))),
        What::Filters => ask(show, |filter: FilterView| print(&table::filter(&filter))),
    }
}

fn rows<T: DeserializeOwned, const N: usize>(
    show: &Show,
    head: [&str; N],
    of: impl Fn(&T) -> Vec<[String; N]>,
) -> Result<()> {
    let mut table = table::Table::new(head);
    ask(show, |item: T| {
        of(&item).into_iter().for_each(|row| table.add(row));
        if table.len() >= ROWS { print(&table.take()) } else { Ok(()) }
    })?;
    print(&table.take())
}
