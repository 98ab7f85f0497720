//! The Host header, as Go's server insists on it: what is told apart by host must not be guessed. Pure; called by
//! `http`.

use http::header::{HOST, HeaderValue};
use http::{Request, Version};

/// What is wrong with the request's Host header, in Go's words.
pub fn fault<B>(request: &Request<B>) -> Option<&'static str> {
    if request.version() != Version::HTTP_11 {
        return None;
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => Some("too many Host headers"),
        (None, None) => Some("missing required Host header"),
        (Some(host), None) if !is_valid(host) => Some("malformed Host header"),
        _ => None,
    }
}

fn is_valid(host: &HeaderValue) -> bool {
    host.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"!$%&'()*+,-.:;=[]_~".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_one_host() {
        let fault = |version: Version, hosts: &[&str]| {
            let mut request = Request::builder().version(version);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            fault(&request.body(()).expect("a request"))
        };
        assert_eq!(fault(Version::HTTP_11, &["a:1"]), None);
        assert_eq!(fault(Version::HTTP_11, &["[::1]:1"]), None);
        assert_eq!(fault(Version::HTTP_11, &[""]), None, "Go takes an empty one");
        assert_eq!(fault(Version::HTTP_11, &[]), Some("missing required Host header"));
        assert_eq!(fault(Version::HTTP_11, &["a", "b"]), Some("too many Host headers"));
        assert_eq!(fault(Version::HTTP_11, &["a b"]), Some("malformed Host header"));
        assert_eq!(fault(Version::HTTP_10, &[]), None);
        assert_eq!(fault(Version::HTTP_2, &[]), None, "it has :authority");
    }
}
