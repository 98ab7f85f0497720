//! The gRPC side: each call of the container runtime interface, mapped to an operation. Does I/O through them.
//!
//! Called by the kubelet, by crictl and by our own command line, over the unix socket.

mod images;
mod runtime;

use std::sync::Arc;

use crate::runtime::Runtime;

/// All services of the socket.
#[derive(Clone)]
pub struct Service {
    runtime: Arc<Runtime>,
}

impl Service {
    /// The services of one runtime.
    pub fn new(runtime: Arc<Runtime>) -> Self {
        Service { runtime }
    }
}

/// Items a message of a streamed list: enough to need few messages, far below the limit of one.
const STREAM_BATCH: usize = 100;

type BoxStream<T> = std::pin::Pin<Box<dyn futures::Stream<Item = Result<T, tonic::Status>> + Send>>;
type Answer<T> = Result<tonic::Response<T>, tonic::Status>;

fn ok<T>(message: T) -> Answer<T> {
    Ok(tonic::Response::new(message))
}

/// A list in batches; an empty list is one empty message less.
fn stream<I: Send + 'static, M: Send + 'static>(items: Vec<I>, message: impl Fn(Vec<I>) -> M) -> Answer<BoxStream<M>> {
    let mut messages = Vec::new();
    let mut items = items.into_iter();
    loop {
        let batch: Vec<I> = items.by_ref().take(STREAM_BATCH).collect();
        if batch.is_empty() {
            break;
        }
        messages.push(Ok(message(batch)));
    }
    ok(Box::pin(futures::stream::iter(messages)))
}
