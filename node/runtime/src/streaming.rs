//! Exec, attach and port-forward streams.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use wire::cri;

use crate::error::{Error, Result};
use crate::runtime::Runtime;

/// Requests that wait for their viewer.
#[derive(Debug, Default)]
pub struct Tokens;

impl Tokens {
    /// The address where an exec will be served.
    pub fn exec(&self, _: cri::ExecRequest) -> Result<String> {
        Err(Error::Unsupported("streams are not supported yet".into()))
    }
    /// The address where an attach will be served.
    pub fn attach(&self, _: cri::AttachRequest) -> Result<String> {
        Err(Error::Unsupported("streams are not supported yet".into()))
    }
    /// The address where a port-forward will be served.
    pub fn port_forward(&self, _: cri::PortForwardRequest) -> Result<String> {
        Err(Error::Unsupported("streams are not supported yet".into()))
    }
}

/// Serves the streams.
pub async fn serve(_: Arc<Runtime>, shutdown: CancellationToken) {
    shutdown.cancelled().await;
}
