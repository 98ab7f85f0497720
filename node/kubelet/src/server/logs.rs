//! `/containerLogs`: a container's log, whole or its end, followed while the container runs. Does I/O.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;

use super::route::Params;
use super::{Reply, Server, pods, text};
use crate::files::Watcher;
use crate::logs::{Filter, MAX_LINE, Options, dir_of, rotated, tail_offset};
use crate::make;
use crate::worker::PodWorker;

/// Blocks on their way to a slow reader.
const IN_FLIGHT: usize = 8;
const BLOCK: usize = 64 << 10;

fn bad(message: impl Into<Bytes>) -> Reply {
    text(StatusCode::BAD_REQUEST, message)
}

/// The options of a request; `Err` says which is wrong.
fn options(params: &Params, now: Timestamp) -> Result<Options, String> {
    let number = |name: &str| match params.get(name).filter(|v| !v.is_empty()) {
        None => Ok(None),
        Some(value) => value
            .parse::<u64>()
            .map(Some)
            .map_err(|_| format!("invalid {name}: must be a positive number, not \"{value}\"")),
    };
    let since_time = match params.get("sinceTime").filter(|v| !v.is_empty()) {
        None => None,
        Some(value) => Some(value.parse::<Timestamp>().map_err(|e| format!("invalid sinceTime: {e}"))?),
    };
    let since_seconds = number("sinceSeconds")?;
    let since = match since_seconds {
        Some(seconds) => now.checked_sub(SignedDuration::from_secs(seconds as i64)).ok(),
        None => since_time,
    };
    let stream = match params.get("stream").unwrap_or("All") {
        "All" | "" => None,
        "Stdout" => Some("stdout".to_owned()),
        "Stderr" => Some("stderr".to_owned()),
        other => return Err(format!("invalid stream \"{other}\": must be All, Stdout or Stderr")),
    };
    Ok(Options {
        follow: params.is("follow"),
        timestamps: params.is("timestamps"),
        tail: number("tailLines")?,
        since,
        limit_bytes: number("limitBytes")?,
        stream,
    })
}

pub async fn container(server: Arc<Server>, namespace: &str, name: &str, container: &str, params: &Params) -> Reply {
    let options = match options(params, Timestamp::now()) {
        Ok(options) => options,
        Err(message) => return text(StatusCode::UNPROCESSABLE_ENTITY, message),
    };
    let Some(worker) = pods::find(&server, namespace, name, None).await else {
        return pods::not_found(namespace, name);
    };
    let instance = match wanted(&worker, container, params.is("previous")) {
        Ok(instance) => instance,
        Err(message) => return bad(message),
    };
    let log = make::log_file(&server.hands.config, &worker.pod, container, instance.1);
    let (to, from) = mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(IN_FLIGHT);
    let reader = Reader { server, id: instance.0, log, filter: Filter::new(options.clone()), options, to };
    tokio::spawn(reader.run());
    let stream = futures::stream::unfold(from, |mut from| async move { from.recv().await.map(|item| (item, from)) });
    let mut reply = Response::new(StreamBody::new(stream).boxed_unsync());
    let kind = http::HeaderValue::from_static("text/plain");
    reply.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    reply
}

/// ID and restart count of the instance whose log is meant.
fn wanted(worker: &PodWorker, container: &str, previous: bool) -> Result<(String, u32), String> {
    let pod = crate::pods::name(&worker.pod);
    let Some(slot) = worker.slot(container) else {
        return Err(format!("container \"{container}\" in pod \"{pod}\" is not available"));
    };
    let found = if previous { slot.last.as_ref().filter(|l| l.is_over()) } else { slot.current.as_ref() };
    match found {
        Some(instance) => Ok((instance.id.clone(), instance.restarts)),
        None if previous => Err(format!("previous terminated container \"{container}\" in pod \"{pod}\" not found")),
        None => {
            let why = match &slot.waiting {
                Some((reason, message)) if reason.contains("Image") => {
                    format!("trying and failing to pull image: {message}")
                }
                Some((reason, _)) => reason.clone(),
                None => "ContainerCreating".to_owned(),
            };
            Err(format!("container \"{container}\" in pod \"{pod}\" is waiting to start: {why}"))
        }
    }
}

struct Reader {
    server: Arc<Server>,
    id: String,
    log: PathBuf,
    options: Options,
    filter: Filter,
    to: mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>,
}

/// Where a reader is in a file: what is behind the last whole line waits in `rest`.
struct Place {
    file: fs::File,
    rest: Vec<u8>,
}

impl Reader {
    async fn run(mut self) {
        // Watched before the first read: nothing that is written between the two is missed.
        let mut watcher = if self.options.follow { self.watch() } else { None };
        let mut changes = self.server.runtime_changes.clone();
        let Some(mut place) = self.open().await else { return };
        loop {
            if !self.drain(&mut place).await {
                return;
            }
            if !self.options.follow {
                return;
            }
            if let Some(file) = replaced(&place.file, &self.log) {
                place = Place { file, rest: Vec::new() };
                continue;
            }
            if !self.is_running().await {
                self.drain(&mut place).await;
                return;
            }
            let written = async {
                match &mut watcher {
                    Some(watcher) => watcher.changed().await,
                    None => tokio::time::sleep(std::time::Duration::from_secs(1)).await,
                }
            };
            tokio::select! {
                () = self.to.closed() => return,
                () = written => {}
                _ = changes.changed() => {}
            }
        }
    }

    fn watch(&self) -> Option<Watcher> {
        let watcher = Watcher::new().ok()?;
        watcher.add_dir(self.log.parent()?).ok()?;
        Some(watcher)
    }

    /// Sends rotated files first, unless the end of the log is enough.
    async fn open(&mut self) -> Option<Place> {
        let (dir, name) = dir_of(&self.log).ok()?;
        let mut file = dir.file(&name).ok();
        if let (Some(lines), Some(file)) = (self.options.tail, file.as_mut()) {
            let offset = tail_offset(file, lines).unwrap_or(0);
            // The last lines begin in this file; a rotated one is needed only when this one is too short.
            file.seek(SeekFrom::Start(offset)).ok()?;
        } else {
            for old in rotated(&dir, &name).ok()?.iter().filter(|name| !name.ends_with(".gz")) {
                let Ok(file) = dir.file(old) else { continue };
                if !self.drain(&mut Place { file, rest: Vec::new() }).await {
                    return None;
                }
            }
        }
        Some(Place { file: file?, rest: Vec::new() })
    }

    /// Sends everything up to the end of the file. False when the reader is gone or has enough.
    async fn drain(&mut self, place: &mut Place) -> bool {
        let mut block = vec![0; BLOCK];
        loop {
            let size = match place.file.read(&mut block) {
                Ok(0) | Err(_) => return true,
                Ok(size) => size,
            };
            place.rest.extend_from_slice(&block[..size]);
            let Some(end) = place.rest.iter().rposition(|b| *b == b'\n') else {
                if place.rest.len() > MAX_LINE {
                    // No runtime wrote this: what is left of the line goes, too, for want of a head.
                    place.rest.clear();
                }
                continue;
            };
            let rest = place.rest.split_off(end + 1);
            let lines = std::mem::replace(&mut place.rest, rest);
            let mut out = Vec::with_capacity(lines.len());
            for line in lines.split_inclusive(|b| *b == b'\n') {
                self.filter.line(line, &mut out);
                if self.filter.is_full() {
                    break;
                }
            }
            if !out.is_empty() && self.to.send(Ok(Frame::data(out.into()))).await.is_err() {
                return false;
            }
            if self.filter.is_full() {
                return false;
            }
        }
    }

    async fn is_running(&self) -> bool {
        let status = self.server.hands.cri.container_status(&self.id).await;
        status.is_ok_and(|s| s.state == wire::cri::ContainerState::ContainerRunning as i32)
    }
}

/// The file that the path leads to by now, if it is another one: the log was rotated.
fn replaced(open: &fs::File, path: &Path) -> Option<fs::File> {
    use std::os::unix::fs::MetadataExt;
    let now = crate::logs::open(path).ok()?;
    let (a, b) = (open.metadata().ok()?, now.metadata().ok()?);
    ((a.dev(), a.ino()) != (b.dev(), b.ino())).then_some(now)
}
