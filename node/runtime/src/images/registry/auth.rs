//! Logging in to a registry: its challenge, basic credentials, tokens from the server that the challenge names.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Request, StatusCode};
use serde::Deserialize;

use super::super::fetch::Credentials;
use super::super::{ImageError, Result};
use super::{Registry, read_whole, send};

/// What a registry wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    Bearer { realm: String, service: String, scope: String },
    Unknown,
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Challenge {
    /// Reads a WWW-Authenticate header: `Bearer realm="…",service="…",scope="…"`.
    pub fn parse(header: &str) -> Self {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Challenge::Basic;
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Challenge::Unknown;
        }
        let value = |name: &str| {
            let at = rest.find(&format!("{name}=\""))? + name.len() + 2;
            Some(rest[at..].split('"').next()?.to_owned())
        };
        Challenge::Bearer {
            realm: value("realm").unwrap_or_default(),
            service: value("service").unwrap_or_default(),
            scope: value("scope").unwrap_or_default(),
        }
    }
}

impl Registry {
    /// Answers a challenge with what goes into the Authorization header.
    pub(super) async fn log_in(&self, challenge: &Challenge) -> Result<HeaderValue> {
        let denied =
            || ImageError::Denied(format!("{}: the registry wants credentials that were not given", self.base));
        match (challenge, &self.credentials) {
            (_, Some(Credentials::Bearer(token))) => secret(&format!("Bearer {token}")),
            (Challenge::Basic, Some(Credentials::Password { username, password })) => basic(username, password),
            (Challenge::Bearer { realm, service, scope }, credentials) => {
                self.token(realm, service, scope, credentials.as_ref()).await
            }
            _ => Err(denied()),
        }
    }

    async fn token(
        &self,
        realm: &str,
        service: &str,
        scope: &str,
        credentials: Option<&Credentials>,
    ) -> Result<HeaderValue> {
        // Credentials must not be sent in the clear because a registry says so.
        let in_the_clear = realm.starts_with("http://") && self.base.starts_with("http://");
        if !realm.starts_with("https://") && !in_the_clear {
            return Err(ImageError::Registry(format!("{}: its token server {realm:?} is not https", self.base)));
        }
        let own = format!("repository:{}:pull", self.repository);
        let scope = if scope.is_empty() { &own } else { scope };
        let request = match credentials {
            Some(Credentials::Identity(token)) => {
                let form = format!(
                    "grant_type=refresh_token&service={}&client_id=ferrokube&scope={}&refresh_token={}",
                    escape(service),
                    escape(scope),
                    escape(token)
                );
                let post = Request::post(realm).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
                post.body(Full::new(Bytes::from(form)))
            }
            other => {
                let mark = if realm.contains('?') { '&' } else { '?' };
                let url = format!("{realm}{mark}service={}&scope={}", escape(service), escape(scope));
                let mut get = Request::get(url);
                if let Some(Credentials::Password { username, password }) = other {
                    get = get.header(AUTHORIZATION, basic(username, password)?);
                }
                get.body(Full::default())
            }
        };
        let request = request.map_err(|e| ImageError::Registry(e.to_string()))?;
        let answer = send(&self.http, request, realm).await?;
        if matches!(answer.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(ImageError::Denied(format!("{}: the credentials were refused", self.base)));
        }
        if !answer.status().is_success() {
            return Err(ImageError::Registry(format!("{realm}: the token server answered {}", answer.status())));
        }
        let body = read_whole(answer, "the token").await?;
        let token: Token = serde_json::from_slice(&body)
            .map_err(|_| ImageError::Registry(format!("{realm}: the token server sent no token")))?;
        let token = if token.token.is_empty() { token.access_token } else { token.token };
        secret(&format!("Bearer {token}"))
    }
}

fn basic(username: &str, password: &str) -> Result<HeaderValue> {
    secret(&format!("Basic {}", BASE64.encode(format!("{username}:{password}"))))
}

fn secret(text: &str) -> Result<HeaderValue> {
    let mut value =
        HeaderValue::from_str(text).map_err(|_| ImageError::Registry("the credentials hold odd characters".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Percent-encodes all but the characters that never need it.
fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, b| {
        use std::fmt::Write;
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(b as char);
        } else {
            let _ = write!(out, "%{b:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let header = "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:a/b:pull,push\"";
        let expected = Challenge::Bearer {
            realm: "https://auth.docker.io/token".into(),
            service: "registry.docker.io".into(),
            scope: "repository:a/b:pull,push".into(),
        };
        assert_eq!(Challenge::parse(header), expected);
        assert_eq!(Challenge::parse("Basic realm=\"x\""), Challenge::Basic);
        assert_eq!(Challenge::parse(""), Challenge::Unknown);
        assert_eq!(escape("repository:a/b:pull"), "repository%3Aa%2Fb%3Apull");
    }
}
