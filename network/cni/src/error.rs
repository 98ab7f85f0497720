//! What can go wrong, with the specification's error codes.

use std::path::PathBuf;

/// An error of a network operation.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "fields are what the messages show")]
pub enum Error {
    /// A configuration of a version that isn't in [`crate::types::VERSIONS`].
    #[error("CNI version {0:?} is not supported: use one of {list}", list = crate::types::VERSIONS.join(", "))]
    Version(String),
    /// A configuration that is JSON, and wrong: the field and what would be right.
    #[error("network configuration: {field}: {problem}")]
    Config { field: String, problem: String },
    /// A variable of the exec protocol that is missing or wrong.
    #[error("{variable}: {problem}")]
    Environment { variable: &'static str, problem: String },
    /// A configuration that isn't JSON of the right shape.
    #[error("not JSON of a network configuration: {0}")]
    Decode(#[from] serde_json::Error),
    /// A file, a directory or a program: what was being done, and the system's word.
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    /// What the kernel refused of links, addresses, routes and rules.
    #[error(transparent)]
    Kernel(#[from] linux::netlink::Error),
    /// Every address of the subnet is taken; records of containers that are gone are freed by `gc`.
    #[error("no free address in {subnet}: all {used} are in use")]
    NoAddress { subnet: String, used: usize },
    /// A link or table of our name that somebody else made: it is left as it is.
    #[error("{link} is there already and is not ours: {problem}")]
    Foreign { link: String, problem: String },
    /// Another container, or a program of the host, has the port.
    #[error("host port {port} is in use by {owner}")]
    PortTaken { port: String, owner: String },
    /// CHECK found something other than what ADD left.
    #[error("check of {container}: {problem}")]
    Check { container: String, problem: String },
    /// The configuration names a plug-in that can't be found.
    #[error("CNI plugin {plugin:?} is neither built in nor in {path:?}")]
    NoPlugin { plugin: String, path: Vec<PathBuf> },
    /// A plugin said no; its own code and words.
    #[error("CNI plugin {plugin}: {msg}{}", .details.as_ref().filter(|d| !d.is_empty()).map(|d| format!(": {d}")).unwrap_or_default())]
    Plugin { plugin: String, code: u32, msg: String, details: Option<String> },
}

impl Error {
    /// The code of the specification: below 100 reserved, ours from 100 on.
    pub fn code(&self) -> u32 {
        match self {
            Error::Version(_) => 1,
            Error::Config { .. } => 7,
            Error::Environment { .. } => 4,
            Error::Decode(_) => 6,
            Error::Io { .. } => 5,
            Error::Plugin { code, .. } => *code,
            Error::NoAddress { .. } => 11,
            Error::Foreign { .. } => 100,
            Error::PortTaken { .. } => 101,
            Error::Check { .. } => 102,
            Error::NoPlugin { .. } => 103,
            Error::Kernel(_) => 104,
        }
    }

    pub(crate) fn config(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Error::Config { field: field.into(), problem: problem.into() }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Error::Io { what, source }
    }
}
