//! `image`: the images of this host's nodes, through the daemon of each, which alone owns its store. Without a node's name
//! they are all meant: what comes goes to the host's own node, and from there to the others ([`crate::nodes::images`]).

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use futures::StreamExt;
use serde_json::json;
use tokio::sync::mpsc;
use wire::cri;
use wire::images::{ImportRequest, PullRequest, SaveRequest, TagRequest};

use crate::cli::{Image, Output};
use crate::commands::misc::{no_cluster, print};
use crate::config::record::{self, Record};
use crate::config::{Host, Which};
use crate::cri as runtime;
use crate::fault::{Fault, best_effort};
use crate::nodes::images::{self, Reach};
use crate::nodes::life::State;
use crate::process::Daemon;

/// Bytes of an archive that go into one message.
const CHUNK: usize = 256 << 10;

pub fn run(which: &Which, node: Option<&str>, command: &Image) -> Result<()> {
    let host = which.load()?.ok_or_else(|| no_cluster(which))?;
    if Daemon::find(&host).is_none() {
        return Err(Fault::failed(format!(
            "the cluster {:?} doesn't run: `ferrokube up` starts it",
            host.cluster.name
        ))
        .into());
    }
    let at = match node.filter(|node| *node != host.node_name) {
        Some(node) => {
            record::read(&host)?.unwrap_or_else(|| Record::new(host.cluster.pod_cidr.primary())).named(node)?;
            Reach::of(&host, node)?
        }
        None => Reach::own(&host),
    };
    let all = node.is_none().then_some(&host);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let socket = at.path();
        match command {
            Image::Import { file, called } => import(socket, all, file, called.as_deref().unwrap_or_default()).await,
            Image::Ls { output } => list(socket, *output).await,
            Image::Pull { image } => pull(socket, all, image).await,
            Image::Rm { image } => remove_everywhere(socket, all, image).await,
            Image::Save { images, output } => save(socket, images, output.as_deref()).await,
            Image::Tag { image, other } => tag_everywhere(socket, all, image, other).await,
        }
    })
}

/// Gives the others what has come to the host's own node, and says so where there are any.
async fn spread(all: Option<&Host>, images: &[String]) -> Result<String> {
    let Some(host) = all else { return Ok(String::new()) };
    match images::spread(host, images).await?.len() {
        0 => Ok(String::new()),
        others => Ok(format!(" on {} nodes", others + 1)),
    }
}

/// The runtimes of the host's other nodes that run.
fn others(all: Option<&Host>) -> Result<Vec<Reach>> {
    let Some(host) = all else { return Ok(Vec::new()) };
    let running = record::nodes(host)?.into_iter().filter(|node| State::of(host, &node.name) == State::Running);
    running.map(|node| Reach::of(host, &node.name)).collect()
}

async fn import(socket: &Path, all: Option<&Host>, file: &Path, called: &str) -> Result<()> {
    let source: Box<dyn Read + Send> = match file == Path::new("-") {
        true => Box::new(std::io::stdin()),
        false => archive(file).map_err(|e| Fault::usage(format!("{}: {e}", file.display())))?,
    };
    let names = send(socket, source, called).await?;
    let on = spread(all, &names).await?;
    // What has no name is called by its digest, which no pod spec means.
    let hint =
        |name: &str| if name.starts_with("sha256:") { " (it has no name: `--as NAME` gives it one)" } else { "" };
    print(&names.iter().map(|name| format!("imported {name}{on}{}\n", hint(name))).collect::<String>())
}

/// An archive, or an OCI layout directory.
pub fn archive(path: &Path) -> std::io::Result<Box<dyn Read + Send>> {
    match path.is_dir() {
        true => Ok(layout(path.to_owned())),
        false => Ok(Box::new(std::fs::File::open(path)?)),
    }
}

/// An OCI layout directory, as the tar that the daemon reads.
fn layout(dir: PathBuf) -> Box<dyn Read + Send> {
    let (read, write) = match std::io::pipe() {
        Ok(ends) => ends,
        Err(error) => return Box::new(Broken(error)),
    };
    std::thread::spawn(move || {
        // A reader that gave up has said why itself.
        best_effort("packing an image", pack(&dir, write));
    });
    Box::new(read)
}

/// What a layout is made of, and nothing else: links to files are meant, links to directories may go round in circles or
/// lead to all of the host.
fn pack(dir: &Path, to: impl Write) -> std::io::Result<()> {
    let mut tar = tar::Builder::new(to);
    let mut files: Vec<PathBuf> = ["oci-layout", "index.json"].map(PathBuf::from).to_vec();
    for algorithm in names(&dir.join("blobs"))? {
        let inside = Path::new("blobs").join(algorithm);
        files.extend(names(&dir.join(&inside))?.into_iter().map(|name| inside.join(name)));
    }
    for inside in files {
        let path = dir.join(&inside);
        if std::fs::metadata(&path).is_ok_and(|about| about.is_file()) {
            tar.append_path_with_name(&path, &inside)?;
        }
    }
    tar.finish()
}

fn names(dir: &Path) -> std::io::Result<Vec<std::ffi::OsString>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    std::fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
}

struct Broken(std::io::Error);

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::new(self.0.kind(), self.0.to_string()))
    }
}

/// Streams an archive to the daemon; the names of what was in it come back. `called` takes their place, if it says
/// something.
pub async fn send(socket: &Path, mut source: Box<dyn Read + Send>, called: &str) -> Result<Vec<String>> {
    let mut name = called.to_owned();
    let channel = runtime::connect(socket).await?;
    let (tx, rx) = mpsc::channel(4);
    let reader = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
        loop {
            let mut data = vec![0; CHUNK];
            let n = source.read(&mut data)?;
            data.truncate(n);
            if n == 0 || tx.blocking_send(ImportRequest { name: std::mem::take(&mut name), data: data.into() }).is_err()
            {
                return Ok(());
            }
        }
    });
    let requests = futures::stream::unfold(rx, |mut rx| async move { Some((rx.recv().await?, rx)) });
    let answer = runtime::transfer(channel).import(requests).await;
    let answer = answer.map_err(|status| Fault::failed(status.message().to_owned()))?.into_inner();
    reader.await?.context("reading the archive")?;
    Ok(answer.images.into_iter().flat_map(|i| if i.names.is_empty() { vec![i.id] } else { i.names }).collect())
}

async fn list(socket: &Path, output: Output) -> Result<()> {
    let channel = runtime::connect(socket).await?;
    let answer = runtime::images(channel).list_images(cri::ListImagesRequest::default()).await?.into_inner();
    if output == Output::Json {
        let images: Vec<_> = answer
            .images
            .iter()
            .map(|i| json!({"id": i.id, "names": i.repo_tags, "digests": i.repo_digests, "size": i.size}))
            .collect();
        return print(&format!("{:#}\n", json!(images)));
    }
    let mut rows: Vec<(String, String, String)> = Vec::new();
    for image in &answer.images {
        let id = image.id.trim_start_matches("sha256:").chars().take(12).collect::<String>();
        let names = if image.repo_tags.is_empty() { &image.repo_digests } else { &image.repo_tags };
        let none = vec!["<none>".to_owned()];
        for name in if names.is_empty() { &none } else { names } {
            rows.push((name.clone(), id.clone(), size(image.size)));
        }
    }
    rows.sort();
    let width = rows.iter().map(|(name, ..)| name.len()).max().unwrap_or(0).max(5);
    let mut text = format!("{:<width$}  {:<12}  {:>9}\n", "IMAGE", "ID", "SIZE");
    for (name, id, size) in rows {
        text += &format!("{name:<width$}  {id:<12}  {size:>9}\n");
    }
    print(&text)
}

fn size(bytes: u64) -> String {
    match bytes as f64 {
        b if b < 1e6 => format!("{:.1} kB", b / 1e3),
        b if b < 1e9 => format!("{:.1} MB", b / 1e6),
        b => format!("{:.1} GB", b / 1e9),
    }
}

async fn pull(socket: &Path, all: Option<&Host>, image: &str) -> Result<()> {
    let channel = runtime::connect(socket).await?;
    let request = PullRequest { image: image.to_owned(), ..PullRequest::default() };
    let failed = |status: tonic::Status| match status.message() {
        told if told.contains(image) => Fault::failed(told.to_owned()),
        told => Fault::failed(format!("{image}: {told}")),
    };
    let mut progress = runtime::transfer(channel).pull(request).await.map_err(failed)?.into_inner();
    let mut shown = String::new();
    while let Some(told) = progress.next().await {
        let told = told.map_err(failed)?;
        if !told.image_ref.is_empty() {
            let on = spread(all, std::slice::from_ref(&told.image_ref)).await?;
            return print(&format!("pulled {image} ({}){on}\n", told.image_ref));
        }
        let (done, total) = told.layers.iter().fold((0, 0), |(d, t), l| (d + l.done, t + l.total));
        let line = format!("{} layers, {} of {}", told.layers.len(), size(done), size(total));
        if std::io::IsTerminal::is_terminal(&std::io::stderr()) && line != shown {
            eprint!("\r\x1b[K{line}");
            shown = line;
        }
    }
    Err(Fault::failed(format!("pulling {image} ended without an answer")).into())
}

/// On the others where they have it.
async fn tag_everywhere(socket: &Path, all: Option<&Host>, image: &str, name: &str) -> Result<()> {
    let tagged = tag(socket, image, name).await?;
    for other in others(all)? {
        if has(other.path(), image).await? {
            tag(other.path(), image, name).await?;
        }
    }
    print(&format!("tagged {image} as {tagged}\n"))
}

async fn tag(socket: &Path, image: &str, name: &str) -> Result<String> {
    let channel = runtime::connect(socket).await?;
    let request = TagRequest { image: image.to_owned(), name: name.to_owned() };
    let tagged = runtime::transfer(channel).tag(request).await;
    Ok(tagged.map_err(|status| Fault::failed(status.message().to_owned()))?.into_inner().name)
}

/// An archive is for a file or a pipe.
async fn save(socket: &Path, images: &[String], output: Option<&Path>) -> Result<()> {
    let Some(path) = output else {
        if std::io::IsTerminal::is_terminal(&std::io::stdout()) {
            return Err(
                Fault::usage("the archive would go to the terminal: say -o FILE, or send it on by a pipe").into()
            );
        }
        return receive(socket, images, &mut std::io::stdout().lock()).await;
    };
    // What stands there and is no file, such as a pipe or /dev/null, is written to and stays.
    if std::fs::metadata(path).is_ok_and(|about| !about.is_file()) {
        let to = std::fs::OpenOptions::new().write(true).open(path).with_context(|| path.display().to_string())?;
        return receive(socket, images, &mut std::io::BufWriter::new(to)).await;
    }
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let (draft, file) = draft_of(&path).with_context(|| path.display().to_string())?;
    let saved = receive(socket, images, &mut std::io::BufWriter::new(file)).await;
    let saved = saved.and_then(|()| std::fs::rename(&draft, &path).with_context(|| path.display().to_string()));
    if saved.is_err() {
        best_effort("a draft", std::fs::remove_file(&draft));
    }
    saved
}

/// A file beside another that takes its place when it is whole. In a directory of everybody's somebody may have put a link
/// under any name that can be guessed: it must be new.
fn draft_of(path: &Path) -> std::io::Result<(PathBuf, std::fs::File)> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.part", std::process::id()));
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&draft)?;
    Ok((PathBuf::from(draft), file))
}

async fn receive(socket: &Path, images: &[String], out: &mut impl Write) -> Result<()> {
    let failed = |status: tonic::Status| Fault::failed(status.message().to_owned());
    let channel = runtime::connect(socket).await?;
    let request = SaveRequest { images: images.to_vec() };
    let mut chunks = runtime::transfer(channel).save(request).await.map_err(failed)?.into_inner();
    while let Some(chunk) = chunks.next().await {
        out.write_all(&chunk.map_err(failed)?.data).context("writing the archive")?;
    }
    out.flush().context("writing the archive")
}

/// From every node that has it.
async fn remove_everywhere(socket: &Path, all: Option<&Host>, image: &str) -> Result<()> {
    let others = others(all)?;
    let mut found = false;
    for socket in std::iter::once(socket).chain(others.iter().map(Reach::path)) {
        found |= remove(socket, image).await?;
    }
    if let Some(host) = all.filter(|_| found) {
        images::sweep_if_possible(host);
    }
    if !found {
        return Err(Fault::failed(format!("there is no image {image:?}: see `ferrokube image ls`")).into());
    }
    print(&format!("removed {image}\n"))
}

async fn has(socket: &Path, image: &str) -> Result<bool> {
    let spec = Some(cri::ImageSpec { image: image.to_owned(), ..cri::ImageSpec::default() });
    let mut client = runtime::images(runtime::connect(socket).await?);
    let known = client.image_status(cri::ImageStatusRequest { image: spec, verbose: false }).await?.into_inner();
    Ok(known.image.is_some())
}

/// False: it isn't there.
async fn remove(socket: &Path, image: &str) -> Result<bool> {
    if !has(socket, image).await? {
        return Ok(false);
    }
    let spec = Some(cri::ImageSpec { image: image.to_owned(), ..cri::ImageSpec::default() });
    let mut client = runtime::images(runtime::connect(socket).await?);
    let removed = client.remove_image(cri::RemoveImageRequest { image: spec }).await;
    removed.map_err(|status| Fault::failed(status.message().to_owned()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A link of a layout to itself was followed until the kernel refused, and what came after it was left out.
    #[test]
    fn a_layout_of_circles_is_packed_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let blobs = dir.path().join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("a directory");
        for file in ["oci-layout", "index.json", "README", "blobs/sha256/aa"] {
            fs::write(dir.path().join(file), "x").expect("a file");
        }
        for link in ["round", "blobs/again", "blobs/sha256/there"] {
            symlink(dir.path(), dir.path().join(link)).expect("a link");
        }
        symlink(blobs.join("aa"), blobs.join("bb")).expect("a link");
        let mut packed = Vec::new();
        pack(dir.path(), &mut packed).expect("packed");
        let mut archive = tar::Archive::new(packed.as_slice());
        let entries = archive.entries().expect("entries").map(|entry| entry.expect("an entry"));
        let mut found: Vec<_> = entries.map(|entry| entry.path().expect("a path").display().to_string()).collect();
        found.retain(|path| !path.starts_with("blobs/again/"));
        found.sort();
        assert_eq!(found, ["blobs/sha256/aa", "blobs/sha256/bb", "index.json", "oci-layout"]);
    }

    /// `-o /dev/null` put a file in the place of the device, `-o` in /tmp followed a link that somebody had made there.
    #[test]
    fn a_draft_is_new_whatever_stands_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, victim) = (dir.path().join("out.tar"), dir.path().join("victim"));
        fs::write(&victim, "mine").expect("a file");
        let (draft, _) = draft_of(&path).expect("a draft");
        fs::remove_file(&draft).expect("removed");
        symlink(&victim, &draft).expect("a link");
        draft_of(&path).expect_err("refused");
        assert_eq!(fs::read_to_string(&victim).expect("kept"), "mine");
    }
}
