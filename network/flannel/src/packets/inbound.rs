//! From other hosts to pods: a message holds datagrams of one size, each a packet. What is a packet for this host's pods is
//! taken, and TCP packets of a flow that follow each other are joined into a long one, which the kernel handles as one. Only
//! such are joined as could be cut again into the same: all headers are equal but for what counts up, and every checksum is
//! right. Pure, and without an allocation for a packet. Caller: the packet loop.

use std::io::IoSlice;
use std::ops::Range;

use linux::tun::{Cut, HEADER, MOST_PIECES, Offload};

use crate::packet::{self, Tcp};

/// The longest packet.
const LONGEST: usize = 65_535;

/// Joins packets.
#[derive(Default)]
pub struct Joiner {
    /// Where payloads are that belong together, behind the first packet.
    payloads: Vec<Range<usize>>,
}

/// Packets of a flow that follow each other.
struct Run {
    /// The first, whole.
    first: Range<usize>,
    tcp: Tcp,
    /// The payload of each but the last.
    segment: usize,
    /// Bytes of all payloads.
    payload: usize,
    /// Nothing comes behind what is shorter, or ends something.
    closed: bool,
}

impl Joiner {
    /// Takes a message apart; `is_mine` says of a packet whether it goes on, `write` writes one in pieces.
    pub fn join(
        &mut self,
        bytes: &mut [u8],
        segment: usize,
        is_mine: impl Fn(&[u8]) -> bool,
        mut write: impl FnMut(&[IoSlice<'_>]),
    ) {
        let mut run: Option<Run> = None;
        let mut at = 0;
        while at < bytes.len() {
            let end = (at + segment.max(1)).min(bytes.len());
            let place = at..end;
            at = end;
            let packet = &mut bytes[place.clone()];
            if !packet::is_ipv4(packet) || !is_mine(packet) || !packet::decrement_ttl(packet) {
                continue;
            }
            let place = place.start..place.start + packet::length(packet);
            let tcp = Tcp::of(&bytes[place.clone()]).filter(Tcp::may_be_joined);
            if let (Some(run), Some(tcp)) = (&mut run, &tcp)
                && self.continues(run, tcp, bytes, &place)
            {
                continue;
            }
            if let Some(run) = run.take() {
                self.write(run, bytes, &mut write);
            }
            match tcp {
                Some(tcp) => run = Some(Run::begin(place, tcp)),
                None => write(&[IoSlice::new(&Offload::default().bytes()), IoSlice::new(&bytes[place])]),
            }
        }
        if let Some(run) = run {
            self.write(run, bytes, &mut write);
        }
    }

    /// Takes a packet behind a run, if it belongs there.
    fn continues(&mut self, run: &mut Run, tcp: &Tcp, bytes: &[u8], place: &Range<usize>) -> bool {
        let payload = place.len() - tcp.headers();
        let fits = !run.closed
            && payload <= run.segment
            && run.tcp.headers() + run.payload + payload <= LONGEST
            // The link's header and the first packet are pieces, too.
            && self.payloads.len() + 3 <= MOST_PIECES
            && run.tcp.goes_on(&bytes[run.first.clone()], tcp, &bytes[place.clone()], run.payload)
            && packet::tcp_is_whole(&bytes[place.clone()]);
        // The first is looked at when there is a second: most are alone.
        let fits = fits && (!self.payloads.is_empty() || packet::tcp_is_whole(&bytes[run.first.clone()]));
        if fits {
            self.payloads.push(place.start + tcp.headers()..place.end);
            run.payload += payload;
            run.closed = payload < run.segment || tcp.ends_something();
            run.tcp.takes_ends_of(tcp);
        }
        fits
    }

    fn write(&mut self, run: Run, bytes: &mut [u8], write: &mut impl FnMut(&[IoSlice<'_>])) {
        if self.payloads.is_empty() {
            return write(&[IoSlice::new(&Offload::default().bytes()), IoSlice::new(&bytes[run.first])]);
        }
        let headers = run.tcp.headers();
        let length = headers + run.payload;
        run.tcp.make_long(&mut bytes[run.first.clone()], length);
        let offload = Offload {
            needs_checksum: true,
            checksum_start: packet::HEADER as u16,
            checksum_offset: packet::TCP_CHECKSUM as u16,
            cut: Cut::TcpIpv4,
            headers: headers as u16,
            segment: run.segment as u16,
        };
        let header: [u8; HEADER] = offload.bytes();
        let mut pieces = [IoSlice::new(&[]); MOST_PIECES];
        (pieces[0], pieces[1]) = (IoSlice::new(&header), IoSlice::new(&bytes[run.first]));
        for (piece, payload) in pieces[2..].iter_mut().zip(&self.payloads) {
            *piece = IoSlice::new(&bytes[payload.clone()]);
        }
        write(&pieces[..self.payloads.len() + 2]);
        self.payloads.clear();
    }
}

impl Run {
    fn begin(first: Range<usize>, tcp: Tcp) -> Run {
        let segment = first.len() - tcp.headers();
        let closed = tcp.ends_something();
        Run { first, tcp, segment, payload: segment, closed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::tcp;

    /// What is written: payload bytes of each packet, and whether it is a long one.
    fn joined(packets: &[Vec<u8>]) -> Vec<(usize, bool)> {
        let segment = packets[0].len();
        let (mut bytes, mut written) = (packets.concat(), Vec::new());
        Joiner::default().join(
            &mut bytes,
            segment,
            |_| true,
            |pieces| {
                let header: &[u8; HEADER] = (&*pieces[0]).try_into().unwrap();
                let offload = Offload::parse(header);
                let length: usize = pieces[1..].iter().map(|piece| piece.len()).sum();
                assert_eq!(packet::length(&pieces[1]), length);
                written.push((length - 40, offload.cut != Cut::Whole));
            },
        );
        written
    }

    #[test]
    fn what_follows_is_joined_and_nothing_else() {
        let (a, b, c) = (tcp(0, 0x10, 100), tcp(100, 0x10, 100), tcp(200, 0x10, 60));
        assert_eq!(joined(&[a.clone(), b.clone(), c.clone()]), [(260, true)]);
        assert_eq!(joined(std::slice::from_ref(&a)), [(100, false)]);
        // A gap, the wrong order, the same again.
        assert_eq!(joined(&[a.clone(), tcp(201, 0x10, 100)]), [(100, false), (100, false)]);
        assert_eq!(joined(&[b.clone(), a.clone()]), [(100, false), (100, false)]);
        assert_eq!(joined(&[a.clone(), a.clone()]), [(100, false), (100, false)]);
        // The end of something is the last; nothing comes behind it.
        assert_eq!(joined(&[a.clone(), tcp(100, 0x18, 100), tcp(200, 0x10, 60)]), [(200, true), (60, false)]);
        assert_eq!(joined(&[a.clone(), tcp(100, 0x11, 100)]), [(200, true)]);
        for flags in [0x12, 0x14, 0x30, 0x50, 0x90] {
            assert_eq!(joined(&[a.clone(), tcp(100, flags, 100)]).len(), 2, "{flags:x}");
        }
        // Another flow, another window, a broken checksum, nothing in it.
        let changed = |at: usize| {
            let mut packet = b.clone();
            packet[at] ^= 1;
            packet
        };
        for at in [1, 15, 19, 21, 23, 31, 35, 37, 60] {
            assert_eq!(joined(&[a.clone(), changed(at)]).len(), 2, "{at}");
        }
        let mut broken = a.clone();
        broken[60] ^= 1;
        assert_eq!(joined(&[broken, b.clone()]), [(100, false), (100, false)]);
    }

    #[test]
    fn packets_that_are_not_ours_and_rubbish_are_left_out() {
        let (a, b) = (tcp(0, 0x10, 100), tcp(100, 0x10, 100));
        let mut bytes = [a.clone(), vec![0xff; 140], b, vec![0x45; 7]].concat();
        let mut written = 0;
        Joiner::default().join(&mut bytes, 140, |packet| packet::source(packet).octets()[3] != 0, |_| written += 1);
        assert_eq!(written, 1, "the two belong together");
        let mut bytes = a;
        Joiner::default().join(&mut bytes, 140, |_| false, |_| panic!("not ours"));
        Joiner::default().join(&mut [], 0, |_| true, |_| panic!("nothing"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_it(mut bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400), segment in 0usize..120) {
            Joiner::default().join(&mut bytes, segment, |_| true, |_| ());
        }

        /// Headers that are right, with rubbish behind them.
        #[test]
        fn no_tcp_breaks_it(rubbish in proptest::collection::vec(proptest::prelude::any::<u8>(), 60..61), count in 1usize..6) {
            let mut packet = tcp(0, 0x10, 40);
            packet[20..].copy_from_slice(&rubbish);
            let mut bytes = packet.repeat(count);
            Joiner::default().join(&mut bytes, 80, |_| true, |_| ());
        }
    }
}
