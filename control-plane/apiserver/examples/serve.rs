//! Serves the API over plain HTTP from memory, for trying it by hand: `cargo run -p apiserver --example serve -- 8001`.
//! Everybody may do everything and nothing is kept.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use apiserver::Config;
use apiserver::storage::memory::MemoryStore;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), apiserver::error::Error> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(8001);
    let config = Config {
        bind_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        secure_port: port,
        authorization_mode: vec!["AlwaysAllow".to_owned()],
        ..Config::default()
    };
    apiserver::daemon::run(config, Arc::new(MemoryStore::default()), CancellationToken::new()).await
}
