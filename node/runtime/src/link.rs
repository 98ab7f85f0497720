//! The daemon's side of a monitor's socket: watch, signal, resize, log, attach. Does I/O.

use std::io;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::monitor::protocol::{self, SOCKET};

async fn connect(dir: &Path, hello: &[u8]) -> io::Result<UnixStream> {
    let socket = linux::fdpass::connect_at(dir, SOCKET)?;
    socket.set_nonblocking(true)?;
    let mut socket = UnixStream::from_std(socket)?;
    socket.write_all(hello).await?;
    Ok(socket)
}

/// Returns when the monitor has ended, at once when there is none.
pub async fn wait_end(dir: &Path) {
    if let Ok(mut socket) = connect(dir, &[protocol::WATCH]).await {
        let _ = socket.read(&mut [0u8; 1]).await;
    }
}

/// Whether a monitor answers there.
pub async fn is_alive(dir: &Path) -> bool {
    connect(dir, &[protocol::WATCH]).await.is_ok()
}

async fn ask(dir: &Path, request: &[u8]) -> bool {
    let answer = async {
        let mut socket = connect(dir, request).await?;
        socket.read_u8().await
    };
    matches!(answer.await, Ok(0))
}

/// Has the monitor send a signal to the container's first process; false when it is over.
pub async fn signal(dir: &Path, signal: i32) -> bool {
    ask(dir, &[protocol::SIGNAL, signal as u8]).await
}

/// Has the monitor open the log anew.
pub async fn reopen(dir: &Path) -> bool {
    ask(dir, &[protocol::REOPEN]).await
}

/// Connects to the streams of a container; frames of `monitor::protocol` go both ways.
pub async fn attach(dir: &Path, streams: u8) -> io::Result<UnixStream> {
    connect(dir, &[protocol::ATTACH, streams]).await
}
