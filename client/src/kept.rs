//! What an informer knew last, on disk: so that a node whose API server is away goes on with it after a restart of its
//! own. Only read when the server doesn't answer, and put right by the first list that comes. A file a kind, one object a
//! line. I/O: reads and writes the file. Called by [`crate::informer`].
//!
//! ```text
//!   start ──> list comes ─────────────────────────────> as the server says        written down a while after a change,
//!         └─> none within PATIENCE ──> what is on disk ──┘ (and then a list)       and at the end
//! ```

use std::fs::{DirBuilder, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::cache::Cache;
use crate::informer::Watched;
use crate::item::Item;

/// How long a first list is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
/// How long after a change it is written down, with all that came meanwhile: a copy that is as old does no harm.
pub(crate) const SAVE_AFTER: Duration = Duration::from_secs(20);
/// No API server takes a larger object; a longer line is none of ours.
const LONGEST_LINE: u64 = 4 << 20;

type Save<K> = fn(&Cache<K>, &Path) -> io::Result<()>;

/// Where an informer's objects are kept.
pub(crate) struct Kept<K> {
    file: PathBuf,
    save: Save<K>,
}

impl<K> Clone for Kept<K> {
    fn clone(&self) -> Self {
        Kept { file: self.file.clone(), save: self.save }
    }
}

impl<K: Watched + Serialize> Kept<K> {
    /// In a file of this directory, made when there is something to keep, that is called after the kind.
    pub fn new(dir: &Path) -> Kept<K> {
        Kept { file: dir.join(format!("{}.jsonl", K::plural(&()))), save }
    }
}

impl<K: Watched> Kept<K> {
    /// Writes down what is in the cache; what can't be written is told.
    pub async fn save(&self, cache: &Cache<K>) {
        let (cache, file, save) = (cache.clone(), self.file.clone(), self.save);
        let saved = tokio::task::spawn_blocking(move || save(&cache, &file)).await;
        if let Err(error) = saved.unwrap_or_else(|error| Err(io::Error::other(error))) {
            let file = self.file.display();
            tracing::warn!(%error, %file, "what is known was not written down: a restart without the API server lacks it");
        }
    }

    /// What was written down, as far as it can be read; none if nothing was.
    pub fn read(&self) -> Option<Vec<Item<K>>> {
        let lines = BufReader::new(File::open(&self.file).ok()?);
        Some(read(lines, &self.file))
    }
}

/// The objects of such a file; a line that is none is told and passed over.
pub fn read<K: Watched>(mut lines: impl BufRead, file: &Path) -> Vec<Item<K>> {
    let mut items = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        match lines.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(0) => return items,
            Ok(_) => match serde_json::from_slice(&line) {
                Ok(item) => items.push(item),
                Err(error) => tracing::warn!(%error, file = %file.display(), "a line that is no object"),
            },
            Err(error) => {
                tracing::warn!(%error, file = %file.display(), "what was known can't be read to its end");
                return items;
            }
        }
    }
}

/// Writes a whole file beside the old one and puts it in its place.
fn save<K: Watched + Serialize>(cache: &Cache<K>, file: &Path) -> io::Result<()> {
    if let Some(dir) = file.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let draft = file.with_extension("new");
    let out = File::options().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    let mut out = BufWriter::new(out);
    for object in cache.list() {
        serde_json::to_writer(&mut out, object.as_ref())?;
        out.write_all(b"\n")?;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    std::fs::rename(draft, file)
}
