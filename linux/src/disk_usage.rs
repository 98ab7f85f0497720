//! What directories take on disk: written layers and volumes of containers. I/O.
//!
//! Whoever fills them may swap a directory for a link while it is measured, so the walk is [`Beneath`]'s.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::root::Beneath;

/// Bytes on disk and inodes below a directory, without following links. What vanishes meanwhile counts nothing.
pub fn below(dir: &Path) -> (u64, u64) {
    let opened = match (dir.parent(), dir.file_name()) {
        // Not even the directory itself may be a link.
        (Some(parent), Some(name)) => Beneath::open(parent).and_then(|parent| parent.dir(name)),
        _ => Beneath::open(dir),
    };
    opened.map_or((0, 0), |dir| dir.usage())
}

/// Bytes on disk of a directory and all below it.
pub fn of(dir: &Path) -> u64 {
    let own = std::fs::symlink_metadata(dir).map_or(0, |metadata| metadata.blocks() * 512);
    own + below(dir).0
}
