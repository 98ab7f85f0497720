//! Many neighbours: four who tell the same half million paths, and a reflector with a hundred clients of ten thousand
//! routes each. `cargo run --release -p bgp --example peers`. I/O: the clock, /proc.

mod measure;

use std::net::Ipv4Addr;

use bgp::attribute::{AsPath, Attributes, NextHop};
use bgp::decision::Options;
use bgp::family::Family;
use bgp::message::nlri::Nlri;
use bgp::message::{Coding, frame, pack, update};
use bgp::policy::Source;
use bgp::rib::{PeerConfig, PeerId, Rib, Speaker};
use bgp::session::config::{Opening, RemoteAs};
use bgp::session::negotiated::judge;
use bgp::session::{Config, Negotiated};
use meta::Prefix;

use crate::measure::{processor, resident};

const HERE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// What a neighbour takes at once.
const WINDOW: usize = 64 << 10;

fn main() {
    // Four of other ASes, and one of this who hears what is best.
    let mut rib = table();
    let peers: Vec<(PeerId, Negotiated)> = (0..4).map(|n| add(&mut rib, 65000 + u32::from(n), n + 2)).collect();
    let (reader, _) = add(&mut rib, 64512, 9);
    let tables: Vec<Vec<u8>> = (0..4)
        .map(|n| {
            let routes: Vec<Nlri> = (0..500_000).map(route).collect();
            let path = AsPath::sequence(&[65000 + n, 100]);
            wire(&peers[n as usize].1.receive, path, Ipv4Addr::new(10, 0, 0, n as u8 + 2), &routes)
        })
        .collect();
    let (before, began) = (resident(), processor());
    for (at, (peer, negotiated)) in peers.iter().enumerate() {
        hear(&mut rib, *peer, negotiated, &tables[at]);
    }
    println!("4 x 500,000 the same: in {:?}, {} KiB more", processor() - began, resident() - before);
    let began = processor();
    println!("  out to one: {} bytes in {:?}", drain(&mut rib, reader), processor() - began);
    let began = processor();
    rib.down(peers[0].0, bgp::family::Families::NONE);
    rib.publish();
    println!("  the best one goes: {:?}; {} bytes", processor() - began, drain(&mut rib, reader));
    drop(rib);

    let mut rib = table();
    let clients: Vec<(PeerId, Negotiated)> = (0..100).map(|n| add(&mut rib, 64512, n + 2)).collect();
    let tables: Vec<Vec<u8>> = (0..100u32)
        .map(|n| {
            let routes: Vec<Nlri> = (n * 10_000..(n + 1) * 10_000).map(route).collect();
            wire(&clients[n as usize].1.receive, AsPath::default(), Ipv4Addr::new(10, 0, 0, n as u8 + 2), &routes)
        })
        .collect();
    let (before, began) = (resident(), processor());
    for (at, (peer, negotiated)) in clients.iter().enumerate() {
        hear(&mut rib, *peer, negotiated, &tables[at]);
    }
    println!("reflector, 100 x 10,000: in {:?}, {} KiB more", processor() - began, resident() - before);
    let began = processor();
    let bytes: usize = clients.iter().map(|(peer, _)| drain(&mut rib, *peer)).sum();
    println!("  out to all: {bytes} bytes in {:?}, {} KiB more", processor() - began, resident() - before);
}

fn table() -> Rib {
    let options = Options { maximum_paths: 1, ..Options::default() };
    Rib::new(Speaker { number: 64512, identifier: HERE, cluster_id: HERE, options })
}

fn add(rib: &mut Rib, number: u32, host: u8) -> (PeerId, Negotiated) {
    let address = Ipv4Addr::new(10, 0, 0, host);
    let source = if number == 64512 { Source::Internal } else { Source::External };
    let mut config = PeerConfig::new(source, address.into(), 64512);
    (config.client, config.own_addresses[0]) = (source == Source::Internal, Some(HERE.into()));
    let his = Config::new(number, RemoteAs::Number(64512), address).open(Opening::First);
    let negotiated = judge(&Config::new(64512, RemoteAs::Number(number), HERE), &his).expect("an agreement");
    let peer = rib.add_peer(config).expect("room");
    rib.up(peer, &negotiated);
    (peer, negotiated)
}

fn route(n: u32) -> Nlri {
    Nlri::from(Prefix::new(Ipv4Addr::from((n + 0x10000) << 8), 24))
}

fn wire(coding: &Coding, as_path: AsPath, next_hop: Ipv4Addr, routes: &[Nlri]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let set = Attributes { as_path, ..Attributes::local(NextHop::V4(next_hop)) };
    pack::announce(coding, Family::Ipv4Unicast, &set, routes, &mut bytes).expect("short");
    bytes
}

fn hear(rib: &mut Rib, peer: PeerId, negotiated: &Negotiated, mut bytes: &[u8]) {
    while let Some((message, taken)) = frame(bytes, true).expect("sound") {
        rib.update(peer, &update::read(message.body, &negotiated.receive).expect("sound"), 1);
        rib.publish();
        bytes = &bytes[taken..];
    }
}

fn drain(rib: &mut Rib, peer: PeerId) -> usize {
    let mut bytes = 0;
    loop {
        let out = rib.flush(peer, WINDOW);
        if out.is_empty() {
            return bytes;
        }
        bytes += out.len();
    }
}
