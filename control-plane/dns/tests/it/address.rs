//! The Service's address on a node: pods' questions arrive there, and no connection is remembered for them.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use linux::conntrack::Conntrack;
use linux::netlink::{Mac, Rtnl};
use linux::netns::NetNs;
use linux::nft::{Batch, Chain, Expr, Family, Hook, Nft, Policy, hook, rule};

/// Sends a datagram to the address and back again.
fn ask(address: SocketAddr) {
    let server = UdpSocket::bind(address).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    client.connect(address).unwrap();
    client.send(b"?").unwrap();
    let mut buffer = [0; 8];
    let (_, peer) = server.recv_from(&mut buffer).unwrap();
    server.send_to(b"!", peer).unwrap();
    client.recv(&mut buffer).unwrap();
}

#[test]
fn questions_to_the_nodes_address_are_not_tracked_until_it_is_given_back() {
    let node = NetNs::create().unwrap();
    node.run(|| {
        let mut rtnl = Rtnl::open().unwrap();
        let lo = rtnl.link("lo").unwrap().unwrap();
        rtnl.set_up(lo.index, true).unwrap();
        rtnl.add_bridge("br0", Mac([2, 0, 0, 0, 0, 1]), 1400).unwrap();
        let address: SocketAddr = "10.43.0.10:53".parse().unwrap();
        dns::claim("br0", address.ip()).unwrap();
        dns::claim("br0", address.ip()).unwrap();
        assert!(
            dns::claim("nowhere", address.ip()).unwrap_err().to_string().contains("on link nowhere: No such device")
        );

        // Someone on the host wants connections to be tracked.
        let mut batch = Batch::new(Family::Ip, "other");
        batch.add_table();
        let hook = Hook { kind: "filter", number: hook::OUTPUT, priority: 0, policy: Policy::Accept };
        batch.add_chain(&Chain { name: "out", hook: Some(hook) });
        batch.add_rule("out", &[rule::ct_state(2, true), vec![Expr::Counter]].concat(), None);
        Nft::open().unwrap().commit(batch).unwrap();
        let mut conntrack = Conntrack::open().unwrap();

        dns::untrack("test-dns", &[address]).unwrap();
        dns::untrack("test-dns", &[address]).unwrap();
        ask(address);
        assert_eq!(conntrack.flows(17).unwrap(), []);
        dns::track_again("test-dns").unwrap();
        dns::track_again("test-dns").unwrap();
        ask(address);
        assert_eq!(conntrack.flows(17).unwrap().len(), 1);
        dns::release("br0", address.ip()).unwrap();
        dns::release("br0", address.ip()).unwrap();
        assert!(UdpSocket::bind(address).is_err());
    })
    .unwrap();
}
