//! Ways to reach an API server: a service in this process, or TLS as a kubeconfig says. Called by `ferrokube`, which
//! hands each component a client that carries that component's identity.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response};
use kube::client::Body;
use kube::config::Kubeconfig;
use parking_lot::Mutex;
use serving::reload::{Stamp, stamp};
use tower::{BoxError, Service};

/// A client over a server in the same process. The service must answer as the identity it was made for.
pub fn in_process<S, B>(service: S) -> kube::Client
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    kube::Client::new(service, "default")
}

/// Why a kubeconfig could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It can't be read, or says what no client can be made of.
    #[error("kubeconfig {path}: {source}")]
    Kubeconfig {
        /// The file.
        path: String,
        /// Why.
        source: Box<kube::config::KubeconfigError>,
    },
    /// Its server or credentials can't be used.
    #[error("kubeconfig {path}: {source}")]
    Client {
        /// The file.
        path: String,
        /// Why.
        source: Box<kube::Error>,
    },
}

/// How often the files of a kubeconfig are looked at, at most, when requests come.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A client as the kubeconfig's current context says. When the file or one that it names is replaced, as certificates
/// are that are renewed, the next request takes the new one; those that run go on. Fails only here: what can't be read
/// later is told and leaves the old one in use.
pub async fn from_kubeconfig(path: &Path) -> Result<kube::Client, ConnectError> {
    let (client, held) = Held::read(path).await?;
    let namespace = client.default_namespace().to_owned();
    let current = Arc::new(Current { path: path.to_owned(), client: ArcSwap::from_pointee(client), held: held.into() });
    let service = tower::service_fn(move |request: Request<Body>| {
        let current = current.clone();
        async move { current.client().await.send(request).await }
    });
    Ok(kube::Client::new(service, namespace))
}

struct Current {
    path: PathBuf,
    client: ArcSwap<kube::Client>,
    held: Mutex<Held>,
}

/// What the client was made of.
struct Held {
    files: Vec<PathBuf>,
    stamps: Vec<Option<Stamp>>,
    looked: Instant,
}

impl Current {
    async fn client(&self) -> kube::Client {
        if self.changed()
            && let Err(error) = self.read().await
        {
            tracing::warn!(%error, "the new credentials can't be used; the old ones stay");
        }
        self.client.load().as_ref().clone()
    }

    /// Whether a file is another than it was; told once.
    fn changed(&self) -> bool {
        let mut held = self.held.lock();
        if held.looked.elapsed() < LOOK_AGAIN {
            return false;
        }
        held.looked = Instant::now();
        let stamps = stamps(&held.files);
        let changed = stamps != held.stamps;
        held.stamps = stamps;
        changed
    }

    async fn read(&self) -> Result<(), ConnectError> {
        let (client, held) = Held::read(&self.path).await?;
        self.client.store(Arc::new(client));
        *self.held.lock() = held;
        Ok(())
    }
}

impl Held {
    async fn read(path: &Path) -> Result<(kube::Client, Held), ConnectError> {
        let (file, shown) = (read_file(path)?, path.display().to_string());
        let mut files = vec![path.to_owned()];
        let users = file.auth_infos.iter().filter_map(|named| named.auth_info.as_ref());
        let named = users.flat_map(|user| [user.client_certificate.as_ref(), user.client_key.as_ref()]);
        files.extend(named.flatten().map(PathBuf::from));
        let stamps = stamps(&files);
        let client = kube::Client::try_from(configured(file, path).await?)
            .map_err(|e| ConnectError::Client { path: shown, source: Box::new(e) })?;
        Ok((client, Held { files, stamps, looked: Instant::now() }))
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    files.iter().map(|file| stamp(file)).collect()
}

/// Server and credentials of the kubeconfig's current context.
pub(crate) async fn read_config(path: &Path) -> Result<kube::Config, ConnectError> {
    configured(read_file(path)?, path).await
}

fn read_file(path: &Path) -> Result<Kubeconfig, ConnectError> {
    Kubeconfig::read_from(path)
        .map_err(|e| ConnectError::Kubeconfig { path: path.display().to_string(), source: Box::new(e) })
}

async fn configured(file: Kubeconfig, path: &Path) -> Result<kube::Config, ConnectError> {
    let mut config = kube::Config::from_custom_kubeconfig(file, &Default::default())
        .await
        .map_err(|e| ConnectError::Kubeconfig { path: path.display().to_string(), source: Box::new(e) })?;
    // A watch is silent for as long as nothing happens: the server ends it, not a read timeout.
    config.read_timeout = None;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use serving::{Connections, Http, Listener, Port};
    use tokio_util::sync::CancellationToken;

    use super::*;

    async fn server(name: &'static str) -> u16 {
        let connections = Connections::with_limit(Port::Pages, 8);
        let listener = Listener::bind_within(connections, ([127, 0, 0, 1], 0).into()).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let answer = move |_, _| std::future::ready(Response::new(Full::new(Bytes::from(name))));
        tokio::spawn(serving::serve(listener, Http::default(), answer, CancellationToken::new()));
        port
    }

    #[tokio::test]
    async fn a_replaced_kubeconfig_is_taken_up_by_the_next_request() {
        let path = std::env::temp_dir().join(format!("replaced-{}.kubeconfig", std::process::id()));
        let write = |port: u16| {
            let text = format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
                 clusters: [{{name: a, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\n\
                 users: [{{name: a, user: {{}}}}]\ncontexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n"
            );
            let next = path.with_extension("new");
            std::fs::write(&next, text).expect("written");
            std::fs::rename(&next, &path).expect("replaced");
        };
        let (first, second) = (server("first").await, server("second").await);
        write(first);
        let client = from_kubeconfig(&path).await.expect("a client");
        let ask = async || client.request_text(Request::get("/x").body(Vec::new()).expect("a request")).await;
        assert_eq!(ask().await.expect("an answer"), "first");
        write(second);
        assert_eq!(ask().await.expect("an answer"), "first", "it is looked at once a second");
        tokio::time::sleep(LOOK_AGAIN).await;
        assert_eq!(ask().await.expect("an answer"), "second");
        std::fs::write(&path, "broken").expect("written");
        tokio::time::sleep(LOOK_AGAIN).await;
        assert_eq!(ask().await.expect("an answer"), "second", "what can't be read changes nothing");
        std::fs::remove_file(&path).expect("removed");
    }
}
