//! Who is not let in: those who do not sign where they have to, and who comes by another link than his. And what a
//! connection that is refused leaves: nothing.

use std::time::Duration;

use bgp::message::Kind;
use bgp::session::config::Authentication;
use bgpd::daemon::{Daemon, Farewell, Hands};
use bgpd::kernel::{Event, Status};
use tokio::net::TcpSocket;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::world::*;

/// From its first moment on, though the kernel's side has not told what is there.
#[tokio::test]
async fn who_has_a_password_is_not_heard_unsigned_while_it_starts() {
    let rest = format!("neighbors:\n{}", neighbor(60, 1, 2, "remote-as: 65001, passive: true, password: secret"));
    alone();
    let (commands, _wishes) = mpsc::channel(8);
    let (news, to_daemon) = mpsc::channel(8);
    let (_, status) = watch::channel(Status::default());
    let hands = Hands { commands, news: to_daemon, status };
    let stop = CancellationToken::new();
    let config = parsed(&text(60, 1, 64512, &rest));
    let (handle, running) = Daemon::start(config, Some(hands), Farewell::Told, stop.clone()).expect("started");
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((host(60, 2), 0).into()).expect("bound");
    let connected = timeout(Duration::from_millis(500), socket.connect((host(60, 1), PORT).into())).await;
    assert!(connected.is_err(), "an unsigned connection was taken: {connected:?}");
    news.send(Event::Listed).await.expect("heard");
    drop(handle);
    stop.cancel();
    timeout(PATIENCE, running).await.expect("an end").expect("no panic").expect("no error");
}

/// The kernel refuses a key: he is not let in without one.
#[tokio::test]
async fn whose_password_the_kernel_refuses_is_not_let_in_without() {
    let rest = format!("neighbors:\n{}", neighbor(61, 1, 2, "remote-as: 65001, passive: true, password: secret"));
    let mut config = parsed(&text(61, 1, 64512, &rest));
    // What the file's reader would not have let pass stands for a kernel without room.
    config.neighbors[0].peering.session.transport.authentication = Some(Authentication::Md5("x".repeat(81)));
    let one = Speaker::start_as(61, 1, config, 0, Farewell::Told);
    let mut peer = Scripted::connect(61, 2, 1).await;
    peer.send(&bgp::message::Message::Open(open(65001, 90, &[])).write()).await;
    assert_eq!(peer.next().await, None, "he was heard unsigned");
    assert_ne!(one.neighbor(2).await.state, "OpenConfirm");
    one.end().await;
}

#[tokio::test]
async fn who_comes_by_another_link_than_his_is_refused() {
    let rest = format!("neighbors:\n{}", neighbor(62, 1, 2, "remote-as: 65001, passive: true, interface: no-link0"));
    let one = Speaker::start(62, 1, 64512, &rest);
    let mut peer = Scripted::connect(62, 2, 1).await;
    assert_eq!(peer.next().await, None, "he was greeted");
    one.end().await;
}

/// A range has room for one: whoever is refused does not keep it.
#[tokio::test]
async fn who_is_refused_holds_no_place_of_a_range() {
    let (range, source) = (host(63, 16), host(63, 7));
    let rest = format!("dynamic: [{{prefix: {range}/28, remote-as: external, limit: 1, source-address: {source}}}]\n");
    let one = Speaker::start(63, 1, 64512, &rest);
    for from in [17, 18] {
        let mut peer = Scripted::connect(63, from, 1).await;
        assert_eq!(peer.next().await, None);
    }
    assert_eq!(one.neighbors().await.len(), 0);
    one.end().await;
}

/// A connection may be gone before it is looked at: the session is not to wait for one that is not there.
#[tokio::test]
async fn a_connection_that_is_gone_already_leaves_no_session_waiting() {
    let rest = format!("neighbors:\n{}", neighbor(64, 1, 2, "remote-as: 65001, passive: true"));
    let one = Speaker::start(64, 1, 64512, &rest);
    one.neighbor(2).await;
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
    let socket = socket.expect("a socket");
    rustix::net::bind(&socket, &std::net::SocketAddr::from((host(64, 2), 0))).expect("bound");
    // Nothing else runs between the two: it is reset while it waits in the kernel.
    rustix::net::connect(&socket, &std::net::SocketAddr::from((host(64, 1), PORT))).expect("connected");
    rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).expect("set");
    drop(socket);
    one.until(2, "no session that waits", |n| n.messages_sent.open == 1 && n.state != "OpenSent").await;
    let mut peer = Scripted::connect(64, 2, 1).await;
    peer.until(Kind::Open).await;
    one.end().await;
}
