//! Neighbours whom another place than the file tells of: they come and go, and nobody else notices.

use std::sync::Arc;

use bgp::message::notification::{cease, code};
use bgpd::config::Kind;
use bgpd::config::found::Found;
use bgpd::control::Command;
use bgpd::daemon::Farewell;
use bgpd::{Options, Place, run_with};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::asked::{apart, items};
use crate::world::*;

fn found(hosts: &[u8]) -> Option<Arc<[Found]>> {
    let one =
        |n: &u8| Found { address: host(52, *n).into(), name: format!("node {n}"), number: None, cluster_id: None };
    Some(hosts.iter().map(one).collect())
}

#[test]
fn who_is_found_comes_and_goes_and_the_files_own_stay() {
    apart(comes_and_goes());
}

async fn comes_and_goes() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, socket) = (folder.path().join("bgp.yaml"), folder.path().join("bgp.sock"));
    let by_hand = neighbor(52, 1, 2, "remote-as: internal, passive: true, route-reflector-client: true");
    let timers = "port: 17900, passive: true";
    let rest = format!(
        "control-socket: {}\ngroups: [{{name: nodes, source-address: {}, {timers}}}]\nneighbors:\n{by_hand}",
        socket.display(),
        host(52, 1)
    );
    std::fs::write(&file, text(52, 1, 64512, &rest)).expect("written");
    let (_again, reloads) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let (tell, all) = watch::channel(None);
    let place = Place { group: Some("nodes".to_owned()), all };
    let options = Options { file: file.clone(), kind: Kind::Reflector, farewell: Farewell::Told };
    let running = tokio::spawn(run_with(options, Some(place), reloads, stop.clone()));
    tell.send_replace(found(&[3, 2]));
    let mut hand = Scripted::connect(52, 2, 1).await;
    hand.establish(&open(64512, 0, &[])).await;
    let mut node = Scripted::connect(52, 3, 1).await;
    node.establish(&open(64512, 0, &[])).await;
    // He is a client: what the one tells, the other hears.
    hand.announce(host(52, 2), &[], &[prefix("10.2.0.0/24")]).await;
    assert_eq!(node.hear(1).await, 1);
    // An edit of the file that is not done yet is none of theirs.
    std::fs::write(&file, "half").expect("written");
    tell.send_replace(found(&[4]));
    let said = node.notification().await;
    assert_eq!((said.code, said.subcode), (code::CEASE, cease::PEER_DECONFIGURED));
    let mut other = Scripted::connect(52, 4, 1).await;
    other.establish(&open(64512, 0, &[])).await;
    assert_eq!(other.hear(1).await, 1);
    let neighbors = items(&socket, Command::Neighbors { neighbor: None }).await.expect("an answer");
    let row = |n: &Value| {
        (n["address"].as_str().unwrap_or_default().to_owned(), n["description"].clone(), n["sessions"].clone())
    };
    let rows: Vec<_> = neighbors.iter().map(row).collect();
    let wanted = [(host(52, 2), "", 1), (host(52, 4), "node 4", 1)];
    assert_eq!(rows, wanted.map(|(address, name, sessions)| (address.to_string(), name.into(), sessions.into())));
    // Who tells of them is gone: they stay.
    drop(tell);
    hand.announce(host(52, 2), &[], &[prefix("10.3.0.0/24")]).await;
    assert_eq!(other.hear(1).await, 1);
    stop.cancel();
    running.await.expect("no panic").expect("no error");
}

/// Whoever ends it while nobody has said yet who is there does not wait for that word.
#[test]
fn an_end_at_the_start_is_no_later_than_the_first_word() {
    apart(ends_at_the_start());
}

async fn ends_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, socket) = (folder.path().join("bgp.yaml"), folder.path().join("bgp.sock"));
    let rest = format!("control-socket: {}\n", socket.display());
    std::fs::write(&file, text(53, 1, 64512, &rest)).expect("written");
    let (_again, reloads) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let (_tell, all) = watch::channel(None);
    let options = Options { file, kind: Kind::Reflector, farewell: Farewell::Told };
    let running = tokio::spawn(run_with(options, Some(Place { group: None, all }), reloads, stop.clone()));
    stop.cancel();
    running.await.expect("no panic").expect("no error");
    assert!(!socket.exists(), "it had not begun");
}
