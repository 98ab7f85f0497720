//! Answers to HEAD, of every page that a component serves. Pure; called by `http` for every request of the method.

use http::Response;
use http::header::CONTENT_LENGTH;
use http_body::Body;

/// What GET would say, and how long it would be. HTTP/1.1 leaves bodies out by itself; in HTTP/2 one would break the
/// stream.
pub fn without_body<B: Body + Default>(mut response: Response<B>) -> Response<B> {
    let body = std::mem::take(response.body_mut());
    if let Some(length) = body.size_hint().exact() {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(length.into());
    }
    response
}
