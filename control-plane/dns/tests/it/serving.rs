//! The whole server on loopback, fed by a fake API server.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use dns::Config;
use hickory_proto::op::Message;
use serde_json::json;
use testkit::FakeApi;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::world::{question, service, slice, told};

const SERVICES: &str = "/api/v1/services";
const CONFIG: &str = "/api/v1/namespaces/kube-system/configmaps";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
/// How many there were in this process.
static SERVERS: AtomicU16 = AtomicU16::new(1);
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Server {
    pub address: SocketAddr,
    pub api: FakeApi,
    stop: CancellationToken,
    runtime: Option<Runtime>,
    _dir: tempfile::TempDir,
}

type Told = (String, Vec<String>, Vec<String>, Vec<String>);

impl Server {
    pub fn start(upstreams: &[SocketAddr]) -> Self {
        Self::with(|_| Config { upstreams: upstreams.to_vec(), ..Config::default() })
    }

    /// Its resolver configuration names its own address.
    pub fn pointing_at_itself() -> Self {
        Self::with(|address| Config { bind: vec![SocketAddr::new(address.ip(), 53)], ..Config::default() })
    }

    /// With a Corefile, and files beside it; `UPSTREAM` in them is to be written as an address.
    pub fn configured(corefile: &str) -> Self {
        let server = Self::start(&["127.0.0.1:9".parse().unwrap()]);
        server.configure(corefile);
        server
    }

    /// Changes the ConfigMap.
    pub fn configure(&self, corefile: &str) {
        self.put_config("coredns", json!({"Corefile": corefile}));
    }

    pub fn put_config(&self, name: &str, data: serde_json::Value) {
        // Informers of one process share what has one uid and one version: no two servers' objects do.
        let uid = format!("{name} of {}", self.address);
        let metadata = json!({"namespace": "kube-system", "name": name, "uid": uid});
        self.api.put(CONFIG, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}));
    }

    fn with(config: impl FnOnce(SocketAddr) -> Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // An own loopback address: what one server's port is, another's may be next.
        let number = SERVERS.fetch_add(1, Ordering::Relaxed);
        let ip = Ipv4Addr::new(127, 54, (number >> 8) as u8, number as u8);
        let port = TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap().port();
        let address = SocketAddr::from((ip, port));
        let resolv_conf = dir.path().join("resolv.conf");
        let mut config = Config { resolv_conf: resolv_conf.clone(), ..config(address) };
        let mut address = address;
        if config.bind.is_empty() {
            config.bind = vec![address];
        } else {
            // An own loopback address for port 53, not to meet the host's resolver.
            let ip = Ipv4Addr::new(127, 53, (port >> 8) as u8, port as u8);
            address = SocketAddr::from((ip, 53));
            config.bind = vec![address];
            std::fs::write(&resolv_conf, format!("nameserver {ip}\n")).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (api, stop) = (FakeApi::new(), CancellationToken::new());
        let client = {
            let _inside = runtime.enter();
            api.client()
        };
        runtime.spawn(dns::run(config, client, stop.clone()));
        let server = Server { address, api, stop, runtime: Some(runtime), _dir: dir };
        server.eventually(&question("dns-version.cluster.local.", "TXT"), |(code, ..)| code == "No Error");
        // Until it is known whether there is a configuration, nobody outside is asked.
        std::thread::sleep(Duration::from_millis(100));
        server
    }

    /// Sends by UDP; the answer is still to be read.
    pub fn send(&self, message: &Message) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(self.address).unwrap();
        socket.send(&message.to_vec().unwrap()).unwrap();
        socket
    }

    pub fn udp(&self, message: &Message) -> Vec<u8> {
        let mut buffer = vec![0; 1500];
        let read = self.send(message).recv(&mut buffer).unwrap();
        buffer.truncate(read);
        buffer
    }

    pub fn tcp(&self, message: &Message) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let bytes = message.to_vec().unwrap();
        stream.write_all(&(bytes.len() as u16).to_be_bytes()).unwrap();
        stream.write_all(&bytes).unwrap();
        let mut len = [0; 2];
        stream.read_exact(&mut len).unwrap();
        let mut answer = vec![0; usize::from(u16::from_be_bytes(len))];
        stream.read_exact(&mut answer).unwrap();
        answer
    }

    /// Asks until the answer is right.
    pub fn eventually(&self, message: &Message, right: impl Fn(&Told) -> bool) -> Told {
        let start = Instant::now();
        loop {
            let socket = self.send(message);
            socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            let mut buffer = [0; 1500];
            let answer = socket.recv(&mut buffer).map(|read| told(&buffer[..read]));
            match answer {
                Ok(answer) if right(&answer) => return answer,
                last => assert!(start.elapsed() < PATIENCE, "not in time: {last:?}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn put_external_name(&self, name: &str, target: &str) {
        let object = service(name, json!({"type": "ExternalName", "externalName": target}));
        self.api.put(SERVICES, serde_json::to_value(object).unwrap());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(2));
        }
    }
}

#[test]
fn changes_of_objects_are_changes_of_names() {
    let server = Server::start(&["127.0.0.1:9".parse().unwrap()]);
    let asked = question("web.default.svc.cluster.local.", "A");
    assert_eq!(told(&server.udp(&asked)).0, "Non-Existent Domain");
    let web = |spec| serde_json::to_value(service("web", spec)).unwrap();
    server.api.put(SERVICES, web(json!({"clusterIP": "10.43.0.9", "ports": []})));
    server.eventually(&asked, |(_, answers, ..)| answers[..] == ["web.default.svc.cluster.local. A 10.43.0.9"]);
    server.api.put(SERVICES, web(json!({"clusterIP": "None", "ports": []})));
    let ends = slice("web", &[], &[("10.42.0.2", "", true)]);
    server.api.put(SLICES, serde_json::to_value(ends).unwrap());
    server.eventually(&asked, |(_, answers, ..)| answers[..] == ["web.default.svc.cluster.local. A 10.42.0.2"]);
    assert_eq!(told(&server.tcp(&asked)).1.len(), 1);
    server.api.delete(SERVICES, "default", "web");
    server.eventually(&asked, |(code, ..)| code == "Non-Existent Domain");
}
