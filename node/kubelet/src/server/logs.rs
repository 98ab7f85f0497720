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

use super::params::Params;
use super::pods;
use super::reply::{Reply, Server, text};
use crate::io::files::Watcher;
use crate::io::logs::{Filter, MAX_LINE, Options, dir_of, rotated, tail_offset};
use crate::pod::make;
use crate::worker::PodWorker;

/// Blocks on their way to a slow reader.
const IN_FLIGHT: usize = 8;
const BLOCK: usize = 64 << 10;

fn bad(message: impl Into<Bytes>) -> Reply {
    text(StatusCode::BAD_REQUEST, message)
}

/// The options of a request; `Err` says which is wrong.
fn options(params: &Params, now: Timestamp) -> Result<Options, String> {
    // Upstream's numbers are signed; what is over is no number there.
    let number = |name: &str, least: i64| match params.get(name).filter(|v| !v.is_empty()) {
        None => Ok(None),
        Some(value) => match value.parse::<i64>() {
            Ok(number) if number >= least => Ok(Some(number.unsigned_abs())),
            _ => Err(format!("invalid {name}: must be a number, {least} or more, not \"{value}\"")),
        },
    };
    let since_time = match params.get("sinceTime").filter(|v| !v.is_empty()) {
        None => None,
        Some(value) => Some(value.parse::<Timestamp>().map_err(|e| format!("invalid sinceTime: {e}"))?),
    };
    let since_seconds = number("sinceSeconds", 1)?;
    if since_seconds.is_some() && since_time.is_some() {
        return Err("at most one of `sinceTime` or `sinceSeconds` may be specified".to_owned());
    }
    let ago = |seconds: u64| {
        let seconds = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
        // Longer ago than time can be told is always.
        now.checked_sub(seconds).unwrap_or(Timestamp::MIN)
    };
    let since = since_seconds.map(ago).or(since_time);
    let stream = match params.get("stream").unwrap_or("All") {
        "All" | "" => None,
        "Stdout" => Some("stdout".to_owned()),
        "Stderr" => Some("stderr".to_owned()),
        other => return Err(format!("invalid stream \"{other}\": must be All, Stdout or Stderr")),
    };
    Ok(Options {
        follow: params.is("follow"),
        timestamps: params.is("timestamps"),
        tail: number("tailLines", 0)?,
        since,
        limit_bytes: number("limitBytes", 1)?,
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
    let log = make::log_file(&server.executor.config, &worker.pod, container, instance.1);
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
    let pod = crate::pod::pods::name(&worker.pod);
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
        let status = self.server.executor.cri.container_status(&self.id).await;
        status.is_ok_and(|s| s.state == wire::cri::ContainerState::ContainerRunning as i32)
    }
}

/// The file that the path leads to by now, if it is another one: the log was rotated.
fn replaced(open: &fs::File, path: &Path) -> Option<fs::File> {
    use std::os::unix::fs::MetadataExt;
    let now = crate::io::logs::open(path).ok()?;
    let (a, b) = (open.metadata().ok()?, now.metadata().ok()?);
    ((a.dev(), a.ino()) != (b.dev(), b.ino())).then_some(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_bounds_are_refused_by_name() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let of = |query: &str| options(&Params::of(Some(query)), now);
        for (query, name) in [
            ("tailLines=-1", "tailLines"),
            ("tailLines=99999999999999999999", "tailLines"),
            ("sinceSeconds=0", "sinceSeconds"),
            ("sinceSeconds=-5", "sinceSeconds"),
            ("limitBytes=0", "limitBytes"),
            ("sinceTime=yesterday", "sinceTime"),
            ("stream=Stdin", "stream"),
            ("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z", "at most one of `sinceTime`"),
        ] {
            let error = of(query).unwrap_err();
            assert!(error.contains(name), "{query}: {error}");
        }
        assert_eq!(of("sinceSeconds=9223372036854775807").unwrap().since, Some(Timestamp::MIN));
        assert_eq!(of("sinceSeconds=10&tailLines=0").unwrap().tail, Some(0));
    }
}
