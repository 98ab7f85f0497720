//! Which client certificates are taken: those that webpki takes, and those of X.509 v1, which it refuses for their version
//! and Go's servers take ([`crate::v1`] has the rules). Callers: `tls`, and the API server, which looks at certificates
//! after the handshake.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use crate::v1;

/// Checks client certificates against these authorities. The error says what is wrong with them.
pub fn verifier(
    authorities: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
    optional: bool,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for authority in &authorities {
        roots.add(authority.clone()).map_err(|error| error.to_string())?;
    }
    let algorithms = provider.signature_verification_algorithms;
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if optional { builder.allow_unauthenticated() } else { builder };
    let webpki = builder.build().map_err(|error| error.to_string())?;
    Ok(Arc::new(Verifier { webpki, authorities, algorithms }))
}

#[derive(Debug)]
struct Verifier {
    webpki: Arc<dyn ClientCertVerifier>,
    authorities: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.webpki.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if v1::key(end_entity).is_none() {
            return self.webpki.verify_client_cert(end_entity, intermediates, now);
        }
        v1::check(end_entity, &self.authorities, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Signed {
        signed_12(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Signed {
        signed_13(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

pub(crate) type Signed = Result<HandshakeSignatureValid, Error>;

/// Whether the holder of a certificate signed a handshake of TLS 1.3.
pub(crate) fn signed_13(
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Signed {
    match v1::key(cert) {
        None => verify_tls13_signature(message, cert, dss, algorithms),
        Some(key) => {
            let key = SubjectPublicKeyInfoDer::from(key);
            verify_tls13_signature_with_raw_key(message, &key, dss, algorithms)
        }
    }
}

/// Whether the holder of a certificate signed a handshake of TLS 1.2.
pub(crate) fn signed_12(
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Signed {
    let Some(key) = v1::key(cert) else { return verify_tls12_signature(message, cert, dss, algorithms) };
    let wrong = || Error::InvalidCertificate(CertificateError::BadSignature);
    let (id, key) = v1::parts(&key).ok_or_else(wrong)?;
    let possible = algorithms.mapping.iter().filter(|(scheme, _)| *scheme == dss.scheme).flat_map(|(_, all)| *all);
    let mut fitting = possible.filter(|algorithm| *algorithm.public_key_alg_id() == *id);
    match fitting.any(|algorithm| algorithm.verify_signature(&key, message, dss.signature()).is_ok()) {
        true => Ok(HandshakeSignatureValid::assertion()),
        false => Err(wrong()),
    }
}
