//! Pages of pods, services and nodes on their way to a browser: unpacked when they are packed, their links rewritten
//! ([`super::html`]). The other answers pass as they are.

use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use flate2::write::MultiGzDecoder;
use http::{Response, header};
use http_body::Body as _;

use super::html::Rewriter;
use crate::http::body::{Body, BoxError, Frames};

/// The answer as a browser behind the proxy needs it; `prefix` is the proxy's path, `own` the backend's `host:port`.
pub fn behind(mut response: Response<Body>, prefix: &str, own: String) -> Response<Body> {
    let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let packed = match text(header::CONTENT_ENCODING) {
        "" => false,
        "gzip" => true,
        _ => return response,
    };
    if text(header::CONTENT_TYPE).split(';').next().map(str::trim) != Some("text/html") {
        return response;
    }
    for gone in [header::CONTENT_ENCODING, header::CONTENT_LENGTH] {
        response.headers_mut().remove(gone);
    }
    let rewriter = Rewriter::new(prefix, own);
    response.map(|body| {
        let unpack = packed.then(|| MultiGzDecoder::new(Vec::new()));
        Body::stream(Page { body: Box::pin(body), unpack, packed: Bytes::new(), rewriter, ended: false })
    })
}

struct Page {
    body: Pin<Box<Body>>,
    unpack: Option<MultiGzDecoder<Vec<u8>>>,
    /// What came and is not unpacked yet: a small frame may become a thousand times as much, so it is unpacked a piece
    /// at a time, when the client takes it.
    packed: Bytes,
    rewriter: Rewriter,
    ended: bool,
}

impl Page {
    /// The next piece of what came; the decoder gives at most its buffer at a time (32 KiB).
    fn piece(&mut self) -> std::io::Result<Vec<u8>> {
        let Some(unpack) = &mut self.unpack else { return Ok(self.rewriter.push(&std::mem::take(&mut self.packed))) };
        let taken = unpack.write(&self.packed)?;
        if taken == 0 && unpack.get_ref().is_empty() {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "the page's packing makes no sense"));
        }
        self.packed.advance(taken);
        if self.packed.is_empty() {
            // A slow page is shown as it comes.
            unpack.flush()?;
        }
        Ok(self.rewriter.push(&std::mem::take(unpack.get_mut())))
    }

    fn last(&mut self) -> std::io::Result<Vec<u8>> {
        let mut out = match self.unpack.take() {
            Some(unpack) => self.rewriter.push(&unpack.finish()?),
            None => Vec::new(),
        };
        out.extend(self.rewriter.finish());
        Ok(out)
    }
}

impl Frames for Page {
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        while !self.ended {
            let piece = if !self.packed.is_empty() {
                self.piece()
            } else {
                match std::task::ready!(self.body.as_mut().poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        self.packed = frame.into_data().unwrap_or_default();
                        continue;
                    }
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => {
                        self.ended = true;
                        self.last()
                    }
                }
            };
            match piece {
                Ok(piece) if piece.is_empty() => {}
                piece => {
                    self.ended |= piece.is_err();
                    return Poll::Ready(Some(piece.map(Bytes::from).map_err(Into::into)));
                }
            }
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: &str, encoding: &str, body: Vec<u8>) -> Response<Body> {
        let mut response = Response::builder().header(header::CONTENT_TYPE, kind);
        if !encoding.is_empty() {
            response = response.header(header::CONTENT_ENCODING, encoding);
        }
        response.header(header::CONTENT_LENGTH, body.len()).body(Body::from(Bytes::from(body))).expect("answer")
    }

    async fn through(response: Response<Body>) -> (Option<String>, String) {
        let response = behind(response, "/p", "h:80".to_owned());
        let length = response.headers().get(header::CONTENT_LENGTH).map(|l| l.to_str().expect("text").to_owned());
        (length, String::from_utf8_lossy(&response.into_body().collect().await.expect("body")).into_owned())
    }

    #[tokio::test]
    async fn pages_are_rewritten_packed_or_not_and_nothing_else() {
        let page = b"<a href='/x'>".to_vec();
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&page).expect("packed");
        let packed = packed.finish().expect("packed");
        let want = (None, "<a href='/p/x'>".to_owned());
        assert_eq!(through(answer("text/html; charset=utf-8", "", page.clone())).await, want);
        assert_eq!(through(answer("text/html", "gzip", packed)).await, want);
        let same = (Some("13".to_owned()), "<a href='/x'>".to_owned());
        assert_eq!(through(answer("text/plain", "", page.clone())).await, same);
        assert_eq!(through(answer("text/html", "br", page)).await, same);
    }

    fn gzip(page: &[u8]) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(page).expect("packed");
        packed.finish().expect("packed")
    }

    /// 8 MiB of blanks are 8 KiB of gzip in one frame: they pass in pieces, none of which is big.
    #[tokio::test]
    async fn a_small_page_that_unpacks_to_much_passes_in_pieces() {
        /// What one step may make: the decoder's buffer and a tag that was waited for.
        const MOST: usize = 256 << 10;
        let size = 8 << 20;
        for blank in [b' ', b'<'] {
            let page = vec![blank; size];
            let mut body =
                Box::pin(behind(answer("text/html", "gzip", gzip(&page)), "/p", "h:80".to_owned()).into_body());
            let mut passed = 0;
            while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
                let piece = frame.expect("a piece").into_data().expect("data");
                assert!(piece.len() <= MOST, "{} bytes at once", piece.len());
                passed += piece.len();
            }
            assert_eq!(passed, size);
        }
    }

    #[tokio::test]
    async fn a_page_packed_badly_ends_with_an_error() {
        let page: Vec<u8> = (0..100_000_u32).flat_map(|n| n.to_string().into_bytes()).collect();
        let mut two = gzip(&page);
        two.extend(gzip(b"tail"));
        assert_eq!(through(answer("text/html", "gzip", two.clone())).await.1.len(), page.len() + 4);
        two.extend(b"garbage after the end");
        for bad in [two, gzip(&page)[..1000].to_vec(), b"no gzip".to_vec()] {
            let response = behind(answer("text/html", "gzip", bad), "/p", "h:80".to_owned());
            assert!(response.into_body().collect().await.is_err());
        }
    }
}
