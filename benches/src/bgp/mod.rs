//! BGP beside BIRD and GoBGP: a table of a million routes, four of the same, a reflector with many clients, how long
//! until all know that the best way is gone, and routes into the kernel. Each speaker has a host of its own; its
//! neighbours are sessions of this process, all on one thread, on another host at the other end of one link.

mod peer;
mod speaker;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use linux::netns::NetNs;
use tokio::time::sleep;

use crate::Plan;
use crate::table::{Figure, Row, figure};
use crate::upstream::cell;
use peer::Peer;
use speaker::{Neighbour, Program, Speaker};

/// Longer is told as that.
const PATIENCE: Duration = Duration::from_secs(120);
/// How closely times are told.
const STEP: Duration = Duration::from_millis(1);
/// How often a speaker is asked for its table, which costs it something.
const ASK: Duration = Duration::from_millis(100);
/// Routes that share their attributes.
const SHARED: usize = 1_000;

/// What one run gives: its rows' figures, in order.
type Measured = Vec<Figure>;
/// What is measured of a speaker.
type Measure = fn(&Plan, &mut Bench) -> Result<Measured>;

/// Of a measurement: its rows (what, goal, whether more is better), and how they are taken.
struct Kind {
    rows: &'static [(&'static str, &'static str, bool)],
    measure: Measure,
}

const KINDS: &[Kind] = &[
    Kind {
        rows: &[
            ("1,000,000 routes over one session, 1,000 of a set of attributes, first to last", "2×", false),
            ("CPU for them", "2×", false),
            ("RSS with them", "1×", false),
        ],
        measure: |plan, bench| one(plan, bench, SHARED),
    },
    Kind {
        rows: &[
            ("the same, 5 of a set, as the Internet has it", "2×", false),
            ("CPU for them", "2×", false),
            ("RSS with them", "1×", false),
        ],
        measure: |plan, bench| one(plan, bench, 5),
    },
    Kind {
        rows: &[
            ("the same, each with attributes of its own", "2×", false),
            ("CPU for them", "2×", false),
            ("RSS with them", "1×", false),
        ],
        measure: |plan, bench| one(plan, bench, 1),
    },
    Kind {
        rows: &[
            ("4 neighbours × 500,000 routes, the same", "", false),
            ("CPU for them", "", false),
            ("RSS with them", "", false),
        ],
        measure: four,
    },
    Kind {
        rows: &[
            ("reflector, 100 clients × 10,000 routes: until each has all", "", false),
            ("CPU for that", "", false),
            ("RSS with them", "", false),
        ],
        measure: |plan, bench| reflector(bench, plan.or_quick(100, 5), plan.or_quick(10_000, 100)),
    },
    Kind {
        rows: &[
            ("reflector, 1,000 clients × 10 routes: until each has all", "", false),
            ("CPU for that", "", false),
            ("RSS with them", "", false),
            ("CPU a client", "", false),
            ("memory a client", "", false),
        ],
        measure: clients,
    },
    Kind {
        rows: &[("10,000 best ways gone as a connection is closed: until the only other neighbour knows", "", false)],
        measure: |p, b| gone(p, b, 1),
    },
    Kind { rows: &[("the same, until all of 10 know", "", false)], measure: |p, b| gone(p, b, 10) },
    Kind { rows: &[("the same, until all of 100 know", "", false)], measure: |p, b| gone(p, b, 100) },
    Kind { rows: &[("200,000 routes of a neighbour into the kernel", "", true)], measure: kernel },
];

pub fn run(plan: &Plan) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for kind in KINDS {
        let take = |program| Bench::run(program, |bench| (kind.measure)(plan, bench));
        let ours = take(Program::Ours)?;
        for program in [Program::Bird, Program::Gobgp] {
            let theirs = cell(take(program));
            for (n, (what, goal, more)) in kind.rows.iter().enumerate() {
                let goal = if program == Program::Bird { goal } else { "" };
                let what = format!("{what}, beside {}", program.name());
                let theirs = theirs.as_ref().map(|all| all[n]).map_err(Clone::clone);
                let ours = *ours.get(n).context("a figure for each row")?;
                rows.push(if *more {
                    Row::rate(what, goal, ours, theirs)
                } else {
                    Row::cost(what, goal, ours, theirs)
                });
            }
        }
    }
    Ok(rows)
}

/// A speaker's run.
struct Bench {
    program: Program,
    dir: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    /// On a thread, which is in the neighbours' network from when there is one.
    fn run(program: Program, measure: impl FnOnce(&mut Bench) -> Result<Measured> + Send) -> Result<Measured> {
        let dir = std::env::temp_dir().join(format!("bench-bgp-{}-{}", std::process::id(), program.name()));
        let work = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            measure(&mut Bench { program, dir: dir.clone(), runtime })
        };
        let measured = std::thread::scope(|scope| scope.spawn(work).join());
        let _ = std::fs::remove_dir_all(&dir);
        measured.unwrap_or_else(|panic| std::panic::resume_unwind(panic)).with_context(|| program.name())
    }

    /// The speaker, and this thread where its neighbours are; their host goes with what is given back.
    fn start(&self, neighbours: &[Neighbour], kernel: bool) -> Result<(Speaker, testkit::Host)> {
        let (host, others) = speaker::hosts(neighbours.len())?;
        NetNs::open(format!("/proc/{}/ns/net", others.pid()))?.enter()?;
        Ok((Speaker::start(self.program, host, &self.dir, neighbours, kernel)?, others))
    }

    fn connect(&self, neighbours: &[Neighbour], only: Option<u32>) -> Result<Vec<Peer>> {
        self.runtime.block_on(async {
            let mut peers = Vec::new();
            for neighbour in neighbours {
                peers.push(Peer::connect(*neighbour, only).await?);
            }
            Ok(peers)
        })
    }
}

/// What a speaker needed since.
struct Began {
    at: Instant,
    cpu: f64,
}

impl Began {
    fn now(speaker: &Speaker) -> Result<Began> {
        Ok(Began { at: Instant::now(), cpu: speaker.cpu()? })
    }

    /// Time, CPU and memory.
    fn took(&self, speaker: &Speaker) -> Result<Measured> {
        let time = self.at.elapsed().as_secs_f64();
        Ok(vec![figure(time, "s"), figure(speaker.cpu()? - self.cpu, "s"), figure(speaker.rss()?, "MB")])
    }
}

/// All at once: each makes way for the others where its socket is full.
async fn send(peers: &mut [Peer], tables: &[Vec<u8>]) -> Result<()> {
    try_join_all(peers.iter_mut().zip(tables).map(|(peer, table)| peer.send(table))).await?;
    Ok(())
}

/// Sends, and asks the speaker until it has all.
fn told(bench: &Bench, speaker: &Speaker, peers: &mut [Peer], tables: &[Vec<u8>], all: usize) -> Result<Measured> {
    let began = Began::now(speaker)?;
    bench.runtime.block_on(async {
        send(peers, tables).await?;
        loop {
            let has = speaker.received()?;
            if has >= all {
                return began.took(speaker);
            }
            peers.iter().try_for_each(|peer| peer.routes().map(drop))?;
            ensure!(began.at.elapsed() < PATIENCE, "has {has} routes of {all} after {PATIENCE:?}");
            sleep(ASK).await;
        }
    })
}

fn one(plan: &Plan, bench: &mut Bench, each: usize) -> Result<Measured> {
    let neighbours = [Neighbour::new(0, Some(65001))];
    let (speaker, _others) = bench.start(&neighbours, false)?;
    let mut peers = bench.connect(&neighbours, None)?;
    let number = plan.or_quick(1_000_000, 10_000);
    let table = peers[0].told(0..number, each, &[7]);
    told(bench, &speaker, &mut peers, &[table], number as usize)
}

fn four(plan: &Plan, bench: &mut Bench) -> Result<Measured> {
    let neighbours: Vec<Neighbour> = (0..4).map(|n| Neighbour::new(n, Some(65001 + u32::from(n)))).collect();
    let (speaker, _others) = bench.start(&neighbours, false)?;
    let mut peers = bench.connect(&neighbours, None)?;
    let number = plan.or_quick(500_000, 5_000);
    let tables: Vec<Vec<u8>> = peers.iter().map(|peer| peer.told(0..number, SHARED, &[7])).collect();
    told(bench, &speaker, &mut peers, &tables, 4 * number as usize)
}

/// Each client tells its part; until each has those of all others.
fn reflector(bench: &mut Bench, clients: u16, each: u32) -> Result<Measured> {
    let neighbours: Vec<Neighbour> = (0..clients).map(|n| Neighbour::new(n, None)).collect();
    let (speaker, _others) = bench.start(&neighbours, false)?;
    let mut peers = bench.connect(&neighbours, None)?;
    let part = |n: usize| n as u32 * each..(n as u32 + 1) * each;
    let tables: Vec<Vec<u8>> =
        peers.iter().enumerate().map(|(n, peer)| peer.told(part(n), SHARED, &[100 + n as u32])).collect();
    let others = (usize::from(clients) - 1) * each as usize;
    let began = Began::now(&speaker)?;
    bench.runtime.block_on(async {
        send(&mut peers, &tables).await?;
        until_heard(&peers, others, &speaker).await?;
        began.took(&speaker)
    })
}

async fn until_heard(peers: &[Peer], routes: usize, speaker: &Speaker) -> Result<()> {
    let began = Instant::now();
    loop {
        let mut least = usize::MAX;
        for peer in peers {
            least = least.min(peer.routes()?);
        }
        if least >= routes {
            return Ok(());
        }
        speaker.lives()?;
        ensure!(began.elapsed() < PATIENCE, "one has {least} routes of {routes} after {PATIENCE:?}");
        sleep(STEP).await;
    }
}

fn clients(plan: &Plan, bench: &mut Bench) -> Result<Measured> {
    let clients = plan.or_quick(1_000, 10);
    let mut measured = reflector(bench, clients, 10)?;
    let (cpu, rss) = (measured[1].value, measured[2].value);
    let number = f64::from(clients);
    measured.extend([figure(cpu * 1e3 / number, "ms"), figure(rss * 1e3 / number, "kB")]);
    Ok(measured)
}

/// Two tell the same routes, the first one better; when its connection is closed, with no word of BGP, all others are told the
/// second one's. A link that is lost in silence is seen later, by BFD or the hold timer: what these cost is their setting.
fn gone(plan: &Plan, bench: &mut Bench, others: u16) -> Result<Measured> {
    const SECOND: u32 = 65002;
    let neighbours: Vec<Neighbour> = (0..others + 2).map(|n| Neighbour::new(n, Some(65001 + u32::from(n)))).collect();
    let (speaker, _others) = bench.start(&neighbours, false)?;
    let mut two = bench.connect(&neighbours[..2], None)?;
    let listening = bench.connect(&neighbours[2..], Some(SECOND))?;
    let routes = plan.or_quick(10_000u32, 100);
    let tables = [two[0].told(0..routes, SHARED, &[7]), two[1].told(0..routes, SHARED, &[8, 7])];
    bench.runtime.block_on(async {
        send(&mut two, &tables).await?;
        let all = 2 * routes as usize;
        while speaker.received()? < all {
            two.iter().try_for_each(|peer| peer.routes().map(drop))?;
            sleep(ASK).await;
        }
        // Until nothing is on its way.
        sleep(Duration::from_secs(2)).await;
        let began = Instant::now();
        two.remove(0).cut();
        until_heard(&listening, routes as usize, &speaker).await?;
        Ok(vec![figure(began.elapsed().as_secs_f64() * 1e3, "ms")])
    })
}

fn kernel(plan: &Plan, bench: &mut Bench) -> Result<Measured> {
    let neighbours = [Neighbour::new(0, Some(65001))];
    let (speaker, _others) = bench.start(&neighbours, true)?;
    let mut peers = bench.connect(&neighbours, None)?;
    let number = plan.or_quick(200_000u32, 2_000);
    let tables = [peers[0].told(0..number, SHARED, &[7])];
    let began = Instant::now();
    bench.runtime.block_on(async {
        send(&mut peers, &tables).await?;
        while speaker.in_kernel()? < number as usize {
            ensure!(began.elapsed() < PATIENCE, "not all are there after {PATIENCE:?}");
            sleep(ASK).await;
        }
        Ok(vec![figure(f64::from(number) / began.elapsed().as_secs_f64(), "/s")])
    })
}
