//! What admission plugins are made of, at start. The server puts it together; rows of the table hand it on.

use super::configuration::Configuration;
use crate::cache::hub::Hub;
use crate::config::Config;

/// What a plugin may take for itself when it is made.
pub struct Parts<'a> {
    pub config: &'a Config,
    pub configuration: &'a Configuration,
    /// Takes caches of a plugin's own.
    pub hub: &'a Hub,
}
