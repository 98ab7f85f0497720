//! Client certificates: the common name is the user, organisations are groups. I/O: reads the file of CAs, and again when
//! it has changed.
//!
//! A chain that was verified is known for a while: a connection shows it with every request, and checking signatures
//! anew each time would cost more than most requests do.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use serving::clients;
use serving::reload::Reloaded;
use serving::tls::{TlsError, certificates};
use serving::x509::Subject;
use sha2::{Digest, Sha256};

use super::{Authenticated, Authenticator, AuthnError, Credentials, UserInfo};

/// Chains known at a time: more clients than one server holds connections of; beyond it all are verified anew.
const KNOWN_CHAINS: usize = 4096;
/// Seconds until a chain is verified anew.
const KNOWN_FOR: u64 = 60;

/// Accepts certificates that chain to one of the CAs of a file, as it is now.
#[derive(Debug)]
pub struct X509(Reloaded<Arc<Authorities>>);

/// A set of CAs. What is known of chains goes with it: a CA that is named no more vouches for nobody.
#[derive(Debug)]
struct Authorities {
    verifier: Arc<dyn ClientCertVerifier>,
    known: Mutex<HashMap<Vec<CertificateDer<'static>>, Known>>,
}

/// Whom a verified chain names, and the seconds between which that holds without looking again.
#[derive(Debug)]
struct Known {
    user: UserInfo,
    from: u64,
    until: u64,
}

impl X509 {
    /// `path`: `--client-ca-file`.
    pub fn load(path: &Path) -> Result<X509, TlsError> {
        let file = path.to_owned();
        let make = move || {
            let wrong = |reason| TlsError { path: file.clone(), reason };
            Authorities::new(certificates(&file)?).map(Arc::new).map_err(wrong)
        };
        Ok(X509(Reloaded::new(vec![path.to_owned()], make)?))
    }
}

impl Authorities {
    /// The error says what is wrong with them.
    fn new(authorities: Vec<CertificateDer<'static>>) -> Result<Authorities, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = clients::verifier(authorities, provider, false)?;
        Ok(Authorities { verifier, known: Mutex::default() })
    }

    fn user(&self, chain: &[CertificateDer<'static>], now: UnixTime) -> Result<Option<UserInfo>, AuthnError> {
        let Some((leaf, intermediates)) = chain.split_first() else { return Ok(None) };
        let seconds = now.as_secs();
        if let Some(known) = self.known.lock().get(chain).filter(|k| (k.from..k.until).contains(&seconds)) {
            return Ok(Some(known.user.clone()));
        }
        self.verifier
            .verify_client_cert(leaf, intermediates, now)
            .map_err(|error| AuthnError(format!("client certificate refused: {error}")))?;
        let user = identity(leaf)?;
        let ends = chain.iter().map(expiry).min().unwrap_or_default();
        let known = Known { user: user.clone(), from: seconds, until: ends.min(seconds + KNOWN_FOR) };
        let mut all = self.known.lock();
        if all.len() >= KNOWN_CHAINS {
            all.clear();
        }
        all.insert(chain.to_vec(), known);
        Ok(Some(user))
    }
}

/// Extra value that tells the credentials of one user apart, for audits.
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// The second after which a certificate is no longer valid; 0 when it can't be read.
fn expiry(certificate: &CertificateDer<'_>) -> u64 {
    Subject::of(certificate).map_or(0, |subject| u64::try_from(subject.until()).unwrap_or(0))
}

/// The identity that a certificate's subject names.
pub fn identity(certificate: &CertificateDer<'_>) -> Result<UserInfo, AuthnError> {
    let subject =
        Subject::of(certificate).map_err(|error| AuthnError(format!("client certificate cannot be read: {error}")))?;
    let (name, groups) =
        subject.user().ok_or_else(|| AuthnError("client certificate without a common name".to_owned()))?;
    let digest: String = Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect();
    let credential = (CREDENTIAL_ID.to_owned(), vec![format!("X509SHA256={digest}")]);
    Ok(UserInfo { name, groups, extra: vec![credential], ..UserInfo::default() })
}

#[async_trait]
impl Authenticator for X509 {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<Authenticated>, AuthnError> {
        let user = self.0.current().user(credentials.certificates, UnixTime::now())?;
        Ok(user.map(|user| Authenticated { user, ..Authenticated::default() }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    fn authority() -> (Issuer<'static, KeyPair>, CertificateDer<'static>) {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let der = params.self_signed(&key).expect("certificate").der().clone();
        (Issuer::new(params, key), der)
    }

    fn client(issuer: &Issuer<'static, KeyPair>, user: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, "team");
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2026, 1, 1), rcgen::date_time_ymd(2026, 1, 2));
        params.signed_by(&KeyPair::generate().expect("key"), issuer).expect("certificate").der().clone()
    }

    fn at(second: u64) -> UnixTime {
        // 2026-01-01
        UnixTime::since_unix_epoch(Duration::from_secs(1_767_225_600 + second))
    }

    #[test]
    fn a_known_chain_is_refused_once_it_has_expired() {
        let (issuer, ca) = authority();
        let (x509, chain) = (Authorities::new(vec![ca]).expect("CA"), [client(&issuer, "ann")]);
        let last = 24 * 3600 - 1;
        for second in [last - 1, last] {
            let user = x509.user(&chain, at(second)).expect("valid").expect("a user");
            assert_eq!((user.name.as_str(), user.groups), ("ann", vec!["team".to_owned()]));
        }
        assert!(x509.user(&chain, at(last + 2)).is_err(), "expired a second after it was used");
        let before = UnixTime::since_unix_epoch(Duration::from_secs(at(0).as_secs() - 1));
        assert!(x509.user(&chain, before).is_err(), "not valid yet");
    }

    #[tokio::test]
    async fn a_ca_that_is_named_no_more_vouches_for_nobody_and_a_new_one_does() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("ca.crt");
        let trust = |ca: &CertificateDer<'_>| {
            let pem = testkit::certificates::pem(ca);
            std::fs::write(&file, pem).expect("written");
        };
        let ((old, old_ca), (new, new_ca)) = (authority(), authority());
        let (ann, bob) = (client(&old, "ann"), client(&new, "bob"));
        trust(&old_ca);
        let x509 = X509::load(&file).expect("CA");
        let takes = |chain: &CertificateDer<'static>| x509.0.current().user(std::slice::from_ref(chain), at(5)).is_ok();
        assert!(takes(&ann) && !takes(&bob));
        trust(&new_ca);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert!(takes(&bob) && !takes(&ann), "the chain of a moment ago is forgotten with its CA");
        std::fs::remove_file(&file).expect("removed");
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert!(takes(&bob), "a file that can't be read changes nothing");
    }

    #[test]
    fn a_foreign_chain_stays_refused_beside_known_ones() {
        let ((ours, ca), (theirs, _)) = (authority(), authority());
        let x509 = Authorities::new(vec![ca]).expect("CA");
        let (friend, foe) = (client(&ours, "ann"), client(&theirs, "ann"));
        for _ in 0..2 {
            assert!(x509.user(std::slice::from_ref(&friend), at(5)).is_ok());
            assert!(x509.user(std::slice::from_ref(&foe), at(5)).is_err());
        }
        assert!(x509.user(&[], at(5)).expect("no credential").is_none());
    }
}
