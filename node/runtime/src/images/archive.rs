//! Loads images from archives: `docker save`, OCI archive, OCI layout directory. Does I/O.
//!
//! The archive is a stream (a pipe, the daemon's socket), whose table of contents may come last, so its files are kept
//! in a work directory until it has ended.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::entries::Entries;
use super::manifest::{self, Descriptor};
use super::reference::Reference;
use super::store::{Image, Images};
use super::{ImageError, Result, cut, room, unpack};

/// Documents are read whole; a bigger one is refused.
const MAX_DOCUMENT: u64 = 8 << 20;
/// Indexes of indexes; more is a loop.
const MAX_DEPTH: usize = 4;
/// An archive with more files than this is no image.
const MAX_FILES: usize = 100_000;
/// Bytes of all their names, which are kept until the table of contents has come.
const MAX_NAMES: usize = 16 << 20;

/// Files of an archive or layout by their path in it.
struct Files(BTreeMap<String, PathBuf>);

/// One entry of a docker archive's manifest.json.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Images {
    /// Loads every image of an archive stream (plain, gzip or zstd). `name` is given to an image that has none.
    pub fn import(&self, archive: impl Read + Send + 'static, name: Option<&str>) -> Result<Vec<Image>> {
        let name = name.filter(|n| !n.is_empty()).map(Reference::parse).transpose()?;
        let work = self.ingest_dir()?;
        let done = spool(Box::new(archive), &work).and_then(|files| self.import_files(&files, name.as_ref()));
        let _ = linux::root::remove_tree(&work);
        done
    }

    /// Loads every image of an OCI layout directory.
    pub fn import_layout(&self, dir: &Path, name: Option<&str>) -> Result<Vec<Image>> {
        let name = name.filter(|n| !n.is_empty()).map(Reference::parse).transpose()?;
        let mut files = BTreeMap::new();
        collect_files(dir, dir, &mut files).map_err(ImageError::io(format_args!("read {}", dir.display())))?;
        self.import_files(&Files(files), name.as_ref())
    }

    fn import_files(&self, files: &Files, name: Option<&Reference>) -> Result<Vec<Image>> {
        if files.0.contains_key("manifest.json") {
            let saved: Vec<Saved> = serde_json::from_slice(&files.document("manifest.json")?)
                .map_err(|e| ImageError::Invalid(format!("manifest.json of the archive: {}", cut(&e.to_string()))))?;
            return saved.iter().map(|one| self.import_saved(files, one, name)).collect();
        }
        if files.0.contains_key("index.json") {
            let index = manifest::parse("index.json", &files.document("index.json")?)?;
            let list = index.manifests.unwrap_or_default();
            let images: Result<Vec<Image>> = list.iter().map(|d| self.import_entry(files, d, name, 0)).collect();
            let images = images?;
            if images.is_empty() {
                return Err(ImageError::Invalid("index.json of the archive lists no image".into()));
            }
            return Ok(images);
        }
        Err(ImageError::Invalid(
            "not an image archive: it holds neither manifest.json (docker save) nor index.json (OCI)".into(),
        ))
    }

    fn import_saved(&self, files: &Files, saved: &Saved, name: Option<&Reference>) -> Result<Image> {
        let config = files.document(&saved.config)?;
        let parsed = manifest::parse_config("the archive", &config)?;
        let tags = saved.repo_tags.clone().unwrap_or_default();
        parsed.check_platform(tags.first().map_or("in the archive", String::as_str))?;
        self.import_layers(files, &parsed.rootfs.diff_ids, &saved.layers)?;
        let mut names = tags.iter().map(|t| Reference::parse(t)).collect::<Result<Vec<_>>>()?;
        if let Some(name) = name {
            names = vec![name.clone()];
        }
        self.commit_names(&config, &parsed.rootfs.diff_ids, &names, None)
    }

    fn import_entry(&self, files: &Files, entry: &Descriptor, name: Option<&Reference>, depth: usize) -> Result<Image> {
        // The OCI annotation often holds a bare tag, which names nothing.
        let own = ["io.containerd.image.name", "org.opencontainers.image.ref.name"]
            .iter()
            .filter_map(|key| entry.annotations.get(*key).filter(|n| n.contains(['/', ':'])))
            .find_map(|n| Reference::parse(n).ok());
        let name = name.cloned().or(own);
        let bytes = files.blob(&entry.digest)?;
        let document = manifest::parse(&entry.digest, &bytes)?;
        if let Some(list) = &document.manifests {
            if depth >= MAX_DEPTH {
                return Err(ImageError::Invalid("the archive's indexes are nested too deep".into()));
            }
            let shown = name.as_ref().map_or("in the archive".to_owned(), ToString::to_string);
            return self.import_entry(files, manifest::choose(&shown, list)?, name.as_ref(), depth + 1);
        }
        let config = document.config.ok_or_else(|| ImageError::Invalid("a manifest without configuration".into()))?;
        let config = files.blob(&config.digest)?;
        let parsed = manifest::parse_config("the archive", &config)?;
        parsed.check_platform(&name.as_ref().map_or("in the archive".to_owned(), ToString::to_string))?;
        let layers: Result<Vec<String>> = document.layers.iter().map(|l| blob_name(&l.digest)).collect();
        self.import_layers(files, &parsed.rootfs.diff_ids, &layers?)?;
        let digest = name.as_ref().map(|n| format!("{}@{}", n.name(), entry.digest));
        self.commit_names(&config, &parsed.rootfs.diff_ids, name.as_slice(), digest)
    }

    fn import_layers(&self, files: &Files, diff_ids: &[String], layers: &[String]) -> Result<()> {
        if diff_ids.len() != layers.len() {
            let (a, b) = (layers.len(), diff_ids.len());
            return Err(ImageError::Invalid(format!("the manifest lists {a} layers, the configuration {b}")));
        }
        for (at, layer) in layers.iter().enumerate() {
            let path = files.path(layer)?;
            self.add_layer(diff_ids, at, || File::open(path).map(|f| Box::new(f) as Box<dyn Read + Send>))?;
        }
        Ok(())
    }

    fn commit_names(
        &self,
        config: &[u8],
        diff_ids: &[String],
        names: &[Reference],
        digest: Option<String>,
    ) -> Result<Image> {
        let mut image = self.commit(config, diff_ids, names.first(), digest)?;
        for name in names.iter().skip(1) {
            image = self.commit(config, diff_ids, Some(name), None)?;
        }
        Ok(image)
    }
}

impl Files {
    fn path(&self, name: &str) -> Result<&Path> {
        let name = name.trim_start_matches("./");
        self.0
            .get(name)
            .map(PathBuf::as_path)
            .ok_or_else(|| ImageError::Invalid(format!("the archive lacks {}", cut(name))))
    }

    fn document(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.path(name)?;
        let doing = || format!("read {} of the archive", cut(name));
        if fs::metadata(path).map_err(ImageError::io(doing()))?.len() > MAX_DOCUMENT {
            return Err(ImageError::Invalid(format!("{} of the archive is too big for a document", cut(name))));
        }
        fs::read(path).map_err(ImageError::io(doing()))
    }

    /// A document by digest, which is checked.
    fn blob(&self, digest: &str) -> Result<Vec<u8>> {
        let bytes = self.document(&blob_name(digest)?)?;
        let got = crate::digest::of(&bytes);
        if got != digest {
            return Err(ImageError::Digest { what: "a document of the archive".into(), expected: digest.into(), got });
        }
        Ok(bytes)
    }
}

fn blob_name(digest: &str) -> Result<String> {
    if !super::reference::is_digest(digest) {
        return Err(ImageError::Invalid(format!("{:?} is not a sha256 digest", cut(digest))));
    }
    Ok(format!("blobs/sha256/{}", &digest["sha256:".len()..]))
}

/// Keeps the files of a stream under numbers: names of the archive never become paths of the host.
fn spool(archive: Box<dyn Read + Send>, work: &Path) -> Result<Files> {
    let mut files = BTreeMap::new();
    let mut links = Vec::new();
    let archive = unpack::decompress(archive).map_err(|e| unreadable(&e, 0))?;
    let archive = room::Bounded::new(archive, work, "the archive").map_err(ImageError::io("look at the disk"))?;
    let mut archive = Entries::new(archive);
    let (mut number, mut names) = (0, 0);
    while let Some(entry) = archive.next().map_err(|e| unreadable(&e, number))? {
        number += 1;
        names += entry.path.len() + entry.link.len();
        if number > MAX_FILES || names > MAX_NAMES {
            return Err(ImageError::Invalid("not an image archive: too many files".into()));
        }
        let name = String::from_utf8_lossy(&entry.path).trim_start_matches("./").to_owned();
        match entry.kind {
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                let path = work.join(number.to_string());
                let written = File::create(&path).and_then(|mut file| io::copy(&mut archive, &mut file));
                written.map_err(|e| broken_off(e, number))?;
                files.insert(name, path);
            }
            tar::EntryType::Symlink | tar::EntryType::Link => {
                links.push((name, String::from_utf8_lossy(&entry.link).into_owned()));
            }
            _ => {}
        }
    }
    // Old docker archives name a layer that two images share once and link to it.
    for (name, target) in links {
        let base = name.rsplit_once('/').map_or("", |(dir, _)| dir);
        let target = join(base, &target);
        if let Some(path) = files.get(&target).cloned() {
            files.insert(name, path);
        }
    }
    Ok(Files(files))
}

/// A file of the archive that could not be kept: the archive's fault, or the disk's.
fn broken_off(error: io::Error, files: usize) -> ImageError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => unreadable(&error, files),
        _ => ImageError::io("keep a file of the archive")(error),
    }
}

/// What is wrong with an archive of which so many files could be read.
fn unreadable(error: &io::Error, files: usize) -> ImageError {
    let why = match files {
        _ if error.kind() == io::ErrorKind::StorageFull => error.to_string(),
        _ if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the archive ends too early: it was not copied whole".to_owned()
        }
        0 => "not an image archive: it is no tar file".to_owned(),
        _ => format!("the archive is damaged after {files} files: {error}"),
    };
    ImageError::Invalid(why)
}

/// `a/b` and `../c/layer.tar` give `a/c/layer.tar`.
fn join(base: &str, relative: &str) -> String {
    let mut parts: Vec<&str> = base.split('/').filter(|p| !p.is_empty()).collect();
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

fn collect_files(root: &Path, dir: &Path, files: &mut BTreeMap<String, PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect_files(root, &path, files)?;
        } else if let Ok(name) = path.strip_prefix(root) {
            files.insert(name.to_string_lossy().into_owned(), path.clone());
        }
        if files.len() > MAX_FILES {
            return Err(io::Error::other("too many files for an OCI layout"));
        }
    }
    Ok(())
}
