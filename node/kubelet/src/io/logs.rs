//! Container logs in the CRI's format: lines of time, stream, tag and text. Does I/O: reads, follows and rotates files.
//!
//! A pod may have the host's log directory mounted, so links in it are a stranger's: a log is reached through one
//! descriptor of the directory above all pods' logs, taking none.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use jiff::Timestamp;
use linux::root::Beneath;

/// A line longer than this is split by the runtime; a reader needs no larger buffer.
const READ_BLOCK: usize = 64 << 10;
/// What a runtime writes as one line is at most 16 KiB and its head; what is longer was not written by one.
pub const MAX_LINE: usize = 1 << 20;
/// `<logs>/<pod>/<container>/<n>.log`: the last three names are below the directory that is trusted.
const NAMES_OF_A_LOG: usize = 3;

/// The directory of a log, reached without taking a link of whoever can write to the logs, and the log's name in it.
pub fn dir_of(log: &Path) -> io::Result<(Beneath, String)> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidInput, format!("{} is no path of a log", log.display()));
    let name = log.file_name().ok_or_else(wrong)?.to_string_lossy().into_owned();
    let root = log.ancestors().nth(NAMES_OF_A_LOG).ok_or_else(wrong)?;
    let dir = log.parent().and_then(|dir| dir.strip_prefix(root).ok()).ok_or_else(wrong)?;
    Ok((Beneath::open(root)?.dir(dir)?, name))
}

/// Opens a log for reading.
pub fn open(log: &Path) -> io::Result<fs::File> {
    let (dir, name) = dir_of(log)?;
    dir.file(name)
}

/// One line of a log as the runtime wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    pub time: &'a str,
    /// `stdout` or `stderr`.
    pub stream: &'a str,
    /// The text goes on in the next line.
    pub partial: bool,
    pub text: &'a [u8],
}

/// Takes a line apart; `None` for what is not in the format.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok()?;
    let tag = parts.next()?;
    let text = parts.next().unwrap_or(b"");
    (stream == "stdout" || stream == "stderr").then_some(Line {
        time,
        stream,
        partial: tag.split(|b| *b == b':').next() == Some(b"P"),
        text,
    })
}

/// What of a log is wanted: `kubectl logs` options.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    pub follow: bool,
    pub timestamps: bool,
    pub tail: Option<u64>,
    pub since: Option<Timestamp>,
    pub limit_bytes: Option<u64>,
    /// `stdout` or `stderr` alone.
    pub stream: Option<String>,
}

/// Turns raw lines into what the user asked for. Keeps what it needs between lines.
#[derive(Debug, Clone)]
pub struct Filter {
    options: Options,
    left: Option<u64>,
    in_line: bool,
}

impl Filter {
    pub fn new(options: Options) -> Filter {
        Filter { left: options.limit_bytes, options, in_line: false }
    }

    /// No more bytes are wanted.
    pub fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    /// Appends to `out` what is wanted of one raw line.
    pub fn line(&mut self, raw: &[u8], out: &mut Vec<u8>) {
        let Some(line) = parse(raw) else { return };
        let wanted = self.options.stream.as_deref().is_none_or(|s| s == line.stream);
        let recent = |since: &Timestamp| line.time.parse::<Timestamp>().is_ok_and(|t| t >= *since);
        if !wanted || !self.options.since.as_ref().is_none_or(recent) {
            return;
        }
        let start = out.len();
        if self.options.timestamps && !self.in_line {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if !line.partial {
            out.push(b'\n');
        }
        self.in_line = line.partial;
        if let Some(left) = &mut self.left {
            let written = (out.len() - start) as u64;
            if written > *left {
                out.truncate(start + *left as usize);
            }
            *left = left.saturating_sub(written);
        }
    }
}

/// Byte offset at which the last `lines` lines begin. Reads backwards, so a long log costs nothing; what is longer than
/// any line ends the search.
pub fn tail_offset(file: &mut fs::File, lines: u64) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(end);
    }
    let mut position = end;
    let mut found = 0u64;
    let mut last = end;
    let mut block = vec![0; READ_BLOCK];
    while position > 0 {
        let size = READ_BLOCK.min(position as usize);
        position -= size as u64;
        file.seek(SeekFrom::Start(position))?;
        file.read_exact(&mut block[..size])?;
        for index in (0..size).rev() {
            let at = position + index as u64;
            if block[index] == b'\n' && at + 1 < end {
                last = at;
                found += 1;
                if found == lines {
                    return Ok(at + 1);
                }
            }
        }
        if last - position > MAX_LINE as u64 {
            return Ok(position);
        }
    }
    Ok(0)
}

/// The text of the last lines, at most `bytes` of it: a termination message. Of a container that ended when its log had
/// just been moved aside, it is in the newest of the old files: there is no new one yet, or nothing in it.
pub fn tail_text(path: &Path, lines: usize, bytes: usize) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let (dir, name) = dir_of(path)?;
        match dir.file(&name).and_then(|file| tail(file, lines, bytes)) {
            Ok(out) if !out.is_empty() => Ok(out),
            current => match rotated(&dir, &name)?.pop() {
                Some(old) => tail(dir.file(old)?, lines, bytes),
                None => current,
            },
        }
    };
    let out = read().unwrap_or_else(|error| {
        tracing::debug!(%error, log = %path.display(), "log not read");
        Vec::new()
    });
    let start = out.len().saturating_sub(bytes);
    String::from_utf8_lossy(&out[start..]).into_owned()
}

/// No more of the file is read than such lines can take.
fn tail(mut file: fs::File, lines: usize, bytes: usize) -> io::Result<Vec<u8>> {
    // Time, stream and tag take less than this.
    const HEAD: usize = 64;
    let most = (bytes + lines * HEAD + MAX_LINE) as u64;
    let end = file.seek(SeekFrom::End(0))?;
    let offset = tail_offset(&mut file, lines as u64)?.max(end.saturating_sub(most));
    file.seek(SeekFrom::Start(offset))?;
    let mut raw = Vec::new();
    file.take(most).read_to_end(&mut raw)?;
    let mut filter = Filter::new(Options::default());
    let mut out = Vec::new();
    raw.split_inclusive(|b| *b == b'\n').for_each(|line| filter.line(line, &mut out));
    Ok(out)
}

/// Names of the rotated files of a log, oldest first: `0.log.20260101-000000`, …
pub fn rotated(dir: &Beneath, name: &str) -> io::Result<Vec<String>> {
    let prefix = format!("{name}.");
    let names = dir.entries()?.into_iter().filter_map(|(name, _)| name.into_string().ok());
    let mut old: Vec<String> = names.filter(|n| n.starts_with(&prefix)).collect();
    old.sort();
    Ok(old)
}

/// Removes a log with its rotated files.
pub fn remove(log: &Path) -> io::Result<()> {
    let (dir, name) = match dir_of(log) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    for old in rotated(&dir, &name)? {
        dir.unlink(old)?;
    }
    dir.unlink(name)
}

/// Moves a log aside that grew over `max_size`, keeping `max_files` in all. True when the runtime has to reopen it.
pub fn rotate(log: &Path, max_size: u64, max_files: u32, now: Timestamp) -> io::Result<bool> {
    let (dir, name) = dir_of(log)?;
    if dir.file(&name)?.metadata()?.len() < max_size {
        return Ok(false);
    }
    let mut old = rotated(&dir, &name)?;
    let keep = max_files.saturating_sub(2) as usize;
    while old.len() > keep {
        dir.unlink(old.remove(0))?;
    }
    dir.rename(&name, format!("{name}.{}", now.strftime("%Y%m%d-%H%M%S")))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &[u8] = b"2026-01-01T00:00:00.1Z stdout F one\n2026-01-01T00:00:01Z stderr P tw\n\
                         2026-01-01T00:00:02Z stderr F o\n2026-01-01T00:00:03Z stdout F three\n";

    fn read(options: Options) -> String {
        let mut filter = Filter::new(options);
        let mut out = Vec::new();
        LOG.split_inclusive(|b| *b == b'\n').for_each(|l| filter.line(l, &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn options_choose_lines() {
        assert_eq!(read(Options::default()), "one\ntwo\nthree\n");
        let stamped = read(Options { timestamps: true, stream: Some("stderr".into()), ..Options::default() });
        assert_eq!(stamped, "2026-01-01T00:00:01Z two\n");
        let since = Some("2026-01-01T00:00:02.5Z".parse().unwrap());
        assert_eq!(read(Options { since, ..Options::default() }), "three\n");
        assert_eq!(read(Options { limit_bytes: Some(6), ..Options::default() }), "one\ntw");
    }

    #[test]
    fn tails_and_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        fs::write(&log, LOG).unwrap();
        assert_eq!(tail_text(&log, 1, 100), "three\n");
        assert_eq!(tail_text(&log, 100, 100), "one\ntwo\nthree\n");
        assert_eq!(tail_text(&log, 100, 4), "ree\n");
        for second in 0..4 {
            fs::write(&log, LOG).unwrap();
            let now = Timestamp::from_second(1_700_000_000 + second).unwrap();
            assert!(rotate(&log, 10, 3, now).unwrap());
        }
        fs::write(&log, "").unwrap();
        let (at, name) = dir_of(&log).unwrap();
        assert_eq!(rotated(&at, &name).unwrap().len(), 2);
        assert!(!rotate(&log, 10, 3, Timestamp::UNIX_EPOCH).unwrap());
        remove(&log).unwrap();
        remove(&log).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_last_lines_of_a_log_that_was_just_moved_aside_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        for (second, text) in [LOG, b"2026-01-01T00:00:04Z stdout P DONE\n"].into_iter().enumerate() {
            fs::write(&log, text).unwrap();
            assert!(rotate(&log, 10, 5, Timestamp::from_second(second as i64).unwrap()).unwrap());
        }
        // The container ended before its monitor made a new one, or after it and without another word.
        assert_eq!(tail_text(&log, 80, 100), "DONE");
        fs::write(&log, "").unwrap();
        assert_eq!(tail_text(&log, 80, 100), "DONE");
        fs::write(&log, LOG).unwrap();
        assert_eq!(tail_text(&log, 1, 100), "three\n");
    }

    #[test]
    fn a_log_swapped_for_a_link_or_below_a_swapped_directory_is_neither_read_nor_rotated_nor_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (logs, host) = (dir.path().join("logs"), dir.path().join("host"));
        fs::create_dir_all(&host).unwrap();
        fs::create_dir_all(logs.join("pod/c")).unwrap();
        fs::create_dir_all(logs.join("other")).unwrap();
        for name in ["shadow", "0.log", "0.log.1"] {
            fs::write(host.join(name), LOG).unwrap();
        }
        std::os::unix::fs::symlink(host.join("shadow"), logs.join("pod/c/0.log")).unwrap();
        std::os::unix::fs::symlink(&host, logs.join("other/c")).unwrap();
        for log in [logs.join("pod/c/0.log"), logs.join("other/c/0.log")] {
            assert!(open(&log).is_err());
            assert_eq!(tail_text(&log, 10, 100), "");
            assert!(rotate(&log, 1, 2, Timestamp::UNIX_EPOCH).is_err());
            let _ = remove(&log);
        }
        assert_eq!(fs::read_dir(&host).unwrap().count(), 3);
    }

    #[test]
    fn a_termination_message_of_a_log_without_lines_takes_little_memory() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        let file = fs::File::create(&log).unwrap();
        file.set_len(1 << 40).unwrap();
        assert_eq!(tail_text(&log, 80, 2048), "");
    }
}
