//! Where audit events go: a file that is exchanged when it is big, or standard output. Lines as upstream writes them, in
//! JSON or the older text. I/O: writes, renames and packs files.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::Value;

/// The flags `--audit-log-…`.
#[derive(Debug, Clone)]
pub struct Options {
    /// `-` is standard output.
    pub path: PathBuf,
    /// Days that an exchanged file is kept; 0 is for ever.
    pub max_age: u32,
    /// Exchanged files that are kept; 0 is all.
    pub max_backup: u32,
    /// Megabytes at which a file is exchanged; 0 is upstream's 100.
    pub max_size: u64,
    pub format: Format,
    /// Exchanged files are packed.
    pub compress: bool,
    pub mode: Mode,
}

/// Upstream's size of a file that says none, in megabytes.
const DEFAULT_SIZE: u64 = 100;
/// Events that wait for the disk in batch mode: upstream's number; what comes beyond is lost and counted.
const BUFFERED: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Legacy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Written by a thread of its own.
    Batch,
    /// Written before the request goes on.
    Blocking,
    /// The same, and a request whose arrival can't be logged is refused.
    BlockingStrict,
}

/// An open log.
pub struct Log {
    pub mode: Mode,
    format: Format,
    way: Way,
}

enum Way {
    Direct(Mutex<Sink>),
    Queue(SyncSender<String>),
}

impl Log {
    /// Opens the file, so that a wrong path is told at once.
    pub fn open(options: &Options) -> io::Result<Log> {
        let mut sink = Sink::open(options)?;
        let way = match options.mode {
            Mode::Batch => {
                let (queue, lines) = sync_channel::<String>(BUFFERED);
                std::thread::Builder::new().name("audit-log".to_owned()).spawn(move || {
                    for line in lines {
                        if let Err(error) = sink.write(&line, Timestamp::now()) {
                            tracing::error!(%error, "an audit event could not be written");
                        }
                    }
                })?;
                Way::Queue(queue)
            }
            Mode::Blocking | Mode::BlockingStrict => Way::Direct(Mutex::new(sink)),
        };
        Ok(Log { mode: options.mode, format: options.format, way })
    }

    /// Writes one event; what could not be written is told in the server's own log, too.
    pub fn write(&self, event: &Value) -> io::Result<()> {
        let line = match self.format {
            Format::Json => format!("{event}\n"),
            Format::Legacy => legacy(event),
        };
        let outcome = match &self.way {
            Way::Direct(sink) => sink.lock().write(&line, Timestamp::now()),
            Way::Queue(queue) => {
                queue.try_send(line).map_err(|_| io::Error::other("the audit log's buffer is full: an event is lost"))
            }
        };
        if let Err(error) = &outcome {
            tracing::error!(%error, "an audit event could not be written");
        }
        outcome
    }
}

/// The file itself.
struct Sink {
    options: Options,
    /// `None` is standard output.
    file: Option<File>,
    size: u64,
    /// Held while old files are cleared away: one does that at a time.
    clearing: Arc<Mutex<()>>,
}

impl Sink {
    fn open(options: &Options) -> io::Result<Sink> {
        let mut sink = Sink { options: options.clone(), file: None, size: 0, clearing: Arc::default() };
        if options.path != Path::new("-") {
            sink.reopen()?;
        }
        Ok(sink)
    }

    fn reopen(&mut self) -> io::Result<()> {
        let path = &self.options.path;
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            std::fs::create_dir_all(dir)?;
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    fn write(&mut self, line: &str, now: Timestamp) -> io::Result<()> {
        if self.file.is_none() {
            return io::stdout().lock().write_all(line.as_bytes());
        }
        let most = if self.options.max_size == 0 { DEFAULT_SIZE } else { self.options.max_size };
        if self.size > 0 && self.size + line.len() as u64 > most << 20 {
            self.exchange(now)?;
        }
        if let Some(file) = &mut self.file {
            file.write_all(line.as_bytes())?;
        }
        self.size += line.len() as u64;
        Ok(())
    }

    /// Puts the file aside under its time, begins another, and clears away what is too old or too much.
    fn exchange(&mut self, now: Timestamp) -> io::Result<()> {
        std::fs::rename(&self.options.path, backup_name(&self.options.path, now))?;
        self.reopen()?;
        let (options, clearing) = (self.options.clone(), self.clearing.clone());
        // Packing a hundred megabytes takes seconds, for which no request waits.
        std::thread::Builder::new().name("audit-backups".to_owned()).spawn(move || {
            let _one = clearing.lock();
            if let Err(error) = clear(&options, now) {
                tracing::error!(%error, "old audit logs could not be cleared away");
            }
        })?;
        Ok(())
    }
}

/// How the time stands in the name of a file put aside: upstream's form.
const STAMP: &str = "%Y-%m-%dT%H-%M-%S%.3f";

fn parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let stem = text(path.file_stem()).unwrap_or_default();
    let extension = text(path.extension()).map(|extension| format!(".{extension}")).unwrap_or_default();
    (stem, extension)
}

fn backup_name(path: &Path, now: Timestamp) -> PathBuf {
    let (stem, extension) = parts(path);
    path.with_file_name(format!("{stem}-{}{extension}", now.strftime(STAMP)))
}

/// The files put aside, newest first.
fn backups(path: &Path) -> io::Result<Vec<(Timestamp, PathBuf)>> {
    let (stem, extension) = parts(path);
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let plain = name.strip_suffix(".gz").unwrap_or(&name);
        let stamp = plain.strip_prefix(&format!("{stem}-")).and_then(|rest| rest.strip_suffix(&extension));
        let time = stamp.and_then(|stamp| jiff::civil::DateTime::strptime(STAMP, stamp).ok());
        if let Some(time) = time.and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC).ok()) {
            found.push((time.timestamp(), entry.path()));
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    Ok(found)
}

fn clear(options: &Options, now: Timestamp) -> io::Result<()> {
    let oldest = now - SignedDuration::from_hours(24 * i64::from(options.max_age));
    for (at, (time, path)) in backups(&options.path)?.into_iter().enumerate() {
        let many = options.max_backup > 0 && at >= options.max_backup as usize;
        let old = options.max_age > 0 && time < oldest;
        if many || old {
            std::fs::remove_file(&path)?;
        } else if options.compress && path.extension().is_none_or(|extension| extension != "gz") {
            pack(&path)?;
        }
    }
    Ok(())
}

fn pack(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    let packed = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&name)?;
    let mut packer = GzEncoder::new(packed, Compression::default());
    io::copy(&mut File::open(path)?, &mut packer)?;
    packer.finish()?.sync_all()?;
    std::fs::remove_file(path)
}

/// Upstream's older text.
fn legacy(event: &Value) -> String {
    let text = |value: &Value, none: &str| match value.as_str() {
        Some(text) if !text.is_empty() => text.to_owned(),
        _ => none.to_owned(),
    };
    let quote = meta::text::quote;
    let list = |value: &Value, none: &str| match value.as_array().filter(|list| !list.is_empty()) {
        Some(list) => list.iter().filter_map(Value::as_str).map(quote).collect::<Vec<_>>().join(","),
        None => none.to_owned(),
    };
    let code = event["responseStatus"]["code"].as_i64().map_or("<deferred>".to_owned(), |code| code.to_string());
    format!(
        "{} AUDIT: id={} stage={} ip={} method={} user={} groups={} as={} asgroups={} user-agent={} namespace={} uri={} response={}\n",
        text(&event["requestReceivedTimestamp"], ""),
        quote(&text(&event["auditID"], "")),
        quote(&text(&event["stage"], "")),
        quote(&text(&event["sourceIPs"][0], "<unknown>")),
        quote(&text(&event["verb"], "")),
        quote(&text(&event["user"]["username"], "<none>")),
        quote(&list(&event["user"]["groups"], "<none>")),
        quote(&text(&event["impersonatedUser"]["username"], "<self>")),
        quote(&list(&event["impersonatedUser"]["groups"], "<lookup>")),
        quote(&text(&event["userAgent"], "")),
        quote(&text(&event["objectRef"]["namespace"], "<none>")),
        quote(&text(&event["requestURI"], "")),
        quote(&code),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::os::unix::fs::PermissionsExt as _;

    fn options(path: &Path) -> Options {
        Options {
            path: path.to_owned(),
            max_age: 0,
            max_backup: 0,
            max_size: 1,
            format: Format::Json,
            compress: false,
            mode: Mode::Blocking,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a time")
    }

    #[test]
    fn a_full_file_is_put_aside_and_only_so_many_are_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("logs/audit.log");
        let mut sink = Sink::open(&Options { max_backup: 2, ..options(&path) }).expect("open");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let line = format!("{}\n", "x".repeat(700 << 10));
        for second in 0..5 {
            sink.write(&line, at(second)).expect("written");
        }
        assert_eq!(std::fs::metadata(&path).expect("there").len(), line.len() as u64);
        let _one = sink.clearing.lock();
        clear(&sink.options, at(5)).expect("cleared");
        let names: Vec<String> = backups(&path)
            .expect("list")
            .iter()
            .map(|(_, path)| path.file_name().expect("name").to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["audit-2027-01-15T08-00-04.000.log", "audit-2027-01-15T08-00-03.000.log"]);
        let old = Options { max_age: 1, compress: true, ..sink.options.clone() };
        clear(&old, at(4 + 24 * 3600)).expect("cleared");
        let left = backups(&path).expect("list");
        assert_eq!(left.len(), 1);
        assert!(left[0].1.to_string_lossy().ends_with("audit-2027-01-15T08-00-04.000.log.gz"), "{left:?}");
        let mut text = String::new();
        let packed = File::open(&left[0].1).expect("open");
        io::Read::read_to_string(&mut flate2::read::GzDecoder::new(packed), &mut text).expect("unpacked");
        assert_eq!(text, line);
    }

    #[test]
    fn a_log_is_gone_on_with_and_batches_reach_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("audit.log");
        for mode in [Mode::Blocking, Mode::Batch] {
            let log = Log::open(&Options { mode, ..options(&path) }).expect("open");
            log.write(&json!({"auditID": "a"})).expect("written");
        }
        for _ in 0..200 {
            if std::fs::read_to_string(&path).expect("text").lines().count() == 2 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(std::fs::read_to_string(&path).expect("text"), "{\"auditID\":\"a\"}\n".repeat(2));
        assert!(Log::open(&options(Path::new("/proc/nowhere/audit.log"))).is_err());
    }

    #[test]
    fn the_older_text_is_upstreams() {
        let event = json!({
            "requestReceivedTimestamp": "2026-01-01T00:00:00.000001Z", "auditID": "i", "stage": "ResponseComplete",
            "sourceIPs": ["10.0.0.1"], "verb": "get", "user": {"username": "u", "groups": ["a", "b"]},
            "userAgent": "curl", "objectRef": {"namespace": "n"}, "requestURI": "/x", "responseStatus": {"code": 200},
        });
        let want = "2026-01-01T00:00:00.000001Z AUDIT: id=\"i\" stage=\"ResponseComplete\" ip=\"10.0.0.1\" method=\"get\" user=\"u\" groups=\"\\\"a\\\",\\\"b\\\"\" as=\"<self>\" asgroups=\"<lookup>\" user-agent=\"curl\" namespace=\"n\" uri=\"/x\" response=\"200\"\n";
        assert_eq!(legacy(&event), want);
        assert!(legacy(&json!({})).ends_with("response=\"<deferred>\"\n"));
    }
}
