//! Ways to reach an API server: a service in this process, or TLS as a kubeconfig says. Called by `ferrokube`, which
//! hands each component a client that carries that component's identity.

use std::path::Path;

use bytes::Bytes;
use http::{Request, Response};
use kube::client::Body;
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
    #[error("kubeconfig {path}: {source}")]
    Kubeconfig { path: String, source: Box<kube::config::KubeconfigError> },
    #[error("kubeconfig {path}: {source}")]
    Client { path: String, source: Box<kube::Error> },
}

/// A client as the kubeconfig's current context says.
pub async fn from_kubeconfig(path: &Path) -> Result<kube::Client, ConnectError> {
    let config = read_config(path).await?;
    kube::Client::try_from(config)
        .map_err(|e| ConnectError::Client { path: path.display().to_string(), source: Box::new(e) })
}

/// Server and credentials of the kubeconfig's current context.
pub(crate) async fn read_config(path: &Path) -> Result<kube::Config, ConnectError> {
    let shown = path.display().to_string();
    let file = kube::config::Kubeconfig::read_from(path)
        .map_err(|e| ConnectError::Kubeconfig { path: shown.clone(), source: Box::new(e) })?;
    let mut config = kube::Config::from_custom_kubeconfig(file, &Default::default())
        .await
        .map_err(|e| ConnectError::Kubeconfig { path: shown, source: Box::new(e) })?;
    // A watch is silent for as long as nothing happens: the server ends it, not a read timeout.
    config.read_timeout = None;
    Ok(config)
}
