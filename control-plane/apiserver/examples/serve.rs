//! Serves the API over plain HTTP, for trying it by hand: `cargo run -p apiserver --example serve -- 8001 [ETCD-URL]`.
//! Everybody may do everything; without an etcd nothing is kept.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use apiserver::Config;
use apiserver::storage::memory::MemoryStore;
use apiserver::storage::{Store, remote};
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
    let store: Arc<dyn Store> = match std::env::args().nth(2) {
        Some(endpoint) => {
            Arc::new(remote::connect(remote::Config { endpoints: vec![endpoint], ..remote::Config::default() }).await?)
        }
        None => Arc::new(MemoryStore::default()),
    };
    apiserver::daemon::run(config, store, CancellationToken::new()).await
}
