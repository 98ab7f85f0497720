//! The other end of the socket: a question, and its answer an item at a time. I/O. Called by `ferrokube bgp show`.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use super::{Command, Line};

/// For so long an answer may not come, and none of its lines.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a line of an answer: a prefix with many paths.
const MAX_LINE: u64 = 16 << 20;

/// Asks, and gives each item of the answer to `each`.
///
/// # Errors
/// What the daemon says, or that there is none.
pub fn ask(
    socket: &Path,
    command: &Command,
    each: impl FnMut(serde_json::Value) -> Result<(), String>,
) -> Result<(), String> {
    ask_within(PATIENCE, socket, command, each)
}

fn ask_within(
    patience: Duration,
    socket: &Path,
    command: &Command,
    mut each: impl FnMut(serde_json::Value) -> Result<(), String>,
) -> Result<(), String> {
    let told = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
            format!("{}: no daemon answers there; is `ferrokube bgp` running?", socket.display())
        }
        std::io::ErrorKind::PermissionDenied => {
            format!("{}: {error}: the daemon answers its own user and root", socket.display())
        }
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => format!(
            "{}: the daemon did not answer within {}: it is stopped or very busy, and its log may say more",
            socket.display(),
            meta::duration::format(patience)
        ),
        _ => format!("{}: {error}", socket.display()),
    };
    let mut stream = connect(socket, patience).map_err(told)?;
    stream.set_read_timeout(Some(patience)).map_err(told)?;
    stream.set_write_timeout(Some(patience)).map_err(told)?;
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

/// Connects: a stopped daemon whose queue is full would hold the caller for ever.
fn connect(socket: &Path, patience: Duration) -> std::io::Result<UnixStream> {
    let (done, connected) = mpsc::channel();
    let path = socket.to_owned();
    std::thread::Builder::new().name("connect".to_owned()).spawn(move || {
        // Who waits may have gone.
        let _ = done.send(UnixStream::connect(path));
    })?;
    connected.recv_timeout(patience).unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_daemon_that_does_not_answer_is_not_waited_for_for_ever() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("bgp.sock");
        let patience = Duration::from_millis(50);
        let told = || ask_within(patience, &path, &Command::Summary, |_| Ok(())).expect_err("no answer");
        assert!(told().ends_with("no daemon answers there; is `ferrokube bgp` running?"), "{}", told());
        let listener = UnixListener::bind(&path).expect("bound");
        let words = "bgp.sock: the daemon did not answer within 50ms: it is stopped or very busy";
        assert!(told().contains(words), "{}", told());
        // More than wait in its queue: then a connection itself does not come.
        rustix::net::listen(&listener, 0).expect("a short queue");
        let _held: Vec<_> = (0..2).map(|_| connect(&path, patience)).collect();
        assert!(told().contains(words), "{}", told());
    }
}
