//! OPEN (RFC 4271 4.2): who a speaker is, how long it may be silent, and what it can. Its parameters may be longer than a
//! byte can say (RFC 9072). Pure. Made and judged by `session`.

use std::net::Ipv4Addr;

use super::capability::Capability;
use super::notification::{Notification, open};
use crate::attribute::as_path::AS_TRANS;
use crate::wire::{Reader, counted16};

/// The version of BGP.
const VERSION: u8 = 4;
/// The type of the parameter that holds capabilities.
const CAPABILITIES: u8 = 2;
/// What stands in place of a length and of a type where both are behind (RFC 9072).
const EXTENDED: u8 = 255;
/// The most that fits into parameters of the old form: one parameter's value, and not what means the new one.
const SHORT_PARAMETER: usize = 252;

/// An OPEN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The field of two octets; [`Open::number`] is the AS.
    pub my_as: u16,
    /// Seconds; 0 is for ever.
    pub hold_time: u16,
    /// Who of his AS it is. 0.0.0.0 is nobody (RFC 6286).
    pub identifier: Ipv4Addr,
    /// In the order they came in.
    pub capabilities: Vec<Capability>,
}

impl Open {
    /// Of this AS, whatever its number takes.
    pub fn new(number: u32, hold_time: u16, identifier: Ipv4Addr, capabilities: Vec<Capability>) -> Open {
        let my_as = u16::try_from(number).unwrap_or(AS_TRANS as u16);
        Open { my_as, hold_time, identifier, capabilities }
    }

    /// The AS: the capability's, where it is there.
    pub fn number(&self) -> u32 {
        let four = self.capabilities.iter().find_map(|capability| match capability {
            Capability::FourOctetAs(number) => Some(*number),
            _ => None,
        });
        four.unwrap_or(self.my_as.into())
    }

    /// Reads what stands behind the header. Whether the values are acceptable is the session's to say.
    ///
    /// # Errors
    /// A NOTIFICATION of the OPEN Message Error (RFC 4271 6.2).
    pub fn read(body: &[u8]) -> Result<Open, Notification> {
        let malformed = || Notification::open(open::UNSPECIFIC, Vec::new());
        let mut reader = Reader::new(body);
        if reader.u8().ok_or_else(malformed)? != VERSION {
            return Err(Notification::open(open::UNSUPPORTED_VERSION, vec![0, VERSION]));
        }
        let mut fields = || Some((reader.u16()?, reader.u16()?, Ipv4Addr::from(reader.array::<4>()?)));
        let (my_as, hold_time, identifier) = fields().ok_or_else(malformed)?;
        let capabilities = parameters(reader)?;
        Ok(Open { my_as, hold_time, identifier, capabilities })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.extend_from_slice(&self.my_as.to_be_bytes());
        out.extend_from_slice(&self.hold_time.to_be_bytes());
        out.extend_from_slice(&self.identifier.octets());
        let mut capabilities = Vec::new();
        self.capabilities.iter().for_each(|capability| capability.write(&mut capabilities));
        match u8::try_from(capabilities.len()) {
            Ok(0) => out.push(0),
            Ok(length) if usize::from(length) <= SHORT_PARAMETER => {
                out.extend_from_slice(&[length + 2, CAPABILITIES, length]);
                out.extend_from_slice(&capabilities);
            }
            _ => {
                out.extend_from_slice(&[EXTENDED, EXTENDED]);
                counted16(out, |out| {
                    out.push(CAPABILITIES);
                    counted16(out, |out| out.extend_from_slice(&capabilities));
                });
            }
        }
    }
}

fn parameters(mut reader: Reader<'_>) -> Result<Vec<Capability>, Notification> {
    let malformed = || Notification::open(open::UNSPECIFIC, Vec::new());
    let length = reader.u8().ok_or_else(malformed)?;
    // RFC 9072 2: the type of a parameter that does not exist; the length before it says nothing then but that it is not 0.
    let extended = length > 0 && reader.rest().first() == Some(&EXTENDED);
    let mut length = usize::from(length);
    if extended {
        reader.u8();
        length = reader.u16().ok_or_else(malformed)?.into();
    }
    if length != reader.rest().len() {
        return Err(malformed());
    }
    let mut capabilities = Vec::new();
    while !reader.is_empty() {
        let kind = reader.u8().ok_or_else(malformed)?;
        let value = if extended { reader.counted16() } else { reader.counted8() };
        if kind != CAPABILITIES {
            return Err(Notification::open(open::UNSUPPORTED_PARAMETER, Vec::new()));
        }
        let mut value = Reader::new(value.ok_or_else(malformed)?);
        while !value.is_empty() {
            let code = value.u8().ok_or_else(malformed)?;
            let bytes = value.counted8().ok_or_else(malformed)?;
            let capability = Capability::read(code, bytes).ok_or_else(malformed)?;
            // What is told twice is told once (RFC 5492 4).
            if !capabilities.contains(&capability) {
                capabilities.push(capability);
            }
        }
    }
    Ok(capabilities)
}

#[cfg(test)]
mod tests {
    use super::super::capability::{AddPath, GracefulRestart, LongLived, Role};
    use super::super::{Kind, Message, frame};
    use super::*;
    use crate::family::{AFI_IPV6, AfiSafi, Family};

    const ID: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn everything() -> Vec<Capability> {
        let (v4, v6) = (Family::Ipv4Unicast.wire(), Family::Ipv6Unicast.wire());
        vec![
            Capability::Multiprotocol(v4),
            Capability::Multiprotocol(AfiSafi { afi: 25, safi: 70 }),
            Capability::RouteRefresh,
            Capability::ExtendedNextHop(vec![(v4, AFI_IPV6)]),
            Capability::ExtendedMessage,
            Capability::Role(Some(Role::Customer)),
            Capability::GracefulRestart(GracefulRestart {
                restarted: true,
                notification: true,
                time: 4095,
                families: vec![(v4, true), (v6, false)],
            }),
            Capability::FourOctetAs(4_200_000_000),
            Capability::AddPath(vec![AddPath { family: v6, receive: true, send: false }]),
            Capability::EnhancedRouteRefresh,
            Capability::LongLived(vec![LongLived { family: v4, forwarding: true, stale_time: 0xff_ffff }]),
            Capability::Unknown { code: 73, value: b"host".to_vec() },
        ]
    }

    fn around(open: &Open) -> Open {
        let bytes = Message::Open(open.clone()).write();
        let (frame, taken) = frame(&bytes, false).expect("a header").expect("all of it");
        assert_eq!((frame.kind, taken), (Kind::Open, bytes.len()));
        Open::read(frame.body).expect("an OPEN")
    }

    #[test]
    fn all_capabilities_come_back() {
        let open = Open::new(4_200_000_000, 90, ID, everything());
        assert_eq!(around(&open), open);
        assert_eq!((open.my_as, open.number()), (23456, 4_200_000_000));
        assert_eq!(around(&Open::new(1, 0, ID, vec![])).capabilities, []);
    }

    #[test]
    fn parameters_longer_than_a_byte_says_come_back() {
        let many: Vec<Capability> =
            (0..40).map(|n| Capability::Unknown { code: 128 + n, value: vec![n; usize::from(n) + 5] }).collect();
        let open = Open::new(64512, 90, ID, many);
        assert_eq!(around(&open), open);
    }

    #[test]
    fn what_is_wrong_in_an_open_is_told_by_its_subcode() {
        let fixed = [4, 0xfc, 0, 0, 90, 10, 0, 0, 1];
        let said = |rest: &[u8]| Open::read(&[&fixed[..], rest].concat()).expect_err("wrong").subcode;
        assert_eq!(said(&[1]), open::UNSPECIFIC, "a length that is not there");
        assert_eq!(said(&[3, 1, 1, 0]), open::UNSUPPORTED_PARAMETER);
        assert_eq!(said(&[4, 2, 2, 65, 4]), open::UNSPECIFIC, "a capability beyond its parameter");
        assert_eq!(said(&[5, 2, 3, 65, 1, 0]), open::UNSPECIFIC, "half an AS number");
        assert_eq!(said(&[255, 255, 0, 9, 2, 0, 2, 2, 0]), open::UNSPECIFIC, "an extended length that lies");
        let old = Open::read(&[3, 0, 1, 0, 90, 1, 1, 1, 1, 0]).expect_err("version 3");
        assert_eq!((old.subcode, old.data), (open::UNSUPPORTED_VERSION, vec![0, 4]));
    }
}
