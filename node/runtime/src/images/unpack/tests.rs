//! Layers with whiteouts, links, special files and attacks. Making devices and owners needs root.

use super::*;

struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Layer(tar::Builder::new(Vec::new()))
    }

    fn add(mut self, kind: tar::EntryType, path: &str, mode: u32, body: &str) -> Self {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(1001);
        header.set_mtime(1_700_000_000);
        let raw = path.as_bytes();
        header.as_mut_bytes()[..raw.len()].copy_from_slice(raw);
        let link = matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link);
        if link {
            header.as_mut_bytes()[157..157 + body.len()].copy_from_slice(body.as_bytes());
        }
        header.set_size(if link { 0 } else { body.len() as u64 });
        header.set_cksum();
        self.0.append(&header, if link { &b""[..] } else { body.as_bytes() }).unwrap();
        self
    }

    fn file(self, path: &str, body: &str) -> Self {
        self.add(tar::EntryType::Regular, path, 0o644, body)
    }

    fn dir(self, path: &str, mode: u32) -> Self {
        self.add(tar::EntryType::Directory, path, mode, "")
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: not root");
    }
    root
}

fn run(name: &str, layer: Layer, parents: &[PathBuf]) -> (PathBuf, Result<Unpacked>) {
    let dir = std::env::temp_dir().join(format!("unpack-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(dir.join("layer")).unwrap();
    let done = unpack(layer.bytes().as_slice(), &dir.join("layer"), parents);
    (dir, done)
}

#[test]
fn whiteouts_become_those_of_overlayfs() {
    if !is_root() {
        return;
    }
    let layer = Layer::new()
        .dir("etc/", 0o755)
        .file("etc/.wh.gone", "")
        .dir("opt/", 0o750)
        .file("opt/.wh..wh..opq", "")
        .file("opt/new", "x")
        .file("mine", "kept")
        .file(".wh.mine", "")
        .file(".wh..wh.plnk", "");
    let (dir, done) = run("whiteout", layer, &[]);
    assert!(done.unwrap().diff_id.starts_with("sha256:"));
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let gone = std::fs::symlink_metadata(dir.join("layer/etc/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let mut value = [0u8; 8];
    let n = rustix::fs::getxattr(dir.join("layer/opt"), "trusted.overlay.opaque", &mut value[..]).unwrap();
    assert_eq!(&value[..n], b"y");
    assert_eq!(std::fs::read_to_string(dir.join("layer/mine")).unwrap(), "kept", "its own file stays");
    let opt = std::fs::metadata(dir.join("layer/opt")).unwrap();
    assert_eq!((opt.mode() & 0o7777, opt.uid(), opt.gid(), opt.mtime()), (0o750, 1000, 1001, 1_700_000_000));
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn no_path_leads_out_of_the_layer() {
    if !is_root() {
        return;
    }
    let outside = std::env::temp_dir().join(format!("unpack-victim-{}", std::process::id()));
    std::fs::create_dir_all(&outside).unwrap();
    let layer = Layer::new()
        .add(tar::EntryType::Symlink, "out", 0o777, outside.to_str().unwrap())
        .file("out/written", "attack")
        .add(tar::EntryType::Symlink, "f", 0o777, "/etc/shadow")
        .file("f", "replaces the link, not its target");
    let (dir, done) = run("escape", layer, &[]);
    // The link's target does not exist inside the layer, so the entry behind it can't be made.
    assert!(done.is_err());
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "nothing is written outside");
    std::fs::remove_dir_all(dir).unwrap();

    let (dir, done) = run("climb", Layer::new().file("a/../../../climbed", "x"), &[]);
    assert!(done.unwrap_err().to_string().contains(".."));
    std::fs::remove_dir_all(dir).unwrap();

    let layer = Layer::new()
        .add(tar::EntryType::Symlink, "f", 0o777, "/etc/hostname")
        .file("f", "replaces the link, not its target");
    let (dir, done) = run("replace", layer, &[]);
    done.unwrap();
    assert!(!std::fs::symlink_metadata(dir.join("layer/f")).unwrap().is_symlink());
    let layer = Layer::new().add(tar::EntryType::Link, "h", 0o644, "../../etc/passwd");
    let (other, done) = run("hardlink", layer, &[]);
    assert!(done.is_err(), "a hard link can't reach out");
    for dir in [dir, other, outside] {
        std::fs::remove_dir_all(dir).unwrap();
    }
}

#[test]
fn links_special_files_and_unlisted_directories() {
    if !is_root() {
        return;
    }
    let below = std::env::temp_dir().join(format!("unpack-below-{}", std::process::id()));
    std::fs::create_dir_all(below.join("tmp")).unwrap();
    rustix::fs::chmod(below.join("tmp"), Mode::from_raw_mode(0o1777)).unwrap();
    let layer = Layer::new()
        .file("tmp/x", "1")
        .add(tar::EntryType::Regular, "bin/su", 0o4755, "#!")
        .add(tar::EntryType::Link, "bin/doas", 0o4755, "bin/su")
        .add(tar::EntryType::Fifo, "pipe", 0o600, "");
    let (dir, done) = run("links", layer, std::slice::from_ref(&below));
    done.unwrap();
    use std::os::unix::fs::MetadataExt;
    let at = |p: &str| std::fs::metadata(dir.join("layer").join(p)).unwrap();
    assert_eq!(at("tmp").mode() & 0o7777, 0o1777, "as in the layer below");
    assert_eq!(at("bin/su").mode() & 0o7777, 0o4755);
    assert_eq!((at("bin/su").ino(), at("bin/su").nlink()), (at("bin/doas").ino(), 2));
    std::fs::remove_dir_all(dir).unwrap();
    std::fs::remove_dir_all(below).unwrap();
}

#[test]
fn compression_is_told_by_the_first_bytes() {
    use std::io::Write;
    let plain = Layer::new().file("a", "b").bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
    for packed in [plain.clone(), gzip.finish().unwrap(), zstd] {
        let mut out = Vec::new();
        decompress(Box::new(io::Cursor::new(packed))).unwrap().read_to_end(&mut out).unwrap();
        assert_eq!(out, plain);
    }
}

#[test]
fn a_path_means_what_it_says_after_a_link_in_it_was_replaced() {
    if !is_root() {
        return;
    }
    let link = |layer: Layer, to: &str| layer.add(tar::EntryType::Symlink, "l", 0o777, to);
    let layer = Layer::new().dir("old", 0o755).dir("new", 0o755);
    let layer = link(link(layer, "old").file("l/first", "1"), "new").file("l/second", "2");
    let (dir, done) = run("relink", layer, &[]);
    done.unwrap();
    assert!(dir.join("layer/old/first").exists() && dir.join("layer/new/second").exists());
    assert!(!dir.join("layer/old/second").exists(), "the open directory of the old link was forgotten");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn holes_stay_holes() {
    use std::os::unix::fs::MetadataExt;
    if !is_root() {
        return;
    }
    const SIZE: u64 = 4 << 30;
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_path("holes").unwrap();
    header.set_mode(0o644);
    header.set_size(4);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.sparse[0].offset.copy_from_slice(format!("{:011o}\0", SIZE - 4).as_bytes());
    gnu.sparse[0].numbytes.copy_from_slice(b"00000000004\0");
    gnu.realsize.copy_from_slice(format!("{SIZE:011o}\0").as_bytes());
    header.set_cksum();
    let mut layer = Layer::new();
    layer.0.append(&header, &b"tail"[..]).unwrap();
    let (dir, done) = run("holes", layer, &[]);
    assert_eq!(done.unwrap().bytes, 4);
    let meta = std::fs::metadata(dir.join("layer/holes")).unwrap();
    assert!(meta.len() == SIZE && meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_layer_without_end_is_refused() {
    // A global header is passed over, and so would be what comes behind the end: each counts against the disk.
    let dir = std::env::temp_dir().join(format!("unpack-endless-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let mut watched = room::Bounded::new(io::repeat(0), &dir, "the layer").unwrap();
    watched.shrink_to(2 << 20);
    let error = Entries::new(HashingReader::new(watched)).into_inner().finish().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_zstd_frame_of_a_gigabyte_window_is_refused() {
    // Magic number, no options, a window of 2^30, one empty last block.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 20 << 3, 0x01, 0x00, 0x00];
    let mut reader = decompress(Box::new(io::Cursor::new(frame))).unwrap();
    let error = reader.read(&mut [0u8; 16]).unwrap_err().to_string();
    assert!(error.contains("memory"), "{error}");
}

#[test]
fn messages_hold_no_long_names() {
    if !is_root() {
        return;
    }
    let mut layer = Layer::new();
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(0);
    let name = format!("{}/../x", "n".repeat(500 << 10));
    let mut long = tar::Header::new_gnu();
    long.set_entry_type(tar::EntryType::GNULongName);
    long.set_path("././@LongLink").unwrap();
    long.set_mode(0);
    long.set_size(name.len() as u64);
    long.set_cksum();
    layer.0.append(&long, name.as_bytes()).unwrap();
    header.set_path("x").unwrap();
    header.set_cksum();
    layer.0.append(&header, &b""[..]).unwrap();
    let (dir, done) = run("long", layer, &[]);
    let error = done.unwrap_err().to_string();
    assert!(error.contains("climbs") && error.len() < 1000, "{} bytes", error.len());
    std::fs::remove_dir_all(dir).unwrap();
}
