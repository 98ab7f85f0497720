//! Images: names, the store of blobs and unpacked layers, archives, registries.
//!
//! One daemon owns the store; the CRI image service and the command line go through it. Layers are unpacked once into
//! directories that every container's overlay shares. Entry point: [`Images`].

mod archive;
mod entries;
mod fetch;
mod gc;
pub mod manifest;
pub mod passwd;
pub mod reference;
mod registry;
mod room;
mod save;
pub mod share;
mod store;
pub mod unpack;

pub use fetch::{Credentials, LayerState, Progress, PullOptions};
pub use reference::Reference;
pub use registry::{Challenge, Registries};
pub use store::{Image, Images, Usage};

/// What can go wrong with an image, and whose fault it is.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The caller's: not a name of an image.
    #[error("invalid image name {0:?}: {1}")]
    Name(String, &'static str),
    /// Nothing here goes by that name.
    #[error("image {0:?} not found")]
    NotFound(String),
    /// The archive or the registry sent something that isn't an image.
    #[error("{0}")]
    Invalid(String),
    /// The image is for other machines.
    #[error("image {name} has no variant for {wanted}; it has: {has}")]
    Platform { name: String, wanted: String, has: String },
    /// What came is not what was announced.
    #[error("{what} is corrupt: expected {expected}, got {got}")]
    Digest { what: String, expected: String, got: String },
    /// The registry refused or doesn't know it.
    #[error("{0}")]
    Registry(String),
    /// The registry knows no such image.
    #[error("{0}")]
    RegistryNotFound(String),
    /// The registry wants other credentials.
    #[error("{0}")]
    Denied(String),
    /// This host's: disk, file system.
    #[error("{doing}: {source}")]
    Io { doing: String, source: std::io::Error },
}

impl ImageError {
    /// The same, with what mirrors had said before.
    fn after(self, before: &str) -> ImageError {
        let text = |why: String| format!("{why} (mirrors: {before})");
        match self {
            ImageError::Registry(why) => ImageError::Registry(text(why)),
            ImageError::RegistryNotFound(why) => ImageError::RegistryNotFound(text(why)),
            ImageError::Denied(why) => ImageError::Denied(text(why)),
            other => other,
        }
    }

    /// An I/O error with what was being done.
    pub(crate) fn io(doing: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> ImageError {
        move |source| ImageError::Io { doing: doing.to_string(), source }
    }
}

/// A stranger's text in a message is cut to this many characters.
const SHOWN: usize = 128;

/// The beginning of a name or value that came from outside, for a message.
pub(crate) fn cut(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown += &format!("… ({} bytes)", text.len());
    }
    shown
}

/// [`cut`] for bytes that may be text.
pub(crate) fn cut_bytes(bytes: &[u8]) -> String {
    // Four bytes a character at most, so nothing that would be shown is lost.
    let mut shown = cut(&String::from_utf8_lossy(&bytes[..bytes.len().min(4 * SHOWN)]));
    if bytes.len() > 4 * SHOWN {
        shown = format!("{}… ({} bytes)", shown.split('…').next().unwrap_or_default(), bytes.len());
    }
    shown
}

/// The result of everything here.
pub type Result<T> = std::result::Result<T, ImageError>;
