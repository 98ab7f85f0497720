//! Pulls an image.

use std::sync::Arc;

use super::registry::Mirrors;
use super::store::{Image, Images};
use super::{ImageError, Result};

/// Who asks.
#[derive(Clone)]
pub enum Credentials {
    Password { username: String, password: String },
    Identity(String),
    Bearer(String),
}

/// Where a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerState {
    Waiting,
    Downloading,
    Unpacking,
    Done,
    Exists,
}

impl LayerState {
    /// As shown.
    pub fn name(self) -> &'static str {
        match self {
            LayerState::Waiting => "waiting",
            LayerState::Downloading => "downloading",
            LayerState::Unpacking => "unpacking",
            LayerState::Done => "done",
            LayerState::Exists => "exists",
        }
    }
}

/// How far a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub digest: String,
    pub done: u64,
    pub total: u64,
    pub state: LayerState,
}

/// How to pull.
#[derive(Clone, Default)]
pub struct PullOptions {
    pub credentials: Option<Credentials>,
    pub mirrors: Mirrors,
    pub progress: Option<tokio::sync::watch::Sender<Vec<Progress>>>,
}

impl Images {
    /// Fetches an image.
    pub async fn pull(self: Arc<Self>, name: &str, _options: PullOptions) -> Result<Image> {
        Err(ImageError::Registry(format!("pull {name}: registries are not supported yet")))
    }
}
