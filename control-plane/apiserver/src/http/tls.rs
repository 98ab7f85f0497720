//! The files that flags name for TLS, of the server itself and of its clients for kubelets and etcd: errors name the
//! flag. Reading and reading again is done by `serving::tls`.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use serving::tls::{CertKeyPair, Clients, Files, Tls, TlsError};

use crate::config::{Config, KeyPair};
use crate::error::Error;

/// The flag that an error is about.
pub fn file(flag: &'static str) -> impl Fn(TlsError) -> Error {
    move |error| Error::File { flag, path: error.path, reason: error.reason }
}

fn files(pair: &KeyPair) -> Files {
    Files { cert: pair.cert_file.clone(), key: pair.key_file.clone() }
}

/// The flag of a pair that an error is about.
fn pair_error(pair: &KeyPair, certificate: &'static str, key: &'static str) -> impl Fn(TlsError) -> Error {
    move |error| file(if error.path == pair.key_file { key } else { certificate })(error)
}

/// TLS of the listener. Client certificates are asked for and never demanded; whose they are is for the authenticator
/// to find out, so that a certificate of a foreign CA ends in 401 and not in a broken handshake.
pub fn server(pair: &KeyPair) -> Result<Tls, Error> {
    let told = pair_error(pair, "--tls-cert-file", "--tls-private-key-file");
    Tls::new(files(pair), &Clients::Anyone).map_err(told)
}

/// Flags that the files of a TLS client come from, for errors.
#[derive(Clone, Copy)]
pub struct ClientFlags {
    pub authority: &'static str,
    pub certificate: &'static str,
    pub key: &'static str,
}

const KUBELET_FLAGS: ClientFlags = ClientFlags {
    authority: "--kubelet-certificate-authority",
    certificate: "--kubelet-client-certificate",
    key: "--kubelet-client-key",
};

/// A client that checks servers against the CAs of a file, or not at all when none is named, and that has an identity
/// of its own when one is given.
pub fn client(
    flags: ClientFlags,
    authority: Option<&PathBuf>,
    identity: Option<&KeyPair>,
) -> Result<ClientConfig, Error> {
    let roots = authority.map(|path| serving::tls::roots(path)).transpose().map_err(file(flags.authority))?;
    let identity = match identity {
        Some(pair) => Some(CertKeyPair::load(files(pair)).map_err(pair_error(pair, flags.certificate, flags.key))?),
        None => None,
    };
    serving::tls::client(roots, identity)
        .map_err(|error| Error::Flag { flag: "--tls-min-version", reason: error.to_string() })
}

/// A client that checks nothing and shows nothing.
pub fn trusting_client() -> Result<Arc<ClientConfig>, Error> {
    client(KUBELET_FLAGS, None, None).map(Arc::new)
}

/// The client for kubelets: checks them against their CA when one is named, as upstream does.
pub fn kubelet_client(config: &Config) -> Result<Arc<ClientConfig>, Error> {
    let authority = config.kubelet_certificate_authority.as_ref();
    client(KUBELET_FLAGS, authority, config.kubelet_client.as_ref()).map(Arc::new)
}
