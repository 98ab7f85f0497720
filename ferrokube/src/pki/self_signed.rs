//! The certificate of a server that runs alone and is given none: the pair that is in its directory, or one that signs
//! itself. I/O: reads and writes the files, and looks after them on a thread of its own. Called by the components that
//! are started alone ([`crate::component`]).

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};
use jiff::Timestamp;
use rcgen::{ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};

use super::leaf::dns;
use super::{LEAF_DAYS, LOOK, Pair, lasts, params};
use crate::config::{private_dir, write_private};
use crate::fault::Fault;

/// The organisation in certificates that sign themselves: by it those that were made here are told from others.
const OWN: &str = "ferrokube self-signed";

/// The certificate of a server that is given none: the pair that is in `dir`, whatever it says, or one that signs itself,
/// is kept there, and renewed as long as the process lives. It says `localhost`, these names and these addresses.
pub fn self_signed(dir: &Path, name: &str, names: &[&str], addresses: &[IpAddr]) -> Result<Pair> {
    let files = Pair { cert: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) };
    if !is_own(&files.cert) {
        match (files.cert.exists(), files.key.exists()) {
            (true, true) => return Ok(files),
            (true, false) => return Err(half(&files.cert, &files.key).into()),
            (false, true) => return Err(half(&files.key, &files.cert).into()),
            (false, false) => {}
        }
    }
    let mut sans = vec![dns("localhost")];
    sans.extend(names.iter().map(|name| dns(name)));
    sans.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
    ensure_self_signed(&files, name, &sans, Timestamp::now())?;
    let (kept, name) = (files.clone(), name.to_owned());
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(LOOK);
            if let Err(error) = ensure_self_signed(&kept, &name, &sans, Timestamp::now()) {
                tracing::warn!(%error, "the server's own certificate could not be renewed");
            }
        }
    });
    Ok(files)
}

fn half(there: &Path, missing: &Path) -> Fault {
    let (there, missing) = (there.display(), missing.display());
    Fault::failed(format!("{there} is there without {missing}: put that beside it, or take the one away"))
}

/// Whether a certificate was made here.
pub(super) fn is_own(cert: &Path) -> bool {
    let Ok(pem) = fs::read(cert) else { return false };
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(&pem) else { return false };
    let Ok(cert) = pem.parse_x509() else { return false };
    let own = cert.subject().iter_organization().any(|name| name.as_str() == Ok(OWN));
    own && cert.subject().as_raw() == cert.issuer().as_raw()
}

pub(super) fn ensure_self_signed(files: &Pair, name: &str, sans: &[SanType], now: Timestamp) -> Result<()> {
    if lasts(files, sans, now) {
        return Ok(());
    }
    if let Some(dir) = files.cert.parent().filter(|dir| !dir.exists()) {
        private_dir(dir)?;
    }
    let key = KeyPair::generate().context("generating a key")?;
    let mut params = params(name, Some(OWN), now, LEAF_DAYS)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.subject_alt_names = sans.to_vec();
    let cert = params.self_signed(&key).context("signing a certificate")?;
    // What a crash leaves between the two is a certificate of ours, which is made anew.
    write_private(&files.cert, cert.pem().as_bytes())?;
    write_private(&files.key, key.serialize_pem().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, life};
    use super::*;

    #[test]
    fn a_pair_in_cert_dir_is_served_as_it_is_and_never_overwritten() {
        let dir = tempfile::tempdir().expect("a directory");
        let (cert, key) = (dir.path().join("apiserver.crt"), dir.path().join("apiserver.key"));
        // Ended long ago, for another name, with our common name: it is the user's all the same.
        let pair = KeyPair::generate().expect("a key");
        let mut given = params("apiserver", None, at(-1000), 1).expect("parameters");
        given.subject_alt_names = vec![dns("elsewhere")];
        let (pem, secret) = (given.self_signed(&pair).expect("a certificate").pem(), pair.serialize_pem());
        fs::write(&cert, &pem).expect("written");
        let refused = |missing: &Path| {
            let error = self_signed(dir.path(), "apiserver", &[], &[]).expect_err("half a pair").to_string();
            assert!(error.contains(&format!("without {}", missing.display())), "{error}");
        };
        refused(&key);
        fs::write(&key, &secret).expect("written");
        let files = self_signed(dir.path(), "apiserver", &[], &[IpAddr::from([192, 0, 2, 9])]).expect("a pair");
        let now = (fs::read_to_string(files.cert).expect("there"), fs::read_to_string(files.key).expect("there"));
        assert_eq!(now, (pem, secret));
        fs::remove_file(&cert).expect("removed");
        refused(&cert);
        // What was made here is made anew when it is no pair.
        fs::remove_file(&key).expect("removed");
        self_signed(dir.path(), "apiserver", &[], &[]).expect("made");
        assert!(is_own(&cert));
        fs::remove_file(&key).expect("removed");
        self_signed(dir.path(), "apiserver", &[], &[]).expect("made anew");
        assert!(key.exists());
    }

    #[test]
    fn certificates_that_sign_themselves_are_renewed_too() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = Pair { cert: dir.path().join("a.crt"), key: dir.path().join("a.key") };
        let sans = [dns("localhost"), SanType::IpAddress("::1".parse().expect("an address"))];
        let mut ends = Vec::new();
        for day in [0, 100, 250] {
            ensure_self_signed(&files, "a", &sans, at(day)).expect("a certificate");
            ends.push(life(&files.cert).1);
        }
        assert!(ends[0] == ends[1] && ends[1] < ends[2], "{ends:?}");
    }
}
