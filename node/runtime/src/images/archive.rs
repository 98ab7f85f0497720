//! Loads images from archives: `docker save` and OCI. Does I/O.
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
/// Bytes that a file is told by: a header of tar.
const HEAD: u64 = 512;
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
    #[serde(default, deserialize_with = "manifest::or_default")]
    layers: Vec<String>,
}

/// The name that whoever imports gives.
struct Given {
    reference: Reference,
    /// Said without a tag: each image keeps the tag that the archive gives it.
    bare: bool,
}

impl Given {
    fn parse(text: &str) -> Result<Option<Given>> {
        if text.is_empty() {
            return Ok(None);
        }
        let reference = Reference::parse(text)?;
        let said = |tag: &String| text.ends_with(&format!(":{tag}"));
        let bare = reference.digest.is_none() && !reference.tag.as_ref().is_some_and(said);
        Ok(Some(Given { reference, bare }))
    }

    fn with_tag(&self, tag: Option<String>) -> Reference {
        let own = tag.filter(|_| self.bare).or_else(|| self.reference.tag.clone());
        Reference { tag: own, ..self.reference.clone() }
    }

    /// One name is not enough for several images.
    fn check(name: Option<&Given>, images: usize) -> Result<()> {
        match name {
            Some(given) if images > 1 && !given.bare => Err(ImageError::Invalid(format!(
                "the archive holds {images} images, which can't all be {}: a name without a tag leaves each its own tag",
                given.reference
            ))),
            _ => Ok(()),
        }
    }
}

impl Images {
    /// Loads every image of an archive stream (plain, gzip or zstd). `name` takes the place of what the archive calls it.
    pub fn import(&self, archive: impl Read + Send + 'static, name: Option<&str>) -> Result<Vec<Image>> {
        let name = Given::parse(name.unwrap_or_default())?;
        let work = self.ingest_dir()?;
        let done = spool(Box::new(archive), &work).and_then(|files| self.import_files(&files, name.as_ref()));
        let _ = linux::root::remove_tree(&work);
        done
    }

    fn import_files(&self, files: &Files, name: Option<&Given>) -> Result<Vec<Image>> {
        if files.0.contains_key("manifest.json") {
            let saved: Vec<Saved> = serde_json::from_slice(&files.document("manifest.json")?)
                .map_err(|e| ImageError::Invalid(format!("manifest.json of the archive: {}", cut(&e.to_string()))))?;
            Given::check(name, saved.len())?;
            return saved.iter().map(|one| self.import_saved(files, one, name)).collect();
        }
        if files.0.contains_key("index.json") {
            let index = manifest::parse("index.json", &files.document("index.json")?)?;
            let list = index.manifests.unwrap_or_default();
            Given::check(name, list.len())?;
            let one = |entry: &Descriptor| {
                let name = name.map(|given| given.with_tag(tag_of(entry)));
                self.import_entry(files, entry, name.as_ref(), 0)
            };
            let images = list.iter().map(one).collect::<Result<Vec<Image>>>()?;
            if images.is_empty() {
                return Err(ImageError::Invalid("index.json of the archive lists no image".into()));
            }
            return Ok(images);
        }
        Err(ImageError::Invalid(
            "not an image archive: it holds neither manifest.json (docker save) nor index.json (OCI)".into(),
        ))
    }

    fn import_saved(&self, files: &Files, saved: &Saved, name: Option<&Given>) -> Result<Image> {
        let config = files.document(&saved.config)?;
        let parsed = manifest::parse_config("the archive", &config)?;
        let tags = saved.repo_tags.clone().unwrap_or_default();
        parsed.check_platform(tags.first().map_or("in the archive", String::as_str))?;
        self.import_layers(files, &parsed.rootfs.diff_ids, &saved.layers)?;
        let mut names = tags.iter().map(|t| Reference::parse(t)).collect::<Result<Vec<_>>>()?;
        if let Some(given) = name {
            names = names.into_iter().map(|own| given.with_tag(own.tag)).collect();
            if !given.bare || names.is_empty() {
                names = vec![given.reference.clone()];
            }
        }
        self.commit_names(&config, &parsed.rootfs.diff_ids, &names, None)
    }

    fn import_entry(&self, files: &Files, entry: &Descriptor, name: Option<&Reference>, depth: usize) -> Result<Image> {
        // The OCI annotation often holds a bare tag, which names nothing.
        let own = named(entry).filter(|n| n.contains(['/', ':'])).find_map(|n| Reference::parse(n).ok());
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

/// What an index calls an image, best first.
fn named(entry: &Descriptor) -> impl Iterator<Item = &String> {
    let keys = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
    keys.into_iter().filter_map(move |key| entry.annotations.get(key))
}

/// The tag in that.
fn tag_of(entry: &Descriptor) -> Option<String> {
    named(entry).find_map(|name| match name.contains(['/', ':']) {
        true => Reference::parse(name).ok()?.tag,
        false => Reference::parse(&format!("x:{name}")).ok()?.tag,
    })
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
    let mut archive = unpack::decompress(archive).map_err(|e| unreadable(&e, 0))?;
    let mut head = Vec::new();
    archive.by_ref().take(HEAD).read_to_end(&mut head).map_err(|e| unreadable(&e, 0))?;
    if let Some(what) = foreign(&head) {
        return Err(ImageError::Invalid(format!("not an image archive: {what}")));
    }
    let archive = Box::new(io::Cursor::new(head).chain(archive));
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

/// What a file that is no tar archive is, by how it begins.
fn foreign(head: &[u8]) -> Option<String> {
    const KINDS: [(&[u8], &str); 7] = [
        (b"\xfd7zXZ", "it is compressed with xz, which is not read: `xz -d` it first"),
        (b"BZh", "it is compressed with bzip2, which is not read: `bunzip2` it first"),
        (b"PK\x03\x04", "it is a zip file"),
        (b"\x7fELF", "it is a program"),
        (b"!<arch>", "it is an ar archive, such as a Debian package"),
        (b"hsqs", "it is a squashfs file system"),
        (b"QFI\xfb", "it is the disk of a virtual machine"),
    ];
    if head.is_empty() {
        return Some("it is empty".to_owned());
    }
    if let Some((_, what)) = KINDS.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Some((*what).to_owned());
    }
    // A character may be cut at the end.
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(e) if e.error_len().is_none() => std::str::from_utf8(&head[..e.valid_up_to()]).unwrap_or_default(),
        Err(_) => "",
    };
    let plain = |c: char| !c.is_control() || c.is_whitespace() || c == '\x1b';
    if let Some(line) = text.lines().map(str::trim).find(|l| !l.is_empty() && text.chars().all(plain)) {
        return Some(format!("it is a text file that begins with {:?}", cut(line)));
    }
    (head.len() < HEAD as usize).then(|| "it is no tar file".to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn collect(dir: &Path, below: &str, files: &mut BTreeMap<String, PathBuf>) {
        for entry in fs::read_dir(dir.join(below)).unwrap().flatten() {
            let name = Path::new(below).join(entry.file_name()).to_string_lossy().into_owned();
            match entry.file_type().unwrap().is_dir() {
                true => collect(dir, &name, files),
                false => drop(files.insert(name, entry.path())),
            }
        }
    }

    /// A layout of images without layers, by what their index says of them.
    fn layout(dir: &Path, annotations: &[Value]) {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let put = |value: Value| {
            let digest = crate::digest::of(value.to_string().as_bytes());
            fs::write(blobs.join(&digest["sha256:".len()..]), value.to_string()).unwrap();
            digest
        };
        let entry = |(at, notes): (usize, &Value)| {
            let platform = manifest::Platform::here();
            let config = put(json!({"os": "linux", "architecture": platform.architecture, "author": at.to_string(),
                "config": null, "rootfs": {"type": "layers", "diff_ids": null}}));
            let digest = put(json!({"schemaVersion": 2, "config": {"digest": config}, "layers": null}));
            json!({"digest": digest, "annotations": notes})
        };
        let manifests: Vec<Value> = annotations.iter().enumerate().map(entry).collect();
        fs::write(dir.join("index.json"), json!({"schemaVersion": 2, "manifests": manifests}).to_string()).unwrap();
    }

    fn import(annotations: &[Value], name: &str) -> Result<Vec<Vec<String>>> {
        let dir = tempfile::tempdir().unwrap();
        layout(&dir.path().join("layout"), annotations);
        let images = Images::open(dir.path().join("store")).unwrap();
        let mut files = BTreeMap::new();
        collect(&dir.path().join("layout"), "", &mut files);
        let done = images.import_files(&Files(files), Given::parse(name)?.as_ref())?;
        Ok(done.into_iter().map(|i| i.tags).collect())
    }

    #[test]
    fn a_layout_with_a_bare_tag_can_be_given_a_name() {
        let tag = |tag: &str| json!({"org.opencontainers.image.ref.name": tag});
        let full = "docker.io/shop/api:v1".to_owned();
        assert_eq!(import(&[tag("v1")], "").unwrap(), [[""; 0]; 1]);
        assert_eq!(import(&[tag("v1")], "shop/api").unwrap(), [[full.clone()]]);
        assert_eq!(import(&[tag("v0")], "shop/api:v1").unwrap(), [[full.clone()]]);
        assert_eq!(import(&[tag("other.example/x:v1")], "shop/api").unwrap(), [[full.clone()]]);
        assert_eq!(import(&[tag("not a tag")], "shop/api").unwrap(), [["docker.io/shop/api:latest"]]);
        assert_eq!(import(&[Value::Null], "shop/api:latest").unwrap(), [["docker.io/shop/api:latest"]]);
        let two = [tag("v1"), tag("v2")];
        assert_eq!(import(&two, "shop/api").unwrap(), [[full], ["docker.io/shop/api:v2".to_owned()]]);
        let error = import(&two, "shop/api:v3").unwrap_err().to_string();
        assert!(error.contains("holds 2 images"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_archive_is_told_by_what_it_is() {
        for (file, what) in [
            (&b""[..], "it is empty"),
            (b"apiVersion: v1\nkind: Pod\n", "it is a text file that begins with \"apiVersion: v1\""),
            ("\n  gr\u{fc}n".as_bytes(), "it is a text file that begins with \"gr\u{fc}n\""),
            (b"PK\x03\x04....", "it is a zip file"),
            (b"\xfd7zXZ\0\0", "it is compressed with xz"),
            (b"\x00\x01\x02", "it is no tar file"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let images = Images::open(dir.path()).unwrap();
            let error = images.import(io::Cursor::new(file.to_vec()), None).unwrap_err().to_string();
            assert!(error.contains("not an image archive") && error.contains(what), "{error}");
        }
    }
}
