//! Where inputs begin: what a target's row makes, the files of `seeds/NAME`, and what nests too deep. I/O: reads files.

use std::fs;
use std::path::PathBuf;

use meta::depth::MAX_DEPTH;

use crate::Target;

/// The directory of a target's files. Cargo says at run time where the checkout is.
pub fn dir(target: &Target) -> PathBuf {
    let built = || env!("CARGO_MANIFEST_DIR").into();
    let package: PathBuf = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(built).into();
    package.join("seeds").join(target.name)
}

/// Every seed, by name: the same order each time.
pub fn all(target: &Target) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = (target.seeds)().into_iter().enumerate().map(|(at, s)| (format!("made-{at}"), s)).collect();
    for (at, nest) in target.nests.iter().enumerate() {
        for (name, depth) in [("deep", target.depth), ("limit", MAX_DEPTH), ("nested", 9)] {
            let (open, middle, close) = nest;
            all.push((format!("{name}-{at}"), [&open.repeat(depth), *middle, &close.repeat(depth)].concat().into()));
        }
    }
    let files = fs::read_dir(dir(target)).into_iter().flatten().flatten();
    let mut kept: Vec<_> = files
        .filter_map(|file| Some((file.file_name().to_string_lossy().into_owned(), fs::read(file.path()).ok()?)))
        .collect();
    kept.sort();
    all.extend(kept);
    all
}
