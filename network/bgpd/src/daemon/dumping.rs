//! When dumps are written: the loop's side of `dump`, whose threads do. Called by the loop.

use bgp::session::Time;

use super::Daemon;
use super::dump::{self, DELAY};

impl Daemon {
    /// When something is to be written.
    pub(super) fn dump_due(&self) -> Option<Time> {
        let dump = self.dump.as_ref()?;
        let gathered = dump.updates.as_ref().is_some_and(|updates| !updates.gathered.is_empty());
        let table = dump.table.is_some().then_some(dump.next);
        [table, gathered.then_some(dump.hand_over)].into_iter().flatten().min()
    }

    /// Hands over what is to be written, when it is due.
    pub(super) fn dump_table(&mut self) {
        let now = self.now();
        let Some(dump) = &mut self.dump else { return };
        if let Some(updates) = dump.updates.as_mut().filter(|_| dump.hand_over <= now) {
            updates.hand_over(0);
            dump.hand_over = now + DELAY;
        }
        let Some((path, interval)) = dump.table.clone().filter(|_| dump.next <= now) else { return };
        dump.next = now + interval;
        if dump.is_writing() {
            return tracing::error!("mrt.table: the disk does not keep up: {} is left as it is", path.display());
        }
        let mut table = Vec::new();
        self.rib.dump(dump::now(), self.epoch, |piece| table.push(piece.to_vec()));
        dump.write(path, table);
    }
}
