//! How a neighbour's segments are signed, as his settings say it: by a password (TCP-MD5), or by keys that can be changed
//! while the session goes on (TCP-AO). Pure, but for the files of secrets, which the caller reads. Used by
//! [`super::peering`].

use std::path::Path;

use bgp::session::config::{Algorithm, AoKey, Authentication};

use super::node::Fault;
use super::settings::{AoKeySettings, Secret, Settings};

/// Bytes of a password or secret that the kernel takes (TCP_MD5SIG_MAXKEYLEN, TCP_AO_MAXKEYLEN).
const MAX_SECRET: usize = 80;
/// Keys of one neighbour: that of now and that of then, and some in reserve.
const MAX_KEYS: usize = 8;

/// What a neighbour's settings say; `first_line` gives that of a file.
pub fn of(
    settings: &Settings,
    first_line: &dyn Fn(&Path) -> Result<String, String>,
) -> Result<Option<Authentication>, Fault> {
    let password = secret("password", settings.password.as_ref(), settings.password_file.as_deref(), first_line)?;
    match (&settings.tcp_ao, password) {
        (Some(_), Some(_)) => Err(Fault::at("tcp-ao", "and a password (TCP-MD5): one of both")),
        (Some(keys), None) => self::keys(keys, first_line).map(|keys| Some(Authentication::Ao(keys))),
        (None, password) => Ok(password.map(Authentication::Md5)),
    }
}

fn keys(written: &[AoKeySettings], first_line: &dyn Fn(&Path) -> Result<String, String>) -> Result<Vec<AoKey>, Fault> {
    if !(1..=MAX_KEYS).contains(&written.len()) {
        return Err(Fault::at("tcp-ao", format!("has {} keys, which is not from 1 to {MAX_KEYS}", written.len())));
    }
    let mut all: Vec<AoKey> = Vec::new();
    for (at, key) in written.iter().enumerate() {
        let step = format!("tcp-ao[{at}]");
        let told = secret("key", key.key.as_ref(), key.key_file.as_deref(), first_line);
        let told = told.and_then(|key| key.ok_or_else(|| Fault::at("key", "is missing, and key-file: one of both")));
        let secret = told.map_err(|fault| fault.within(&step))?;
        let taken = |field: &str, id: u8, first: usize| {
            Err(Fault::at(field, format!("{id} is that of tcp-ao[{first}] already")).within(&step))
        };
        if let Some(first) = all.iter().position(|other| other.send_id == key.send_id) {
            return taken("send-id", key.send_id, first);
        }
        if let Some(first) = all.iter().position(|other| other.receive_id == key.receive_id) {
            return taken("receive-id", key.receive_id, first);
        }
        let algorithm = Algorithm::from(key.algorithm);
        all.push(AoKey { send_id: key.send_id, receive_id: key.receive_id, algorithm, secret });
    }
    Ok(all)
}

/// A secret, or the first line of its file.
fn secret(
    field: &str,
    written: Option<&Secret>,
    file: Option<&Path>,
    first_line: &dyn Fn(&Path) -> Result<String, String>,
) -> Result<Option<String>, Fault> {
    let in_file = format!("{field}-file");
    let (secret, field) = match (written, file) {
        (Some(_), Some(_)) => return Err(Fault::at(field, format!("and {in_file}: one of both"))),
        (Some(secret), None) => (secret.0.clone(), field.to_owned()),
        (None, Some(file)) => (first_line(file).map_err(|problem| Fault::at(&*in_file, problem))?, in_file),
        (None, None) => return Ok(None),
    };
    match secret.len() {
        1..=MAX_SECRET => Ok(Some(secret)),
        length => Err(Fault::at(field, format!("has {length} bytes, and the kernel takes 1 to {MAX_SECRET}"))),
    }
}
