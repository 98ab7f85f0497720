//! Bodies of requests and answers on a listener: what comes in has a deadline, what goes out holds its connection's
//! place until it is sent. I/O: waits on tokio's clock. Called by `http`; handlers read [`Body`].

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::table::Turn;

/// Why a body could not be sent or read to its end: mostly a client that went away.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request. It fails when nothing of it comes for too long.
pub struct Body {
    inner: Incoming,
    patience: Option<Duration>,
    /// Runs while a piece is waited for.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Body {
    pub(crate) fn new(inner: Incoming, patience: Option<Duration>) -> Body {
        Body { inner, patience, deadline: None }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            self.deadline = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let Some(patience) = self.patience else { return Poll::Pending };
        let deadline =
            self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + patience)));
        match deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err("the client sent nothing of the body for too long".into()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of an answer.
pub(crate) enum Answer<B> {
    /// The handler's; the request runs until it is sent or given up.
    Handler(B, #[expect(dead_code, reason = "held for its drop")] Turn),
    /// A text of the listener's own.
    Text(Option<Bytes>),
}

impl<B> HttpBody for Answer<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Answer::Handler(body, _) => {
                Pin::new(body).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
            }
            Answer::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Answer::Handler(body, _) => body.is_end_stream(),
            Answer::Text(text) => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Handler(body, _) => body.size_hint(),
            Answer::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
        }
    }
}
