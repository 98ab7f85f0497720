//! Neighbours and forwarding databases are read back as they were put.

use linux::netlink::{Fdb, Mac, Neighbour, Rtnl, Vxlan};
use linux::netns::NetNs;
use std::net::IpAddr;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const FAR: Mac = Mac([2, 0, 0, 0, 0, 7]);

#[test]
fn neighbours_are_read_back_as_they_were_put() {
    let host = NetNs::create().unwrap();
    let mut rtnl = Rtnl::open_in(&host).unwrap();
    rtnl.add_bridge("lan0", MAC, 1500).unwrap();
    let lan = rtnl.link("lan0").unwrap().unwrap().index;
    for text in ["192.0.2.7", "fd00::7"] {
        let addr: IpAddr = text.parse().unwrap();
        rtnl.put_neighbour(&Neighbour::permanent(lan, addr, MAC)).unwrap();
        let moved = Neighbour::permanent(lan, addr, FAR);
        rtnl.put_neighbour(&moved).unwrap();
        let of =
            |rtnl: &mut Rtnl| -> Vec<_> { rtnl.neighbours().unwrap().into_iter().filter(|n| n.addr == addr).collect() };
        assert_eq!(of(&mut rtnl), [moved]);
        rtnl.delete_neighbour(lan, addr).unwrap();
        rtnl.delete_neighbour(lan, addr).unwrap();
        assert_eq!(of(&mut rtnl), []);
    }
}

#[test]
fn hosts_behind_a_vxlan_link_are_read_back_as_they_were_put() {
    let host = NetNs::create().unwrap();
    let mut rtnl = Rtnl::open_in(&host).unwrap();
    for (name, id, local, far) in
        [("vx4", 1, "192.0.2.5", ["192.0.2.7", "192.0.2.8"]), ("vx6", 2, "fd00::5", ["fd00::7", "fd00::8"])]
    {
        let vxlan = Vxlan { id, port: 8472 + id as u16, local: local.parse().ok(), ..Vxlan::default() };
        match rtnl.add_vxlan(name, Some(MAC), 1450, &vxlan) {
            Err(e) if e.errno() == libc::EOPNOTSUPP => return println!("skipped: this kernel has no VXLAN ({e})"),
            made => made.unwrap(),
        }
        let index = rtnl.link(name).unwrap().unwrap().index;
        let [first, second] = far.map(|text| Fdb::remote(index, FAR, text.parse::<IpAddr>().unwrap()));
        rtnl.put_fdb(&first).unwrap();
        rtnl.put_fdb(&second).unwrap();
        let of = |rtnl: &mut Rtnl| -> Vec<_> {
            rtnl.fdb().unwrap().into_iter().filter(|entry| entry.index == index && entry.mac == FAR).collect()
        };
        assert_eq!(of(&mut rtnl), std::slice::from_ref(&second), "the host has moved");
        rtnl.delete_fdb(&second).unwrap();
        rtnl.delete_fdb(&second).unwrap();
        assert_eq!(of(&mut rtnl), []);
    }
}
