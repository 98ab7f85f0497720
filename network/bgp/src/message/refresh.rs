//! ROUTE-REFRESH (RFC 2918): tell me the routes of a family again; and where they begin and end (RFC 7313). Pure. Called by
//! `session`.

use super::notification::Notification;
use crate::family::AfiSafi;
use crate::wire::Reader;

/// What a ROUTE-REFRESH is (RFC 7313 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Subtype {
    /// Tell me.
    Request = 0,
    /// BoRR: here they begin; whatever is not told again before the end is gone.
    Begin = 1,
    /// EoRR: here they end.
    End = 2,
}

/// A ROUTE-REFRESH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteRefresh {
    /// Of which family.
    pub family: AfiSafi,
    /// What it is.
    pub subtype: Subtype,
}

impl RouteRefresh {
    /// Reads what stands behind the header; none where the subtype is unknown, which is passed over.
    ///
    /// # Errors
    /// The NOTIFICATION about its length: outbound route filters (RFC 5291), which make it longer, are never agreed on.
    pub fn read(body: &[u8]) -> Result<Option<RouteRefresh>, Notification> {
        let mut reader = Reader::new(body);
        let mut fields = || Some((reader.u16()?, reader.u8()?, reader.u8()?));
        let fields = fields();
        if fields.is_some_and(|(_, subtype, _)| subtype > Subtype::End as u8) {
            // RFC 7313 5: of what is not known, the length isn't either.
            return Ok(None);
        }
        let (Some((afi, subtype, safi)), 4) = (fields, body.len()) else {
            let mut message = Vec::new();
            super::begin(&mut message, super::Kind::RouteRefresh, |out| out.extend_from_slice(body));
            return Err(Notification::refresh_length(message));
        };
        let subtype = [Subtype::Request, Subtype::Begin, Subtype::End].into_iter().find(|s| *s as u8 == subtype);
        Ok(subtype.map(|subtype| RouteRefresh { family: AfiSafi { afi, safi }, subtype }))
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.family.afi.to_be_bytes());
        out.extend_from_slice(&[self.subtype as u8, self.family.safi]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::Family;
    use crate::message::{Message, frame};

    #[test]
    fn each_subtype_comes_back_and_others_are_passed_over() {
        for subtype in [Subtype::Request, Subtype::Begin, Subtype::End] {
            let refresh = RouteRefresh { family: Family::Ipv6Unicast.wire(), subtype };
            let bytes = Message::RouteRefresh(refresh).write();
            let (frame, _) = frame(&bytes, false).expect("a header").expect("all of it");
            assert_eq!(RouteRefresh::read(frame.body), Ok(Some(refresh)));
        }
        assert_eq!(RouteRefresh::read(&[0, 1, 9, 1]), Ok(None));
        assert_eq!(RouteRefresh::read(&[0, 1, 9, 1, 0]), Ok(None));
        assert_eq!(RouteRefresh::read(&[0, 1, 0, 1, 0]).expect_err("too long").code, 7);
    }
}
