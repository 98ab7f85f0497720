//! What the daemon, the zygote and the monitors say to each other. Pure.
//!
//! An order to the zygote is one byte with descriptors: control socket, specification (JSON in a memory file), and for
//! an exec without terminal the three streams. On the control socket come text messages: `ok PID START`, `err REASON`,
//! `t` with a terminal attached, `exit CODE`.
//! A monitor also listens on a stream socket: the first byte of a connection says what it is for.

use std::path::PathBuf;

use linux::container::Spec;
use serde::{Deserialize, Serialize};

/// Orders to the zygote.
pub const RUN: u8 = b'c';
pub const EXEC: u8 = b'x';
pub const POD: u8 = b'p';

/// First bytes on a monitor's socket.
/// Nothing is said; the end of the connection means that the monitor has ended.
pub const WATCH: u8 = b'W';
/// Open the log anew; one byte answers, 0 for done.
pub const REOPEN: u8 = b'L';
/// A signal number follows; one byte answers, 0 for sent.
pub const SIGNAL: u8 = b'K';
/// Columns and rows follow, two bytes each; one byte answers.
pub const RESIZE: u8 = b'R';
/// A byte of streams follows (1 stdin, 2 stdout, 4 stderr), then frames both ways.
pub const ATTACH: u8 = b'A';

/// Streams of an attach.
pub const STDIN: u8 = 1;
pub const STDOUT: u8 = 2;
pub const STDERR: u8 = 4;

/// Frames of an attach: a kind, the length in two bytes (big end first), the data.
pub const FRAME_STDIN: u8 = 0;
pub const FRAME_STDOUT: u8 = 1;
pub const FRAME_STDERR: u8 = 2;
pub const FRAME_RESIZE: u8 = 4;
pub const FRAME_STDIN_END: u8 = 5;
/// Bytes before a frame's data.
pub const FRAME_HEADER: usize = 3;
/// A frame holds at most this, so that one fits the buffers of both sides.
pub const FRAME_MAX: usize = 16 << 10;

/// The name of a monitor's socket in its container's run directory.
pub const SOCKET: &str = "monitor";
/// The name of the file that tells the program's process: "PID START".
pub const PID_FILE: &str = "pid";
/// The name of the file that tells the monitor's own process.
pub const MONITOR_PID_FILE: &str = "monitor.pid";

/// What a monitor needs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RunSpec {
    pub container: Spec,
    /// The run directory of the container: socket and PID files.
    pub dir: PathBuf,
    /// Where the end of the container is written, as [`Exit`].
    pub exit_file: PathBuf,
    /// Where its output goes in the CRI format; none discards it.
    pub log: Option<PathBuf>,
    pub stdin: bool,
    /// Standard input ends with the first attach that gave any.
    pub stdin_once: bool,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub code: i32,
    pub oom: bool,
    /// Nanoseconds since 1970.
    pub finished_at: i64,
}

/// What process 1 of a pod with shared PIDs needs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PodSpec {
    /// Directory with the pod's pinned namespaces; `pid` is added.
    pub dir: PathBuf,
    /// Names of the pins to join: "net", "ipc", "uts".
    pub join: Vec<String>,
}

/// An answer on a control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The program runs; its number and start time.
    Ok {
        pid: i32,
        started: u64,
    },
    Failed(String),
    /// A terminal comes with it.
    Terminal,
    Exit(i32),
}

impl Answer {
    /// Reads a message; anything unknown is a failure with its text.
    pub fn parse(message: &[u8]) -> Self {
        let text = String::from_utf8_lossy(message);
        let mut words = text.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("ok"), Some(pid), Some(started)) => match (pid.parse(), started.parse()) {
                (Ok(pid), Ok(started)) => Answer::Ok { pid, started },
                _ => Answer::Failed(text.into_owned()),
            },
            (Some("t"), None, None) => Answer::Terminal,
            (Some("exit"), Some(code), None) => Answer::Exit(code.parse().unwrap_or(255)),
            (Some("err"), ..) => Answer::Failed(text["err ".len().min(text.len())..].to_owned()),
            _ => Answer::Failed(text.into_owned()),
        }
    }
}

/// One frame of an attach.
pub fn frame(kind: u8, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(FRAME_HEADER + data.len());
    out.push(kind);
    out.extend_from_slice(&(data.len().min(FRAME_MAX) as u16).to_be_bytes());
    out.extend_from_slice(&data[..data.len().min(FRAME_MAX)]);
    out
}

/// Takes the first whole frame off a buffer.
pub fn take_frame(buffer: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let header: [u8; FRAME_HEADER] = buffer.get(..FRAME_HEADER)?.try_into().ok()?;
    let length = usize::from(u16::from_be_bytes([header[1], header[2]]));
    let data = buffer.get(FRAME_HEADER..FRAME_HEADER + length)?.to_vec();
    buffer.drain(..FRAME_HEADER + length);
    Some((header[0], data))
}

/// Columns and rows as the bytes of a resize.
pub fn size_bytes(columns: u16, rows: u16) -> [u8; 4] {
    let (c, r) = (columns.to_be_bytes(), rows.to_be_bytes());
    [c[0], c[1], r[0], r[1]]
}

/// The reverse of [`size_bytes`].
pub fn size_of(bytes: &[u8]) -> Option<(u16, u16)> {
    let four: [u8; 4] = bytes.try_into().ok()?;
    Some((u16::from_be_bytes([four[0], four[1]]), u16::from_be_bytes([four[2], four[3]])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_frames_survive_the_wire() {
        assert_eq!(Answer::parse(b"ok 12 3456"), Answer::Ok { pid: 12, started: 3456 });
        assert_eq!(Answer::parse(b"err exec: \"x\": no such file"), Answer::Failed("exec: \"x\": no such file".into()));
        assert_eq!(Answer::parse(b"exit 137"), Answer::Exit(137));
        assert_eq!(Answer::parse(b""), Answer::Failed(String::new()));

        let mut buffer = frame(FRAME_STDOUT, b"hello");
        buffer.extend(frame(FRAME_RESIZE, &size_bytes(80, 24)));
        let rest = buffer.split_off(7);
        assert_eq!(take_frame(&mut buffer), None, "half a frame waits");
        buffer.extend(rest);
        assert_eq!(take_frame(&mut buffer), Some((FRAME_STDOUT, b"hello".to_vec())));
        let (kind, data) = take_frame(&mut buffer).unwrap();
        assert_eq!((kind, size_of(&data)), (FRAME_RESIZE, Some((80, 24))));
    }
}
