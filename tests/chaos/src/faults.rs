//! The harm that is done in a round, while the load runs or after it. I/O: signals, files.

use std::fs;
use std::os::unix::fs::FileExt;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::chance::Chance;
use crate::cluster::Cluster;

/// A kind of harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The daemon is killed: its supervisor starts it again.
    Kill,
    /// The daemon and its supervisor are killed.
    KillBoth,
    /// The daemon is stopped for a while.
    Stop,
    /// The daemon is stopped, and killed while it is.
    StopAndKill,
    /// The monitor of a container is killed.
    Monitor,
    /// The monitor of a container is stopped for a while.
    StopMonitor,
    /// The disk is full for a while.
    FullDisk,
    /// The daemon is killed while the disk is full.
    FullDiskAndKill,
    /// The wall clock jumps ahead or back.
    Clock,
    /// The daemon is killed after the clock jumped.
    ClockAndKill,
    /// The power went: the daemon is killed, and of what it wrote last only a part is on the disk.
    TornTail,
    /// The daemon is killed, and behind its log is what was never written by it.
    Garbage,
}

/// Every kind once; the more likely ones more often.
const FAULTS: [Fault; 16] = [
    Fault::Kill,
    Fault::KillBoth,
    Fault::KillBoth,
    Fault::KillBoth,
    Fault::Stop,
    Fault::StopAndKill,
    Fault::Monitor,
    Fault::StopMonitor,
    Fault::FullDisk,
    Fault::FullDiskAndKill,
    Fault::Clock,
    Fault::ClockAndKill,
    Fault::TornTail,
    Fault::TornTail,
    Fault::TornTail,
    Fault::Garbage,
];

/// The clock goes no farther from the machine's: certificates and tokens of the cluster last longer.
const MOST_SECONDS: u64 = 1_200;
/// Sectors are written wholly or not at all.
const SECTOR: u64 = 512;

impl Fault {
    /// The first rounds have each kind once, so that a few rounds are a short form of all.
    pub fn of(round: u64, chance: &mut Chance) -> Fault {
        const KINDS: [Fault; 12] = [
            Fault::Kill,
            Fault::KillBoth,
            Fault::TornTail,
            Fault::Monitor,
            Fault::Stop,
            Fault::FullDiskAndKill,
            Fault::ClockAndKill,
            Fault::Garbage,
            Fault::StopAndKill,
            Fault::StopMonitor,
            Fault::FullDisk,
            Fault::Clock,
        ];
        let first = usize::try_from(round).ok().and_then(|at| KINDS.get(at));
        first.copied().unwrap_or(FAULTS[chance.between(0, FAULTS.len() as u64) as usize])
    }

    /// Whether the daemon has to be started again.
    pub fn kills(self) -> bool {
        use Fault::{ClockAndKill, FullDiskAndKill, Garbage, Kill, KillBoth, StopAndKill, TornTail};
        matches!(self, Kill | KillBoth | StopAndKill | FullDiskAndKill | ClockAndKill | TornTail | Garbage)
    }

    /// Does what is done while the load runs; what is done to files comes after it.
    pub fn strike(self, cluster: &Cluster, victim: Option<i32>, chance: &mut Chance) -> Result<()> {
        let daemon = cluster.daemon()?;
        sleep(Duration::from_millis(chance.between(20, 700)));
        let pause = Duration::from_millis(chance.between(200, 2_000));
        match self {
            Fault::Kill | Fault::KillBoth => cluster.kill(daemon, self == Fault::KillBoth)?,
            Fault::Stop | Fault::StopAndKill => {
                cluster.signal(daemon, "STOP")?;
                sleep(pause);
                match self {
                    Fault::Stop => cluster.signal(daemon, "CONT")?,
                    _ => cluster.kill(daemon, true)?,
                }
            }
            Fault::Monitor => cluster.signal(victim.context("a monitor")?, "KILL")?,
            Fault::StopMonitor => {
                cluster.signal(victim.context("a monitor")?, "STOP")?;
                sleep(pause);
                cluster.signal(victim.context("a monitor")?, "CONT")?;
            }
            Fault::FullDisk | Fault::FullDiskAndKill => {
                cluster.fill_disk()?;
                sleep(pause);
                if self == Fault::FullDiskAndKill {
                    cluster.kill(daemon, true)?;
                }
                cluster.free_disk()?;
            }
            Fault::Clock | Fault::ClockAndKill => {
                cluster.clock.set(chance.between(0, MOST_SECONDS).try_into()?)?;
                sleep(pause / 2);
                if self == Fault::ClockAndKill {
                    cluster.kill(daemon, true)?;
                }
            }
            // Only what nobody was told may be missing: these come when the load has ended.
            Fault::TornTail | Fault::Garbage => {}
        }
        Ok(())
    }
}

/// The log as it is: what is written from here on may be torn.
pub struct Mark {
    file: std::path::PathBuf,
    bytes: Vec<u8>,
}

impl Mark {
    pub fn set(cluster: &Cluster) -> Result<Mark> {
        let file = cluster.log()?;
        Ok(Mark { bytes: fs::read(&file)?, file })
    }

    /// With the daemon dead: takes away what was written since from some sector on, as a power cut may. Says what.
    pub fn tear(&self, cluster: &Cluster, chance: &mut Chance) -> Result<String> {
        let now = fs::read(&self.file)?;
        let same = now.iter().zip(&self.bytes).take_while(|(a, b)| a == b).count() as u64;
        let end = now.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1);
        if cluster.log()? != self.file || end <= same {
            return Ok("nothing: a new segment was begun".to_owned());
        }
        // The sector in which it begins held what was acknowledged.
        let (first, last) = (same / SECTOR + 1, end.div_ceil(SECTOR));
        if first >= last {
            return Ok("nothing: it is in one sector".to_owned());
        }
        let from = chance.between(first, last) * SECTOR;
        let zeros = vec![0; usize::try_from(end - from)?];
        fs::File::options().write(true).open(&self.file)?.write_all_at(&zeros, from)?;
        Ok(format!("{} of the {} bytes written last", end - from, end - same))
    }

    /// With the daemon dead: puts bytes by chance behind the end.
    pub fn litter(&self, chance: &mut Chance) -> Result<String> {
        let now = fs::read(&self.file)?;
        let end = now.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1).next_multiple_of(8);
        let most = (now.len() as u64).saturating_sub(end).min(4096);
        ensure!(most > 8, "the segment is full");
        let bytes: Vec<u8> = (0..chance.between(7, most)).map(|_| chance.number() as u8).collect();
        // A whole sector behind it, so that it is not taken for a part of the last frame.
        let from = (end + SECTOR).next_multiple_of(SECTOR).min(now.len() as u64 - bytes.len() as u64);
        fs::File::options().write(true).open(&self.file)?.write_all_at(&bytes, from)?;
        Ok(format!("{} bytes at {from}", bytes.len()))
    }
}
