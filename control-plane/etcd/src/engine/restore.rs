//! I/O: makes a data directory from a saved snapshot (what `etcdctl snapshot save` wrote from this etcd).

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use super::checkpoint::{Head, Reader, checkpoint_path, publish, write_head};
use super::files::{Disk, create, lock_directory};
use super::recover::{TERM_OF_NEW, write_identity};
use super::wal::Segment;
use super::{Identity, Options};
use crate::error::OpenError;

/// Snapshots are padded to this, then followed by a SHA-256: the form by which clients know a whole snapshot.
pub const SNAPSHOT_ALIGN: u64 = 512;
const SHA256: u64 = 32;

/// Fills the data directory of `options`, which must be empty or missing, from the snapshot file. The store gets a new
/// identity, so that members of the old cluster are not mixed up with it.
pub fn restore(snapshot: &Path, options: &Options) -> Result<(), OpenError> {
    let head = verify(snapshot)?;
    let dir = options.data_dir.as_path();
    let _lock = lock_directory(dir)?;
    let holds = std::fs::read_dir(dir).map_err(OpenError::io("listing", dir))?;
    if holds.filter_map(Result::ok).any(|entry| entry.file_name() != "lock") {
        let what = "it is not empty, and a snapshot is restored into an empty one only".to_owned();
        return Err(OpenError::Incomplete { dir: dir.to_owned(), what });
    }
    let identity = Identity { cluster_id: rand::random(), member_id: rand::random() };
    let path = checkpoint_path(dir, 1);
    let draft = path.with_extension("tmp");
    let Identity { cluster_id, member_id } = identity;
    let head = Head { cluster_id, member_id, term: TERM_OF_NEW, ..head };
    copy(snapshot, &draft, head, options.disk).map_err(OpenError::io("writing", &draft))?;
    publish(&draft, &path, options.disk).map_err(OpenError::io("writing", &path))?;
    Segment::create(dir, 1, identity.cluster_id, options.segment_bytes, options.disk)
        .map_err(OpenError::io("making a log segment in", dir))?;
    write_identity(dir, identity, options.disk).map_err(OpenError::io("writing identity in", dir))
}

fn copy(snapshot: &Path, draft: &Path, head: Head, disk: Disk) -> io::Result<()> {
    let mut input = File::open(snapshot)?;
    let mut output = create(draft, OFlags::TRUNC)?;
    write_head(&mut output, &head)?;
    input.seek(SeekFrom::Start(output.stream_position()?))?;
    io::copy(&mut input, &mut output)?;
    output.flush()?;
    disk.sync_all(&output)
}

/// Checks a snapshot whole: its SHA-256 and every part.
pub fn verify(snapshot: &Path) -> Result<Head, OpenError> {
    let open = || File::open(snapshot).map_err(OpenError::io("opening", snapshot));
    let damaged = |offset: u64, what: &str| OpenError::Damaged { file: snapshot.to_owned(), offset, what: what.into() };
    let size = open()?.metadata().map_err(OpenError::io("reading", snapshot))?.len();
    if size % SNAPSHOT_ALIGN != SHA256 {
        return Err(damaged(size, "it does not end with a SHA-256, so it is not a whole snapshot"));
    }
    let mut hasher = Sha256::new();
    let mut body = BufReader::new(open()?.take(size - SHA256));
    let mut piece = vec![0; 64 << 10];
    loop {
        let read = body.read(&mut piece).map_err(OpenError::io("reading", snapshot))?;
        if read == 0 {
            break;
        }
        hasher.update(&piece[..read]);
    }
    let mut stored = [0; SHA256 as usize];
    let mut file = open()?;
    file.seek(SeekFrom::Start(size - SHA256)).map_err(OpenError::io("reading", snapshot))?;
    file.read_exact(&mut stored).map_err(OpenError::io("reading", snapshot))?;
    if hasher.finalize()[..] != stored {
        return Err(damaged(size - SHA256, "its SHA-256 does not match"));
    }
    let mut reader = Reader::new(BufReader::new(open()?), snapshot);
    let head = reader.head()?;
    while reader.part(0)?.is_some() {}
    Ok(head)
}
