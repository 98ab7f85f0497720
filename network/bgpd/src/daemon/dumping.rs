//! When dumps are written: the loop's side of `dump`. I/O: writes the table's file.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use bgp::session::Time;

use super::Daemon;
use super::dump::{DELAY, now};

impl Daemon {
    /// When something is to be written.
    pub(super) fn dump_due(&self) -> Option<Time> {
        let dump = self.dump.as_ref()?;
        let gathered = dump.updates.as_ref().is_some_and(|updates| !updates.gathered.is_empty());
        let table = dump.table.is_some().then_some(dump.next);
        [table, gathered.then_some(dump.hand_over)].into_iter().flatten().min()
    }

    /// Writes the table, when it is due: beside its file, and then in its place.
    pub(super) fn dump_table(&mut self) {
        let now = self.now();
        let Some(dump) = &mut self.dump else { return };
        if let Some(updates) = dump.updates.as_mut().filter(|_| dump.hand_over <= now) {
            updates.hand_over(0);
            dump.hand_over = now + DELAY;
        }
        let Some((path, interval)) = dump.table.clone().filter(|_| dump.next <= now) else { return };
        dump.next = now + interval;
        if let Err(error) = self.write_table(&path) {
            tracing::error!(%error, "mrt.table: {} was not written", path.display());
        }
    }

    fn write_table(&self, path: &Path) -> std::io::Result<()> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let mut file = File::create(&beside)?;
        let mut written = Ok(());
        self.rib.dump(now(), self.epoch, |piece| {
            if written.is_ok() {
                written = file.write_all(piece);
            }
        });
        written?;
        std::fs::rename(&beside, path)
    }
}
