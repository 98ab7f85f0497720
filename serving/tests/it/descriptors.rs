//! A process without descriptors neither spins nor stays shut. The limit is one of a process: the server is one of its
//! own, this program once more.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};
use serving::Http;

const SERVER: &str = "SERVING_TEST_SERVER";

/// Not a test by itself: the server of the test below.
#[tokio::test(flavor = "multi_thread")]
async fn few_descriptors_server() {
    if std::env::var_os(SERVER).is_none() {
        return;
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(48), maximum: Some(48) }).unwrap();
    // Its limit is above what the process has.
    let server = super::start(1000, Http::default()).await;
    println!("address={}", server.address);
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    std::process::exit(0);
}

fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn without_descriptors_a_server_sheds_the_silent_and_does_not_spin() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "descriptors::few_descriptors_server", "--nocapture"])
        .env(SERVER, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let address: SocketAddr = loop {
        let mut line = String::new();
        assert!(std::io::BufRead::read_line(&mut out, &mut line).unwrap() > 0, "the server says its address");
        if let Some((_, address)) = line.split_once("address=") {
            break address.trim().parse().unwrap();
        }
    };
    let silent: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(500));
    let (began, before) = (Instant::now(), ticks(child.id()));
    std::thread::sleep(Duration::from_secs(1));
    // 100 ticks are a second.
    assert!(ticks(child.id()) - before < 30, "it spins");
    let mut honest = TcpStream::connect(address).unwrap();
    honest.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    honest.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    honest.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("/x"), "{answer} after {:?}", began.elapsed());
    drop(silent);
    drop(child.stdin.take());
    child.wait().unwrap();
}
