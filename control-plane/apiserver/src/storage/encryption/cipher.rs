//! One value encrypted and decrypted, byte for byte as upstream stores it: `k8s:enc:PROVIDER:v1:KEY:` and then what the
//! provider makes. I/O: random numbers, nothing else.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    self, DecryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use bytes::Bytes;
use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit;
use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit, StreamCipher};

/// What every encrypted value begins with.
pub const ENCRYPTED: &[u8] = b"k8s:enc:";
const AES_BLOCK: usize = 16;
const SECRETBOX_KEY: usize = 32;
const SECRETBOX_NONCE: usize = 24;
const SECRETBOX_TAG: usize = 16;

/// How values are turned into what is stored.
pub enum Cipher {
    Identity,
    Cbc { encrypt: Box<PaddedBlockEncryptingKey>, decrypt: Box<PaddedBlockDecryptingKey> },
    Gcm(LessSafeKey),
    Secretbox([u8; SECRETBOX_KEY]),
}

/// A key of a provider, with what its values begin with.
pub struct Transformer {
    pub prefix: Vec<u8>,
    pub cipher: Cipher,
}

/// The keys of a resource: the first encrypts, any decrypts.
#[derive(Default)]
pub struct Transformers(pub Vec<Transformer>);

impl Cipher {
    /// The key's length was checked: 16, 24 or 32 bytes.
    pub fn cbc(key: &[u8]) -> Option<Cipher> {
        let algorithm = match key.len() {
            16 => &cipher::AES_128,
            24 => &cipher::AES_192,
            32 => &cipher::AES_256,
            _ => return None,
        };
        let bound = || UnboundCipherKey::new(algorithm, key).ok();
        let encrypt = PaddedBlockEncryptingKey::cbc_pkcs7(bound()?).ok()?;
        let decrypt = PaddedBlockDecryptingKey::cbc_pkcs7(bound()?).ok()?;
        Some(Cipher::Cbc { encrypt: Box::new(encrypt), decrypt: Box::new(decrypt) })
    }

    pub fn gcm(key: &[u8]) -> Option<Cipher> {
        let algorithm = match key.len() {
            16 => &aead::AES_128_GCM,
            24 => &aead::AES_192_GCM,
            32 => &aead::AES_256_GCM,
            _ => return None,
        };
        UnboundKey::new(algorithm, key).ok().map(|key| Cipher::Gcm(LessSafeKey::new(key)))
    }

    pub fn secretbox(key: &[u8]) -> Option<Cipher> {
        key.try_into().ok().map(Cipher::Secretbox)
    }

    /// Appends what stands for the value. `context` is the key that it is stored at: a value can't be moved to another.
    fn encrypt(&self, value: &[u8], context: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
        const FAILED: &str = "the cipher failed";
        match self {
            Cipher::Identity => out.extend_from_slice(value),
            Cipher::Cbc { encrypt, .. } => {
                let mut sealed = value.to_vec();
                let context = encrypt.encrypt(&mut sealed).map_err(|_| FAILED)?;
                let DecryptionContext::Iv128(iv) = context else { return Err(FAILED) };
                out.extend_from_slice(iv.as_ref());
                out.extend(sealed);
            }
            Cipher::Gcm(key) => {
                let nonce: [u8; NONCE_LEN] = random()?;
                let mut sealed = value.to_vec();
                let unique = Nonce::assume_unique_for_key(nonce);
                key.seal_in_place_append_tag(unique, Aad::from(context), &mut sealed).map_err(|_| FAILED)?;
                out.extend_from_slice(&nonce);
                out.extend(sealed);
            }
            Cipher::Secretbox(key) => {
                let nonce: [u8; SECRETBOX_NONCE] = random()?;
                out.extend_from_slice(&nonce);
                let mut sealed = value.to_vec();
                let tag_key = secretbox_keystream(key, &nonce, |stream| stream.apply_keystream(&mut sealed));
                out.extend_from_slice(&Poly1305::new(&tag_key.into()).compute_unpadded(&sealed));
                out.extend(sealed);
            }
        }
        Ok(())
    }

    fn decrypt(&self, stored: &[u8], context: &[u8]) -> Result<Vec<u8>, &'static str> {
        const SHORT: &str = "the stored data was shorter than the required size";
        match self {
            Cipher::Identity if stored.starts_with(ENCRYPTED) => {
                Err("identity transformer tried to read encrypted data")
            }
            Cipher::Identity => Ok(stored.to_vec()),
            Cipher::Cbc { decrypt, .. } => {
                let (iv, sealed) = stored.split_first_chunk::<AES_BLOCK>().ok_or(SHORT)?;
                if sealed.is_empty() || sealed.len() % AES_BLOCK != 0 {
                    return Err("the stored data is not a multiple of the block size");
                }
                let mut buffer = sealed.to_vec();
                let iv = DecryptionContext::Iv128(FixedLength::from(iv));
                let plain = decrypt.decrypt(&mut buffer, iv).map_err(|_| "invalid padding on input")?;
                Ok(plain.to_vec())
            }
            Cipher::Gcm(key) => {
                let (nonce, sealed) = stored.split_first_chunk::<NONCE_LEN>().ok_or(SHORT)?;
                let mut buffer = sealed.to_vec();
                let nonce = Nonce::assume_unique_for_key(*nonce);
                let opened = key.open_in_place(nonce, Aad::from(context), &mut buffer);
                let length = opened.map_err(|_| "cipher: message authentication failed")?.len();
                buffer.truncate(length);
                Ok(buffer)
            }
            Cipher::Secretbox(key) => {
                let (nonce, sealed) = stored.split_first_chunk::<SECRETBOX_NONCE>().ok_or(SHORT)?;
                let (tag, sealed) = sealed.split_first_chunk::<SECRETBOX_TAG>().ok_or(SHORT)?;
                let mut plain = sealed.to_vec();
                let tag_key = secretbox_keystream(key, nonce, |stream| stream.apply_keystream(&mut plain));
                let expected = Poly1305::new(&tag_key.into()).compute_unpadded(sealed);
                aws_lc_rs::constant_time::verify_slices_are_equal(&expected, tag)
                    .map_err(|_| "output array was not large enough for encryption")?;
                Ok(plain)
            }
        }
    }
}

/// NaCl's secretbox: the first 32 bytes of XSalsa20's stream are the key of the tag, the rest is for the message. Gives
/// that key, and the stream behind it to `message`.
fn secretbox_keystream(
    key: &[u8; SECRETBOX_KEY],
    nonce: &[u8; SECRETBOX_NONCE],
    message: impl FnOnce(&mut XSalsa20),
) -> [u8; 32] {
    let mut stream = XSalsa20::new(&(*key).into(), &(*nonce).into());
    let mut tag_key = [0; 32];
    stream.apply_keystream(&mut tag_key);
    message(&mut stream);
    tag_key
}

impl Transformers {
    /// What is stored for a value. Without transformers values are stored as they are.
    pub fn encrypt(&self, value: &Bytes, context: &[u8]) -> Result<Bytes, &'static str> {
        let Some(first) = self.0.first().filter(|first| !matches!(first.cipher, Cipher::Identity)) else {
            return Ok(value.clone());
        };
        let mut out = first.prefix.clone();
        first.cipher.encrypt(value, context, &mut out)?;
        Ok(Bytes::from(out))
    }

    /// The value that something stored stands for, by the first key that can.
    pub fn decrypt(&self, stored: &Bytes, context: &[u8]) -> Result<Bytes, &'static str> {
        if !stored.starts_with(ENCRYPTED) {
            return match self.has_identity() {
                true => Ok(stored.clone()),
                false => Err("no matching prefix found"),
            };
        }
        let mut problem = match self.has_identity() {
            true => "identity transformer tried to read encrypted data",
            false => "no matching prefix found",
        };
        for one in self.0.iter().filter(|one| !one.prefix.is_empty()) {
            if let Some(sealed) = stored.strip_prefix(one.prefix.as_slice()) {
                match one.cipher.decrypt(sealed, context) {
                    Ok(plain) => return Ok(Bytes::from(plain)),
                    Err(error) => problem = error,
                }
            }
        }
        Err(problem)
    }

    /// Whether writing the value anew would store it in another way: as another key's, or plain.
    pub fn is_stale(&self, stored: &[u8]) -> bool {
        match self.0.first() {
            Some(first) if !first.prefix.is_empty() => !stored.starts_with(&first.prefix),
            _ => stored.starts_with(ENCRYPTED),
        }
    }

    fn has_identity(&self) -> bool {
        self.0.is_empty() || self.0.iter().any(|one| one.prefix.is_empty())
    }
}

fn random<const N: usize>() -> Result<[u8; N], &'static str> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "there are no random numbers")?;
    Ok(bytes)
}
