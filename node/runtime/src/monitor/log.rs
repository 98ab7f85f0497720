//! The container's log in the format of the container runtime interface. Does I/O.
//!
//! `2026-01-02T03:04:05.123456789Z stdout F text`: F ends a line, P is a part of a line that was too long for one
//! record, or the end of a stream without an end of line. A full disk drops output instead of stopping the container, and never leaves half a record in the way.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::OFlags;

/// Longer lines are cut into parts of this, as containerd does.
const MAX_LINE: usize = 16 << 10;

/// Which stream a record is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// An open log and the unfinished line of each stream.
#[derive(Debug)]
pub struct Log {
    path: Option<PathBuf>,
    file: Option<File>,
    partial: [Vec<u8>; 2],
    /// The last write broke off within a record.
    torn: bool,
}

impl Log {
    /// Opens a log for appending; `None` discards everything.
    pub fn open(path: Option<PathBuf>) -> io::Result<Self> {
        let mut log = Log { path, file: None, partial: [Vec::new(), Vec::new()], torn: false };
        log.reopen()?;
        Ok(log)
    }

    /// Goes on in a new file of the same name, after the old one was moved away.
    pub fn reopen(&mut self) -> io::Result<()> {
        if let Some(path) = &self.path {
            use std::os::unix::fs::OpenOptionsExt;
            let mut options = File::options();
            options.append(true).create(true).mode(0o640);
            // A link in the log's place would have output written to wherever it leads.
            options.custom_flags(OFlags::NOFOLLOW.bits() as i32);
            self.file = Some(options.open(path)?);
            self.torn = false;
        }
        Ok(())
    }

    /// Takes output as it came.
    pub fn write(&mut self, stream: Stream, data: &[u8]) {
        if self.file.is_none() {
            return;
        }
        let stamp = timestamp(now());
        let mut partial = std::mem::take(&mut self.partial[stream as usize]);
        let records = format_records(stream, &stamp, &mut partial, data);
        self.partial[stream as usize] = partial;
        self.append(&records);
    }

    /// Writes what is left of an unfinished line when a stream ends: as a part, so that readers add no end to it.
    pub fn end(&mut self, stream: Stream) {
        let rest = std::mem::take(&mut self.partial[stream as usize]);
        if !rest.is_empty() {
            let mut records = Vec::new();
            record(&mut records, stream, &timestamp(now()), b'P', &rest);
            self.append(&records);
        }
    }

    fn append(&mut self, records: &[u8]) {
        let Some(file) = &mut self.file else { return };
        if records.is_empty() {
            return;
        }
        if self.torn && file.write_all(b"\n").is_err() {
            return;
        }
        self.torn = false;
        let mut written = 0;
        while written < records.len() {
            match file.write(&records[written..]) {
                Ok(0) | Err(_) => break,
                Ok(n) => written += n,
            }
        }
        let whole = written == 0 || records[written - 1] == b'\n';
        self.torn = !whole;
    }
}

/// Cuts data into records; `partial` is the unfinished line before and after.
fn format_records(stream: Stream, stamp: &str, partial: &mut Vec<u8>, mut data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 64);
    while !data.is_empty() {
        let space = MAX_LINE - partial.len();
        match data.iter().take(space + 1).position(|b| *b == b'\n') {
            Some(end) => {
                partial.extend_from_slice(&data[..end]);
                record(&mut out, stream, stamp, b'F', partial);
                partial.clear();
                data = &data[end + 1..];
            }
            None if data.len() > space => {
                partial.extend_from_slice(&data[..space]);
                record(&mut out, stream, stamp, b'P', partial);
                partial.clear();
                data = &data[space..];
            }
            None => {
                partial.extend_from_slice(data);
                data = &[];
            }
        }
    }
    out
}

fn record(out: &mut Vec<u8>, stream: Stream, stamp: &str, tag: u8, line: &[u8]) {
    out.extend_from_slice(stamp.as_bytes());
    out.extend_from_slice(match stream {
        Stream::Stdout => b" stdout ",
        Stream::Stderr => b" stderr ",
    });
    out.extend_from_slice(&[tag, b' ']);
    out.extend_from_slice(line);
    out.push(b'\n');
}

/// Nanoseconds since 1970.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64)
}

/// RFC 3339 in UTC with all nine digits.
fn timestamp(nanos: i64) -> String {
    let (seconds, fraction) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    let (days, day_seconds) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (day_seconds / 3600, day_seconds / 60 % 60, day_seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:09}Z")
}

/// The Gregorian date of a day number counted from 1970-01-01: eras of 400 years that begin in March.
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(partial: &mut Vec<u8>, data: &[u8]) -> String {
        String::from_utf8(format_records(Stream::Stdout, "T", partial, data)).unwrap()
    }

    #[test]
    fn lines_wait_for_their_end() {
        let mut partial = Vec::new();
        assert_eq!(records(&mut partial, b"a\nb"), "T stdout F a\n");
        assert_eq!(records(&mut partial, b"c\n\n"), "T stdout F bc\nT stdout F \n");
        assert!(partial.is_empty());
    }

    #[test]
    fn long_lines_come_in_parts() {
        let mut partial = Vec::new();
        let long = vec![b'x'; MAX_LINE + 3];
        let first = records(&mut partial, &long);
        assert_eq!(first, format!("T stdout P {}\n", "x".repeat(MAX_LINE)));
        assert_eq!(records(&mut partial, b"\n"), "T stdout F xxx\n");
        let exact = [vec![b'y'; MAX_LINE], b"\n".to_vec()].concat();
        assert_eq!(records(&mut partial, &exact).matches('\n').count(), 1, "a full line is no part");
    }

    #[test]
    fn a_last_line_without_end_gets_none() {
        let path = std::env::temp_dir().join(format!("monitor-log-{}", std::process::id()));
        let mut log = Log::open(Some(path.clone())).unwrap();
        log.write(Stream::Stdout, b"one\ntwo");
        log.end(Stream::Stdout);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        let records: Vec<&str> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        assert_eq!(records, ["stdout F one", "stdout P two"]);
    }

    #[test]
    fn a_link_is_no_log() {
        let path = std::env::temp_dir().join(format!("monitor-link-{}", std::process::id()));
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        assert!(Log::open(Some(path.clone())).is_err());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn time_is_written_in_utc() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(timestamp(951_782_400_000_000_001), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(timestamp(1_798_761_599_999_999_999), "2026-12-31T23:59:59.999999999Z");
    }
}
