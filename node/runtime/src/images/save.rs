//! Writes images as `docker save` does: an archive that `docker load`, other tools and our own import read. Does I/O.
//!
//! Layers are kept unpacked, so they are packed again: overlay's whiteouts become the archive's. A layer packed again
//! has other bytes than it came with, so the configuration that is written names those, and the image has another ID
//! where it is loaded.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use super::reference::Reference;
use super::store::{Image, Images};
use super::{ImageError, Result, room};
use crate::digest::Hasher;

/// Overlay's mark of a directory that hides what is below it.
const OPAQUE: &str = "trusted.overlay.opaque";
/// An attribute's value is no longer.
const MAX_XATTR: usize = 64 << 10;

impl Images {
    /// Writes these images, each with the name that it is called by, or with all its names.
    pub fn save_archive(&self, names: &[String], out: &mut impl Write) -> Result<()> {
        let images = names.iter().map(|name| self.get(name)).collect::<Result<Vec<_>>>()?;
        let needed = images.iter().fold(0u64, |sum, image| sum.saturating_add(image.size));
        room::check(&self.dir, needed, "the archive").map_err(ImageError::io("save images"))?;
        let work = self.ingest_dir()?;
        let done = self.save_all(&images, names, &work, out);
        let _ = linux::root::remove_tree(&work);
        done
    }

    fn save_all(&self, images: &[Image], names: &[String], work: &Path, out: &mut impl Write) -> Result<()> {
        let mut archive = Builder::new(out);
        let (mut packed, mut written, mut manifest) = (HashMap::new(), BTreeSet::new(), Vec::<Value>::new());
        for (image, name) in images.iter().zip(names) {
            let mut layers = Vec::new();
            for link in &image.chain {
                let layer = match packed.get(link) {
                    Some(layer) => layer,
                    None => {
                        let layer = self.pack(link, work, packed.len())?;
                        packed.entry(link.clone()).or_insert(layer)
                    }
                };
                let path = format!("{}/layer.tar", &layer.diff_id["sha256:".len()..]);
                if written.insert(path.clone()) {
                    let mut file = File::open(&layer.file).map_err(ImageError::io("read a packed layer"))?;
                    let size = file.metadata().map_err(ImageError::io("read a packed layer"))?.len();
                    append(&mut archive, &path, size, &mut file)?;
                }
                layers.push((layer.diff_id.clone(), path));
            }
            let config = self.config_with(&image.id, layers.iter().map(|(diff_id, _)| diff_id.as_str()))?;
            let path = format!("{}.json", &crate::digest::of(&config)["sha256:".len()..]);
            if written.insert(path.clone()) {
                append(&mut archive, &path, config.len() as u64, &mut config.as_slice())?;
            }
            let layers: Vec<_> = layers.into_iter().map(|(_, path)| path).collect();
            manifest.push(json!({"Config": path, "RepoTags": tags(image, name), "Layers": layers}));
        }
        let manifest = Value::from(manifest).to_string();
        append(&mut archive, "manifest.json", manifest.len() as u64, &mut manifest.as_bytes())?;
        let out = archive.into_inner().map_err(ImageError::io("write the archive"))?;
        out.flush().map_err(ImageError::io("write the archive"))
    }

    /// The configuration with other layers.
    fn config_with<'a>(&self, id: &str, diff_ids: impl Iterator<Item = &'a str>) -> Result<Vec<u8>> {
        let wrong = |error: serde_json::Error| ImageError::Invalid(format!("the configuration of {id}: {error}"));
        let mut config: Value = serde_json::from_slice(&self.read_blob(id)?).map_err(wrong)?;
        config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids.collect::<Vec<_>>()});
        serde_json::to_vec(&config).map_err(wrong)
    }

    fn pack(&self, link: &str, work: &Path, number: usize) -> Result<Packed> {
        let dir = self.catalog.lock().layers.get(link).map(|layer| self.layers_dir().join(&layer.dir));
        let dir = dir.ok_or_else(|| ImageError::Invalid(format!("layer {link} is missing")))?;
        let file = work.join(number.to_string());
        let packed = File::create(&file).and_then(|to| pack(&dir, Room::new(to, work)));
        let diff_id = packed.map_err(ImageError::io(format_args!("pack {}", dir.display())))?;
        Ok(Packed { file, diff_id })
    }
}

struct Packed {
    file: PathBuf,
    diff_id: String,
}

/// The names that an image keeps: the one it is asked for by, all when it is by an ID.
fn tags(image: &Image, name: &str) -> Vec<String> {
    let asked = Reference::parse(name).ok().and_then(|name| name.tagged()).filter(|tag| image.tags.contains(tag));
    asked.map_or_else(|| image.tags.clone(), |tag| vec![tag])
}

fn append(archive: &mut Builder<impl Write>, path: &str, size: u64, data: &mut impl io::Read) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(size);
    archive.append_data(&mut header, path, data).map_err(ImageError::io("write the archive"))
}

/// Writes a layer's directory as an archive; answers its digest.
fn pack(dir: &Path, to: Room<'_>) -> io::Result<String> {
    let mut packer = Packer { archive: Builder::new(Hashing { to, hasher: Hasher::default() }), links: HashMap::new() };
    let root = fs::symlink_metadata(dir)?;
    packer.entry(dir, Path::new("."), &root)?;
    packer.below(dir)?;
    let mut done = packer.archive.into_inner()?;
    done.flush()?;
    Ok(done.hasher.finish())
}

/// The names in a directory, in order.
fn names(dir: &Path) -> io::Result<std::vec::IntoIter<OsString>> {
    let mut names: Vec<_> = fs::read_dir(dir)?.map(|e| e.map(|e| e.file_name())).collect::<io::Result<_>>()?;
    names.sort();
    Ok(names.into_iter())
}

/// A file that grows while the disk has room. What an image takes says little of it: a file of holes takes a block, and
/// is packed with all its zeros.
struct Room<'a> {
    to: File,
    dir: &'a Path,
    /// What may still be written before the disk is asked again.
    granted: u64,
}

impl<'a> Room<'a> {
    fn new(to: File, dir: &'a Path) -> Self {
        Room { to, dir, granted: 0 }
    }
}

impl Write for Room<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.granted < bytes.len() as u64 {
            self.granted = room::STEP.max(bytes.len() as u64);
            room::check(self.dir, self.granted, "the archive")?;
        }
        let n = self.to.write(bytes)?;
        self.granted -= n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

struct Hashing<'a> {
    to: Room<'a>,
    hasher: Hasher,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.to.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

struct Packer<'a> {
    archive: Builder<Hashing<'a>>,
    /// Where a file with several names stands first.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Packer<'_> {
    /// All that is in a directory. Not by recursion: an image may nest two thousand directories, and who packs them is a
    /// thread of the daemon.
    fn below(&mut self, dir: &Path) -> io::Result<()> {
        let mut open = vec![(PathBuf::new(), names(dir)?)];
        while let Some((at, rest)) = open.last_mut() {
            let Some(name) = rest.next() else {
                open.pop();
                continue;
            };
            let inside = at.join(&name);
            let path = dir.join(&inside);
            let about = fs::symlink_metadata(&path)?;
            if about.file_type().is_char_device() && about.rdev() == 0 {
                let hidden = [b".wh.", name.as_bytes()].concat();
                self.mark(&inside.with_file_name(std::ffi::OsStr::from_bytes(&hidden)), &about)?;
                continue;
            }
            self.entry(&path, &inside, &about)?;
            if about.is_dir() {
                if xattr(&path, OPAQUE)?.is_some_and(|value| value == b"y") {
                    self.mark(&inside.join(".wh..wh..opq"), &about)?;
                }
                open.push((inside, names(&path)?));
            }
        }
        Ok(())
    }

    /// An empty file that says something by its name.
    fn mark(&mut self, inside: &Path, about: &Metadata) -> io::Result<()> {
        let mut header = header(about, EntryType::Regular);
        header.set_mode(0);
        header.set_size(0);
        self.archive.append_data(&mut header, inside, io::empty())
    }

    fn entry(&mut self, path: &Path, inside: &Path, about: &Metadata) -> io::Result<()> {
        let kind = about.file_type();
        let node = (about.dev(), about.ino());
        if !about.is_dir() && about.nlink() > 1 {
            if let Some(first) = self.links.get(&node).cloned() {
                let mut header = header(about, EntryType::Link);
                header.set_size(0);
                return self.archive.append_link(&mut header, inside, first);
            }
            self.links.insert(node, inside.to_owned());
        }
        self.attributes(path, about)?;
        if kind.is_symlink() {
            let mut header = header(about, EntryType::Symlink);
            header.set_size(0);
            return self.archive.append_link(&mut header, inside, fs::read_link(path)?);
        }
        if kind.is_file() {
            let mut header = header(about, EntryType::Regular);
            header.set_size(about.len());
            return self.archive.append_data(&mut header, inside, io::Read::take(File::open(path)?, about.len()));
        }
        let entry = match () {
            () if kind.is_dir() => EntryType::Directory,
            () if kind.is_char_device() => EntryType::Char,
            () if kind.is_block_device() => EntryType::Block,
            () if kind.is_fifo() => EntryType::Fifo,
            // A socket is nothing without who listens.
            () => return Ok(()),
        };
        let mut header = header(about, entry);
        header.set_size(0);
        if kind.is_char_device() || kind.is_block_device() {
            header.set_device_major(rustix::fs::major(about.rdev()))?;
            header.set_device_minor(rustix::fs::minor(about.rdev()))?;
        }
        self.archive.append_data(&mut header, inside, io::empty())
    }

    /// Attributes that belong to the file; overlay's own are the whiteouts'.
    fn attributes(&mut self, path: &Path, about: &Metadata) -> io::Result<()> {
        if about.file_type().is_symlink() {
            return Ok(());
        }
        let mut found = Vec::new();
        for name in xattrs(path)? {
            if name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.") {
                continue;
            }
            if let Some(value) = xattr(path, &name)? {
                found.push((format!("SCHILY.xattr.{name}"), value));
            }
        }
        match found.is_empty() {
            true => Ok(()),
            false => {
                self.archive.append_pax_extensions(found.iter().map(|(name, value)| (name.as_str(), value.as_slice())))
            }
        }
    }
}

fn header(about: &Metadata, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(about.mode() & 0o7777);
    header.set_uid(about.uid().into());
    header.set_gid(about.gid().into());
    header.set_mtime(about.mtime().max(0) as u64);
    header
}

/// Names of a file's attributes; none where the file system has none.
pub(super) fn xattrs(path: &Path) -> io::Result<Vec<String>> {
    let mut names = vec![0; MAX_XATTR];
    let length = match rustix::fs::llistxattr(path, &mut names) {
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
}

pub(super) fn xattr(path: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; MAX_XATTR];
    match rustix::fs::lgetxattr(path, name, &mut value) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::images::manifest::Platform;

    /// A docker archive of one image with two layers.
    pub fn archive(layers: &[Vec<u8>]) -> Vec<u8> {
        let diff_ids: Vec<_> = layers.iter().map(|layer| crate::digest::of(layer)).collect();
        let config = json!({"os": "linux", "architecture": Platform::here().architecture,
            "config": {"Cmd": ["/run"], "Env": ["A=b"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let names: Vec<_> = (0..layers.len()).map(|n| format!("{n}.tar")).collect();
        let manifest = json!([{"Config": "c.json", "RepoTags": ["shop/app:1"], "Layers": names}]);
        let mut archive = Builder::new(Vec::new());
        let mut files = vec![("c.json".to_owned(), config.to_string().into_bytes())];
        files.push(("manifest.json".to_owned(), manifest.to_string().into_bytes()));
        files.extend(names.into_iter().zip(layers.iter().cloned()));
        for (name, bytes) in files {
            append(&mut archive, &name, bytes.len() as u64, &mut bytes.as_slice()).unwrap();
        }
        archive.into_inner().unwrap()
    }

    pub fn layer(entries: &[(&str, EntryType, &str, u32)]) -> Vec<u8> {
        let mut layer = Builder::new(Vec::new());
        for (path, kind, content, mode) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(*mode);
            header.set_mtime(1_700_000_000);
            header.set_size(0);
            match kind {
                EntryType::Symlink | EntryType::Link => layer.append_link(&mut header, path, content).unwrap(),
                _ => {
                    header.set_size(content.len() as u64);
                    layer.append_data(&mut header, path, content.as_bytes()).unwrap();
                }
            }
        }
        layer.into_inner().unwrap()
    }

    /// Needs root, as the store does: owners and whiteouts are the kernel's to make.
    #[test]
    fn what_is_saved_is_what_was_imported() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        use EntryType as T;
        let lower = layer(&[
            ("bin/", T::Directory, "", 0o755),
            ("bin/run", T::Regular, "#!", 0o4755),
            ("bin/also", T::Link, "bin/run", 0o755),
            ("etc/", T::Directory, "", 0o700),
            ("etc/link", T::Symlink, "../bin/run", 0o777),
            ("etc/gone", T::Regular, "x", 0o600),
            ("opt/", T::Directory, "", 0o755),
            ("opt/old", T::Regular, "x", 0o600),
        ]);
        let upper = layer(&[
            ("etc/.wh.gone", T::Regular, "", 0o600),
            ("opt/", T::Directory, "", 0o755),
            ("opt/.wh..wh..opq", T::Regular, "", 0o600),
            ("opt/new", T::Regular, "y", 0o640),
        ]);
        let dir = tempfile::tempdir().unwrap();
        let images = Images::open(dir.path().join("a")).unwrap();
        images.import(io::Cursor::new(archive(&[lower, upper])), None).unwrap();
        assert_eq!(images.tag("shop/app:1", "shop/app:2").unwrap(), "docker.io/shop/app:2");
        let save = |images: &Images, name: &str| {
            let mut out = Vec::new();
            images.save_archive(&[name.to_owned()], &mut out).map(|()| out)
        };
        let saved = save(&images, "shop/app:2").unwrap();
        let other = Images::open(dir.path().join("b")).unwrap();
        let loaded = other.import(io::Cursor::new(saved.clone()), None).unwrap();
        assert_eq!(loaded[0].tags, ["docker.io/shop/app:2"], "the name that it was saved by");
        let config = other.config(&loaded[0].id).unwrap();
        assert_eq!(config.config.env, ["A=b"]);
        assert_eq!(save(&other, &loaded[0].id).unwrap().len(), saved.len(), "packed again it is the same");
        let find = |images: &Images, path: &str| {
            let dirs =
                images.catalog.lock().layers.values().map(|l| images.layers_dir().join(&l.dir)).collect::<Vec<_>>();
            dirs.into_iter().map(|dir| dir.join(path)).find(|path| path.symlink_metadata().is_ok()).unwrap()
        };
        let run = fs::metadata(find(&other, "bin/run")).unwrap();
        assert_eq!((run.permissions().mode() & 0o7777, run.nlink(), run.mtime()), (0o4755, 2, 1_700_000_000));
        assert_eq!(fs::read_link(find(&other, "etc/link")).unwrap(), Path::new("../bin/run"));
        assert_eq!(fs::read_to_string(find(&other, "opt/new")).unwrap(), "y");
        let hidden = find(&other, "opt/new").parent().unwrap().to_owned();
        assert_eq!(xattr(&hidden, OPAQUE).unwrap().as_deref(), Some(&b"y"[..]));
        let upper_etc = hidden.parent().unwrap().join("etc/gone");
        assert_eq!(fs::symlink_metadata(upper_etc).unwrap().rdev(), 0, "a whiteout");
        assert!(matches!(save(&images, "nobody/here:1"), Err(ImageError::NotFound(_))));
    }

    /// The daemon's own threads have four times as much; walked by recursion it overflowed, and took the cluster along.
    #[test]
    fn a_layer_of_two_thousand_directories_in_one_another_overflows_no_stack() {
        let dir = tempfile::tempdir().unwrap();
        let layer = dir.path().join("layer");
        let deep = layer.join("d/".repeat((4000 - layer.as_os_str().len()) / 2));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("last"), "x").unwrap();
        let to = File::create(dir.path().join("packed")).unwrap();
        let work = dir.path().to_owned();
        let walk = move || pack(&layer, Room::new(to, &work)).map_err(|error| error.to_string());
        let thread = std::thread::Builder::new().stack_size(512 << 10).spawn(walk).unwrap();
        assert!(thread.join().unwrap().unwrap().starts_with("sha256:"));
        let packed = File::open(dir.path().join("packed")).unwrap();
        let mut packed = tar::Archive::new(packed);
        let last = packed.entries().unwrap().last().unwrap().unwrap();
        assert!(last.path().unwrap().ends_with("d/last"));
    }

    /// A layer of a few bytes may unpack to a file of a terabyte without one block: the disk was filled with its zeros.
    #[test]
    fn a_file_of_holes_does_not_fill_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let left = room::left(dir.path()).unwrap();
        let layer = dir.path().join("layer");
        fs::create_dir(&layer).unwrap();
        File::create(layer.join("holes")).unwrap().set_len(1 << 30).unwrap();
        let to = File::create(dir.path().join("packed")).unwrap();
        let mut small = Room { to, dir: Path::new("/proc"), granted: 8 << 20 };
        assert!(left > 0 && small.write(&[0]).is_ok(), "what was granted is written without a question");
        let error = pack(&layer, small).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
        assert!(fs::metadata(dir.path().join("packed")).unwrap().len() <= 8 << 20);
    }

    #[test]
    fn a_name_is_given_to_one_image_and_never_a_digest() {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::open(dir.path()).unwrap();
        assert!(matches!(images.tag("a:1", "b:1"), Err(ImageError::NotFound(_))));
        let digest = format!("b@sha256:{}", "a".repeat(64));
        assert!(matches!(images.tag("a:1", &digest), Err(ImageError::Name(..))));
    }
}
