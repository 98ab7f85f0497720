//! The image store: blobs by digest, unpacked layers, and one small file that says what belongs together. Does I/O.
//!
//! Layout below the directory: `images.json` (replaced whole, after a flush), `blobs/sha256/<hex>` (manifests and
//! configurations), `layers/<number>` (unpacked; short names keep overlay's option string short), `ingest/` (work in
//! progress, emptied at start). What images.json doesn't name is garbage, so a crash at any point loses nothing.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::manifest::{self, Config};
use super::reference::{Reference, is_digest};
use super::{ImageError, Result, unpack};

/// A finished image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// `sha256:…` of the configuration.
    pub id: String,
    /// Full names with tags.
    pub tags: Vec<String>,
    /// `registry/repository@sha256:…`
    pub digests: Vec<String>,
    /// Chain IDs of its layers, lowest first.
    pub chain: Vec<String>,
    /// Bytes of the unpacked layers and documents.
    pub size: u64,
    /// Never removed by garbage collection.
    #[serde(default)]
    pub pinned: bool,
}

/// An unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Directory name below `layers/`.
    pub dir: String,
    pub diff_id: String,
    pub bytes: u64,
    pub inodes: u64,
}

/// What images.json holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Catalog {
    pub next: u64,
    /// By ID.
    pub images: BTreeMap<String, Image>,
    /// By chain ID.
    pub layers: BTreeMap<String, Layer>,
}

/// Bytes and inodes taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub bytes: u64,
    pub inodes: u64,
}

/// The store. One process owns the directory.
#[derive(Debug)]
pub struct Images {
    pub(super) dir: PathBuf,
    pub(super) catalog: Mutex<Catalog>,
    configs: Mutex<HashMap<String, Arc<Config>>>,
    ingest: AtomicU64,
    /// One layer is unpacked at a time for each chain; the lock is shared by all, as unpacking is bound by the disk.
    unpacking: Mutex<()>,
}

impl Images {
    /// Opens or makes a store; leftovers of a crash are removed.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self> {
        let dir = dir.into();
        for sub in ["blobs/sha256", "layers"] {
            let sub = dir.join(sub);
            fs::create_dir_all(&sub).map_err(ImageError::io(format_args!("make {}", sub.display())))?;
        }
        let _ = linux::root::remove_tree(dir.join("ingest"));
        fs::create_dir_all(dir.join("ingest")).map_err(ImageError::io("make the ingest directory"))?;
        let path = dir.join("images.json");
        let catalog = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
                ImageError::Invalid(format!("{} is damaged: {e}; remove the directory", path.display()))
            })?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Catalog::default(),
            Err(e) => return Err(ImageError::io(format_args!("read {}", path.display()))(e)),
        };
        Ok(Images {
            dir,
            catalog: Mutex::new(catalog),
            configs: Mutex::default(),
            ingest: AtomicU64::new(0),
            unpacking: Mutex::default(),
        })
    }

    /// The directory that layer names are relative to.
    pub fn layers_dir(&self) -> PathBuf {
        self.dir.join("layers")
    }

    /// All images.
    pub fn list(&self) -> Vec<Image> {
        self.catalog.lock().images.values().cloned().collect()
    }

    /// Finds an image by ID, ID prefix, tag or digest name.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], or a name that is none.
    pub fn get(&self, name: &str) -> Result<Image> {
        self.find(name).ok_or_else(|| match Reference::parse(name) {
            Err(e) if !is_digest(name) => e,
            _ => ImageError::NotFound(name.to_owned()),
        })
    }

    /// Like [`Images::get`], `None` when it isn't here.
    pub fn find(&self, name: &str) -> Option<Image> {
        let catalog = self.catalog.lock();
        catalog.find(name).cloned()
    }

    /// The configuration of an image.
    pub fn config(&self, id: &str) -> Result<Arc<Config>> {
        if let Some(config) = self.configs.lock().get(id) {
            return Ok(config.clone());
        }
        let bytes = self.read_blob(id)?;
        let config = Arc::new(manifest::parse_config(id, &bytes)?);
        self.configs.lock().insert(id.to_owned(), config.clone());
        Ok(config)
    }

    pub(super) fn forget_config(&self, id: &str) {
        self.configs.lock().remove(id);
    }

    /// Layer directory names of an image, top first: what an overlay is mounted from.
    pub fn layer_dirs(&self, image: &Image) -> Result<Vec<String>> {
        let catalog = self.catalog.lock();
        let dir = |chain: &String| catalog.layers.get(chain).map(|layer| layer.dir.clone());
        let dirs: Option<Vec<String>> = image.chain.iter().rev().map(dir).collect();
        dirs.ok_or_else(|| ImageError::Invalid(format!("image {} has lost a layer: pull it again", image.id)))
    }

    /// What all layers take.
    pub fn usage(&self) -> Usage {
        let catalog = self.catalog.lock();
        let add =
            |sum: Usage, layer: &Layer| Usage { bytes: sum.bytes + layer.bytes, inodes: sum.inodes + layer.inodes };
        catalog.layers.values().fold(Usage::default(), add)
    }

    /// A new, empty directory for work in progress; removed by the caller or at the next start.
    pub(super) fn ingest_dir(&self) -> Result<PathBuf> {
        let dir = self.dir.join("ingest").join(self.ingest.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir(&dir).map_err(ImageError::io(format_args!("make {}", dir.display())))?;
        Ok(dir)
    }

    pub(super) fn has_layer(&self, chain: &str) -> bool {
        self.catalog.lock().layers.contains_key(chain)
    }

    fn blob_path(&self, digest: &str) -> Result<PathBuf> {
        if !is_digest(digest) {
            return Err(ImageError::Invalid(format!("{digest:?} is not a sha256 digest")));
        }
        Ok(self.dir.join("blobs/sha256").join(&digest["sha256:".len()..]))
    }

    pub(super) fn read_blob(&self, digest: &str) -> Result<Vec<u8>> {
        let path = self.blob_path(digest)?;
        fs::read(&path).map_err(ImageError::io(format_args!("read {}", path.display())))
    }

    /// Stores a document under its digest, flushed.
    pub(super) fn write_blob(&self, bytes: &[u8]) -> Result<String> {
        let digest = crate::digest::of(bytes);
        let path = self.blob_path(&digest)?;
        replace_file(&path, bytes).map_err(ImageError::io(format_args!("write {}", path.display())))?;
        Ok(digest)
    }

    /// Unpacks layer number `at` of a stack, unless it is there. `open` gives the archive, compressed or not.
    pub(super) fn add_layer(
        &self,
        diff_ids: &[String],
        at: usize,
        open: impl FnOnce() -> io::Result<Box<dyn io::Read + Send>>,
    ) -> Result<()> {
        let chain = manifest::chain_ids(diff_ids);
        let _one_at_a_time = self.unpacking.lock();
        if self.has_layer(&chain[at]) {
            return Ok(());
        }
        let parents: Vec<PathBuf> = {
            let catalog = self.catalog.lock();
            let path = |c: &String| catalog.layers.get(c).map(|l| self.dir.join("layers").join(&l.dir));
            chain[..at].iter().rev().filter_map(path).collect()
        };
        let work = self.ingest_dir()?;
        let done = self.unpack_into(&work, &parents, open).and_then(|unpacked| {
            if unpacked.diff_id != diff_ids[at] {
                let expected = diff_ids[at].clone();
                return Err(ImageError::Digest { what: "a layer".into(), expected, got: unpacked.diff_id });
            }
            self.adopt_layer(&work, &chain[at], unpacked)
        });
        if done.is_err() {
            let _ = linux::root::remove_tree(&work);
        }
        done
    }

    fn unpack_into(
        &self,
        work: &Path,
        parents: &[PathBuf],
        open: impl FnOnce() -> io::Result<Box<dyn io::Read + Send>>,
    ) -> Result<unpack::Unpacked> {
        let input = open().and_then(unpack::decompress).map_err(ImageError::io("read a layer"))?;
        rustix::fs::chmod(work, rustix::fs::Mode::from_raw_mode(0o755))
            .map_err(|e| ImageError::io("make a layer directory")(e.into()))?;
        unpack::unpack(input, work, parents)
    }

    fn adopt_layer(&self, work: &Path, chain: &str, unpacked: unpack::Unpacked) -> Result<()> {
        let mut catalog = self.catalog.lock();
        // A directory that a crash left behind under the next number must not be in the way.
        let dir = loop {
            catalog.next += 1;
            let dir = catalog.next.to_string();
            if !self.dir.join("layers").join(&dir).exists() {
                break dir;
            }
        };
        fs::rename(work, self.dir.join("layers").join(&dir)).map_err(ImageError::io("place a layer"))?;
        let layer = Layer { dir, diff_id: unpacked.diff_id, bytes: unpacked.bytes, inodes: unpacked.inodes };
        // The catalog is written with the image; until then the layer is garbage that a restart collects.
        catalog.layers.insert(chain.to_owned(), layer);
        Ok(())
    }

    /// Makes an image visible: all its layers are there. The file systems are flushed first, so what the catalog names
    /// is whole even after a power cut. Names move from older images.
    pub(super) fn commit(
        &self,
        config: &[u8],
        diff_ids: &[String],
        tag: Option<&Reference>,
        digest: Option<String>,
    ) -> Result<Image> {
        let id = self.write_blob(config)?;
        let layers = File::open(self.layers_dir()).map_err(ImageError::io("open the layers directory"))?;
        rustix::fs::syncfs(&layers).map_err(|e| ImageError::io("flush the layers")(e.into()))?;
        let mut catalog = self.catalog.lock();
        let mut next = catalog.clone();
        let image = next.add(id, manifest::chain_ids(diff_ids), config.len() as u64, tag, digest)?;
        self.save(&next)?;
        *catalog = next;
        Ok(image)
    }

    /// Gives an image another name, which it takes from whoever has it; answers the name in its full form.
    pub fn tag(&self, image: &str, name: &str) -> Result<String> {
        let reference = Reference::parse(name)?;
        let tagged = reference.tagged().filter(|_| reference.digest.is_none());
        let bad = || ImageError::Name(name.to_owned(), "a name with a digest can't be given");
        let tagged = tagged.ok_or_else(bad)?;
        let mut catalog = self.catalog.lock();
        let mut next = catalog.clone();
        let found = next.find(image).ok_or_else(|| ImageError::NotFound(image.to_owned()))?.id.clone();
        for (id, other) in &mut next.images {
            other.tags.retain(|tag| *tag != tagged);
            if *id == found {
                other.tags.push(tagged.clone());
            }
        }
        self.save(&next)?;
        *catalog = next;
        Ok(tagged)
    }

    /// Writes the catalog so that either the old or the new one is there after a crash.
    pub(super) fn save(&self, catalog: &Catalog) -> Result<()> {
        let path = self.dir.join("images.json");
        let bytes = serde_json::to_vec(catalog).map_err(|e| ImageError::Invalid(e.to_string()))?;
        replace_file(&path, &bytes).map_err(ImageError::io(format_args!("write {}", path.display())))
    }
}

impl Catalog {
    pub(super) fn find(&self, name: &str) -> Option<&Image> {
        if let Some(image) = self.images.get(name) {
            return Some(image);
        }
        if let Ok(reference) = Reference::parse(name) {
            let tagged = reference.tagged().filter(|_| reference.digest.is_none());
            let digest = reference.digest.as_ref().map(|d| format!("{}@{d}", reference.name()));
            let named = |i: &&Image| {
                tagged.as_ref().is_some_and(|t| i.tags.contains(t))
                    || digest.as_ref().is_some_and(|d| i.digests.contains(d))
            };
            if let Some(image) = self.images.values().find(named) {
                return Some(image);
            }
        }
        self.by_prefix(name)
    }

    /// A prefix of one ID only, at least as long as tools print.
    fn by_prefix(&self, name: &str) -> Option<&Image> {
        const SHORTEST: usize = 12;
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        if hex.len() < SHORTEST || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut found = self.images.values().filter(|i| i.id["sha256:".len()..].starts_with(hex));
        let first = found.next();
        if found.next().is_some() { None } else { first }
    }

    fn add(
        &mut self,
        id: String,
        chain: Vec<String>,
        documents: u64,
        tag: Option<&Reference>,
        digest: Option<String>,
    ) -> Result<Image> {
        let mut size = documents;
        for link in &chain {
            let layer = self.layers.get(link);
            size += layer.ok_or_else(|| ImageError::Invalid(format!("layer {link} of {id} is missing")))?.bytes;
        }
        if let Some(tag) = tag.and_then(Reference::tagged) {
            for other in self.images.values_mut() {
                other.tags.retain(|t| *t != tag);
            }
        }
        let fresh = Image { id: id.clone(), tags: vec![], digests: vec![], chain, size, pinned: false };
        let image = self.images.entry(id).or_insert(fresh);
        let push = |list: &mut Vec<String>, name: Option<String>| {
            if let Some(name) = name.filter(|n| !list.contains(n)) {
                list.push(name);
            }
        };
        push(&mut image.tags, tag.and_then(Reference::tagged));
        push(&mut image.digests, digest);
        Ok(image.clone())
    }
}

/// Writes beside, flushes, renames, flushes the directory.
pub(super) fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
