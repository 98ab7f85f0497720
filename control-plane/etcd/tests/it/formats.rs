//! Data directories of other releases: what `format-2/` holds was written by the release before frames had a term, and
//! killed; it opens, and is gone on with in files of the present format. What a newer release wrote is refused.

use std::path::{Path, PathBuf};

use etcd::{Etcd, OpenError};

use crate::support::{contents, put, small};

const CHECKPOINT: &str = "checkpoint-0000000000000002.db";
/// What was written to since the checkpoint, the segment made ahead, and the one after it.
const LOGS: [&str; 3] = ["wal-0000000000000002.log", "wal-0000000000000003.log", "wal-0000000000000004.log"];

/// A copy of the directory.
fn former() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("dir");
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/format-2");
    for file in std::fs::read_dir(kept).expect("list") {
        let file = file.expect("entry");
        std::fs::copy(file.path(), dir.path().join(file.file_name())).expect("copy");
    }
    dir
}

fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|b| *b != 0).expect("used") + 1
}

/// What that release answered at its last revision, before it was killed.
const REVISION: i64 = 12;
const HASH: u32 = 3_674_479_539;

async fn check(etcd: &Etcd) {
    let (all, hash) = (contents(etcd).await, etcd.hash_kv(REVISION).await.expect("hash"));
    let former = all.iter().filter(|(key, _)| key != "new");
    let former: Vec<(&str, &str)> = former.map(|(key, v)| (key.as_str(), &v[..v.len().min(5)])).collect();
    let expected = [("a0", "new0"), ("a1", "old1"), ("a3", "old3"), ("b", "yyyyy"), ("c", "1"), ("last", "write")];
    assert_eq!(former, [&expected[..], &[("leased", "1")]].concat());
    assert_eq!((hash.hash, hash.compact_revision), (HASH, 3));
    assert_eq!((etcd.leases(), etcd.lease_time_to_live(7, true).keys), (vec![7, 8], vec!["leased".into()]));
}

#[tokio::test]
async fn a_directory_of_format_2_opens_and_is_gone_on_with_in_the_present_one() {
    let dir = former();
    for start in 0..3 {
        let etcd = Etcd::open(small(dir.path())).expect("open");
        assert_eq!(etcd.revision(), REVISION + start);
        // All that it wrote was of term 2, as it answered; each start is a term.
        assert_eq!(etcd.header(0).raft_term, 3 + start as u64);
        check(&etcd).await;
        etcd.put(put("new", format!("{start}"))).await.expect("put");
        etcd.close();
        drop(etcd);
        assert_eq!(&std::fs::read(dir.path().join(LOGS[1])).expect("log")[..8], b"fkwal 3\n");
    }
}

/// Where the frame begins whose first entry writes `key`: its head in format 2 is 24 bytes, and 17 come before a key.
fn frame_of(log: &[u8], key: &[u8]) -> usize {
    log.windows(key.len()).rposition(|w| w == key).expect("the key") - 17 - 24
}

fn refused(dir: &Path) -> OpenError {
    Etcd::open(small(dir)).err().expect("refused")
}

#[tokio::test]
async fn the_end_of_a_log_of_format_2_is_torn_or_damaged_as_one_of_the_present() {
    let dir = former();
    let log = dir.path().join(LOGS[0]);
    let whole = std::fs::read(&log).expect("log");
    let last = frame_of(&whole, b"last");
    for at in last..used(&whole) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x20;
        std::fs::write(&log, &bytes).expect("write");
        let OpenError::Damaged { file, offset, .. } = refused(dir.path()) else { panic!("byte {at}") };
        assert_eq!((file.as_path(), offset as usize), (log.as_path(), last), "byte {at}");
    }
    // The power went while the write before it was under way.
    let before = frame_of(&whole[..last], b"b");
    let mut bytes = whole;
    bytes[(before / 512 + 2) * 512..].fill(0);
    std::fs::write(&log, &bytes).expect("write");
    let etcd = Etcd::open(small(dir.path())).expect("open");
    assert_eq!(etcd.revision(), REVISION - 2);
    let keys = contents(&etcd).await;
    assert!(keys.iter().any(|(key, value)| key == "b" && value.starts_with('x')), "{keys:?}");
    etcd.close();
}

#[tokio::test]
async fn segments_that_do_not_say_their_size_are_read_and_gone_on_with() {
    let dir = former();
    let head = |log: &PathBuf| {
        let mut bytes = std::fs::read(log).expect("log");
        bytes[..8].copy_from_slice(b"fkwal 1\n");
        bytes[32..64].fill(0);
        let crc = crc32fast::hash(&bytes[..32]);
        bytes[32..36].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(log, &bytes).expect("write");
    };
    let logs = LOGS.map(|name| dir.path().join(name));
    logs.iter().filter(|log| log.exists()).for_each(head);
    let whole = std::fs::read(&logs[0]).expect("log");
    std::fs::write(&logs[0], &whole[..whole.len() - 1000]).expect("write");
    assert!(matches!(refused(dir.path()), OpenError::Damaged { .. }));
    std::fs::write(&logs[0], &whole).expect("write");
    let etcd = Etcd::open(small(dir.path())).expect("open");
    check(&etcd).await;
    etcd.close();
}

#[tokio::test]
async fn what_a_newer_release_wrote_is_refused_and_told_from_damage() {
    let dir = tempfile::tempdir().expect("dir");
    let etcd = Etcd::open(small(dir.path())).expect("open");
    etcd.put(put("key", "value")).await.expect("put");
    etcd.defragment().await.expect("checkpoint");
    etcd.close();
    drop(etcd);
    for (name, head, known) in [(CHECKPOINT, 80, 2), (LOGS[0], 64, 3)] {
        let path = dir.path().join(name);
        let kept = std::fs::read(&path).expect("read");
        let mut bytes = kept.clone();
        bytes[6] += 1;
        std::fs::write(&path, &bytes).expect("write");
        assert!(matches!(refused(dir.path()), OpenError::Damaged { offset: 0, .. }), "{name}: a flipped bit");
        let crc = crc32fast::hash(&bytes[..head - 4]);
        bytes[head - 4..head].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(&path, &bytes).expect("write");
        let told = refused(dir.path()).to_string();
        let expected = format!("{} is of format {}, and this release reads up to {known}", path.display(), known + 1);
        assert!(told.starts_with(&expected) && told.contains("start that release again"), "{told}");
        std::fs::write(&path, &kept).expect("write back");
    }
    Etcd::open(small(dir.path())).expect("as it was").close();
}
