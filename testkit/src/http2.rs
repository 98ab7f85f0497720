//! A client of HTTP/2 that says what it is told to, byte for byte: libraries refuse to send what servers must take.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What a server does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Status(u16),
    /// The stream or the connection was ended, with this code.
    Ended(u32),
}

/// One request.
pub struct Ask<'a> {
    pub authority: &'a str,
    pub path: &'a str,
    /// A call of gRPC with an empty message; else a GET.
    pub grpc: bool,
}

/// Asks on a connection that has said nothing yet.
pub async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, ask: &Ask<'_>) -> io::Result<Answer> {
    let mut said = PREFACE.to_vec();
    said.extend(frame(SETTINGS, 0, 0, &[]));
    // The method and http, out of the static table; then literals that are not kept.
    let mut block = vec![if ask.grpc { 0x83 } else { 0x82 }, 0x86];
    literal(&mut block, &[0x01], ask.authority);
    literal(&mut block, &[0x04], ask.path);
    if ask.grpc {
        literal(&mut block, &[0x0f, 0x10], "application/grpc");
        literal(&mut block, b"\x00\x02te", "trailers");
        said.extend(frame(HEADERS, END_HEADERS, 1, &block));
        said.extend(frame(DATA, END_STREAM, 1, &[0; 5]));
    } else {
        said.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block));
    }
    stream.write_all(&said).await?;
    stream.flush().await?;
    answer(stream).await
}

async fn answer<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Answer> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await?;
        let code = |at: usize| {
            let bytes = payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(u32::MAX, u32::from_be_bytes)
        };
        match (head[3], head[8]) {
            (HEADERS, 1) => return status(&payload).ok_or(io::ErrorKind::InvalidData.into()).map(Answer::Status),
            (RESET, 1) => return Ok(Answer::Ended(code(0))),
            (GO_AWAY, _) => return Ok(Answer::Ended(code(4))),
            _ => {}
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A field whose value is shorter than 127 bytes.
fn literal(block: &mut Vec<u8>, name: &[u8], value: &str) {
    block.extend_from_slice(name);
    block.push(value.len() as u8);
    block.extend_from_slice(value.as_bytes());
}

/// The status, which comes first: out of the static table, or spelled out, packed or not.
fn status(block: &[u8]) -> Option<u16> {
    const KNOWN: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    // The size of the table may be told before.
    let block = if block.first()? & 0xe0 == 0x20 { &block[1..] } else { block };
    let first = *block.first()?;
    if first & 0x80 != 0 {
        return KNOWN.get(usize::from(first & 0x7f).checked_sub(8)?).copied();
    }
    let length = *block.get(1)?;
    let text = block.get(2..2 + usize::from(length & 0x7f))?;
    if length & 0x80 == 0 { std::str::from_utf8(text).ok()?.parse().ok() } else { digits(text) }
}

/// Digits in HPACK's code: 0 to 2 in five bits, the others in six.
fn digits(packed: &[u8]) -> Option<u16> {
    let bits: Vec<u8> = packed.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let value = |bits: &[u8]| bits.iter().fold(0, |value, bit| value << 1 | u16::from(*bit));
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let five = value(bits.get(at..at + 5)?);
        let (digit, length) =
            if five <= 2 { (five, 5) } else { (value(bits.get(at..at + 6)?).checked_sub(25)? + 3, 6) };
        number = number * 10 + digit;
        at += length;
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_however_they_are_written() {
        assert_eq!(status(&[0x88]), Some(200));
        assert_eq!(status(&[0x3f - 0x1f, 0x8d]), Some(404));
        assert_eq!(status(b"\x08\x03401"), Some(401));
        // 302 in RFC 7541, C.6.1, and 307 in C.6.2.
        assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), Some(302));
        assert_eq!(status(&[0x48, 0x83, 0x64, 0x0e, 0xff]), Some(307));
        assert_eq!(status(&[]), None);
    }
}
