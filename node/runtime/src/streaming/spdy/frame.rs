//! The frames of SPDY/3 and their header compression. Pure.
//!
//! Format: SPDY protocol, draft 3, section 2. Header blocks are one zlib stream a direction, primed with a dictionary of
//! words; each block ends with a flush.

use std::collections::HashMap;
use std::sync::OnceLock;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// A frame is taken whole, so one may be this long; clients send 32 KiB at a time.
const MAX_FRAME: usize = 1 << 20;
/// Headers of one stream, uncompressed.
const MAX_HEADERS: usize = 64 << 10;
const VERSION: u16 = 3;
const HEADER: usize = 8;
const FLAG_FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;

/// What this server reads and writes; anything else is skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    SynStream { id: u32, headers: HashMap<String, String>, last: bool },
    SynReply { id: u32 },
    Reset { id: u32, status: u32 },
    Ping { id: u32 },
    GoAway,
    Data { id: u32, data: Bytes, last: bool },
    Other,
}

/// Words of the dictionary, each with its length before it.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
content-length content-location content-md5 content-range content-type date etag expect expires from host if-match \
if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
keep-alive origin";

/// What follows the words.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not \
Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov \
Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,\
application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=\
iso-8859-1,utf-,*,enq=0.";

fn dictionary() -> &'static [u8] {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut bytes = Vec::with_capacity(1423);
        for word in WORDS.split(' ') {
            let word = word.replace('_', " ");
            bytes.put_u32(word.len() as u32);
            bytes.extend_from_slice(word.as_bytes());
        }
        bytes.extend_from_slice(TAIL.as_bytes());
        bytes
    })
}

/// Reads frames off a connection.
#[derive(Debug)]
pub struct Decoder {
    zlib: Decompress,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder { zlib: Decompress::new(true) }
    }
}

impl Decoder {
    /// Takes the next whole frame off the buffer; `None` when more bytes are needed.
    ///
    /// # Errors
    /// What the other side did wrong; the connection can't go on.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, &'static str> {
        if buffer.len() < HEADER {
            return Ok(None);
        }
        let first = u32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
        let length = usize::from(buffer[5]) << 16 | usize::from(buffer[6]) << 8 | usize::from(buffer[7]);
        if length > MAX_FRAME {
            return Err("a frame is too long");
        }
        if buffer.len() < HEADER + length {
            return Ok(None);
        }
        let flags = buffer[4];
        buffer.advance(HEADER);
        let body = buffer.split_to(length).freeze();
        let last = flags & FLAG_FIN != 0;
        if first & 0x8000_0000 == 0 {
            return Ok(Some(Frame::Data { id: first, data: body, last }));
        }
        if (first >> 16) as u16 & 0x7fff != VERSION {
            return Err("not version 3");
        }
        self.control(first as u16, last, body).map(Some)
    }

    fn control(&mut self, kind: u16, last: bool, mut body: Bytes) -> Result<Frame, &'static str> {
        let number = |body: &mut Bytes| body.try_get_u32().map_err(|_| "a frame is too short");
        Ok(match kind {
            SYN_STREAM => {
                let id = number(&mut body)? & 0x7fff_ffff;
                if body.len() < 6 {
                    return Err("a frame is too short");
                }
                body.advance(6);
                Frame::SynStream { id, headers: self.headers(&body)?, last }
            }
            RST_STREAM => Frame::Reset { id: number(&mut body)?, status: number(&mut body)? },
            PING => Frame::Ping { id: number(&mut body)? },
            // Blocks that we don't need must pass through the common zlib stream all the same.
            SYN_REPLY | 8 => {
                number(&mut body)?;
                self.headers(&body)?;
                Frame::Other
            }
            _ => Frame::Other,
        })
    }

    fn headers(&mut self, block: &[u8]) -> Result<HashMap<String, String>, &'static str> {
        let mut plain = self.inflate(block)?;
        let short = |_| "a header block is too short";
        let text = |plain: &mut Bytes| {
            let length = plain.try_get_u32().map_err(short)? as usize;
            if plain.len() < length {
                return Err("a header block is too short");
            }
            Ok(String::from_utf8_lossy(&plain.split_to(length)).into_owned())
        };
        let count = plain.try_get_u32().map_err(short)?;
        let mut headers = HashMap::new();
        for _ in 0..count {
            let name = text(&mut plain)?;
            headers.insert(name.to_ascii_lowercase(), text(&mut plain)?);
        }
        Ok(headers)
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Bytes, &'static str> {
        let mut out = Vec::with_capacity(1024);
        loop {
            if out.len() == out.capacity() {
                if out.len() >= MAX_HEADERS {
                    return Err("headers are too long");
                }
                out.reserve(out.len());
            }
            let before = (self.zlib.total_in(), out.len());
            let done = match self.zlib.decompress_vec(block, &mut out, FlushDecompress::Sync) {
                Err(e) if e.needs_dictionary().is_some() => {
                    block = &block[(self.zlib.total_in() - before.0) as usize..];
                    self.zlib.set_dictionary(dictionary()).map_err(|_| "another dictionary was used")?;
                    continue;
                }
                other => other.map_err(|_| "a header block is damaged")?,
            };
            block = &block[(self.zlib.total_in() - before.0) as usize..];
            let moved = self.zlib.total_in() != before.0 || out.len() != before.1;
            if done == Status::StreamEnd || !moved || (block.is_empty() && out.len() < out.capacity()) {
                return Ok(out.into());
            }
        }
    }
}

/// Writes frames for a connection.
#[derive(Debug)]
pub struct Encoder {
    zlib: Compress,
}

impl Default for Encoder {
    fn default() -> Self {
        let mut zlib = Compress::new(Compression::fast(), true);
        // Setting a dictionary on a fresh stream can't fail.
        let _ = zlib.set_dictionary(dictionary());
        Encoder { zlib }
    }
}

impl Encoder {
    /// Appends a frame.
    pub fn encode(&mut self, frame: &Frame, out: &mut BytesMut) {
        match frame {
            Frame::Data { id, data, last } => {
                out.put_u32(*id);
                put_length(out, u8::from(*last), data.len());
                out.extend_from_slice(data);
            }
            Frame::SynStream { id, headers, last } => {
                let block = self.block(headers);
                control(out, SYN_STREAM, u8::from(*last), 10 + block.len());
                out.put_u32(*id);
                out.put_u32(0);
                out.put_u16(0);
                out.extend_from_slice(&block);
            }
            Frame::SynReply { id } => {
                let block = self.block(&HashMap::new());
                control(out, SYN_REPLY, 0, 4 + block.len());
                out.put_u32(*id);
                out.extend_from_slice(&block);
            }
            Frame::Reset { id, status } => {
                control(out, RST_STREAM, 0, 8);
                out.put_u32(*id);
                out.put_u32(*status);
            }
            Frame::Ping { id } => {
                control(out, PING, 0, 4);
                out.put_u32(*id);
            }
            Frame::GoAway => {
                control(out, GOAWAY, 0, 8);
                out.put_u64(0);
            }
            Frame::Other => {}
        }
    }

    fn block(&mut self, headers: &HashMap<String, String>) -> Vec<u8> {
        let mut plain = Vec::new();
        plain.put_u32(headers.len() as u32);
        for (name, value) in headers {
            for text in [name, value] {
                plain.put_u32(text.len() as u32);
                plain.extend_from_slice(text.as_bytes());
            }
        }
        // Never more than the plain bytes, the stored-block overhead and the flush marker.
        let mut packed = Vec::with_capacity(plain.len() + plain.len() / 1000 + 64);
        let _ = self.zlib.compress_vec(&plain, &mut packed, FlushCompress::Sync);
        packed
    }
}

fn put_length(out: &mut BytesMut, flags: u8, length: usize) {
    out.put_u32(u32::from(flags) << 24 | (length as u32 & 0x00ff_ffff));
}

fn control(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    put_length(out, flags, length);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_one_of_the_protocol() {
        assert_eq!(dictionary().len(), 1423);
        let (mut a, mut b) = (1u32, 0u32);
        for byte in dictionary() {
            a = (a + u32::from(*byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!(b << 16 | a, 0xe3c6_a7c2, "its Adler-32 is what zlib streams of SPDY/3 announce");
    }

    #[test]
    fn frames_survive_the_wire_in_any_cut() {
        let headers = |text: &str| HashMap::from([("streamtype".to_owned(), text.to_owned())]);
        let frames = [
            Frame::SynStream { id: 1, headers: headers("error"), last: false },
            Frame::SynStream { id: 3, headers: headers(&"x".repeat(5000)), last: true },
            Frame::Data { id: 1, data: Bytes::from_static(b"hello"), last: true },
            Frame::Ping { id: 7 },
            Frame::Reset { id: 3, status: 5 },
        ];
        let (mut encoder, mut wire) = (Encoder::default(), BytesMut::new());
        frames.iter().for_each(|frame| encoder.encode(frame, &mut wire));
        for cut in [1, 3, 7, 64, wire.len()] {
            let (mut decoder, mut buffer, mut got) = (Decoder::default(), BytesMut::new(), Vec::new());
            for part in wire.chunks(cut) {
                buffer.extend_from_slice(part);
                while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
                    got.push(frame);
                }
            }
            assert_eq!(got, frames);
        }
    }

    #[test]
    fn rubbish_is_an_error_not_a_panic() {
        for bytes in [
            &[0x80, 0x02, 0, 1, 0, 0, 0, 0][..],
            &[0x80, 0x03, 0, 1, 0, 0, 0, 2, 1, 2],
            &[0x80, 0x03, 0, 1, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 9, 9],
            &[0, 0, 0, 1, 0, 0xff, 0xff, 0xff],
        ] {
            assert!(Decoder::default().decode(&mut BytesMut::from(bytes)).is_err(), "{bytes:?}");
        }
    }
}
