//! The socket: mode 0600, a line of a few kilobytes for a question, lines for an answer, a few connections at once. I/O.
//! Called by [`crate::run`].

use std::net::IpAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bgp::family::Family;
use meta::Prefix;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Answer, Command, Line, Query, Which};
use crate::config::settings::FamilyName;
use crate::daemon::Handle;

/// Bytes of a question.
const MAX_QUESTION: u64 = 4096;
/// Connections at once: people, and what watches.
const CONNECTIONS: usize = 16;
/// For so long a connection may say nothing, or take nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause after an accept that failed for want of something.
const RETRY: Duration = Duration::from_millis(100);
/// Prefixes that the loop looks at in one go.
const PAGE: usize = 512;
/// Bytes that are written at once.
const PIECE: usize = 64 << 10;

/// To whom a wish to read the configuration again goes; what came of it comes back.
pub type Reload = mpsc::Sender<oneshot::Sender<Result<String, String>>>;

/// The socket. Its file goes with it.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Binds. A file that a process of before has left is taken away; one that somebody answers at is not.
    ///
    /// # Errors
    /// What is at fault, by the socket's path.
    pub fn bind(path: &Path) -> Result<Server, String> {
        let told = |error: std::io::Error| format!("control-socket {}: {error}", path.display());
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(told)?;
        }
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(format!("control-socket {}: another daemon answers there", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused && is_socket(path) => {
                std::fs::remove_file(path).map_err(told)?;
            }
            // What is no socket was not ours.
            Err(_) if path.symlink_metadata().is_ok() && !is_socket(path) => {
                let path = path.display();
                return Err(format!("control-socket {path}: a file that is no socket is there, and is left alone"));
            }
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(told)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(told)?;
        Ok(Server { listener, path: path.to_owned() })
    }

    /// Answers until `stop`.
    pub async fn serve(self, handle: Handle, reload: Reload, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Without descriptors it would fail again at once, and for ever.
                    tracing::warn!(%error, "a connection to the control socket could not be accepted");
                    sleep(RETRY).await;
                    continue;
                }
            };
            // Who finds no place hears it by the end of the connection.
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let (handle, reload, stop) = (handle.clone(), reload.clone(), stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    _ = Conversation::new(stream, handle, reload).run() => {}
                }
                drop(place);
            });
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket())
}

struct Conversation {
    read: BufReader<tokio::net::unix::OwnedReadHalf>,
    out: Out,
    handle: Handle,
    reload: Reload,
}

impl Conversation {
    fn new(stream: UnixStream, handle: Handle, reload: Reload) -> Conversation {
        let (read, write) = stream.into_split();
        Conversation { read: BufReader::new(read), out: Out { write, bytes: Vec::new() }, handle, reload }
    }

    /// Questions, one after the other.
    async fn run(mut self) -> Option<()> {
        loop {
            let mut line = Vec::new();
            let mut some = (&mut self.read).take(MAX_QUESTION);
            let length = timeout(PATIENCE, some.read_until(b'\n', &mut line)).await.ok()?.ok()?;
            if length == 0 {
                return None;
            }
            if line.last() != Some(&b'\n') {
                let told = format!("a question is a line of JSON of {MAX_QUESTION} bytes at most");
                return self.out.last(Line::Error(told)).await;
            }
            let last = match serde_json::from_slice::<Command>(&line) {
                Ok(command) => match self.answer(command).await? {
                    Ok(()) => Line::End(true),
                    Err(why) => Line::Error(why),
                },
                Err(error) => Line::Error(error.to_string()),
            };
            self.out.last(last).await?;
        }
    }

    /// None when the connection or the daemon has ended.
    async fn answer(&mut self, command: Command) -> Option<Result<(), String>> {
        let query = match command {
            Command::Summary => Query::Summary,
            Command::Neighbors { neighbor } => Query::Neighbors(neighbor),
            Command::Filters => Query::Filters,
            Command::Routes(which) => return self.routes(which).await,
            Command::Route { prefix } => return self.route(&prefix).await,
            Command::Reload => {
                let (answer, answered) = oneshot::channel();
                self.reload.send(answer).await.ok()?;
                return match answered.await.ok()? {
                    Ok(done) => self.out.item(&done).await.map(Ok),
                    Err(why) => Some(Err(why)),
                };
            }
        };
        match self.handle.ask(query).await? {
            Answer::Summary(summary) => self.out.item(&summary).await?,
            Answer::Neighbors(all) => self.out.items(&all).await?,
            Answer::Filters(all) => self.out.items(&all).await?,
            Answer::Routes(all) => self.out.items(&all).await?,
            Answer::Prefixes(all) => self.out.items(&all).await?,
            Answer::Done => {}
            Answer::Nothing(why) => return Some(Err(why)),
        }
        Some(Ok(()))
    }

    /// A page at a time: a table of a million routes holds nobody up.
    async fn routes(&mut self, which: Which) -> Option<Result<(), String>> {
        if let Some(Err(why)) = which.within.map(sound) {
            return Some(Err(why));
        }
        let family = |family| match family {
            Family::Ipv4Unicast => FamilyName::Ipv4,
            Family::Ipv6Unicast => FamilyName::Ipv6,
        };
        for one in Family::ALL.into_iter().filter(|one| which.family.is_none_or(|wanted| wanted == family(*one))) {
            let Answer::Prefixes(mut prefixes) = self.handle.ask(Query::Prefixes(one)).await? else { return None };
            if let Some(within) = which.within {
                prefixes.retain(|prefix| within.covers(prefix));
            }
            prefixes.sort_unstable();
            for page in prefixes.chunks(PAGE) {
                match self.handle.ask(Query::Page(page.to_vec(), which.clone())).await? {
                    Answer::Routes(routes) => self.out.items(&routes).await?,
                    Answer::Nothing(why) => return Some(Err(why)),
                    _ => return None,
                }
            }
        }
        Some(Ok(()))
    }

    async fn route(&mut self, text: &str) -> Option<Result<(), String>> {
        let query = match (text.parse::<Prefix>(), text.parse::<IpAddr>()) {
            (Ok(prefix), _) => match sound(prefix) {
                Ok(prefix) => Query::Page(vec![prefix], Which::default()),
                Err(why) => return Some(Err(why)),
            },
            (_, Ok(address)) => Query::Longest(address),
            _ => return Some(Err(format!("{text:?} is neither a prefix such as 10.0.0.0/8 nor an address"))),
        };
        match self.handle.ask(query).await? {
            Answer::Routes(routes) if routes.is_empty() => Some(Err(format!("there is no route to {text}"))),
            Answer::Routes(routes) => self.out.items(&routes).await.map(Ok),
            Answer::Nothing(why) => Some(Err(why)),
            _ => None,
        }
    }
}

/// A prefix that routes can have.
fn sound(prefix: Prefix) -> Result<Prefix, String> {
    let network = prefix.network();
    if network == prefix {
        Ok(prefix)
    } else {
        Err(format!("{prefix} has bits behind its length: {network} is meant?"))
    }
}

struct Out {
    write: OwnedWriteHalf,
    bytes: Vec<u8>,
}

impl Out {
    async fn items<T: Serialize>(&mut self, all: &[T]) -> Option<()> {
        for one in all {
            self.item(one).await?;
        }
        Some(())
    }

    async fn item(&mut self, item: &impl Serialize) -> Option<()> {
        self.line(&Line::Item(serde_json::to_value(item).ok()?));
        if self.bytes.len() >= PIECE { self.flush().await } else { Some(()) }
    }

    async fn last(&mut self, line: Line) -> Option<()> {
        self.line(&line);
        self.flush().await
    }

    fn line(&mut self, line: &Line) {
        // A line that cannot be written is none: all of them can.
        if serde_json::to_writer(&mut self.bytes, line).is_ok() {
            self.bytes.push(b'\n');
        }
    }

    async fn flush(&mut self) -> Option<()> {
        timeout(PATIENCE, self.write.write_all(&self.bytes)).await.ok()?.ok()?;
        self.bytes.clear();
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone_and_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control");
        std::fs::write(&path, "mine").expect("written");
        let told = Server::bind(&path).expect_err("a refusal");
        assert!(told.starts_with(&format!("control-socket {}: a file that is no socket", path.display())), "{told}");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "mine");
        std::fs::remove_file(&path).expect("removed");
        // What a daemon of before has left is taken away.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        Server::bind(&path).expect("bound");
    }
}
