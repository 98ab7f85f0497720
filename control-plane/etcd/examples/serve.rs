//! A bare etcd for trying things: `serve DATA_DIR URL [--quota-backend-bytes N]`. The product's command is
//! `ferrokube etcd`.

use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(dir), Some(url)) = (args.next(), args.next()) else { return Err("serve DATA_DIR URL".into()) };
    let mut config = etcd::daemon::Config { data_dir: dir.into(), listen_client_urls: vec![url], ..Default::default() };
    while let (Some(flag), Some(value)) = (args.next(), args.next()) {
        match flag.as_str() {
            "--quota-backend-bytes" => config.quota_backend_bytes = value.parse()?,
            other => return Err(format!("unknown flag {other}").into()),
        }
    }
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
    Ok(etcd::daemon::serve(config, shutdown).await?)
}
