//! Bootstrap tokens: what a machine proves itself with that is to join and has no certificate yet.
//!
//! ```text
//!   token   abcdef.0123456789abcdef
//!           │      └ its secret: 16 of a-z0-9
//!           └ its id: 6 of a-z0-9, public
//!
//!   Secret  kube-system/bootstrap-token-abcdef, of type bootstrap.kubernetes.io/token
//!             token-id, token-secret
//!             expiration                       RFC 3339; without it the token is good for ever
//!             usage-bootstrap-authentication   "true": a bearer token of the API
//!             usage-bootstrap-signing          "true": signs kube-public/cluster-info
//!             auth-extra-groups                system:bootstrappers:…, by commas
//! ```
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>. Pure: who asks brings the time.
//! Callers: the API server's authenticator, bootstrap-signer-controller and token-cleaner-controller.

use jiff::Timestamp;

/// Where the Secrets of tokens are.
pub const NAMESPACE: &str = "kube-system";
/// The type of these Secrets.
pub const TYPE: &str = "bootstrap.kubernetes.io/token";
/// The group of everybody who comes with a token.
pub const GROUP: &str = "system:bootstrappers";

const NAME_PREFIX: &str = "bootstrap-token-";
const USER_PREFIX: &str = "system:bootstrap:";
const GROUP_PREFIX: &str = "system:bootstrappers:";
/// Letters and digits of an id.
pub const ID_LENGTH: usize = 6;
/// Letters and digits of a secret.
pub const SECRET_LENGTH: usize = 16;
/// Of what follows [`GROUP_PREFIX`].
const LONGEST_GROUP: usize = 256;

/// A token, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    /// Six characters, which may be shown and logged: part of the user's and the Secret's names.
    pub id: &'a str,
    /// Sixteen characters, which prove it.
    pub secret: &'a str,
}

impl<'a> Token<'a> {
    /// Takes a token apart; `None` when the text is none.
    pub fn parse(text: &'a str) -> Option<Token<'a>> {
        let (id, secret) = text.split_once('.')?;
        (is_id(id) && is_word(secret, SECRET_LENGTH)).then_some(Token { id, secret })
    }
}

/// Whether the text has the shape of a token's id.
pub fn is_id(text: &str) -> bool {
    is_word(text, ID_LENGTH)
}

fn is_word(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// The name of the Secret of the token with this id.
pub fn secret_name(id: &str) -> String {
    format!("{NAME_PREFIX}{id}")
}

/// The name of the user who comes with the token of this id.
pub fn user_name(id: &str) -> String {
    format!("{USER_PREFIX}{id}")
}

/// What the Secret of a token says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Described {
    /// `token-id`: the public half.
    pub id: String,
    /// `token-secret`: what proves it.
    pub secret: String,
    /// `expiration`, RFC 3339; empty: it never runs out.
    pub expiration: String,
    /// `usage-bootstrap-authentication`: it may speak to the API server.
    pub authentication: bool,
    /// `usage-bootstrap-signing`: `cluster-info` is signed with it.
    pub signing: bool,
    /// `auth-extra-groups` as it stands.
    pub extra_groups: String,
}

/// How long a token is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// No time is given.
    Never,
    /// Whole seconds that are left, rounded up.
    In(u64),
    /// Over; also when it can't be read.
    Over,
}

impl Described {
    /// Reads the fields of a Secret's data, decoded; what is missing is empty.
    pub fn read(mut field: impl FnMut(&str) -> Option<String>) -> Described {
        let mut text = |name: &str| field(name).unwrap_or_default();
        Described {
            id: text("token-id"),
            secret: text("token-secret"),
            expiration: text("expiration"),
            authentication: text("usage-bootstrap-authentication") == "true",
            signing: text("usage-bootstrap-signing") == "true",
            extra_groups: text("auth-extra-groups"),
        }
    }

    /// Whether the Secret's name is the one of its token's id, as it must be for a token that counts.
    pub fn is_named(&self, name: &str) -> bool {
        is_id(&self.id) && name.strip_prefix(NAME_PREFIX) == Some(&self.id)
    }

    /// Whether it runs out, and whether it has by `now`.
    pub fn expiry(&self, now: Timestamp) -> Expiry {
        if self.expiration.is_empty() {
            return Expiry::Never;
        }
        let Some(end) = meta::time::parse(&self.expiration) else { return Expiry::Over };
        match end.as_millisecond() - now.as_millisecond() {
            ..=0 => Expiry::Over,
            left => Expiry::In((left as u64).div_ceil(1000)),
        }
    }

    /// The groups of who comes with the token, or which word of `auth-extra-groups` is no group of bootstrappers: a
    /// token must not make a member of `system:masters`.
    pub fn groups(&self) -> Result<Vec<String>, String> {
        let mut groups = vec![GROUP.to_owned()];
        for group in self.extra_groups.split(',').filter(|_| !self.extra_groups.is_empty()) {
            let rest = group.strip_prefix(GROUP_PREFIX).unwrap_or_default();
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            let inside = rest.bytes().all(|byte| plain(byte) || byte == b':' || byte == b'-');
            if rest.len() > LONGEST_GROUP || !inside || !rest.bytes().last().is_some_and(plain) {
                return Err(format!(
                    "auth-extra-groups: {group:?} must be {GROUP_PREFIX} and a name in a-z, 0-9, : and -"
                ));
            }
            if !groups.iter().any(|have| have == group) {
                groups.push(group.to_owned());
            }
        }
        groups.sort_unstable();
        Ok(groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_six_and_sixteen_of_lower_case() {
        let good = Token { id: "07401b", secret: "f395accd246ae52d" };
        assert_eq!(Token::parse("07401b.f395accd246ae52d"), Some(good));
        for bad in [
            "",
            ".",
            "07401b",
            "07401B.f395accd246ae52d",
            "07401b.f395accd246ae52",
            "07401b.f395accd246ae52d ",
            " 07401b.f395accd246ae52d",
            "07401b.f395accd.46ae52d",
            "07401é.f395accd246ae52d",
        ] {
            assert_eq!(Token::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_time_that_cant_be_read_is_over() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let of = |expiration: &str| Described { expiration: expiration.into(), ..Described::default() }.expiry(now);
        assert_eq!(of(""), Expiry::Never);
        assert_eq!(of("2026-01-01T00:01:00Z"), Expiry::In(60));
        assert_eq!(of("2026-01-01T01:00:00+01:00"), Expiry::Over, "this very moment");
        assert_eq!(of("2025-12-31T23:59:59Z"), Expiry::Over);
        assert_eq!(of("tomorrow"), Expiry::Over);
    }

    #[test]
    fn no_token_makes_a_member_of_other_groups() {
        let of = |groups: &str| Described { extra_groups: groups.into(), ..Described::default() }.groups();
        assert_eq!(of(""), Ok(vec![GROUP.to_owned()]));
        assert_eq!(
            of("system:bootstrappers:foo:bar-1,system:bootstrappers:a,system:bootstrappers:a"),
            Ok(vec![GROUP.to_owned(), "system:bootstrappers:a".into(), "system:bootstrappers:foo:bar-1".into()])
        );
        for bad in [
            "system:masters",
            "system:bootstrappers",
            "system:bootstrappers:",
            "system:bootstrappers:A",
            "system:bootstrappers:a-",
            "system:bootstrappers:a, system:bootstrappers:b",
            "system:bootstrappers:a,",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
        let long = format!("{GROUP_PREFIX}{}", "a".repeat(LONGEST_GROUP + 1));
        assert!(of(&long).is_err());
        assert!(of(&long[..long.len() - 1]).is_ok());
    }

    #[test]
    fn a_secret_of_another_name_counts_for_nothing() {
        let described = Described { id: "abcdef".into(), ..Described::default() };
        assert!(described.is_named("bootstrap-token-abcdef"));
        assert!(!described.is_named("bootstrap-token-abcdeg"));
        assert!(!Described::default().is_named("bootstrap-token-"));
    }
}
