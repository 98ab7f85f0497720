//! Images of one store for others of the same host, without a second copy. Does I/O.
//!
//! ```text
//!   layers/7/bin/sh ────────┐ the same file by two names          layers/s/3/bin/sh
//!   the store that gives    └── <shared>/3/bin/sh ── read-only ──  the store that takes
//! ```
//!
//! Who gives links its layers into a directory that all share ([`Images::share`]): directories are made anew, files get
//! another name, so neither store's clean-up takes anything from the other. Who takes sees that directory below its own
//! layers ([`SHARED`]), read-only by its mount, and adds the image to its catalog ([`Images::adopt`]): what runs there can
//! change nobody's layers. Called for nodes that are namespaces of one host.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::save::{xattr, xattrs};
use super::store::{Image, Images, Layer, replace_file};
use super::{ImageError, Reference, Result, manifest};

/// The directory of shared layers among a store's own: a short name, as all of them must fit a mount's options.
pub const SHARED: &str = "s";
/// What is in the shared directory.
const INDEX: &str = "index.json";
/// A layer that is being linked.
const DRAFT: &str = "draft";
/// No index is longer.
const LONGEST: u64 = 16 << 20;

/// A layer that is shared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedLayer {
    /// Its directory: a number, given once.
    pub dir: String,
    pub diff_id: String,
    pub bytes: u64,
    pub inodes: u64,
}

/// An image whose layers are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedImage {
    pub config: Vec<u8>,
    pub tags: Vec<String>,
    pub digests: Vec<String>,
    /// Lowest first.
    pub layers: Vec<SharedLayer>,
}

/// What the shared directory holds, by chain ID.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Index {
    next: u64,
    layers: BTreeMap<String, SharedLayer>,
}

impl Index {
    fn read(dir: &Path) -> Result<Index> {
        let path = dir.join(INDEX);
        match linux::root::read_regular(&path, LONGEST) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| ImageError::Invalid(format!("{} is damaged: {e}", path.display()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Index::default()),
            Err(e) => Err(ImageError::io(format_args!("read {}", path.display()))(e)),
        }
    }

    fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(INDEX);
        let bytes = serde_json::to_vec(self).map_err(|e| ImageError::Invalid(e.to_string()))?;
        replace_file(&path, &bytes).map_err(ImageError::io(format_args!("write {}", path.display())))
    }
}

impl Images {
    /// Shares an image: its layers are linked into `dir`, unless they are there. Nobody else may change what is in `dir`
    /// meanwhile.
    pub fn share(&self, name: &str, dir: &Path) -> Result<SharedImage> {
        let image = self.get(name)?;
        let config = self.read_blob(&image.id)?;
        let mut index = Index::read(dir)?;
        let known: Vec<(String, Layer)> = {
            let catalog = self.catalog.lock();
            let layer = |chain: &String| Some((chain.clone(), catalog.layers.get(chain)?.clone()));
            let all: Option<Vec<_>> = image.chain.iter().map(layer).collect();
            all.ok_or_else(|| ImageError::Invalid(format!("image {name} has lost a layer: pull it again")))?
        };
        let mut layers = Vec::new();
        let mut linked = false;
        for (chain, layer) in known {
            if !index.layers.contains_key(&chain) {
                index.next += 1;
                let number = index.next.to_string();
                link(&self.layers_dir().join(&layer.dir), dir, &number)
                    .map_err(ImageError::io(format_args!("share layer {} of {name}", layer.diff_id)))?;
                let Layer { diff_id, bytes, inodes, .. } = layer;
                index.layers.insert(chain.clone(), SharedLayer { dir: number, diff_id, bytes, inodes });
                linked = true;
            }
            layers.extend(index.layers.get(&chain).cloned());
        }
        if linked {
            let top = fs::File::open(dir).map_err(ImageError::io("open the shared layers"))?;
            rustix::fs::syncfs(&top).map_err(|e| ImageError::io("flush the shared layers")(e.into()))?;
            index.write(dir)?;
        }
        Ok(SharedImage { config, tags: image.tags, digests: image.digests, layers })
    }

    /// Takes an image whose layers are in [`SHARED`]. Layers that are here already are used as they are.
    pub fn adopt(&self, shared: &SharedImage) -> Result<Image> {
        let parsed = manifest::parse_config("a shared image", &shared.config)?;
        let diff_ids: Vec<String> = shared.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        if parsed.rootfs.diff_ids != diff_ids {
            return Err(ImageError::Invalid("a shared image's layers are not its configuration's".into()));
        }
        {
            let mut catalog = self.catalog.lock();
            for (chain, layer) in manifest::chain_ids(&diff_ids).into_iter().zip(&shared.layers) {
                let dir = format!("{SHARED}/{}", layer.dir);
                let is_number = !layer.dir.is_empty() && layer.dir.bytes().all(|b| b.is_ascii_digit());
                if !is_number || !self.layers_dir().join(&dir).is_dir() {
                    return Err(ImageError::Invalid(format!("there is no shared layer {:?} here", layer.dir)));
                }
                let SharedLayer { diff_id, bytes, inodes, .. } = layer.clone();
                catalog.layers.entry(chain).or_insert(Layer { dir, diff_id, bytes, inodes });
            }
        }
        let tags = shared.tags.iter().map(|tag| Reference::parse(tag)).collect::<Result<Vec<_>>>()?;
        let digests = shared.digests.iter().cloned().map(Some);
        // At least once, whatever it is called.
        let names = tags.iter().map(|tag| (Some(tag), None)).chain(digests.map(|digest| (None, digest)));
        let mut image = self.commit(&shared.config, &diff_ids, None, None)?;
        for (tag, digest) in names {
            image = self.commit(&shared.config, &diff_ids, tag, digest)?;
        }
        Ok(image)
    }
}

/// Removes shared layers that none of these catalogs (`images.json` of the stores that take) names. Nobody may share or
/// adopt meanwhile. Answers how many there were.
pub fn sweep(dir: &Path, catalogs: &[Vec<u8>]) -> Result<usize> {
    let mut index = Index::read(dir)?;
    let mut used = std::collections::BTreeSet::new();
    for catalog in catalogs {
        let catalog: super::store::Catalog =
            serde_json::from_slice(catalog).map_err(|e| ImageError::Invalid(format!("a node's images.json: {e}")))?;
        let prefix = format!("{SHARED}/");
        used.extend(catalog.layers.into_values().filter_map(|l| l.dir.strip_prefix(&prefix).map(str::to_owned)));
    }
    let before = index.layers.len();
    index.layers.retain(|_, layer| used.contains(&layer.dir));
    let removed = before - index.layers.len();
    if removed > 0 {
        // First the index: what it doesn't name is garbage.
        index.write(dir)?;
    }
    let named: Vec<&str> = index.layers.values().map(|layer| layer.dir.as_str()).collect();
    for entry in fs::read_dir(dir).map_err(ImageError::io(format_args!("read {}", dir.display())))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == DRAFT || name.bytes().all(|b| b.is_ascii_digit()) && !named.contains(&name.as_str()) {
            linux::root::remove_tree(entry.path()).map_err(ImageError::io("remove a shared layer"))?;
        }
    }
    Ok(removed)
}

/// Links a layer's directory into another as `to/name`, whole or not at all.
fn link(from: &Path, to: &Path, name: &str) -> io::Result<()> {
    let (draft, place) = (to.join(DRAFT), to.join(name));
    linux::root::remove_tree(&draft)?;
    // Of a crash before the index was written.
    linux::root::remove_tree(&place)?;
    let linked = link_tree(from, &draft).and_then(|()| fs::rename(&draft, &place));
    if linked.is_err() {
        let _ = linux::root::remove_tree(&draft);
    }
    linked
}

/// Layers don't change once they are unpacked, and hold no mounts. Not by recursion: an image may nest two thousand
/// directories.
fn link_tree(from: &Path, to: &Path) -> io::Result<()> {
    let names = |dir: &Path| io::Result::Ok(fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?.into_iter());
    let about = fs::symlink_metadata(from)?;
    make(to)?;
    let mut open = vec![(PathBuf::new(), about, names(from)?)];
    while let Some((at, about, rest)) = open.last_mut() {
        let Some(entry) = rest.next() else {
            // When all is in it, or its time would change again.
            dress(&from.join(&*at), &to.join(&*at), about)?;
            open.pop();
            continue;
        };
        let inside = at.join(entry.file_name());
        let about = fs::symlink_metadata(from.join(&inside))?;
        if about.is_dir() {
            make(&to.join(&inside))?;
            let below = names(&from.join(&inside))?;
            open.push((inside, about, below));
        } else {
            // The file itself, a link too: nothing is followed.
            fs::hard_link(from.join(&inside), to.join(&inside))?;
        }
    }
    Ok(())
}

fn make(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(dir)
}

/// Gives a directory what another has: owner, attributes, mode, times.
fn dress(from: &Path, to: &Path, about: &Metadata) -> io::Result<()> {
    std::os::unix::fs::chown(to, Some(about.uid()), Some(about.gid()))?;
    for name in xattrs(from)? {
        if let Some(value) = xattr(from, &name)? {
            rustix::fs::lsetxattr(to, &name, &value, rustix::fs::XattrFlags::empty())?;
        }
    }
    rustix::fs::chmod(to, rustix::fs::Mode::from_raw_mode(about.mode() & 0o7777))?;
    let time = |seconds: i64, nanos: i64| rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = rustix::fs::Timestamps {
        last_access: time(about.atime(), about.atime_nsec()),
        last_modification: time(about.mtime(), about.mtime_nsec()),
    };
    Ok(rustix::fs::utimensat(rustix::fs::CWD, to, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::save::tests::{archive, layer};
    use super::*;

    #[test]
    fn a_layer_is_linked_with_all_that_its_directories_say() {
        let dir = tempfile::tempdir().expect("a directory");
        let (from, to) = (dir.path().join("7"), dir.path().join("shared"));
        fs::create_dir_all(from.join("a/b")).expect("a directory");
        fs::create_dir(&to).expect("a directory");
        fs::write(from.join("a/file"), "text").expect("a file");
        symlink("/etc/shadow", from.join("a/link")).expect("a link");
        fs::set_permissions(from.join("a"), fs::Permissions::from_mode(0o1751)).expect("a mode");
        let time = rustix::fs::Timespec { tv_sec: 1_700_000_000, tv_nsec: 5 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, from.join("a"), &times, rustix::fs::AtFlags::empty()).expect("a time");
        fs::create_dir(to.join(DRAFT)).expect("of a crash");
        link(&from, &to, "1").expect("linked");
        let about = |path: PathBuf| fs::symlink_metadata(path).expect("there");
        let (old, new) = (about(from.join("a")), about(to.join("1/a")));
        assert_eq!((new.mode(), new.mtime(), new.mtime_nsec()), (old.mode(), 1_700_000_000, 5));
        assert_ne!(new.ino(), old.ino(), "another directory");
        assert_eq!(about(to.join("1/a/file")).ino(), about(from.join("a/file")).ino(), "the same file");
        assert_eq!(fs::read_link(to.join("1/a/link")).expect("a link"), Path::new("/etc/shadow"));
        assert!(to.join("1/a/b").is_dir() && !to.join(DRAFT).exists());
        linux::root::remove_tree(&from).expect("removed");
        assert_eq!(fs::read_to_string(to.join("1/a/file")).expect("still there"), "text");
    }

    /// Needs root, as the store does.
    #[test]
    fn another_store_has_the_image_and_its_own_layers_stay_its_own() {
        use tar::EntryType as T;
        if !rustix::process::geteuid().is_root() {
            return println!("skipped: needs root");
        }
        let dir = tempfile::tempdir().expect("a directory");
        let shared = dir.path().join("shared");
        fs::create_dir(&shared).expect("a directory");
        let [ours, theirs] = ["a", "b"].map(|name| Images::open(dir.path().join(name)).expect("a store"));
        // As a node has it mounted.
        symlink(&shared, theirs.layers_dir().join(SHARED)).expect("a link");
        let lower = layer(&[("bin/", T::Directory, "", 0o755), ("bin/run", T::Regular, "#!", 0o755)]);
        let upper = layer(&[("etc", T::Regular, "y", 0o640)]);
        ours.import(io::Cursor::new(archive(&[lower, upper])), None).expect("imported");
        let given = ours.share("shop/app:1", &shared).expect("shared");
        assert_eq!(ours.share("shop/app:1", &shared).expect("again"), given);
        let taken = theirs.adopt(&given).expect("adopted");
        let original = ours.get("shop/app:1").expect("there");
        assert_eq!((&taken.id, &taken.tags, taken.size), (&original.id, &original.tags, original.size));
        assert_eq!(theirs.layer_dirs(&taken).expect("layers"), ["s/2", "s/1"], "top first");
        assert_eq!(fs::read(theirs.layers_dir().join("s/1/bin/run")).expect("there"), b"#!");
        let none = std::collections::HashSet::new();
        ours.remove(&original.id, &none).expect("removed");
        assert!(shared.join("1/bin/run").exists(), "who takes it doesn't lose it");
        let wrong = SharedImage { layers: given.layers[..1].to_vec(), ..given.clone() };
        assert!(theirs.adopt(&wrong).is_err(), "not what the configuration says");
        let mut elsewhere = given.clone();
        elsewhere.layers[0].dir = "../1".to_owned();
        assert!(theirs.adopt(&elsewhere).is_err());
        // A restart reads it again, and a clean-up leaves what is shared to others.
        let again = Images::open(dir.path().join("b")).expect("opened");
        again.remove(&taken.id, &none).expect("removed");
        assert!(shared.join("2/etc").exists());
    }

    #[test]
    fn what_no_store_takes_any_more_is_swept() {
        let dir = tempfile::tempdir().expect("a directory");
        let layer = |n: &str| SharedLayer { dir: n.into(), diff_id: format!("sha256:{n}"), bytes: 1, inodes: 1 };
        let layers = ["1", "2"].map(|n| (format!("chain{n}"), layer(n))).into();
        Index { next: 3, layers }.write(dir.path()).expect("written");
        ["1", "2", "3", DRAFT, "theirs"].iter().for_each(|n| fs::create_dir(dir.path().join(n)).expect("a directory"));
        let catalog = |dir: &str| {
            let layer = Layer { dir: dir.into(), diff_id: "d".into(), bytes: 1, inodes: 1 };
            let catalog =
                super::super::store::Catalog { layers: [("c".to_owned(), layer)].into(), ..Default::default() };
            serde_json::to_vec(&catalog).expect("json")
        };
        assert!(sweep(dir.path(), &[b"{".to_vec()]).is_err(), "what can't be read may name anything");
        assert_eq!(sweep(dir.path(), &[catalog("s/2"), catalog("1")]).expect("swept"), 1);
        let left: Vec<bool> = ["1", "2", "3", DRAFT, "theirs"].iter().map(|n| dir.path().join(n).exists()).collect();
        assert_eq!(left, [false, true, false, false, true]);
        let index = Index::read(dir.path()).expect("read");
        assert_eq!((index.next, index.layers.len()), (3, 1), "numbers are given once");
    }
}
