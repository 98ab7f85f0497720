//! A log cut or damaged at every byte: what was acknowledged before the damage is there or the directory is refused,
//! with the file and the offset.

use std::path::{Path, PathBuf};

use etcd::{Etcd, OpenError};

use crate::support::{contents, put, small};

const WRITES: usize = 6;

/// A directory whose log holds some frames; returns the log file and where each frame ends.
async fn sample(dir: &Path) -> (PathBuf, Vec<usize>) {
    let etcd = Etcd::open(small(dir)).expect("open");
    let log = dir.join("wal-0000000000000001.log");
    let used = || {
        let bytes = std::fs::read(&log).expect("log");
        let end = bytes.iter().rposition(|b| *b != 0).expect("used") + 1;
        end.next_multiple_of(8)
    };
    let mut ends = vec![64];
    for n in 0..WRITES {
        etcd.put(put(format!("key{n}"), format!("value{n}"))).await.expect("put");
        ends.push(used());
    }
    // As a power cut leaves it: without the frame that an orderly end adds.
    let cut = std::fs::read(&log).expect("log");
    etcd.close();
    std::fs::write(&log, cut).expect("write");
    (log, ends)
}

fn expected(writes: usize) -> Vec<(String, String)> {
    (0..writes).map(|n| (format!("key{n}"), format!("value{n}"))).collect()
}

async fn reopened(dir: &Path) -> Result<Vec<(String, String)>, OpenError> {
    let etcd = Etcd::open(small(dir))?;
    let found = contents(&etcd).await;
    // What is repaired can be written to, and keeps it.
    etcd.put(put("zz", "new")).await.expect("put after repair");
    etcd.close();
    drop(etcd);
    let etcd = Etcd::open(small(dir))?;
    let mut again = contents(&etcd).await;
    assert_eq!(again.pop(), Some(("zz".into(), "new".into())));
    assert_eq!(again, found);
    etcd.close();
    Ok(found)
}

#[tokio::test]
async fn a_log_that_ends_anywhere_keeps_every_whole_frame() {
    let dir = tempfile::tempdir().expect("dir");
    let (log, ends) = sample(dir.path()).await;
    let whole = std::fs::read(&log).expect("log");
    for at in (ends[0]..=ends[WRITES]).step_by(3).chain(ends.clone()) {
        // A frame whose padding alone is cut is whole.
        let frames = ends.iter().filter(|e| **e < at + 8).count() - 1;
        // Cut short, and cut by zeros as in a preallocated file.
        let mut zeroed = whole.clone();
        zeroed[at..].fill(0);
        for bytes in [&whole[..at], &zeroed] {
            std::fs::write(&log, bytes).expect("write");
            // What the last round went on in.
            let _ = std::fs::remove_file(dir.path().join("wal-0000000000000002.log"));
            let found = reopened(dir.path()).await.unwrap_or_else(|e| panic!("cut at {at}: {e}"));
            let complete = ends.iter().filter(|e| **e <= at).count() - 1;
            assert!(found == expected(complete) || found == expected(frames), "cut at {at}: {found:?}");
        }
    }
}

#[tokio::test]
async fn damage_before_the_last_frame_is_refused_with_file_and_offset() {
    let dir = tempfile::tempdir().expect("dir");
    let (log, ends) = sample(dir.path()).await;
    let whole = std::fs::read(&log).expect("log");
    for at in 0..ends[WRITES] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        std::fs::write(&log, &bytes).expect("write");
        let outcome = Etcd::open(small(dir.path()));
        let frame = ends.iter().rposition(|e| *e <= at);
        match (frame, outcome) {
            // The padding after a frame, or the head's unused bytes, may be anything or be refused.
            (Some(frame), Ok(etcd)) => {
                let found = contents(&etcd).await;
                etcd.close();
                let lost = if frame == WRITES - 1 { WRITES - 1 } else { WRITES };
                assert!(found == expected(WRITES) || found == expected(lost), "byte {at}: {found:?}");
            }
            (Some(frame), Err(OpenError::Damaged { file, offset, .. })) => {
                assert!(frame < WRITES - 1, "byte {at} is in the last frame: a torn end");
                assert_eq!((file.as_path(), offset as usize), (log.as_path(), ends[frame]), "byte {at}");
            }
            (None, Err(OpenError::Damaged { file, offset: 0, .. })) => assert_eq!(file, log),
            (_, Err(e)) => panic!("byte {at}: {e}"),
            (None, Ok(_)) => panic!("byte {at} of the head"),
        }
    }
}

#[tokio::test]
async fn a_half_removed_directory_is_refused() {
    let dir = tempfile::tempdir().expect("dir");
    let etcd = Etcd::open(small(dir.path())).expect("open");
    for n in 0..40 {
        etcd.put(put(format!("k{n}"), vec![b'x'; 4000])).await.expect("put");
    }
    etcd.defragment().await.expect("checkpoint");
    etcd.close();
    drop(etcd);
    let names: Vec<PathBuf> = std::fs::read_dir(dir.path()).expect("list").map(|e| e.expect("entry").path()).collect();
    for missing in names.iter().filter(|n| !n.ends_with("lock")) {
        let kept = std::fs::read(missing).expect("read");
        std::fs::remove_file(missing).expect("remove");
        let spare = missing.to_string_lossy().contains("wal-")
            && names.iter().any(|o| o < missing && o.to_string_lossy().contains("wal-"));
        match Etcd::open(small(dir.path())) {
            Err(e @ OpenError::Incomplete { .. }) => {
                assert!(e.to_string().contains(&dir.path().display().to_string()), "{e}");
            }
            Err(e) => panic!("{}: {e}", missing.display()),
            Ok(etcd) => {
                etcd.close();
                assert!(spare, "{} was missed by nobody", missing.display());
            }
        }
        std::fs::write(missing, kept).expect("write back");
    }
}

#[tokio::test]
async fn one_process_a_directory_and_only_its_owner_reads_it() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("dir");
    let data = dir.path().join("data");
    let etcd = Etcd::open(small(&data)).expect("open");
    let refused = Etcd::open(small(&data)).err().expect("in use");
    assert!(matches!(refused, OpenError::Locked { .. }), "{refused}");
    let mode = |p: &Path| std::fs::metadata(p).expect("metadata").permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for entry in std::fs::read_dir(&data).expect("list") {
        assert_eq!(mode(&entry.expect("entry").path()), 0o600);
    }
    etcd.close();
    drop(etcd);
    Etcd::open(small(&data)).expect("free again").close();
}
