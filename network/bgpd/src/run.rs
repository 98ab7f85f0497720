//! A daemon of a file: the kernel's side, the loop, the socket, metrics, and the file once more whenever somebody asks. I/O.
//! Called by `ferrokube bgp`.

use std::path::PathBuf;

use linux::netlink::Rtnl;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::config::{self, ConfigError, Kind};
use crate::control::server::Server;
use crate::daemon::{self, Daemon, Farewell, Handle, Hands};
use crate::kernel::{self, Kernel};
use crate::pages;

/// News of the kernel that wait for the loop.
const NEWS: usize = 1024;
/// Wishes to read the file again that wait.
const RELOADS: usize = 4;

/// What it is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration.
    pub file: PathBuf,
    /// Which of the two programs this is.
    pub kind: Kind,
    /// What the end is to be.
    pub farewell: Farewell,
}

/// Why it ended, or never began.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The VRF.
    #[error(transparent)]
    Vrf(#[from] kernel::vrf::Error),
    /// The loop.
    #[error(transparent)]
    Daemon(#[from] daemon::Error),
    /// The kernel's side.
    #[error("kernel: {0}; with `kernel: {{routes: false}}` it is left alone")]
    Kernel(#[from] kernel::StartError),
    /// The control socket.
    #[error("{0}")]
    Control(String),
    /// The page of metrics.
    #[error("metrics: {0}: {1}")]
    Metrics(std::net::SocketAddr, std::io::Error),
}

/// Runs until `shutdown`. Whatever comes over `again` has the file read once more.
///
/// # Errors
/// It could not begin.
pub async fn run(options: Options, mut again: mpsc::Receiver<()>, shutdown: CancellationToken) -> Result<(), Error> {
    let config = config::read(&options.file, options.kind)?;
    if let Some(vrf) = &config.vrf {
        kernel::vrf::table(&mut Rtnl::open().map_err(kernel::vrf::Error::from)?, vrf)?;
    }
    let server = Server::bind(&config.control_socket).map_err(Error::Control)?;
    let (kernel, hands) = match config.kernel.is_used() {
        true => {
            let (told, news) = mpsc::channel(NEWS);
            let kernel = Kernel::start(config.kernel.tables.clone(), told)?;
            let hands = Hands { commands: kernel.commands.clone(), news, status: kernel.status.clone() };
            (Some(kernel), Some(hands))
        }
        false => (None, None),
    };
    let metrics = config.metrics;
    let (handle, running) = Daemon::start(config, hands, options.farewell, shutdown.clone())?;
    if let Some(address) = metrics {
        let served = pages::serve(address, handle.clone(), shutdown.clone()).await;
        served.map_err(|error| Error::Metrics(address, error))?;
    }
    tracing::info!(listening = ?handle.listening, "BGP speaker runs");
    let (reload, mut reloads) = mpsc::channel(RELOADS);
    let answering = tokio::spawn(server.serve(handle.clone(), reload, shutdown.clone()));
    let reading = async {
        loop {
            let answer: Option<oneshot::Sender<_>> = tokio::select! {
                Some(answer) = reloads.recv() => Some(answer),
                Some(()) = again.recv() => None,
                else => std::future::pending().await,
            };
            let done = reread(&options, &handle).await;
            if let Err(why) = &done {
                tracing::error!("the configuration stays as it was: {why}");
            }
            if let Some(answer) = answer {
                let _ = answer.send(done);
            }
        }
    };
    let ended = tokio::select! {
        ended = running => match ended.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(ended) => ended,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // The runtime ends.
            Err(Err(_)) => Ok(()),
        },
        () = reading => Ok(()),
    };
    shutdown.cancel();
    let _ = answering.await;
    if let Some(kernel) = kernel {
        kernel.end().await;
    }
    Ok(ended?)
}

async fn reread(options: &Options, handle: &Handle) -> Result<String, String> {
    let config = config::read(&options.file, options.kind).map_err(|error| error.to_string())?;
    handle.configure(config).await
}
