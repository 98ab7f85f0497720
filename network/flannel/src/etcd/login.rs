//! `--etcd-username`, `--etcd-password`: a token for each call, asked for when etcd wants one, and again when it has forgotten
//! ours. The one call for it is not in `api/wire`, whose etcd knows no users: its two messages have two fields each, and are
//! written here. I/O: that call. Caller: [`super::client`].
//!
//! ```text
//! /etcdserverpb.Auth/Authenticate    AuthenticateRequest  { name = 1, password = 2 }
//!                                    AuthenticateResponse { header = 1, token = 2 }
//! ```

use std::fmt;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use parking_lot::RwLock;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";
/// Where etcd looks for a call's token.
const TOKEN: &str = "token";
const TOKEN_FIELD: u64 = 2;
const LENGTH_DELIMITED: u64 = 2;

/// What nobody reads in a log.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// A user of etcd, and the token that he has. Cloning shares it; without a user it adds nothing.
#[derive(Clone, Debug, Default)]
pub struct Login(Option<Arc<Known>>);

#[derive(Debug)]
struct Known {
    name: String,
    password: Secret,
    token: RwLock<Option<MetadataValue<Ascii>>>,
}

impl Login {
    pub fn new(name: &str, password: &Secret) -> Login {
        if name.is_empty() {
            return Login::default();
        }
        Login(Some(Arc::new(Known { name: name.to_owned(), password: password.clone(), token: RwLock::default() })))
    }

    /// Whether a call failed for want of a token that etcd knows.
    pub fn is_wanted(&self, status: &Status) -> bool {
        let unknown = status.code() == Code::Unauthenticated;
        // Without any token the user is the empty one.
        let none = status.code() == Code::InvalidArgument && status.message().contains("user name is empty");
        self.0.is_some() && (unknown || none)
    }

    /// Asks for a token.
    pub async fn log_in(&self, channel: Channel) -> Result<(), Status> {
        let Some(known) = &self.0 else { return Ok(()) };
        let mut request = Vec::new();
        for (field, text) in [(1u8, &known.name), (2, &known.password.0)] {
            request.put_u8((field << 3) | LENGTH_DELIMITED as u8);
            put_varint(&mut request, text.len() as u64);
            request.extend_from_slice(text.as_bytes());
        }
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let answer = grpc
            .unary(Request::new(Bytes::from(request)), PathAndQuery::from_static(AUTHENTICATE), Raw)
            .await?
            .into_inner();
        let token = token(answer).ok_or_else(|| Status::internal("etcd's answer to a login holds no token"))?;
        let token = token.parse().map_err(|_| Status::internal("etcd's token is no text"))?;
        *known.token.write() = Some(token);
        Ok(())
    }
}

impl Interceptor for Login {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = self.0.as_ref().and_then(|known| known.token.read().clone()) {
            request.metadata_mut().insert(TOKEN, token);
        }
        Ok(request)
    }
}

fn put_varint(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    to.put_u8(number as u8);
}

fn varint(bytes: &mut Bytes) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes.has_remaining().then(|| bytes.get_u8())?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// The token in an answer. Both of its fields have a length.
pub fn token(mut answer: Bytes) -> Option<String> {
    while answer.has_remaining() {
        let key = varint(&mut answer)?;
        let length = usize::try_from(varint(&mut answer)?).ok()?;
        if key & 7 != LENGTH_DELIMITED || length > answer.remaining() {
            return None;
        }
        let value = answer.split_to(length);
        if key >> 3 == TOKEN_FIELD {
            return String::from_utf8(value.to_vec()).ok().filter(|token| !token.is_empty());
        }
    }
    None
}

/// Messages as they are.
#[derive(Clone, Copy, Debug, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = from.remaining();
        Ok(Some(from.copy_to_bytes(length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_in_an_answer_and_in_nothing_else() {
        let answer = |token: &[u8]| {
            let mut bytes = vec![0x0a, 3, 0x08, 0x96, 0x01, 0x12];
            put_varint(&mut bytes, token.len() as u64);
            bytes.extend_from_slice(token);
            Bytes::from(bytes)
        };
        let long = "a".repeat(300);
        assert_eq!(token(answer(b"abc.7")), Some("abc.7".to_owned()));
        assert_eq!(token(answer(long.as_bytes())), Some(long));
        for cut in 0..answer(b"abc.7").len() {
            assert_eq!(token(answer(b"abc.7").slice(..cut)), None, "{cut}");
        }
        assert_eq!(token(answer(b"")), None);
        assert_eq!(token(Bytes::from_static(&[0xff; 12])), None);
    }

    #[test]
    fn a_token_is_asked_for_when_etcd_wants_one_and_by_a_user_alone() {
        let login = Login::new("me", &Secret("secret".into()));
        assert!(login.is_wanted(&Status::unauthenticated("etcdserver: invalid auth token")));
        assert!(login.is_wanted(&Status::invalid_argument("etcdserver: user name is empty")));
        assert!(!login.is_wanted(&Status::permission_denied("etcdserver: permission denied")));
        assert!(!Login::default().is_wanted(&Status::unauthenticated("etcdserver: invalid auth token")));
        assert!(!format!("{login:?}").contains("secret"));
    }
}
