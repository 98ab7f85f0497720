//! Connections that ask nothing keep nobody from asking over TCP.

use std::net::TcpStream;

use crate::serving::Server;
use crate::world::{question, told};

#[test]
fn silent_connections_do_not_deny_dns_over_tcp() {
    let server = Server::start(&[]);
    // More than the port holds, at whatever limit of descriptors.
    let connect = |_| TcpStream::connect(server.address).unwrap();
    let _silent: Vec<TcpStream> = (0..1500).map(connect).collect();
    for _ in 0..10 {
        let (code, ..) = told(&server.tcp(&question("dns-version.cluster.local.", "TXT")));
        assert_eq!(code, "No Error");
    }
}
