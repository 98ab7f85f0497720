//! The other end of the socket: a question, and its answer an item at a time. I/O. Called by `ferrokube bgp show`.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{Command, Line};

/// For so long an answer may not come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a line of an answer: a prefix with many paths.
const MAX_LINE: u64 = 16 << 20;

/// Asks, and gives each item of the answer to `each`.
///
/// # Errors
/// What the daemon says, or that there is none.
pub fn ask(
    socket: &Path,
    command: &Command,
    mut each: impl FnMut(serde_json::Value) -> Result<(), String>,
) -> Result<(), String> {
    let told = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
            format!("{}: no daemon answers there; is `ferrokube bgp` running?", socket.display())
        }
        _ => format!("{}: {error}", socket.display()),
    };
    let mut stream = UnixStream::connect(socket).map_err(told)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(told)?;
    let mut question = serde_json::to_vec(command).map_err(|error| error.to_string())?;
    question.push(b'\n');
    stream.write_all(&question).map_err(told)?;
    let mut lines = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        (&mut lines).take(MAX_LINE).read_until(b'\n', &mut line).map_err(told)?;
        if line.last() != Some(&b'\n') {
            return Err(format!("{}: the daemon has ended in the middle of its answer", socket.display()));
        }
        match serde_json::from_slice(&line).map_err(|error| format!("{}: {error}", socket.display()))? {
            Line::Item(item) => each(item)?,
            Line::End(_) => return Ok(()),
            Line::Error(why) => return Err(why),
        }
    }
}
