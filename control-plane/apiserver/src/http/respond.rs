//! From an answer to an HTTP response: negotiation, headers, warnings, compression.

use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use meta::Status;
use serde_json::Value;

use super::answer::Answer;
use super::body::{Body, BoxError, Frames};
use super::call::{AUDIT_ID, Call};
use super::encode;
use super::negotiate::{Accepted, Encoding, JSON, PROTOBUF, View};

/// Smallest body worth compressing.
const GZIP_FROM: u64 = 128 << 10;
/// Speed over size, as upstream chose.
const GZIP_LEVEL: u32 = 1;
/// Warnings beyond this many bytes are cut, so that headers stay acceptable to clients.
const WARNING_BYTES: usize = 4 << 10;

/// A response with a content type.
pub fn response(code: u16, content_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Encodes an answer as the client accepts it.
pub fn respond(call: &Call, answer: Answer) -> Response<Body> {
    match encode_answer(call, answer) {
        Ok(response) => response,
        Err(status) => encode_status(call, &status),
    }
}

fn encode_answer(call: &Call, answer: Answer) -> Result<Response<Body>, Status> {
    Ok(match answer {
        Answer::Raw(response) => response,
        Answer::Status(status) => encode_status(call, &status),
        Answer::Entry(code, served, entry) => {
            let accepted = call.accepted(served.custom, true)?;
            match accepted.encoding {
                Encoding::Protobuf => response(code, PROTOBUF, encode::entry_protobuf(&served, &entry, accepted.view)?),
                Encoding::Json if !call.pretty() => {
                    response(code, JSON, encode::entry(&served, &entry, accepted.view, call))
                }
                _ => {
                    let json = encode::entry(&served, &entry, accepted.view, call);
                    let value = serde_json::from_slice(&json).map_err(Status::internal)?;
                    encode_value(call, code, accepted, &value)?
                }
            }
        }
        Answer::Object(code, served, object) => {
            let accepted = call.accepted(served.custom, true)?;
            let value = encode::object(&served, &object, accepted.view, call);
            encode_value(call, code, accepted, &value)?
        }
        Answer::Objects(served, objects) => {
            let accepted = call.accepted(served.custom, true)?;
            let value = encode::objects(&served, objects, accepted.view, call);
            encode_value(call, 200, accepted, &value)?
        }
        Answer::List(served, list) => {
            let accepted = call.accepted(served.custom, true)?;
            match accepted.encoding {
                Encoding::Json if !call.pretty() => {
                    response(200, JSON, encode::list(&served, list, accepted.view, call))
                }
                Encoding::Protobuf => response(200, PROTOBUF, encode::list_protobuf(&served, &list, accepted.view)?),
                _ => encode_value(call, 200, accepted, &encode::list_value(&served, &list, accepted.view, call))?,
            }
        }
        Answer::Watch(frames) => {
            let accepted = call.accepted(false, true)?;
            response(200, accepted.encoding.stream_type(), Body::Stream(Box::into_pin(frames), None))
        }
    })
}

fn encode_value(call: &Call, code: u16, accepted: Accepted, value: &Value) -> Result<Response<Body>, Status> {
    let body = match accepted.encoding {
        Encoding::Json if call.pretty() => serde_json::to_vec_pretty(value).unwrap_or_default().into(),
        Encoding::Json => serde_json::to_vec(value).unwrap_or_default().into(),
        Encoding::Yaml => codec::yaml::encode(value).into(),
        Encoding::Protobuf => encode::protobuf(value)?,
    };
    Ok(response(code, accepted.encoding.media_type(), body))
}

/// A Status, in whatever the client accepts, or JSON.
pub fn encode_status(call: &Call, status: &Status) -> Response<Body> {
    let accepted = call.accepted(false, false).unwrap_or(Accepted::JSON);
    let accepted = Accepted { view: View::Whole, ..accepted };
    let value = status.to_value();
    let encoded = encode_value(call, status.code, accepted, &value);
    let Ok(mut response) = encoded.or_else(|_| encode_value(call, status.code, Accepted::JSON, &value)) else {
        return response(500, JSON, Body::empty());
    };
    let retry = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if retry > 0 && matches!(status.code, 429 | 503 | 500 | 504) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry));
    }
    response
}

/// The answer to a path outside of every API.
pub fn no_such_page() -> Answer {
    let mut page = response(404, "text/plain; charset=utf-8", Bytes::from_static(b"404 page not found\n"));
    page.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Answer::Raw(page)
}

/// What every response carries: request id, cache control, warnings, compression.
pub fn dress(call: &Call, mut response: Response<Body>) -> Response<Body> {
    let gzip = call.header(header::ACCEPT_ENCODING).split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        parts.next() == Some("gzip") && parts.next() != Some("q=0")
    });
    if gzip && response.status() == StatusCode::OK && !response.headers().contains_key(header::CONTENT_ENCODING) {
        response = compress(response);
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&call.audit_id) {
        headers.insert(AUDIT_ID, id);
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    }
    let mut room = WARNING_BYTES;
    for text in call.warnings.texts() {
        let quoted: String = text
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| if matches!(c, '"' | '\\') { vec!['\\', c] } else { vec![c] })
            .collect();
        let value = format!("299 - \"{quoted}\"");
        if value.len() > room {
            break;
        }
        room -= value.len();
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            headers.append(header::WARNING, value);
        }
    }
    response
}

fn compress(response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let large = match &body {
        Body::Full(bytes) => bytes.as_ref().is_some_and(|b| b.len() as u64 >= GZIP_FROM),
        Body::Stream(_, length) => length.is_some_and(|length| length >= GZIP_FROM),
    };
    if !large {
        return Response::from_parts(parts, body);
    }
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    let encoder = GzEncoder::new(BytesMut::new().writer(), Compression::new(GZIP_LEVEL));
    Response::from_parts(parts, Body::stream(Gzip { source: body, encoder: Some(encoder) }))
}

struct Gzip {
    source: Body,
    encoder: Option<GzEncoder<bytes::buf::Writer<BytesMut>>>,
}

impl Frames for Gzip {
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        let this = &mut *self;
        loop {
            let Some(encoder) = this.encoder.as_mut() else { return Poll::Ready(None) };
            match ready!(http_body::Body::poll_frame(Pin::new(&mut this.source), cx)) {
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    encoder.write_all(&data)?;
                    let out = encoder.get_mut().get_mut().split().freeze();
                    if !out.is_empty() {
                        return Poll::Ready(Some(Ok(out)));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    let Some(encoder) = this.encoder.take() else { return Poll::Ready(None) };
                    return Poll::Ready(Some(Ok(encoder.finish()?.into_inner().freeze())));
                }
            }
        }
    }
}
