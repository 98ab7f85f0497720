//! Logs: on standard error, by `FERROKUBE_LOG` (tracing's filter syntax), without colours because they end in files.

use tracing_subscriber::EnvFilter;

/// Called once, by commands that stay.
pub fn init() {
    let filter = EnvFilter::try_from_env("FERROKUBE_LOG").unwrap_or_else(|_| "info,kube=warn".into());
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_env_filter(filter).init();
}
