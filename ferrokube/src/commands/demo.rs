//! `up --demo`: a small web app behind a Service. Its image is made of this very binary and the libraries it is linked
//! with, so the first minute needs no registry.

use std::io::{Cursor, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::api::Api;
use serde_json::{Value, json};

use crate::apply::put;
use crate::commands::misc::print;
use crate::config::Host;
use crate::cri;
use crate::fault::best_effort;
use crate::nodes;

/// The hidden subcommand that is the app.
pub const SUBCOMMAND: &str = "demo-app";
const IMAGE: &str = "ferrokube.local/demo:latest";
const PORT: u16 = 8080;

/// Imports the image, applies the manifests, waits for the app and prints its URL.
pub fn run(host: &Host) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let port = runtime.block_on(async {
        if !known(host).await? {
            let image = Box::new(Cursor::new(image()?));
            let names = super::image::send(&host.cri_socket(), image, "").await.context("the demo's image")?;
            nodes::images::spread(host, &names).await.context("the demo's image")?;
        }
        apply(host).await
    })?;
    print(&format!(
        "The demo answers on http://{} and, inside the cluster, on http://demo.default.svc.{}\n\
         Try:  kubectl scale deployment/demo --replicas=3\n",
        std::net::SocketAddr::new(crate::node_address::of(host), port),
        host.cluster.cluster_domain
    ))
}

async fn known(host: &Host) -> Result<bool> {
    let channel = cri::connect(&host.cri_socket()).await?;
    let spec = wire::cri::ImageSpec { image: IMAGE.into(), ..Default::default() };
    let request = wire::cri::ImageStatusRequest { image: Some(spec), verbose: false };
    Ok(cri::images(channel).image_status(request).await?.into_inner().image.is_some())
}

fn manifests() -> [(&'static str, Value); 2] {
    let labels = json!({"app": "demo"});
    let metadata = json!({"name": "demo", "namespace": "default", "labels": labels});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{
                "name": "app", "image": IMAGE, "imagePullPolicy": "IfNotPresent",
                "ports": [{"name": "http", "containerPort": PORT}],
                "readinessProbe": {"tcpSocket": {"port": "http"}},
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
            }]},
        }},
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": {"type": "NodePort", "selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    });
    [("deployments", deployment), ("services", service)]
}

async fn apply(host: &Host) -> Result<u16> {
    let client = client::from_kubeconfig(&host.kubeconfig()).await?;
    for (plural, manifest) in manifests() {
        put(&client, plural, &manifest).await?;
    }
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "default");
    let available = kube::runtime::wait::await_condition(deployments, "demo", |d: Option<&Deployment>| {
        d.and_then(|d| d.status.as_ref()?.available_replicas).unwrap_or(0) > 0
    });
    tokio::time::timeout(std::time::Duration::from_secs(60), available)
        .await
        .context("the demo's pod was not ready within 60 s: see `kubectl describe pod -l app=demo`")??;
    let service = Api::<Service>::namespaced(client, "default").get("demo").await?;
    let ports = service.spec.and_then(|s| s.ports).unwrap_or_default();
    let port = ports.first().and_then(|p| p.node_port).and_then(|port| u16::try_from(port).ok());
    port.context("the demo's Service has no node port")
}

/// A docker archive of one layer: this binary at its path in the image, and its libraries at theirs.
fn image() -> Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    let binary = std::fs::read("/proc/self/exe").context("reading this binary")?;
    add(&mut layer, Path::new("ferrokube"), &binary, 0o755)?;
    for library in libraries()? {
        let bytes = std::fs::read(&library).with_context(|| library.display().to_string())?;
        add(&mut layer, library.strip_prefix("/").unwrap_or(&library), &bytes, 0o755)?;
    }
    let layer = layer.into_inner()?;
    let digest = runtime::digest::of(&layer);
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Entrypoint": ["/ferrokube", SUBCOMMAND], "User": "65534:65534"},
        "rootfs": {"type": "layers", "diff_ids": [digest]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    add(&mut archive, Path::new("manifest.json"), manifest.to_string().as_bytes(), 0o644)?;
    add(&mut archive, Path::new("config.json"), config.to_string().as_bytes(), 0o644)?;
    add(&mut archive, Path::new("layer.tar"), &layer, 0o644)?;
    Ok(archive.into_inner()?)
}

fn add(tar: &mut tar::Builder<Vec<u8>>, path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    header.set_entry_type(tar::EntryType::Regular);
    Ok(tar.append_data(&mut header, path, bytes)?)
}

/// The shared libraries of this process under the paths by which the loader looks for them, the loader included.
fn libraries() -> Result<Vec<PathBuf>> {
    let maps = std::fs::read_to_string("/proc/self/maps").context("reading /proc/self/maps")?;
    let mut found: Vec<PathBuf> = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .filter(|path| path.contains(".so"))
        .map(PathBuf::from)
        .collect();
    let loaders = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
    found.extend(loaders.iter().map(PathBuf::from).filter(|p| p.exists()));
    found.sort();
    found.dedup();
    Ok(found)
}

/// The app: one page that names the pod that answered. One thread: it is a demo.
pub fn app() -> std::process::ExitCode {
    // What listens on every address of IPv6 does so on those of IPv4; a kernel may have none of the former.
    let listener = match TcpListener::bind(("::", PORT)).or_else(|_| TcpListener::bind(("0.0.0.0", PORT))) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("demo: port {PORT}: {error}");
            return std::process::ExitCode::FAILURE;
        }
    };
    let host = crate::config::host_name();
    let page = format!(
        "<!doctype html><meta charset=utf-8><title>Ferrokube</title>\
         <body style=\"font:18px sans-serif;margin:4em\"><h1>Hello from Ferrokube</h1><p>Answered by pod <b>{host}</b>.\n"
    );
    for stream in listener.incoming().flatten() {
        best_effort("an answer", answer(stream, &page));
    }
    std::process::ExitCode::SUCCESS
}

fn answer(mut stream: std::net::TcpStream, page: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
    let mut request = [0; 2048];
    if stream.read(&mut request)? == 0 {
        return Ok(());
    }
    let length = page.len();
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(page.as_bytes())
}
