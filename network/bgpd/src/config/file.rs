//! The configuration's file, and those of passwords that it names; whether the files that it wants written can be made. I/O.
//! Called by the daemon at its start and on a reload, and by `ferrokube bgp check`.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::found::{LeftOut, Others};
use super::{Config, Kind, parse_with};

/// Bytes of a configuration: ten thousand neighbours take a megabyte.
const MAX_FILE: u64 = 16 << 20;
/// Bytes of a password's file.
const MAX_PASSWORD_FILE: u64 = 4096;

/// A configuration that can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", of_each(.file, .problem))]
pub struct ConfigError {
    /// The file.
    pub file: String,
    /// The field, and what would be right: of each error a line.
    pub problem: String,
}

fn of_each(file: &str, problems: &str) -> String {
    problems.lines().map(|problem| format!("{file}: {problem}")).collect::<Vec<_>>().join("\n")
}

/// A file as it was when it was read; a configuration can be made of it again.
pub struct File {
    path: PathBuf,
    text: String,
    kind: Kind,
    /// Those of the files of passwords that have been read: new ones count with the next reading of this one.
    secrets: Mutex<HashMap<PathBuf, String>>,
}

impl File {
    /// Reads it.
    ///
    /// # Errors
    /// It can't be read.
    pub fn read(path: &Path, kind: Kind) -> Result<File, ConfigError> {
        let text = text_of(path, MAX_FILE).map_err(|problem| of_file(path, problem))?;
        Ok(File { path: path.to_owned(), text, kind, secrets: Mutex::default() })
    }

    /// Reads what comes from somewhere else, which has a name; files of passwords that it names are those from here on.
    ///
    /// # Errors
    /// It can't be read, or is too long.
    pub fn read_from(input: impl Read, name: &str, kind: Kind) -> Result<File, ConfigError> {
        let fault = |problem: String| ConfigError { file: name.to_owned(), problem };
        let mut bytes = Vec::new();
        input.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| fault(error.to_string()))?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(fault(format!("has more than {MAX_FILE} bytes")));
        }
        let text = String::from_utf8(bytes).map_err(|_| fault("is not text".to_owned()))?;
        Ok(File { path: PathBuf::from(name), text, kind, secrets: Mutex::default() })
    }

    /// What it says, with neighbours who are not in it; who of them is left out. The files of passwords that it names are
    /// read here, once: one that is half changed is not to end sessions because a neighbour has come.
    ///
    /// # Errors
    /// What is wrong, with file and field.
    pub fn with(&self, others: Others<'_>) -> Result<(Config, Vec<LeftOut>), ConfigError> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let known = |path: &Path| -> Result<String, String> {
            let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(secret) = secrets.get(path) {
                return Ok(secret.clone());
            }
            let secret = first_line(path)?;
            secrets.insert(path.to_owned(), secret.clone());
            Ok(secret)
        };
        beside(&self.text, folder, self.kind, others, &known).map_err(|problem| of_file(&self.path, problem))
    }
}

fn of_file(path: &Path, problem: String) -> ConfigError {
    ConfigError { file: path.display().to_string(), problem }
}

/// Reads a file, and those of passwords that it names.
///
/// # Errors
/// What is wrong, with file and field.
pub fn read(path: &Path, kind: Kind) -> Result<Config, ConfigError> {
    File::read(path, kind)?.with(Others::default()).map(|(config, _)| config)
}

/// A text whose files of passwords are in a folder.
fn beside(
    text: &str,
    folder: &Path,
    kind: Kind,
    others: Others<'_>,
    secret_of: &dyn Fn(&Path) -> Result<String, String>,
) -> Result<(Config, Vec<LeftOut>), String> {
    let password_of =
        |named: &Path| secret_of(&folder.join(named)).map_err(|why| format!("{}: {why}", named.display()));
    let (config, left_out) = parse_with(text, kind, &password_of, others)?;
    if let Some((path, _)) = &config.mrt.table {
        can_be_made("mrt.table", path)?;
    }
    if let Some(path) = &config.mrt.updates {
        can_be_made("mrt.updates", path)?;
    }
    Ok((config, left_out))
}

/// Whether a file could be made somewhere, as far as that is seen without making it: a dump that is due in an hour must not be
/// the first to tell.
fn can_be_made(field: &str, path: &Path) -> Result<(), String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let fault = |why: &str| Err(format!("{field}: {}: {why}", path.display()));
    if path.is_dir() {
        return fault("is a directory, where a file is wanted");
    }
    match folder.metadata() {
        Ok(there) if there.is_dir() => Ok(()),
        Ok(_) => fault(&format!("{} is no directory", folder.display())),
        Err(error) => fault(&format!("the directory {}: {error}", folder.display())),
    }
}

/// What a password's file holds.
///
/// # Errors
/// It can't be read, or is longer than any password.
pub fn first_line(path: &Path) -> Result<String, String> {
    Ok(text_of(path, MAX_PASSWORD_FILE)?.lines().next().unwrap_or_default().to_owned())
}

fn text_of(path: &Path, most: u64) -> Result<String, String> {
    let real = path.canonicalize().map_err(|error| error.to_string())?;
    let bytes = linux::root::read_regular(&real, most).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|_| "is not text".to_owned())
}
