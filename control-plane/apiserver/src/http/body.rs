//! Bodies: what handlers read and what they answer with. I/O: waits for pieces of a body on tokio's clock.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use meta::Status;

/// Error of a body in either direction.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Body of a request, from a connection or from a component in the same process.
pub type RequestBody = UnsyncBoxBody<Bytes, BoxError>;

/// Largest request body: upstream's limit, above what one object in the store may have.
pub const MAX_REQUEST_BODY: usize = 3 << 20;

/// Boxes any body as the body of a request.
pub fn request_body<B>(body: B) -> RequestBody
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// Longest wait for the next piece of a body: somebody who sends has more to send by then, over any line.
const NEXT_PIECE: Duration = Duration::from_secs(10);

/// Reads a whole request body.
pub async fn read(body: RequestBody) -> Result<Bytes, Status> {
    receive(body, |_| true).await
}

/// Reads a whole request body as it comes, piece by piece in time; `room` says whether there is room for so many bytes
/// more.
pub async fn receive(body: RequestBody, room: impl FnMut(usize) -> bool) -> Result<Bytes, Status> {
    receive_within(body, NEXT_PIECE, room).await
}

async fn receive_within(
    mut body: RequestBody,
    next_piece: Duration,
    mut room: impl FnMut(usize) -> bool,
) -> Result<Bytes, Status> {
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    loop {
        let next = tokio::time::timeout(next_piece, body.frame()).await;
        let next = next.map_err(|_| Status::timeout("the request body did not come in time", 0))?;
        let Some(frame) = next else { break };
        let frame = frame.map_err(|e| Status::bad_request(format!("the request body could not be read: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let so_far = first.as_ref().map_or(0, Bytes::len) + all.len();
        if so_far + data.len() > MAX_REQUEST_BODY {
            return Err(Status::too_large(format!("limit is {MAX_REQUEST_BODY}")));
        }
        if !room(data.len()) {
            return Err(Status::too_many_requests("too many request bodies at once, please try again later", 1));
        }
        // Most bodies come in one piece, which is then not copied.
        match first.take() {
            None if all.is_empty() => first = Some(data),
            Some(head) => {
                all.extend_from_slice(&head);
                all.extend_from_slice(&data);
            }
            None => all.extend_from_slice(&data),
        }
    }
    Ok(first.unwrap_or_else(|| all.freeze()))
}

/// Body of a response.
pub enum Body {
    /// Nothing (left), or all at once.
    Full(Option<Bytes>),
    /// Frames made as the client takes them; the length when it is known.
    Stream(Pin<Box<dyn Frames>>, Option<u64>),
}

/// A source of frames; `None` ends the body, an error cuts the connection.
pub trait Frames: Send {
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>>;
}

impl Body {
    pub fn empty() -> Body {
        Body::Full(None)
    }

    pub fn stream(frames: impl Frames + 'static) -> Body {
        Body::Stream(Box::pin(frames), None)
    }

    /// A body that another HTTP message brought, passed on as it comes.
    pub fn forward<B>(body: B) -> Body
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Body::stream(Forward(body.map_err(Into::into).boxed_unsync()))
    }

    /// Everything in one piece: for tests and small answers.
    pub async fn collect(self) -> Result<Bytes, BoxError> {
        Ok(BodyExt::collect(self).await?.to_bytes())
    }
}

impl Default for Body {
    fn default() -> Body {
        Body::empty()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Body {
        Body::Full(Some(bytes))
    }
}

impl From<BytesMut> for Body {
    fn from(bytes: BytesMut) -> Body {
        Body::Full(Some(bytes.freeze()))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Body {
        Body::Full(Some(text.into()))
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Body {
        Body::Full(Some(Bytes::from_static(text.as_bytes())))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Body::Full(bytes) => Poll::Ready(bytes.take().filter(|b| !b.is_empty()).map(|b| Ok(Frame::data(b)))),
            Body::Stream(frames, _) => {
                frames.as_mut().poll_frame(cx).map(|frame| frame.map(|frame| frame.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Full(bytes) if bytes.as_ref().is_none_or(Bytes::is_empty))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Body::Stream(_, Some(length)) => SizeHint::with_exact(*length),
            Body::Stream(_, None) => SizeHint::default(),
        }
    }
}

struct Forward(RequestBody);

impl Frames for Forward {
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        loop {
            return match std::task::ready!(Pin::new(&mut self.0).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Poll::Ready(Some(Ok(data))),
                    Err(_trailers) => continue,
                },
                Some(Err(error)) => Poll::Ready(Some(Err(error))),
                None => Poll::Ready(None),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces that come, and then nothing more.
    struct Stuck(Vec<&'static str>);

    impl HttpBody for Stuck {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            match self.0.pop() {
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(piece.as_bytes()))))),
                None => Poll::Pending,
            }
        }
    }

    #[tokio::test]
    async fn a_body_that_never_ends_is_not_waited_for() {
        let body = request_body(Stuck(vec!["{"]));
        let refused = receive_within(body, Duration::from_millis(20), |_| true).await.expect_err("it does not come");
        assert_eq!((refused.code, &*refused.message), (504, "Timeout: the request body did not come in time"));
    }

    #[tokio::test]
    async fn a_body_takes_no_more_than_the_room_there_is() {
        let mut left = 3;
        let room = |bytes: usize| {
            left -= bytes.min(left);
            left > 0
        };
        let refused = receive(request_body(Stuck(vec!["bb", "a"])), room).await.expect_err("no room");
        assert_eq!(refused.code, 429);
    }
}
