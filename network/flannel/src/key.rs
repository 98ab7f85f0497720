//! This host's WireGuard key: read from its file, or made there. The private half never leaves the host, and is in no log.
//! I/O: the file. Caller: `node`.

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use aws_lc_rs::agreement::{PrivateKey, X25519};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use linux::netlink::wireguard::{PublicKey, SecretKey};

use crate::backend::wireguard::key;
use crate::subnet_file;

/// More than a key and the end of its line.
const MAX_BYTES: u64 = 256;
/// The owner's alone.
const MODE: u32 = 0o600;

/// Both halves.
#[derive(Clone, Debug)]
pub struct KeyPair {
    pub secret: SecretKey,
    pub public: PublicKey,
}

impl KeyPair {
    /// Of a private half.
    pub fn of(secret: [u8; 32]) -> io::Result<KeyPair> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "it is no key of Curve25519");
        let private = PrivateKey::from_private_key(&X25519, &secret).map_err(|_| wrong())?;
        let public = private.compute_public_key().map_err(|_| wrong())?;
        let public = public.as_ref().try_into().map_err(|_| wrong())?;
        Ok(KeyPair { secret: SecretKey(secret), public: PublicKey(public) })
    }

    /// The key in this file, made where there is none, as `wg genkey` writes it. A file that others could read is theirs
    /// no more from now on.
    pub fn at(path: &Path) -> io::Result<KeyPair> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return make(path),
            Err(error) => return Err(error),
        };
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no file"));
        }
        if meta.mode() & 0o077 != 0 {
            tracing::warn!(file = %path.display(), "others could read this host's WireGuard key: only its owner can now");
            file.set_permissions(Permissions::from_mode(MODE))?;
        }
        let mut text = String::new();
        file.take(MAX_BYTES).read_to_string(&mut text)?;
        let wrong = "it holds no key of 32 bytes in base64, such as `wg genkey` prints: remove it, and another is made";
        KeyPair::of(key(text.trim()).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, wrong))?)
    }
}

fn make(path: &Path) -> io::Result<KeyPair> {
    let mut secret: [u8; 32] = rand::random();
    // As `wg genkey` does it (RFC 7748, 5).
    secret[0] &= 248;
    secret[31] = secret[31] & 127 | 64;
    let pair = KeyPair::of(secret)?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    subnet_file::write_with(path, &(STANDARD.encode(secret) + "\n"), MODE)?;
    Ok(pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `wg genkey | tee FILE | wg pubkey`, for this test.
    #[test]
    fn the_public_half_is_what_wg_says() {
        let secret = key("uM2dNSdCLO1v1pBW1NLp2RFvGsCthM9v/6YMc173HGs=").unwrap();
        let public = key("un/YymCRqiehF6VdxdbyjeVUmERSE97xF/wTQoKn+1U=").unwrap();
        assert_eq!(KeyPair::of(secret).unwrap().public, PublicKey(public));
    }

    #[test]
    fn a_key_is_made_once_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("flannel/wgkey");
        let made = KeyPair::at(&file).unwrap();
        let mode = |file: &Path| fs::metadata(file).unwrap().mode() & 0o777;
        assert_eq!((mode(&file), KeyPair::at(&file).unwrap().public), (0o600, made.public));
        assert!(!format!("{made:?}").contains(&fs::read_to_string(&file).unwrap().trim()[..8]));
        // One of `wg genkey > FILE`.
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        assert_eq!((KeyPair::at(&file).unwrap().public, mode(&file)), (made.public, 0o600));
        for wrong in ["", "AAAA", &"A".repeat(1 << 20)] {
            fs::write(&file, wrong).unwrap();
            let said = KeyPair::at(&file).unwrap_err().to_string();
            assert!(said.contains("`wg genkey`"), "{said}");
        }
        assert!(KeyPair::at(dir.path()).is_err());
    }
}
