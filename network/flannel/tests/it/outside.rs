//! `--ip-masq`: as whom pods are known outside.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use crate::world::{World, eventually};

#[test]
fn pods_are_known_outside_by_their_hosts_and_among_each_other_by_themselves() {
    let world = World::new(r#"{"Network": "10.5.0.0/16", "Backend": {"Type": "host-gw"}}"#);
    let mut one = world.bare_host(1);
    one.ip_masq = true;
    one.start();
    one.pod();
    let two = world.host(2);
    assert_eq!(one.told("FLANNEL_IPMASQ"), "true");
    let known_as = |at: &UdpSocket, address: SocketAddr| {
        eventually(|| {
            one.socket(true).send_to(b"x", address).map_err(|error| error.to_string())?;
            let (_, from) = at.recv_from(&mut [0; 16]).map_err(|error| error.to_string())?;
            Ok(from.ip().to_string())
        })
    };
    let outside = world.bare_host(99);
    let listener = outside.ns.run(|| UdpSocket::bind("192.0.2.99:9").unwrap()).unwrap();
    listener.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert_eq!(known_as(&listener, listener.local_addr().unwrap()), "192.0.2.1");
    eventually(|| one.asks(&two, 100));
    let pod = two.listener(9);
    assert_eq!(known_as(&pod, SocketAddr::from((two.pod_address(), 9))), one.pod_address().to_string());

    // Without the flag the rules of before are gone.
    one.stop();
    one.ip_masq = false;
    std::fs::remove_file(&one.subnet_file).unwrap();
    one.start();
    one.subnet();
    let tables = one.ns.run(|| linux::nft::Nft::open().unwrap().tables().unwrap()).unwrap();
    assert!(tables.is_empty(), "{tables:?}");
}
