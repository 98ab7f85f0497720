//! A host and pods to try the network on: namespaces, echo servers, clients.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::time::Duration;

use cni::{Config, Pod, PortMapping, Protocol};
use linux::netns::NetNs;

/// Long enough for a loaded machine; only waited for when something is wrong.
const PATIENCE: Duration = Duration::from_secs(5);

/// A host of its own whose files go away with it.
pub struct World {
    pub host: NetNs,
    pub config: Config,
    _dir: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = NetNs::create().unwrap();
        let config = Config {
            bridge: "fk-test".into(),
            table: "fk-test-cni".into(),
            subnets: "10.42.0.0/24".parse().unwrap(),
            cluster_ranges: vec!["10.42.0.0/16".parse().unwrap()],
            only_here: vec!["10.42.0.0/16".parse().unwrap()],
            masquerade: true,
            mtu: None,
            state_dir: dir.path().join("cni"),
            settings_dir: dir.path().join("settings"),
        };
        World { host, config, _dir: dir }
    }

    /// Runs something on the host.
    pub fn on_host<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.host.run(work).unwrap()
    }
}

/// A path that leads to a namespace as long as the handle lives.
pub fn path_of(ns: &NetNs) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), ns.as_fd().as_raw_fd()).into()
}

pub fn pod<'a>(id: &'a str, netns: &'a std::path::Path, ports: &'a [PortMapping]) -> Pod<'a> {
    Pod { container_id: id, netns, ifname: "eth0", namespace: "default", name: id, ports }
}

pub fn port(host: u16, container: u16, protocol: Protocol) -> PortMapping {
    PortMapping { host_port: host, container_port: container, protocol, host_ip: None }
}

/// Answers each TCP connection on a port of a namespace with the client's address, forever.
pub fn serve_tcp(ns: &NetNs, port: u16) {
    serve_tcp_at(ns, &format!("0.0.0.0:{port}"));
}

/// The same at an address.
pub fn serve_tcp_at(ns: &NetNs, at: &str) {
    let listener = ns.run(|| TcpListener::bind(at).unwrap()).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip().to_string();
            let _ = stream.write_all(peer.as_bytes());
        }
    });
}

/// The same by UDP.
pub fn serve_udp(ns: &NetNs, port: u16) {
    let socket = ns.run(|| UdpSocket::bind(("0.0.0.0", port)).unwrap()).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(peer.ip().to_string().as_bytes(), peer);
        }
    });
}

/// What a TCP server tells a client in a namespace: the address it saw.
pub fn ask_tcp(ns: &NetNs, to: &str) -> std::io::Result<String> {
    let to: SocketAddr = to.parse().unwrap();
    ns.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })
    .unwrap()
}

pub fn ask_udp(ns: &NetNs, to: &str) -> std::io::Result<String> {
    let to: SocketAddr = to.parse().unwrap();
    ns.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(to)?;
        socket.send(b"who am I?")?;
        let mut buffer = [0; 64];
        let read = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..read]).into_owned())
    })
    .unwrap()
}
