//! The way to the API servers, with servers that say their name and repeat what they hear.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::config::tests::host;

/// A server at this address, or at a free port: it lives until its task is aborted, its connections too.
async fn serve(name: u8, at: &str) -> (Server, JoinHandle<()>) {
    let listener = TcpListener::bind(at).await.expect("an address");
    let address = listener.local_addr().expect("an address").to_string();
    let task = tokio::spawn(async move {
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            tasks.spawn(async move {
                let _ = stream.write_u8(name).await;
                while let Ok(byte) = stream.read_u8().await {
                    let _ = stream.write_u8(byte).await;
                }
            });
        }
    });
    (address, task)
}

struct Way {
    balancer: Balancer,
    address: SocketAddr,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

async fn way(servers: &[&Server]) -> Way {
    let dir = tempfile::tempdir().expect("a directory");
    let learned = servers.iter().map(|server| (*server).clone()).collect();
    let servers = Servers::new("node", Kept { given: vec![], learned });
    let listener = Listener::bind(Port::Servers, ([127, 0, 0, 1], 0).into()).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let balancer = Balancer::over(listener, servers, dir.path().join("servers.json"), dir.path().join("ca.crt"));
    let (carried, stop) = (balancer.clone(), CancellationToken::new());
    let until = stop.clone();
    tokio::spawn(async move {
        loop {
            let connection = tokio::select! {
                () = until.cancelled() => return,
                connection = carried.listener.accept() => connection,
            };
            let shared = carried.shared.clone();
            tokio::spawn(async move { shared.carry(connection).await });
        }
    });
    Way { balancer, address, stop, _dir: dir }
}

impl Way {
    /// A connection, and which server has taken it.
    async fn connect(&self) -> (TcpStream, u8) {
        let mut stream = TcpStream::connect(self.address).await.expect("the port is there");
        let name = stream.read_u8().await.unwrap_or(0);
        (stream, name)
    }

    fn first(&self) -> Server {
        self.balancer.shared.state.lock().servers.order()[0].clone()
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn ends(stream: &mut TcpStream) -> bool {
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_u8()).await;
    matches!(read, Ok(Err(_)))
}

#[tokio::test]
async fn a_server_that_dies_is_left_for_another_and_is_the_first_again_when_it_is_back() {
    let ((a, task_a), (b, task_b)) = (serve(1, "127.0.0.1:0").await, serve(2, "127.0.0.1:0").await);
    let way = way(&[&a, &b]).await;
    let first = way.first();
    let (name, other, task) = if first == a { (1, 2, task_a) } else { (2, 1, task_b) };
    let (mut stream, took) = way.connect().await;
    assert_eq!(took, name);
    stream.write_u8(7).await.expect("written");
    assert_eq!(stream.read_u8().await.expect("repeated"), 7);
    task.abort();
    let _ = task.await;
    assert!(ends(&mut stream).await, "its client comes again");
    assert_eq!(way.connect().await.1, other);
    assert_ne!(way.first(), first, "who failed is tried last");
    let (_, _again) = serve(name, &first).await;
    way.balancer.shared.works(&first);
    assert_eq!(way.connect().await.1, name);
}

#[tokio::test]
async fn connections_of_a_server_that_does_no_work_are_cut_if_another_works() {
    let ((a, _task_a), (b, _task_b)) = (serve(1, "127.0.0.1:0").await, serve(2, "127.0.0.1:0").await);
    let way = way(&[&a, &b]).await;
    let (first, shared) = (way.first(), way.balancer.shared.clone());
    let (mut stream, took) = way.connect().await;
    shared.failed(&first, "as a test wants it");
    assert!(ends(&mut stream).await);
    let (mut stream, other) = way.connect().await;
    assert_ne!(took, other);
    // None is left that works: a connection to one that is ill is better than none.
    let second = way.first();
    shared.failed(&second, "as a test wants it");
    stream.write_u8(7).await.expect("written");
    assert_eq!(stream.read_u8().await.expect("repeated"), 7);
}

#[tokio::test]
async fn with_no_server_a_client_is_told_at_once() {
    let (a, task) = serve(1, "127.0.0.1:0").await;
    task.abort();
    let _ = task.await;
    let way = way(&[&a]).await;
    assert_eq!(way.connect().await.1, 0, "closed");
}

#[test]
fn a_slice_says_where_servers_are() {
    let slice = |ready: bool| -> EndpointSlice {
        serde_json::from_value(json!({
            "addressType": "IPv4", "metadata": {"name": "kubernetes"},
            "ports": [{"name": "other", "port": 1}, {"name": "https", "port": 6443}],
            "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": true}},
                {"addresses": ["192.0.2.2"], "conditions": {"ready": ready}}, {"addresses": ["nonsense"]}],
        }))
        .expect("a slice")
    };
    assert_eq!(addresses(&slice(true)), ["192.0.2.1:6443", "192.0.2.2:6443"]);
    assert_eq!(addresses(&slice(false)), ["192.0.2.1:6443"]);
    assert!(addresses(&EndpointSlice::default()).is_empty());
}

/// It went to the one server that it was joined to.
#[test]
fn a_host_that_joined_with_an_older_version_goes_this_way_from_now_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut host = host(dir.path());
    host.options.credentials = Some(host.joined_pki());
    let pki = Pki::of(&host);
    crate::config::private_dir(&host.pki()).expect("made");
    credentials::write(&pki, "node", "https://192.0.2.1:6443", "PEM").expect("written");
    let kept = known(&host).expect("known");
    assert_eq!(kept, Kept { given: vec!["192.0.2.1:6443".into()], learned: vec![] });
    let config = std::fs::read_to_string(host.pki().join("kubelet.conf")).expect("there");
    assert!(config.contains(&url(&host)) && config.contains("tls-server-name"), "{config}");
    assert_eq!(known(&host).expect("known"), kept, "and so it stays");
    std::fs::write(host.servers_file(), "{").expect("damaged");
    assert!(known(&host).expect_err("refused").to_string().contains("servers.json"));
}

#[test]
fn a_list_of_servers_without_end_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let host = host(dir.path());
    crate::config::private_dir(&host.data_dir).expect("made");
    std::fs::write(host.servers_file(), " ".repeat(LONGEST_FILE as usize + 1)).expect("written");
    let error = known(&host).expect_err("refused");
    assert!(format!("{error:#}").contains("larger than"), "{error:#}");
}
