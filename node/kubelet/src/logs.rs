//! Container logs in the CRI's format: lines of time, stream, tag and text. Does I/O: reads, follows and rotates files.

use std::fs;
use std::io::{self, BufRead, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// A line longer than this is split by the runtime; a reader needs no larger buffer.
const READ_BLOCK: usize = 64 << 10;

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

/// Byte offset at which the last `lines` lines begin. Reads backwards, so a long log costs nothing.
pub fn tail_offset(file: &mut fs::File, lines: u64) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(end);
    }
    let mut position = end;
    let mut found = 0u64;
    let mut block = vec![0; READ_BLOCK];
    while position > 0 {
        let size = READ_BLOCK.min(position as usize);
        position -= size as u64;
        file.seek(SeekFrom::Start(position))?;
        file.read_exact(&mut block[..size])?;
        for index in (0..size).rev() {
            let at = position + index as u64;
            if block[index] == b'\n' && at + 1 < end {
                found += 1;
                if found == lines {
                    return Ok(at + 1);
                }
            }
        }
    }
    Ok(0)
}

/// The text of the last lines, at most `bytes` of it: a termination message.
pub fn tail_text(path: &Path, lines: usize, bytes: usize) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = fs::File::open(path)?;
        let offset = tail_offset(&mut file, lines as u64)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut filter = Filter::new(Options::default());
        let mut out = Vec::new();
        let mut reader = io::BufReader::new(file);
        let mut raw = Vec::new();
        while reader.read_until(b'\n', &mut raw)? > 0 {
            filter.line(&raw, &mut out);
            raw.clear();
        }
        Ok(out)
    };
    let out = read().unwrap_or_default();
    let start = out.len().saturating_sub(bytes);
    String::from_utf8_lossy(&out[start..]).into_owned()
}

/// Rotated files of one log, oldest first, then the log itself: `0.log.20260101-000000`, …, `0.log`.
pub fn files(log: &Path) -> Vec<PathBuf> {
    let Some((dir, name)) = log.parent().zip(log.file_name().map(|n| n.to_string_lossy().into_owned())) else {
        return Vec::new();
    };
    let prefix = format!("{name}.");
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut old: Vec<PathBuf> = entries
        .map(|e| e.path())
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&prefix)))
        .collect();
    old.sort();
    old.push(log.to_owned());
    old
}

/// Moves a log aside that grew over `max_size`, keeping `max_files` in all. True when the runtime has to reopen it.
pub fn rotate(log: &Path, max_size: u64, max_files: u32, now: Timestamp) -> io::Result<bool> {
    if fs::metadata(log)?.len() < max_size {
        return Ok(false);
    }
    let stamp = now.strftime("%Y%m%d-%H%M%S");
    let mut old = files(log);
    old.pop();
    let keep = max_files.saturating_sub(2) as usize;
    while old.len() > keep {
        fs::remove_file(old.remove(0))?;
    }
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".{stamp}"));
    fs::rename(log, PathBuf::from(name))?;
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
        assert_eq!(files(&log).len(), 3);
        assert!(!rotate(&log, 10, 3, Timestamp::UNIX_EPOCH).unwrap());
    }
}
