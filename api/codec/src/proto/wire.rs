//! The protobuf wire format: tags, varints, length-delimited records. Readers never look past their slice.

use crate::error::DecodeError;

/// Layout of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Varint,
    Fixed64,
    Bytes,
}

/// One record of a message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Record<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

fn broken() -> DecodeError {
    DecodeError::Syntax("unexpected EOF".to_owned())
}

/// Reads records of a message one by one.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(super) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or_else(broken)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Syntax("proto: integer overflow".to_owned()))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        if len > self.rest.len() {
            return Err(broken());
        }
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next field number and record; None at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Record<'a>)>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| broken())?;
        let record = match tag & 7 {
            0 => Record::Varint(self.varint()?),
            1 => Record::Fixed64(self.take(8)?.try_into().map_or(0, u64::from_le_bytes)),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| broken())?;
                Record::Bytes(self.take(len)?)
            }
            5 => {
                self.take(4)?;
                Record::Fixed32
            }
            other => return Err(DecodeError::Syntax(format!("proto: illegal wireType {other}"))),
        };
        if number == 0 {
            return Err(DecodeError::Syntax("proto: illegal tag 0".to_owned()));
        }
        Ok(Some((number, record)))
    }
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_tag(out: &mut Vec<u8>, number: u32, wire: Wire) {
    let kind = match wire {
        Wire::Varint => 0,
        Wire::Fixed64 => 1,
        Wire::Bytes => 2,
    };
    put_varint(out, u64::from(number) << 3 | kind);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_tag(out, number, Wire::Bytes);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Writes a nested record whose length is known only after `write`: the content moves up by the size of its length.
pub(super) fn put_nested<E>(
    out: &mut Vec<u8>,
    number: u32,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    put_tag(out, number, Wire::Bytes);
    let start = out.len();
    // One byte is enough for most messages; only longer ones move.
    out.push(0);
    write(out)?;
    let len = out.len() - start - 1;
    if len < 0x80 {
        out[start] = len as u8;
        return Ok(());
    }
    let mut prefix = Vec::with_capacity(5);
    put_varint(&mut prefix, len as u64);
    out.splice(start..=start, prefix);
    Ok(())
}
