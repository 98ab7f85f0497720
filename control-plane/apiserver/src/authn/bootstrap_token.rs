//! Bootstrap tokens as bearer tokens: `--enable-bootstrap-token-auth`. Who comes with one is `system:bootstrap:<id>` and
//! may, by upstream's roles, ask for the certificate of a kubelet. I/O: reads the clock.

use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use kinds::bootstrap_token::{Described, Expiry, NAMESPACE, TYPE, Token, secret_name, user_name};
use serde_json::Value;

use super::{Authenticated, Authenticator, AuthnError, Credentials, UserInfo};
use crate::cache::Cache;

/// Authenticates tokens whose Secrets are in the cache: no question of a stranger reaches the store.
pub struct BootstrapTokens {
    pub secrets: Arc<Cache>,
}

#[async_trait]
impl Authenticator for BootstrapTokens {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<Authenticated>, AuthnError> {
        let Some(bearer) = credentials.bearer() else { return Ok(None) };
        let Some(token) = Token::parse(&bearer) else { return Ok(None) };
        let found = self.secrets.lookup(NAMESPACE, &secret_name(token.id));
        let refused = |why: String| AuthnError(format!("bootstrap token {} refused: {why}", token.id));
        let secret = found.ok_or_else(|| refused("there is none".into()))?;
        let user = user(token, &secret.object(), Timestamp::now()).map_err(refused)?;
        Ok(Some(Authenticated { user, ..Authenticated::default() }))
    }
}

/// Whom the token proves, by what its Secret says; or why nobody.
fn user(token: Token<'_>, secret: &Value, now: Timestamp) -> Result<UserInfo, String> {
    if !secret["metadata"]["deletionTimestamp"].is_null() {
        return Err("its Secret is being deleted".into());
    }
    if secret["type"].as_str() != Some(TYPE) {
        return Err(format!("its Secret is not of type {TYPE}"));
    }
    let described = Described::read(|field| {
        let bytes = BASE64_STANDARD.decode(secret["data"][field].as_str()?).ok()?;
        String::from_utf8(bytes).ok()
    });
    if verify_slices_are_equal(described.secret.as_bytes(), token.secret.as_bytes()).is_err() {
        return Err("its secret is another".into());
    }
    if described.id != token.id {
        return Err("its Secret names another id".into());
    }
    if described.expiry(now) == Expiry::Over {
        return Err("it has expired".into());
    }
    if !described.authentication {
        return Err("it is not for authentication".into());
    }
    Ok(UserInfo { name: user_name(token.id), groups: described.groups()?, ..UserInfo::default() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secret() -> Value {
        let data = [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("expiration", "2026-01-01T00:00:00Z"),
            ("usage-bootstrap-authentication", "true"),
            ("auth-extra-groups", "system:bootstrappers:nodes"),
        ];
        let data: serde_json::Map<String, Value> =
            data.iter().map(|(name, text)| ((*name).to_owned(), BASE64_STANDARD.encode(text).into())).collect();
        json!({"metadata": {"name": "bootstrap-token-abcdef"}, "type": TYPE, "data": data})
    }

    /// Seconds before the token's end.
    fn before(seconds: i64) -> Timestamp {
        let end: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        Timestamp::from_second(end.as_second() - seconds).unwrap()
    }

    #[test]
    fn a_token_proves_its_id_and_groups() {
        let token = Token::parse("abcdef.0123456789abcdef").unwrap();
        let user = user(token, &secret(), before(1)).unwrap();
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert_eq!(user.groups, ["system:bootstrappers", "system:bootstrappers:nodes"]);
    }

    /// Upstream's table of cases.
    #[test]
    fn a_token_that_is_over_wrong_or_for_another_use_proves_nobody() {
        let token = Token::parse("abcdef.0123456789abcdef").unwrap();
        let refused = |change: &dyn Fn(&mut Value)| {
            let mut secret = secret();
            change(&mut secret);
            user(token, &secret, before(1)).unwrap_err()
        };
        let set = |field: &'static str, text: &'static str| {
            move |secret: &mut Value| secret["data"][field] = BASE64_STANDARD.encode(text).into()
        };
        assert_eq!(user(token, &secret(), before(0)).unwrap_err(), "it has expired");
        assert_eq!(refused(&set("expiration", "soon")), "it has expired");
        assert_eq!(refused(&set("token-secret", "0123456789abcdeg")), "its secret is another");
        assert_eq!(refused(&set("token-secret", "")), "its secret is another");
        assert_eq!(refused(&set("token-id", "abcdeg")), "its Secret names another id");
        assert_eq!(refused(&set("usage-bootstrap-authentication", "yes")), "it is not for authentication");
        assert!(refused(&set("auth-extra-groups", "system:masters")).contains("system:masters"));
        assert!(refused(&|secret| secret["type"] = "Opaque".into()).contains(TYPE));
        assert!(refused(&|secret| secret["data"]["token-secret"] = "%".into()).contains("another"));
        let going = |secret: &mut Value| secret["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert!(refused(&going).contains("deleted"));
    }
}
