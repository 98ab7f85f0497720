//! A log cut or damaged at every byte: what was acknowledged before the damage is there or the directory is refused,
//! with the file and the offset.

use std::path::{Path, PathBuf};

use etcd::{Etcd, OpenError};

use crate::support::{contents, put, small};

const WRITES: usize = 6;
/// The first says who leads.
const FRAMES: usize = WRITES + 1;

/// Where what was written to a log ends.
fn used(log: &Path) -> usize {
    let bytes = std::fs::read(log).expect("log");
    let end = bytes.iter().rposition(|b| *b != 0).expect("used") + 1;
    end.next_multiple_of(8)
}

/// A directory whose log holds some frames; returns the log file and where each frame ends.
async fn sample(dir: &Path) -> (PathBuf, Vec<usize>) {
    let etcd = Etcd::open(small(dir)).expect("open");
    let log = dir.join("wal-0000000000000001.log");
    let mut ends = vec![64, used(&log)];
    for n in 0..WRITES {
        etcd.put(put(format!("key{n}"), format!("value{n}"))).await.expect("put");
        ends.push(used(&log));
    }
    // As a power cut leaves it: without the frame that an orderly end adds.
    let cut = std::fs::read(&log).expect("log");
    etcd.close();
    std::fs::write(&log, cut).expect("write");
    (log, ends)
}

fn expected(frames: usize) -> Vec<(String, String)> {
    (0..frames.saturating_sub(1)).map(|n| (format!("key{n}"), format!("value{n}"))).collect()
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

/// What the last round went on in.
fn remove_second_segment(dir: &Path) {
    let _ = std::fs::remove_file(dir.join("wal-0000000000000002.log"));
}

#[tokio::test]
async fn a_log_that_ends_in_zeros_anywhere_keeps_every_whole_frame_or_tells_where_it_is_damaged() {
    let dir = tempfile::tempdir().expect("dir");
    let (log, ends) = sample(dir.path()).await;
    let whole = std::fs::read(&log).expect("log");
    for at in (ends[0]..=ends[FRAMES]).step_by(3).chain(ends.clone()).chain((ends[0]..ends[FRAMES]).step_by(512)) {
        // A frame whose padding alone is cut is whole.
        let frames = ends.iter().filter(|e| **e < at + 8).count() - 1;
        let complete = ends.iter().filter(|e| **e <= at).count() - 1;
        let mut zeroed = whole.clone();
        zeroed[at..].fill(0);
        std::fs::write(&log, &zeroed).expect("write");
        remove_second_segment(dir.path());
        match reopened(dir.path()).await {
            Ok(found) => assert!(found == expected(complete) || found == expected(frames), "zeros at {at}: {found:?}"),
            Err(OpenError::Damaged { file, offset, .. }) => {
                // A power cut leaves sectors whole: this can't have been one.
                assert_eq!((file.as_path(), offset as usize), (log.as_path(), ends[complete]), "zeros at {at}");
                assert!(at % 512 != 0, "zeros at {at}");
            }
            Err(e) => panic!("zeros at {at}: {e}"),
        }
    }
}

#[tokio::test]
async fn a_current_segment_that_was_cut_is_refused_wherever() {
    let dir = tempfile::tempdir().expect("dir");
    let (log, ends) = sample(dir.path()).await;
    let whole = std::fs::read(&log).expect("log");
    for at in (ends[0]..ends[FRAMES]).step_by(7).chain([whole.len() / 2, whole.len() - 4096, whole.len() - 1]) {
        std::fs::write(&log, &whole[..at]).expect("write");
        let refused = Etcd::open(small(dir.path())).err().unwrap_or_else(|| panic!("cut at {at}"));
        let OpenError::Damaged { file, offset, what } = refused else { panic!("cut at {at}: {refused}") };
        assert_eq!((file.as_path(), offset as usize), (log.as_path(), at));
        assert!(what.contains(&whole.len().to_string()), "{what}");
    }
    // The advice works: what was there before the cut is kept.
    std::fs::write(&log, &whole[..ends[3]]).expect("write");
    std::fs::File::options().write(true).open(&log).and_then(|f| f.set_len(whole.len() as u64)).expect("truncate");
    assert_eq!(reopened(dir.path()).await.expect("opens"), expected(3));
}

#[tokio::test]
async fn every_flipped_bit_of_the_last_write_is_refused_and_not_taken_for_a_torn_end() {
    let dir = tempfile::tempdir().expect("dir");
    let (log, ends) = sample(dir.path()).await;
    let whole = std::fs::read(&log).expect("log");
    let last = ends[FRAMES - 1];
    let used = whole.iter().rposition(|b| *b != 0).expect("used") + 1;
    for at in last..used {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            std::fs::write(&log, &bytes).expect("write");
            let refused = Etcd::open(small(dir.path())).err().unwrap_or_else(|| panic!("bit {bit} of byte {at}"));
            let OpenError::Damaged { file, offset, what } = refused else { panic!("byte {at}: {refused}") };
            assert_eq!((file.as_path(), offset as usize), (log.as_path(), last), "bit {bit} of byte {at}");
            assert!(what.contains("zeros"), "{what}");
        }
    }
    // The advice works, and costs that one write.
    let mut bytes = whole;
    bytes[last..].fill(0);
    std::fs::write(&log, &bytes).expect("write");
    assert_eq!(reopened(dir.path()).await.expect("opens"), expected(FRAMES - 1));
}

#[tokio::test]
async fn a_last_write_of_which_any_sectors_are_missing_is_torn() {
    let dir = tempfile::tempdir().expect("dir");
    let (log, _) = sample(dir.path()).await;
    let etcd = Etcd::open(small(dir.path())).expect("open");
    let start = used(&log);
    etcd.put(put("long", vec![b'x'; 1700])).await.expect("put");
    let whole = std::fs::read(&log).expect("log");
    etcd.close();
    drop(etcd);
    let end = whole.iter().rposition(|b| *b != 0).expect("used") + 1;
    let first = start / 512;
    let sectors = end.div_ceil(512) - first;
    assert!((4..8).contains(&sectors), "{sectors}");
    for missing in 1..1_u32 << sectors {
        let mut bytes = whole.clone();
        for sector in (0..sectors).filter(|s| missing & (1 << s) != 0) {
            let at = (first + sector) * 512;
            bytes[at.max(start)..(at + 512).min(end)].fill(0);
        }
        std::fs::write(&log, &bytes).expect("write");
        remove_second_segment(dir.path());
        let found = reopened(dir.path()).await.unwrap_or_else(|e| panic!("missing {missing:b}: {e}"));
        assert_eq!(found, expected(FRAMES), "missing {missing:b}");
    }
    // All sectors are there, and the length says more than was written, or one bit of the value is another.
    for (at, mask) in [(start + 5, 0x10), (start + 6, 0x01), (start + 7, 0x80), (start + 900, 0x04)] {
        let mut bytes = whole.clone();
        bytes[at] ^= mask;
        std::fs::write(&log, &bytes).expect("write");
        let refused = Etcd::open(small(dir.path())).err().unwrap_or_else(|| panic!("byte {at}"));
        assert!(matches!(refused, OpenError::Damaged { offset, .. } if offset as usize == start), "{refused}");
    }
}

#[tokio::test]
async fn bytes_behind_the_end_that_were_never_a_write_are_dropped() {
    let dir = tempfile::tempdir().expect("dir");
    let (log, ends) = sample(dir.path()).await;
    let whole = std::fs::read(&log).expect("log");
    for length in [7, 100, 4096] {
        let mut bytes = whole.clone();
        bytes[ends[FRAMES]..ends[FRAMES] + length].fill(0xa5);
        std::fs::write(&log, &bytes).expect("write");
        remove_second_segment(dir.path());
        assert_eq!(reopened(dir.path()).await.expect("opens"), expected(FRAMES), "{length} bytes");
    }
}

#[tokio::test]
async fn damage_anywhere_is_refused_with_file_and_offset() {
    let dir = tempfile::tempdir().expect("dir");
    let (log, ends) = sample(dir.path()).await;
    let whole = std::fs::read(&log).expect("log");
    for at in 0..ends[FRAMES] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        std::fs::write(&log, &bytes).expect("write");
        let outcome = Etcd::open(small(dir.path()));
        let frame = ends.iter().rposition(|e| *e <= at);
        match (frame, outcome) {
            // The padding after a frame may be anything.
            (Some(frame), Ok(etcd)) => {
                assert_eq!(contents(&etcd).await, expected(FRAMES), "byte {at}");
                etcd.close();
                assert!(whole[at] == 0 && at + 8 > ends[frame + 1], "byte {at}");
            }
            (Some(frame), Err(OpenError::Damaged { file, offset, .. })) => {
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
