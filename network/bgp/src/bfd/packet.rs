//! The control packet of BFD (RFC 5880 4.1), without authentication. Pure. Called by [`super::Bfd`].
//!
//! ```text
//!  version 3, diagnostic 5 | state 2, P F C A D M | detect mult | length
//!  my discriminator | your discriminator | desired min TX | required min RX | required min echo RX     microseconds
//! ```

use crate::wire::Reader;

/// The version.
const VERSION: u8 = 1;
/// Bytes of a packet.
const LENGTH: u8 = 24;

const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const CONTROL_PLANE_INDEPENDENT: u8 = 0x08;
const AUTHENTICATION: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are the words of RFC 5880")]
pub enum State {
    AdminDown = 0,
    Down = 1,
    Init = 2,
    Up = 3,
}

/// Why it went down (RFC 5880 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Diagnostic {
    /// Nothing has.
    None = 0,
    /// The neighbour was silent for too long.
    DetectionTimeExpired = 1,
    /// He said that it is down.
    NeighborSignaledDown = 3,
    /// Somebody stopped it.
    AdministrativelyDown = 7,
}

/// A packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// As the sender had it; some are of parts that are not here.
    pub diagnostic: u8,
    /// The sender's state.
    pub state: State,
    /// An answer is wanted.
    pub poll: bool,
    /// This is one.
    pub is_final: bool,
    /// The sender wants no packets but those that it asks for; never of ours.
    pub demand: bool,
    /// So many packets may be lost.
    pub detect_multiplier: u8,
    /// The sender's name of the session.
    pub my_discriminator: u32,
    /// The receiver's, 0 while it is not known.
    pub your_discriminator: u32,
    /// How often the sender would like to send, in microseconds.
    pub desired_min_tx: u32,
    /// How often it can receive; 0 is that it doesn't want to.
    pub required_min_rx: u32,
}

impl Packet {
    /// Reads a datagram by the rules of RFC 5880 6.8.6; what breaks one is discarded.
    pub fn read(datagram: &[u8]) -> Option<Packet> {
        let mut reader = Reader::new(datagram);
        let [first, flags, detect_multiplier, length] = reader.array()?;
        let version = first >> 5;
        let sound = version == VERSION
            && length >= LENGTH
            && usize::from(length) <= datagram.len()
            && detect_multiplier > 0
            && flags & (MULTIPOINT | AUTHENTICATION) == 0;
        let state = [State::AdminDown, State::Down, State::Init, State::Up][usize::from(flags >> 6)];
        let packet = Packet {
            diagnostic: first & 0x1f,
            state,
            poll: flags & POLL != 0,
            is_final: flags & FINAL != 0,
            demand: flags & DEMAND != 0,
            detect_multiplier,
            my_discriminator: reader.u32()?,
            your_discriminator: reader.u32()?,
            desired_min_tx: reader.u32()?,
            required_min_rx: reader.u32()?,
        };
        let begins = packet.your_discriminator != 0 || matches!(state, State::Down | State::AdminDown);
        (sound && packet.my_discriminator != 0 && begins && !(packet.poll && packet.is_final)).then_some(packet)
    }

    /// Its bytes.
    pub fn write(&self) -> [u8; LENGTH as usize] {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        // The speaker and its timers are one process: they go down together.
        let flags =
            (self.state as u8) << 6 | bit(self.poll, POLL) | bit(self.is_final, FINAL) | bit(self.demand, DEMAND);
        debug_assert_eq!(flags & CONTROL_PLANE_INDEPENDENT, 0);
        let mut out = [0; LENGTH as usize];
        out[..4].copy_from_slice(&[VERSION << 5 | self.diagnostic & 0x1f, flags, self.detect_multiplier, LENGTH]);
        let words = [self.my_discriminator, self.your_discriminator, self.desired_min_tx, self.required_min_rx];
        for (place, word) in out[4..].as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *place = word.to_be_bytes();
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_back_and_unsound_ones_are_discarded() {
        let packet = Packet {
            diagnostic: 3,
            state: State::Init,
            poll: true,
            is_final: false,
            demand: true,
            detect_multiplier: 3,
            my_discriminator: 7,
            your_discriminator: 9,
            desired_min_tx: 300_000,
            required_min_rx: 50_000,
        };
        let bytes = packet.write();
        assert_eq!(Packet::read(&bytes), Some(packet));
        assert!((0..24).all(|cut| Packet::read(&bytes[..cut]).is_none()));
        let broken = |at: usize, value: u8| {
            let mut bytes = bytes;
            bytes[at] = value;
            Packet::read(&bytes)
        };
        for (at, value) in [(0, 0x40), (1, 0xb1), (1, 0xa4), (1, 0xb0), (2, 0), (3, 23), (3, 25), (7, 0), (11, 0)] {
            assert_eq!(broken(at, value), None, "byte {at}: {value}");
        }
    }
}
