//! The KV calls, which are nearly all of a store's traffic, without the generic machinery: the message is decoded from
//! the received bytes as they are, and the answer is one buffer. It halves what a put costs over gRPC.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::Request;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use prost::Message;
use tonic::body::Body;
use tonic::{Code, Status};
use wire::etcd::kv_server::Kv;

use super::{Response, Server};

/// A call answered here.
#[derive(Debug, Clone, Copy)]
pub enum Method {
    Range,
    Put,
    DeleteRange,
    Txn,
}

/// Bytes before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;
const GRPC_ENCODING: &str = "grpc-encoding";
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

impl Method {
    /// The method of a request, unless the generic way is needed.
    pub fn of(request: &Request<serving::Body>) -> Option<Method> {
        let plain = request.headers().get(GRPC_ENCODING).is_none_or(|e| e == "identity");
        let method = match request.uri().path().strip_prefix("/etcdserverpb.KV/")? {
            "Range" => Method::Range,
            "Put" => Method::Put,
            "DeleteRange" => Method::DeleteRange,
            "Txn" => Method::Txn,
            _ => return None,
        };
        (plain && super::http::is_grpc(request)).then_some(method)
    }
}

/// Answers a call.
pub async fn answer(server: &Server, method: Method, body: serving::Body, limit: usize) -> Response {
    let answered = async {
        let message = receive(body, limit).await?;
        match method {
            Method::Range => encode(&Kv::range(server, request(message)?).await?.into_inner()),
            Method::Put => encode(&Kv::put(server, request(message)?).await?.into_inner()),
            Method::DeleteRange => encode(&Kv::delete_range(server, request(message)?).await?.into_inner()),
            Method::Txn => encode(&Kv::txn(server, request(message)?).await?.into_inner()),
        }
    };
    match answered.await {
        Ok(data) => {
            let mut response = Response::new(Body::new(Answer { data: Some(data), told: false }));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            response
        }
        Err(status) => Status::into_http(status),
    }
}

fn request<T: Message + Default>(message: Bytes) -> Result<tonic::Request<T>, Status> {
    let decoded = T::decode(message).map_err(|e| Status::internal(e.to_string()))?;
    Ok(tonic::Request::new(decoded))
}

/// Reads the one message of a call.
async fn receive(mut body: serving::Body, limit: usize) -> Result<Bytes, Status> {
    let broken = |what: &str| Status::new(Code::Internal, format!("grpc: {what}"));
    let mut received: Option<Bytes> = None;
    let mut gathered = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|e| broken(&e.to_string()))?.into_data() else { continue };
        match received.take() {
            // Mostly the first frame is all.
            None if gathered.is_empty() => received = Some(data),
            None => gathered.extend_from_slice(&data),
            Some(first) => {
                gathered.extend_from_slice(&first);
                gathered.extend_from_slice(&data);
            }
        }
        let head = received.as_deref().unwrap_or(&gathered);
        check_length(head, limit)?;
        // What the message says of its length does not bound what is sent.
        if head.len() > PREFIX + limit {
            return Err(broken("more was sent than one message"));
        }
    }
    let mut message = received.unwrap_or_else(|| gathered.freeze());
    if message.len() < PREFIX {
        return Err(broken("the message is missing"));
    }
    let compressed = message.get_u8();
    let length = message.get_u32() as usize;
    if compressed != 0 {
        return Err(Status::unimplemented("grpc: a compressed message without grpc-encoding"));
    }
    if message.len() != length {
        return Err(broken("the message is not as long as it says"));
    }
    Ok(message)
}

/// Refuses a message that is too long as soon as it says so.
fn check_length(head: &[u8], limit: usize) -> Result<(), Status> {
    let Some(length) = head.get(1..PREFIX).and_then(|l| l.try_into().ok()).map(u32::from_be_bytes) else {
        return Ok(());
    };
    if length as usize > limit {
        let what = format!("grpc: received message larger than max ({length} vs. {limit})");
        return Err(Status::resource_exhausted(what));
    }
    Ok(())
}

fn encode(message: &impl Message) -> Result<Bytes, Status> {
    let length = message.encoded_len();
    let prefix = u32::try_from(length).map_err(|_| Status::resource_exhausted("grpc: the answer is too large"))?;
    let mut buffer = BytesMut::with_capacity(PREFIX + length);
    buffer.put_u8(0);
    buffer.put_u32(prefix);
    message.encode(&mut buffer).map_err(|e| Status::internal(e.to_string()))?;
    Ok(buffer.freeze())
}

/// The body of an answer: one message, then the status 0.
struct Answer {
    data: Option<Bytes>,
    told: bool,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if std::mem::replace(&mut self.told, true) {
            return Poll::Ready(None);
        }
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.told
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
