//! A cluster's wall clock, set ahead and back by a preloaded library (`clock.c`, which says why). I/O: compiles it,
//! writes the file that it reads. Callers: the chaos rounds, the end-to-end test of certificates that a year passes over.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::output;
use anyhow::Result;

pub struct Clock {
    library: PathBuf,
    offset: PathBuf,
}

impl Clock {
    /// Makes the library in `dir`; the clock is right at first.
    pub fn new(dir: &Path) -> Result<Clock> {
        let clock = Clock { library: dir.join("clock.so"), offset: dir.join("clock") };
        let source = dir.join("clock.c");
        fs::write(&source, include_str!("clock.c"))?;
        output(Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o"]).arg(&clock.library).arg(&source), "")?
            .ok()?;
        fs::write(&clock.offset, 0i64.to_ne_bytes())?;
        Ok(clock)
    }

    /// For a program of the host, such as curl, that is to go by this clock.
    pub fn preloaded<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("LD_PRELOAD", &self.library).env("FERROKUBE_TEST_CLOCK", &self.offset)
    }

    /// For a daemon that is to go by this clock.
    pub fn worn_by<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        // The daemon takes nothing else of a caller's environment.
        command.env("FERROKUBE_TEST_PRELOAD", &self.library).env("FERROKUBE_TEST_CLOCK", &self.offset)
    }

    /// Seconds ahead of the machine's clock, at once for every program that goes by it.
    pub fn set(&self, seconds: i64) -> Result<()> {
        use std::os::unix::fs::FileExt;
        // In place: the programs have the file mapped.
        Ok(fs::File::options().write(true).open(&self.offset)?.write_all_at(&seconds.to_ne_bytes(), 0)?)
    }
}
