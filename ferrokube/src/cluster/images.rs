//! The folder of images: archives that a person put there are imported at a start, before the kubelet runs pods that
//! need them. What was imported already, and is still there, is left out. A bad archive is told in the log and in an
//! event, and keeps none of the others. I/O: reads the folder, speaks to the runtime.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use wire::cri as api;

use super::patience::Word;
use super::told;
use crate::commands::image;
use crate::config::{Host, write_private};
use crate::cri;

/// More files than this in the folder are not looked at.
const MAX_FILES: usize = 1000;
/// How much of an archive is read before it is said how far it is.
const STEP: u64 = 16 << 20;

/// Which archives were imported, by path.
type Record = BTreeMap<PathBuf, Imported>;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Imported {
    /// Size, inode and time of change: another archive differs in one of them.
    mark: (u64, u64, i64, i64),
    images: Vec<String>,
}

/// Imports what is new, and says of each archive that it could not be.
pub async fn import(host: &Host, client: &kube::Client, word: &Word) {
    let dir = host.images();
    let archives = archives(&dir);
    if archives.is_empty() {
        return;
    }
    let file = host.data_dir.join("imported.json");
    let mut record: Record = fs::read(&file).ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default();
    record.retain(|path, _| archives.iter().any(|(archive, _)| archive == path));
    let here = here(host).await.unwrap_or_default();
    let count = archives.len();
    for (n, (path, about)) in archives.into_iter().enumerate() {
        let mark = mark(&about);
        if record.get(&path).is_some_and(|known| is_done(known, mark, &here)) {
            continue;
        }
        let what = format!("importing {} ({} of {count})", path.display(), n + 1);
        match one(host, &path, what, word).await {
            Ok(images) => {
                tracing::info!(file = %path.display(), images = images.join(", "), "imported");
                record.insert(path, Imported { mark, images });
            }
            Err(error) => {
                record.remove(&path);
                told::failed(client, host, "ImageImportFailed", &path, &format!("{error:#}")).await;
            }
        }
    }
    word.clear();
    let written = serde_json::to_vec(&record).map_err(Into::into).and_then(|json| write_private(&file, &json));
    if let Err(error) = written {
        tracing::warn!(error = format!("{error:#}"), "what was imported is not written down: it will be again");
    }
}

fn is_done(known: &Imported, mark: (u64, u64, i64, i64), here: &BTreeSet<String>) -> bool {
    known.mark == mark && known.images.iter().all(|image| here.contains(image))
}

fn mark(about: &Metadata) -> (u64, u64, i64, i64) {
    (about.size(), about.ino(), about.mtime(), about.mtime_nsec())
}

/// The files of a folder, and its directories that hold an OCI layout, by name.
fn archives(dir: &Path) -> Vec<(PathBuf, Metadata)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().take(MAX_FILES);
    let wanted = |path: PathBuf| {
        let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        // A link is meant; a pipe would hold the start for ever.
        let about = fs::metadata(&path).ok().filter(|_| !hidden)?;
        let index = about.is_dir().then(|| fs::metadata(path.join("index.json")).ok()).flatten();
        match about.is_file() {
            true => Some((path, about)),
            false => index.map(|about| (path, about)),
        }
    };
    let mut found: Vec<_> = entries.filter_map(|entry| wanted(entry.path())).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// Names and IDs of the images that the node has.
async fn here(host: &Host) -> Result<BTreeSet<String>> {
    let channel = cri::connect(&host.cri_socket()).await?;
    let images = cri::images(channel).list_images(api::ListImagesRequest::default()).await?.into_inner().images;
    Ok(images.into_iter().flat_map(|image| image.repo_tags.into_iter().chain([image.id])).collect())
}

async fn one(host: &Host, path: &Path, what: String, word: &Word) -> Result<Vec<String>> {
    word.say(what.clone());
    let source = image::archive(path).context("opening it")?;
    image::send(&host.cri_socket(), Box::new(Counted { source, what, word: word.clone(), done: 0, said: 0 }), "").await
}

/// Says how far an archive was read.
struct Counted {
    source: Box<dyn Read + Send>,
    what: String,
    word: Word,
    done: u64,
    said: u64,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.source.read(buffer)?;
        self.done += n as u64;
        if self.done - self.said >= STEP {
            self.said = self.done;
            self.word.say(format!("{}, {} MB", self.what, self.done >> 20));
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_imported_and_is_still_there_is_not_imported_again() {
        let known = Imported { mark: (5, 1, 7, 0), images: vec!["docker.io/library/a:1".into()] };
        let here = BTreeSet::from(["docker.io/library/a:1".to_owned()]);
        assert!(is_done(&known, (5, 1, 7, 0), &here));
        assert!(!is_done(&known, (5, 1, 8, 0), &here), "written anew");
        assert!(!is_done(&known, (5, 1, 7, 0), &BTreeSet::new()), "the image was removed");
    }

    #[test]
    fn archives_and_layouts_are_found_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        for layout in ["layout", "other"] {
            fs::create_dir(dir.path().join(layout)).expect("a directory");
        }
        for file in ["b.tar", "a.tar.gz", ".part", "layout/index.json"] {
            fs::write(dir.path().join(file), "x").expect("a file");
        }
        let found: Vec<_> = archives(dir.path()).into_iter().map(|(path, _)| path).collect();
        assert_eq!(found, ["a.tar.gz", "b.tar", "layout"].map(|name| dir.path().join(name)));
        assert!(archives(Path::new("/nowhere/at/all")).is_empty());
    }

    #[test]
    fn how_far_an_archive_was_read_is_a_sign_that_the_start_goes_on() {
        let word = Word::default();
        let source = Box::new(std::io::repeat(0).take(STEP * 2));
        let mut counted = Counted { source, what: "importing a".into(), word: word.clone(), done: 0, said: 0 };
        std::io::copy(&mut counted, &mut std::io::sink()).expect("read");
        assert_eq!(word.said().as_deref(), Some("importing a, 32 MB"));
    }
}
