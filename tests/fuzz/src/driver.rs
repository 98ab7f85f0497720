//! The driver without coverage: seeds, what nests too deep, then changed inputs until the time is up; the same seed gives
//! the same inputs. Each target runs in a process of its own, which may die: its last input is in a file. I/O.
//!
//! `fuzz [TARGET...] [--seconds N] [--seed N] [--input FILE] [--seeds DIR]`; called by the tests and `cargo xtask fuzz`.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::mutate::{Chance, mutate};
use crate::{TARGETS, Target, find, limits, seeds};

/// All targets together: a part of the tests that nobody waits for.
const SECONDS: u64 = 40;
/// Any number will do, as long as it stays the same.
const SEED: u64 = 10;
/// A reader that asks for more is ended by its allocator, not by the machine's.
const MOST_MEMORY: u64 = 6 << 30;

struct Wanted {
    targets: Vec<&'static Target>,
    seconds: u64,
    seed: u64,
    input: Option<PathBuf>,
    /// Seeds are written there, and nothing is run.
    write_seeds: Option<PathBuf>,
    /// Set in a target's own process: where its last input goes.
    note: Option<PathBuf>,
}

/// The program. `cargo test` passes its filters and flags here, too: those that are no target's are left alone.
pub fn main() -> ExitCode {
    let result = wanted().and_then(|wanted| match (&wanted.note, &wanted.input, &wanted.write_seeds) {
        (Some(note), ..) => child(&wanted, note),
        (_, Some(input), _) => replay(&wanted, input),
        (.., Some(dir)) => write_seeds(&wanted, dir),
        _ => parent(&wanted),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn wanted() -> Result<Wanted> {
    let mut wanted =
        Wanted { targets: Vec::new(), seconds: SECONDS, seed: SEED, input: None, write_seeds: None, note: None };
    let (mut arguments, mut named) = (std::env::args().skip(1), false);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} wants a value"));
        match argument.as_str() {
            "--seconds" => wanted.seconds = value()?.parse()?,
            "--seed" => wanted.seed = value()?.parse()?,
            "--input" => wanted.input = Some(value()?.into()),
            "--seeds" => wanted.write_seeds = Some(value()?.into()),
            "--note" => wanted.note = Some(value()?.into()),
            name if !name.starts_with('-') => {
                named = true;
                wanted.targets.extend(find(name));
            }
            _ => {}
        }
    }
    if !named {
        wanted.targets = TARGETS.iter().copied().flatten().collect();
    }
    Ok(wanted)
}

/// Runs each target in a child; a finding is kept and told, and the others go on.
fn parent(wanted: &Wanted) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let share = wanted.seconds as f64 / wanted.targets.len().max(1) as f64;
    let mut found = Vec::new();
    for target in &wanted.targets {
        let note = dir.path().join(target.name);
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(target.name).arg("--note").arg(&note).args(["--seed", &wanted.seed.to_string()]);
        let status = command.env("FUZZ_SHARE", share.to_string()).status()?;
        if !status.success() {
            let kept = std::env::temp_dir().join(format!("ferrokube-fuzz-{}", target.name));
            fs::copy(&note, &kept)?;
            let again = format!("cargo xtask fuzz {} --input {}", target.name, kept.display());
            found.push(format!("{}: {status}; again: {again}", target.name));
        }
    }
    ensure!(found.is_empty(), "{} findings:\n{}", found.len(), found.join("\n"));
    Ok(())
}

fn child(wanted: &Wanted, note: &Path) -> Result<()> {
    let [target] = wanted.targets[..] else { bail!("one target a process") };
    setrlimit(Resource::As, Rlimit { current: Some(MOST_MEMORY), maximum: Some(MOST_MEMORY) })?;
    let share = std::env::var("FUZZ_SHARE").ok().and_then(|text| text.parse().ok()).unwrap_or(1.0);
    let until = Instant::now() + Duration::from_secs_f64(share);
    let note = File::create(note)?;
    let mut inputs: Vec<Vec<u8>> = Vec::new();
    let mut count = 0u64;
    let mut one = |what: &str, input: &[u8]| -> Result<()> {
        note.set_len(0)?;
        note.write_all_at(input, 0)?;
        count += 1;
        limits::check(target, input).map_err(|why| anyhow::anyhow!("{} ({what}): {why}", target.name))
    };
    for (name, seed) in seeds::all(target) {
        one(&name, &seed)?;
        inputs.push(seed);
    }
    // What nests far too deep is no good beginning: nearly every change of it is refused for its depth.
    inputs.retain(|input| input.len() < 16 << 10);
    let mut chance = Chance(wanted.seed);
    while Instant::now() < until {
        one("changed", &mutate(&inputs, &mut chance))?;
    }
    println!("{:24} {count:>8} inputs", target.name);
    Ok(())
}

fn replay(wanted: &Wanted, input: &Path) -> Result<()> {
    let [target] = wanted.targets[..] else { bail!("an input is one target's: name it") };
    let bytes = fs::read(input).with_context(|| input.display().to_string())?;
    limits::check(target, &bytes).map_err(|why| anyhow::anyhow!("{}: {why}", target.name))
}

fn write_seeds(wanted: &Wanted, dir: &Path) -> Result<()> {
    for target in &wanted.targets {
        let to = dir.join(target.name);
        fs::create_dir_all(&to)?;
        for (name, seed) in seeds::all(target) {
            fs::write(to.join(name), seed)?;
        }
        println!("{}", target.name);
    }
    Ok(())
}
