//! Whether an API server does its work: it says so at /readyz, which a server whose store is away refuses. Asked by TLS, as
//! the cluster's CA proves who answers, and as nobody. I/O: the network. Called by [`super`].

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use kube::client::Body;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::servers::Server;
use crate::joining::credentials::SERVER_NAME;

/// How long an answer may take: the server waits for its store as long as that.
const PATIENCE: Duration = Duration::from_secs(5);

/// A client that proves the server and is nobody itself. Its connection stays for the next question.
pub fn client(server: &Server, ca: &Path) -> Result<kube::Client> {
    let certificates = CertificateDer::pem_file_iter(ca).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = certificates.map_err(|error| anyhow!("{}: {error}", ca.display()))?;
    let mut config = kube::Config::new(format!("https://{server}").parse().context("a server's address")?);
    config.root_cert = Some(certificates.into_iter().map(|der| der.to_vec()).collect());
    config.tls_server_name = Some(SERVER_NAME.to_owned());
    config.connect_timeout = Some(PATIENCE);
    Ok(kube::Client::try_from(config)?)
}

/// Fails with what is wrong.
pub async fn ask(client: &kube::Client) -> Result<()> {
    let request = http::Request::get("/readyz").body(Body::empty())?;
    let answer = tokio::time::timeout(PATIENCE, client.send(request)).await;
    match answer.map_err(|_| anyhow!("no answer in {PATIENCE:?}"))?? {
        answer if answer.status().is_success() => Ok(()),
        // Who may not ask hears nothing of its health; it answers.
        answer if matches!(answer.status().as_u16(), 401 | 403) => Ok(()),
        answer => Err(anyhow!("/readyz: {}", answer.status())),
    }
}
