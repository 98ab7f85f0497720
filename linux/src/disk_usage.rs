//! What directories take on disk: written layers and volumes of containers. I/O.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Bytes on disk and inodes below a directory, without following links. What vanishes meanwhile counts nothing.
pub fn below(dir: &Path) -> (u64, u64) {
    let mut sum = (0, 0);
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            sum = (sum.0 + meta.blocks() * 512, sum.1 + 1);
            if meta.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    sum
}

/// Bytes on disk of a directory and all below it.
pub fn of(dir: &Path) -> u64 {
    let own = std::fs::symlink_metadata(dir).map_or(0, |metadata| metadata.blocks() * 512);
    own + below(dir).0
}
