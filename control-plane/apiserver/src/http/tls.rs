//! TLS of the listener. I/O: reads key and certificate files.
//!
//! Client certificates are asked for and never demanded; whose they are is for the authenticator to find out, so that
//! a certificate of a foreign CA ends in 401 and not in a broken handshake. The server's own pair can be replaced
//! while connections go on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};

use crate::config::{Config, KeyPair};
use crate::error::Error;

/// Certificates of a PEM file, in order.
pub fn certificates(flag: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let fail = |reason: String| Error::File { flag, path: path.to_owned(), reason };
    let all = CertificateDer::pem_file_iter(path).map_err(|error| fail(error.to_string()))?;
    let all: Result<Vec<_>, _> = all.collect();
    match all {
        Ok(list) if list.is_empty() => Err(fail("no certificate in it".to_owned())),
        Ok(list) => Ok(list),
        Err(error) => Err(fail(error.to_string())),
    }
}

/// The private key of a PEM file.
pub fn private_key(flag: &'static str, path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| Error::File {
        flag,
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// The server's certificate and key; replaced as a whole.
#[derive(Debug)]
pub struct ServingCertificate {
    files: KeyPair,
    current: ArcSwap<CertifiedKey>,
}

impl ServingCertificate {
    /// Reads the files.
    pub fn load(files: &KeyPair) -> Result<ServingCertificate, Error> {
        let current = ArcSwap::from_pointee(read(files)?);
        Ok(ServingCertificate { files: files.clone(), current })
    }

    /// Reads the files again; on an error the old pair stays.
    pub fn reload(&self) -> Result<(), Error> {
        self.current.store(Arc::new(read(&self.files)?));
        Ok(())
    }
}

fn read(files: &KeyPair) -> Result<CertifiedKey, Error> {
    let chain = certificates("--tls-cert-file", &files.cert_file)?;
    let key = private_key("--tls-private-key-file", &files.key_file)?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| Error::File {
        flag: "--tls-private-key-file",
        path: files.key_file.clone(),
        reason: error.to_string(),
    })
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

/// The listener's configuration around a certificate.
pub fn server_config(certificate: Arc<ServingCertificate>) -> Result<Arc<ServerConfig>, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(AnyHolder(provider.clone()));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Flag { flag: "--tls-min-version", reason: error.to_string() })?;
    let mut config = config.with_client_cert_verifier(verifier).with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Takes any certificate, of a client or a server, whose holder has the key.
#[derive(Debug)]
struct AnyHolder(Arc<CryptoProvider>);

impl AnyHolder {
    fn tls12(&self, message: &[u8], cert: &CertificateDer<'_>, signature: &DigitallySignedStruct) -> Held {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn tls13(&self, message: &[u8], cert: &CertificateDer<'_>, signature: &DigitallySignedStruct) -> Held {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

type Held = Result<HandshakeSignatureValid, rustls::Error>;

impl ClientCertVerifier for AnyHolder {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Held {
        self.tls12(message, cert, dss)
    }

    fn verify_tls13_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Held {
        self.tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
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
    let provider = Arc::new(aws_lc_rs::default_provider());
    let Some(path) = authority else {
        let verifier = Arc::new(AnyHolder(provider.clone()));
        let builder = client_builder(provider)?.dangerous().with_custom_certificate_verifier(verifier);
        return with_identity(builder, identity, flags);
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(flags.authority, path)? {
        roots.add(certificate).map_err(|error| Error::File {
            flag: flags.authority,
            path: path.clone(),
            reason: error.to_string(),
        })?;
    }
    with_identity(client_builder(provider)?.with_root_certificates(roots), identity, flags)
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

fn client_builder(
    provider: Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, Error> {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Flag { flag: "--tls-min-version", reason: error.to_string() })
}

fn with_identity(
    builder: rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>,
    identity: Option<&KeyPair>,
    flags: ClientFlags,
) -> Result<ClientConfig, Error> {
    let Some(files) = identity else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(flags.certificate, &files.cert_file)?;
    let key = private_key(flags.key, &files.key_file)?;
    builder.with_client_auth_cert(chain, key).map_err(|error| Error::File {
        flag: flags.key,
        path: files.key_file.clone(),
        reason: error.to_string(),
    })
}

impl ServerCertVerifier for AnyHolder {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Held {
        self.tls12(message, cert, dss)
    }

    fn verify_tls13_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Held {
        self.tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
