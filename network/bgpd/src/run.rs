//! A daemon of a file: the kernel's side, the loop, the socket, metrics, and the file once more whenever somebody asks; and
//! neighbours whom another place tells of, as they come and go. I/O. Called by `ferrokube bgp`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use linux::netlink::Rtnl;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::found::{Found, LeftOut, Others};
use crate::config::{Config, ConfigError, File, Kind};
use crate::control::server::Server;
use crate::daemon::{self, Daemon, Farewell, Handle, Hands};
use crate::kernel::{self, Kernel};
use crate::pages;

/// News of the kernel that wait for the loop.
const NEWS: usize = 1024;
/// Wishes to read the file again that wait.
const RELOADS: usize = 4;
/// At the start, so long it is waited for the first word of who tells of neighbours: a restarted reflector that speaks before
/// it knows its clients tells each of them half of its routes.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// Between two changes of those who were found: whatever changes them all the time costs no more than this.
const PACE: Duration = Duration::from_millis(500);

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

/// Where neighbours are told of that are not in the file.
#[derive(Clone, Debug)]
pub struct Place {
    /// The group of the file whose fields they have.
    pub group: Option<String>,
    /// All of them, as it is known now; nothing before it is known for the first time.
    pub all: watch::Receiver<Option<Arc<[Found]>>>,
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
pub async fn run(options: Options, again: mpsc::Receiver<()>, shutdown: CancellationToken) -> Result<(), Error> {
    run_with(options, None, again, shutdown).await
}

/// The same, with neighbours whom another place tells of.
///
/// # Errors
/// It could not begin.
pub async fn run_with(
    options: Options,
    place: Option<Place>,
    mut again: mpsc::Receiver<()>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let file = File::read(&options.file, options.kind)?;
    let mut source = Source { file, place, told: BTreeSet::new(), cluster_id: None };
    // What is wrong with the file, or not there, is told at once.
    if let Some(vrf) = &source.config()?.vrf {
        kernel::vrf::table(&mut Rtnl::open().map_err(kernel::vrf::Error::from)?, vrf)?;
    }
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        () = source.first_word() => {}
    }
    let config = source.config()?;
    source.cluster_id = Some(config.cluster_id);
    let server = Server::bind(&config.control_socket).map_err(Error::Control)?;
    let (kernel, hands) = kernel_of(&config)?.unzip();
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
                () = source.changed() => {
                    match source.config() {
                        Ok(config) => configured(&handle, config).await,
                        Err(why) => tracing::error!("the neighbors stay as they were: {why}"),
                    }
                    sleep(PACE).await;
                    continue;
                }
            };
            let done = source.reread(&options, &handle).await;
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

/// The kernel's side, where it is used.
fn kernel_of(config: &Config) -> Result<Option<(Kernel, Hands)>, kernel::StartError> {
    if !config.kernel.is_used() {
        return Ok(None);
    }
    let (told, news) = mpsc::channel(NEWS);
    let kernel = Kernel::start(config.kernel.tables.clone(), told)?;
    let hands = Hands { commands: kernel.commands.clone(), news, status: kernel.status.clone() };
    Ok(Some((kernel, hands)))
}

async fn configured(handle: &Handle, config: Config) {
    if let Err(why) = handle.configure(config).await {
        tracing::error!("the neighbors stay as they were: {why}");
    }
}

/// Where the configuration comes from: the file as it was read last, and whoever was found.
struct Source {
    file: File,
    place: Option<Place>,
    /// Who was left out, and that has been told.
    told: BTreeSet<LeftOut>,
    /// For which it reflects, once it has begun.
    cluster_id: Option<Ipv4Addr>,
}

impl Source {
    fn config(&mut self) -> Result<Config, ConfigError> {
        let (config, left_out) = self.with(&self.file)?;
        self.tell(left_out);
        Ok(config)
    }

    fn with(&self, file: &File) -> Result<(Config, Vec<LeftOut>), ConfigError> {
        let Some(place) = &self.place else { return file.with(Others::default()) };
        let all = place.all.borrow().clone().unwrap_or_default();
        let own = own_addresses();
        file.with(Others { all: &all, group: place.group.as_deref(), own: &own, began: self.cluster_id })
    }

    fn tell(&mut self, left_out: Vec<LeftOut>) {
        let left_out: BTreeSet<LeftOut> = left_out.into_iter().collect();
        for (address, why) in left_out.difference(&self.told) {
            tracing::warn!(neighbor = %address, "no neighbor: {why}");
        }
        self.told = left_out;
    }

    async fn first_word(&mut self) {
        if let Some(place) = &mut self.place
            && timeout(FIRST_WORD, place.all.wait_for(Option::is_some)).await.is_err()
        {
            tracing::warn!("nobody has said yet which neighbors there are besides the file's: it begins without them");
        }
    }

    /// Others are found, or not any more.
    async fn changed(&mut self) {
        let changed = match &mut self.place {
            Some(place) => place.all.changed().await.is_ok(),
            None => false,
        };
        // Nobody tells of any: not now, and not later.
        if !changed {
            std::future::pending().await
        }
    }

    async fn reread(&mut self, options: &Options, handle: &Handle) -> Result<String, String> {
        let file = File::read(&options.file, options.kind).map_err(|error| error.to_string())?;
        let (config, left_out) = self.with(&file).map_err(|error| error.to_string())?;
        let done = handle.configure(config).await?;
        self.file = file;
        self.tell(left_out);
        Ok(done)
    }
}

/// Addresses of this host's links: one who is found there is this speaker itself.
fn own_addresses() -> Vec<IpAddr> {
    match Rtnl::open().and_then(|mut rtnl| rtnl.addresses(None)) {
        Ok(all) => all.into_iter().map(|known| known.prefix.addr).collect(),
        Err(error) => {
            tracing::warn!(%error, "addresses of links are not known: this host may be taken for a neighbor of its own");
            Vec::new()
        }
    }
}
