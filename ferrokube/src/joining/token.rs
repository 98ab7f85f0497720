//! The words that a person carries to a machine that is to join: a bootstrap token, and whom to believe.
//!
//! ```text
//!   abcdef.0123456789abcdef@sha256:5f0c…+9d1e…
//!   └ id   └ secret          │            └ kubeadm's --certificate-key: opens what a further server must have
//!                            └ of the public key of the cluster's CA, as kubeadm's --discovery-token-ca-cert-hash
//! ```
//!
//! Pure but for the chance in [`fresh`].

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::rand;
use kinds::bootstrap_token::{ID_LENGTH, SECRET_LENGTH, Token, is_id};

use super::certs::CertificateKey;

const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// Id and secret of a new token.
pub fn fresh() -> Result<(String, String)> {
    Ok((word(ID_LENGTH)?, word(SECRET_LENGTH)?))
}

/// Letters and digits, each as likely as any other.
fn word(length: usize) -> Result<String> {
    let fair = u8::MAX - u8::MAX % ALPHABET.len() as u8;
    let mut word = String::with_capacity(length);
    while word.len() < length {
        let mut byte = [0];
        rand::fill(&mut byte).map_err(|_| anyhow!("the kernel gives no random bytes"))?;
        if byte[0] < fair {
            word.push(char::from(ALPHABET[usize::from(byte[0]) % ALPHABET.len()]));
        }
    }
    Ok(word)
}

/// `sha256:` and the digest of the public key (SubjectPublicKeyInfo, DER) of a certificate in PEM.
pub fn pin(ca: &[u8]) -> Result<String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(ca).context("no PEM")?;
    Ok(runtime::digest::of(pem.parse_x509().context("no certificate")?.public_key().raw))
}

/// The words for a token of a cluster with this CA.
pub fn words(id: &str, secret: &str, ca: &[u8]) -> Result<String> {
    Ok(format!("{id}.{secret}@{}", pin(ca)?))
}

/// The same for a further server.
pub fn server_words(id: &str, secret: &str, ca: &[u8], key: &CertificateKey) -> Result<String> {
    Ok(format!("{}+{}", words(id, secret, ca)?, key.hex()))
}

/// What a person brought along.
#[derive(Clone, PartialEq, Eq)]
pub struct Words {
    pub id: String,
    pub secret: String,
    /// Whom to believe; none in a token of kubeadm's, which says it beside.
    pub pin: Option<String>,
    /// In the words for a further server.
    pub key: Option<CertificateKey>,
}

impl Words {
    pub fn parse(text: &str) -> Result<Words, String> {
        let (text, key) = match text.trim().split_once('+') {
            Some((text, key)) => (text, Some(key)),
            None => (text.trim(), None),
        };
        let (token, pin) = match text.split_once('@') {
            Some((token, pin)) => (token, Some(pin)),
            None => (text, None),
        };
        let wrong = "a token is written like abcdef.0123456789abcdef@sha256:…: see `ferrokube token create`";
        let Token { id, secret } = Token::parse(token).ok_or(wrong)?;
        let hex = |pin: &str| pin.len() == 64 && pin.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !pin.is_none_or(|pin| pin.strip_prefix("sha256:").is_some_and(hex)) {
            return Err(wrong.into());
        }
        let key = key.map(|key| CertificateKey::parse(key).ok_or(wrong)).transpose()?;
        Ok(Words { id: id.to_owned(), secret: secret.to_owned(), pin: pin.map(str::to_owned), key })
    }

    /// The bearer token of the API.
    pub fn bearer(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }
}

/// Not its secret: configurations end in logs.
impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "token {}", self.id)
    }
}

/// The id in what a person calls a token: an id, `id.secret`, or the whole words.
pub fn id_of(text: &str) -> Option<&str> {
    let id = text.split(['.', '@']).next().unwrap_or_default();
    is_id(id).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_token_is_one_and_another_each_time() {
        let mut ids = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let (id, secret) = fresh().expect("a token");
            let text = format!("{id}.{secret}");
            assert_eq!(Token::parse(&text), Some(Token { id: &id, secret: &secret }));
            ids.insert(id);
        }
        assert!(ids.len() > 95);
    }

    #[test]
    fn a_pin_is_of_the_key_and_stays_with_a_new_certificate() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = |name: &str| {
            let params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("parameters");
            params.self_signed(&key).expect("a certificate").pem()
        };
        let pin_of = |pem: &str| pin(pem.as_bytes()).expect("a pin");
        assert_eq!(pin_of(&certificate("a")), pin_of(&certificate("b")));
        let hex: String =
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &rcgen::PublicKeyData::subject_public_key_info(&key))
                .as_ref()
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect();
        assert_eq!(
            pin_of(&certificate("a")),
            format!("sha256:{hex}"),
            "as `openssl pkey -pubin -outform der | openssl dgst`"
        );
        assert!(pin(b"x").is_err());
    }

    #[test]
    fn words_are_a_token_and_whom_to_believe() {
        let pin = format!("sha256:{}", "0a".repeat(32));
        let words = Words::parse(&format!("abcdef.0123456789abcdef@{pin}\n")).expect("words");
        assert_eq!((words.bearer().as_str(), words.pin.as_ref()), ("abcdef.0123456789abcdef", Some(&pin)));
        assert_eq!(format!("{words:?}"), "token abcdef");
        assert_eq!(Words::parse("abcdef.0123456789abcdef").map(|words| words.pin), Ok(None));
        let key = CertificateKey::fresh().expect("a key");
        let server = Words::parse(&format!("abcdef.0123456789abcdef@{pin}+{}", key.hex())).expect("words");
        assert_eq!((server.key, server.pin), (Some(key), Some(pin)));
        for wrong in [
            "",
            "abcdef",
            "abcdef.0123456789abcdef@",
            "abcdef.0123456789abcdef@sha256:0a",
            "abcdef.0123456789abcdef+0a",
        ] {
            assert!(Words::parse(wrong).is_err_and(|said| said.contains("token create")), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_called_by_its_id_or_wholly() {
        for text in ["abcdef", "abcdef.0123456789abcdef", "abcdef.0123456789abcdef@sha256:00"] {
            assert_eq!(id_of(text), Some("abcdef"), "{text}");
        }
        for text in ["", "abcde", "ABCDEF", "abcdefg", "abc/ef"] {
            assert_eq!(id_of(text), None, "{text}");
        }
    }
}
