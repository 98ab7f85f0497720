//! The control socket and the page of metrics, of a daemon that runs from its file.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use bgpd::config::Kind;
use bgpd::control::client::ask;
use bgpd::control::{Command, Which};
use bgpd::daemon::Farewell;
use bgpd::{Options, run};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::world::*;

pub async fn items(socket: &Path, command: Command) -> Result<Vec<Value>, String> {
    let socket = socket.to_owned();
    let asked = tokio::task::spawn_blocking(move || {
        let mut all = Vec::new();
        ask(&socket, &command, |item| {
            all.push(item);
            Ok(())
        })
        .map(|()| all)
    });
    asked.await.expect("no panic")
}

/// In a network of its own, by threads that are all inside of it.
pub fn apart(test: impl Future<Output = ()>) {
    alone();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(test);
}

#[test]
fn people_are_answered_over_the_socket_and_the_file_is_read_again() {
    apart(answers());
}

async fn answers() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, socket) = (folder.path().join("bgp.yaml"), folder.path().join("bgp.sock"));
    let rest = |networks: &str| {
        format!(
            "control-socket: {}\nmetrics: {}:17901\nnetworks: [{networks}]\nfilters: [{{name: some}}]\nneighbors:\n{}",
            socket.display(),
            host(50, 1),
            neighbor(50, 1, 2, "remote-as: 65001, passive: true, import: accept, export: some")
        )
    };
    let write = |networks: &str| std::fs::write(&file, text(50, 1, 64512, &rest(networks))).expect("written");
    write("{prefix: 10.1.0.0/24}, {prefix: 10.2.0.0/24}, {prefix: 'fd00::/48'}");
    let (again, reloads) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let options = Options { file: file.clone(), kind: Kind::Reflector, farewell: Farewell::Told };
    let running = tokio::spawn(run(options.clone(), reloads, stop.clone()));
    let mut peer = Scripted::connect(50, 2, 1).await;
    peer.establish(&open(65001, 90, &[])).await;
    peer.announce(host(50, 2), &[65001, 7], &[prefix("10.2.0.0/24"), prefix("10.2.3.0/24")]).await;
    let end = tokio::time::Instant::now() + PATIENCE;
    let neighbors = loop {
        let all = items(&socket, Command::Neighbors { neighbor: None }).await.expect("an answer");
        if all[0]["received"]["ipv4"] == 2 {
            break all;
        }
        assert!(tokio::time::Instant::now() < end, "{all:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(std::fs::metadata(&socket).expect("there").permissions().mode() & 0o777, 0o600);
    assert_eq!((&neighbors[0]["state"], &neighbors[0]["export"]), (&"Established".into(), &"some".into()));
    let summary = items(&socket, Command::Summary).await.expect("an answer").remove(0);
    assert_eq!((&summary["as"], &summary["established"]), (&64512.into(), &1.into()));
    assert_eq!((&summary["prefixes"]["ipv4"], &summary["kernel"]), (&3.into(), &Value::Null));
    let prefixes = |items: Vec<Value>| {
        items.iter().map(|item| item["prefix"].as_str().unwrap_or("").to_owned()).collect::<Vec<_>>()
    };
    let all = items(&socket, Command::Routes(Which::default())).await.expect("an answer");
    assert_eq!(prefixes(all), ["10.1.0.0/24", "10.2.0.0/24", "10.2.3.0/24", "fd00::/48"], "in their order");
    let his = Which {
        from: Some(std::net::IpAddr::from(host(50, 2)).into()),
        within: Some(prefix("10.2.0.0/16")),
        ..Which::default()
    };
    assert_eq!(
        prefixes(items(&socket, Command::Routes(his)).await.expect("an answer")),
        ["10.2.0.0/24", "10.2.3.0/24"]
    );
    let to = Which { to: Some(std::net::IpAddr::from(host(50, 2)).into()), ..Which::default() };
    assert_eq!(items(&socket, Command::Routes(to)).await, Ok(vec![]), "his filter rejects all");
    let route = items(&socket, Command::Route { prefix: "10.2.0.0/24".into() }).await.expect("an answer").remove(0);
    assert_eq!(route["paths"][0]["why"], "routes of this host before those of neighbours");
    assert_eq!(route["paths"][1]["asPath"], "65001 7");
    let longest = items(&socket, Command::Route { prefix: "10.2.3.9".into() }).await.expect("an answer");
    assert_eq!(prefixes(longest), ["10.2.3.0/24"]);
    let none = items(&socket, Command::Route { prefix: "192.168.0.1".into() }).await.expect_err("none");
    assert_eq!(none, "there is no route to 192.168.0.1");
    let within = Which { within: Some(prefix("10.2.0.7/16")), ..Which::default() };
    for command in [Command::Routes(within), Command::Route { prefix: "10.2.0.7/16".into() }] {
        let refused = items(&socket, command).await.expect_err("refused");
        assert_eq!(refused, "10.2.0.7/16 has bits behind its length: 10.2.0.0/16 is meant?");
    }
    let filters = items(&socket, Command::Filters).await.expect("an answer");
    assert_eq!((&filters[0]["name"], &filters[0]["usedBy"][0]), (&"some".into(), &"export to 127.50.0.2".into()));
    // Another daemon finds the socket taken.
    let second = run(options, mpsc::channel(1).1, stop.clone()).await.expect_err("refused").to_string();
    assert!(second.contains("another daemon answers there"), "{second}");

    write("{prefix: 10.9.0.0/24}");
    let told = items(&socket, Command::Reload).await.expect("an answer");
    assert!(told[0].as_str().is_some_and(|told| told.contains("0 with a new session")), "{told:?}");
    assert!(items(&socket, Command::Route { prefix: "10.9.0.1".into() }).await.is_ok());
    std::fs::write(&file, "router-id: nowhere").expect("written");
    again.send(()).await.expect("heard");
    let refused = items(&socket, Command::Reload).await.expect_err("refused");
    assert!(refused.contains("bgp.yaml: line 1: router-id: "), "{refused}");
    assert!(items(&socket, Command::Route { prefix: "10.9.0.1".into() }).await.is_ok(), "and nothing was changed");

    let page = page(&format!("{}:17901", host(50, 1))).await;
    for line in [
        "bgp_neighbor_up{neighbor=\"127.50.0.2\"} 1",
        "bgp_neighbor_prefixes_received{family=\"ipv4\",neighbor=\"127.50.0.2\"} 2",
        "bgp_neighbor_messages_total{direction=\"received\",neighbor=\"127.50.0.2\",type=\"update\"} 1",
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
    stop.cancel();
    running.await.expect("no panic").expect("no error");
    assert!(!socket.exists(), "the socket goes with it");
    let gone = items(&socket, Command::Summary).await.expect_err("nobody");
    assert!(gone.contains("is `ferrokube bgp` running?"), "{gone}");
}

async fn page(address: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
    let question = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).await.expect("asked");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("answered");
    text
}

#[test]
fn questions_that_are_none_are_refused_and_do_not_grow() {
    apart(no_questions());
}

async fn no_questions() {
    use std::io::{BufRead, BufReader, Write};
    let folder = tempfile::tempdir().expect("a folder");
    let (file, socket) = (folder.path().join("bgp.yaml"), folder.path().join("bgp.sock"));
    std::fs::write(&file, text(51, 1, 64512, &format!("control-socket: {}\n", socket.display()))).expect("written");
    let stop = CancellationToken::new();
    let options = Options { file, kind: Kind::Reflector, farewell: Farewell::Told };
    let running = tokio::spawn(run(options, mpsc::channel(1).1, stop.clone()));
    let end = tokio::time::Instant::now() + PATIENCE;
    while !socket.exists() {
        assert!(tokio::time::Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let said = |question: Vec<u8>| {
        let socket = socket.clone();
        tokio::task::spawn_blocking(move || {
            let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("connected");
            stream.write_all(&question).expect("asked");
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).expect("answered");
            line
        })
    };
    let unknown = said(b"{\"command\":\"dance\"}\n".to_vec()).await.expect("no panic");
    assert!(unknown.contains("unknown variant") && unknown.contains("summary"), "{unknown}");
    let long = said(vec![b'x'; 4096]).await.expect("no panic");
    assert!(long.contains("4096 bytes at most"), "{long}");
    stop.cancel();
    running.await.expect("no panic").expect("no error");
}
