//! Who is calling: certificates, tokens, anonymity, impersonation.
//!
//! What is asked is an [`Authenticator`]; [`chain`] asks them.

pub mod bootstrap_token;
pub mod chain;
pub mod impersonation;
pub mod jwt;
pub mod service_account;
pub mod x509;

use std::borrow::Cow;

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use rustls::pki_types::CertificateDer;

pub use kinds::User as UserInfo;

/// Group of every caller who proved an identity.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Group of every caller who did not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Name of callers who did not prove an identity.
pub const ANONYMOUS: &str = "system:anonymous";
/// Members may do everything; no other authoriser is asked.
pub const MASTERS: &str = "system:masters";

/// What a connection and a request say about the caller.
pub struct Credentials<'a> {
    pub headers: &'a HeaderMap,
    /// The verified-by-nobody chain that the client presented in TLS, leaf first.
    pub certificates: &'a [CertificateDer<'static>],
    /// Audiences of which a token must name one.
    pub audiences: &'a [String],
}

impl Credentials<'_> {
    /// The bearer token of the Authorization header, or of the subprotocol that browsers send in its place.
    pub fn bearer(&self) -> Option<Cow<'_, str>> {
        let text = |name: HeaderName| self.headers.get(name).and_then(|value| value.to_str().ok());
        let token = match text(header::AUTHORIZATION).and_then(|value| value.trim().split_once(' ')) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Cow::Borrowed(token.trim()),
            _ => {
                let protocols = text(header::SEC_WEBSOCKET_PROTOCOL)?.split(',');
                let token = protocols.into_iter().find_map(|one| one.trim().strip_prefix(TOKEN_PROTOCOL))?;
                Cow::Owned(String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(token).ok()?).ok()?)
            }
        };
        (!token.is_empty()).then_some(token)
    }
}

/// A subprotocol that carries a token: scripts in browsers can't set headers of a WebSocket.
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Takes the token out of the subprotocols, before others see them.
pub fn strip_token_protocol(headers: &mut HeaderMap) {
    let Some(all) = headers.get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok()) else { return };
    let others: Vec<&str> = all.split(',').map(str::trim).filter(|one| !one.starts_with(TOKEN_PROTOCOL)).collect();
    match HeaderValue::from_str(&others.join(", ")) {
        Ok(value) if !value.is_empty() => drop(headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value)),
        _ => drop(headers.remove(header::SEC_WEBSOCKET_PROTOCOL)),
    }
}

/// A caller that proved who it is, and for whom the credential was made (empty: for this server).
#[derive(Debug, Clone, Default)]
pub struct Authenticated {
    pub user: UserInfo,
    pub audiences: Vec<String>,
}

/// One way to authenticate.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// `Ok(None)` when the request carries no credential of this kind; an error when it carries a wrong one.
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<Authenticated>, AuthnError>;
}

/// A credential was presented and is wrong; the text goes to the log, the client learns only 401.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct AuthnError(pub String);

/// The identity of a caller who presents nothing.
pub fn anonymous() -> UserInfo {
    UserInfo { name: ANONYMOUS.to_owned(), groups: vec![UNAUTHENTICATED.to_owned()], ..UserInfo::default() }
}
