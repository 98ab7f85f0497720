//! `token`: what further machines join with. A token is upstream's Secret; kubeadm and kubectl see the same ones.

use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kinds::bootstrap_token::{Described, Expiry, NAMESPACE, TYPE, secret_name};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};

use crate::cli::{Output, Token};
use crate::commands::misc::{no_cluster, print};
use crate::config::{Host, Roles, Which};
use crate::fault::Fault;
use crate::joining::certs::{self, CertificateKey};
use crate::joining::{published, token};
use crate::pki::Pki;

pub fn run(which: &Which, command: &Token) -> Result<()> {
    let host = which.load()?.ok_or_else(|| no_cluster(which))?;
    if !host.roles().has(Roles::CONTROL_PLANE) {
        let sentence = "this host has no part of the control plane: tokens are made where the API server is";
        return Err(Fault::failed(sentence).into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = client::from_kubeconfig(&host.kubeconfig()).await?;
        let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
        match command {
            Token::Create { ttl, description, control_plane } => {
                let server = published::server(&host, crate::node_address::of(&host))?;
                if *control_plane {
                    certs::refuse(&host)?;
                }
                let pem = Pki::of(&host).ca();
                let ca = std::fs::read_to_string(&pem).with_context(|| pem.display().to_string())?;
                published::apply(&client, &host.cluster, &server, &ca).await?;
                let (id, secret) = token::fresh()?;
                let made = made(&id, &secret, *ttl, description.as_deref(), Timestamp::now())?;
                secrets.create(&PostParams::default(), &made).await?;
                if !control_plane {
                    return print(&format!("{}\n", token::words(&id, &secret, ca.as_bytes())?));
                }
                let key = upload(&client, &host, &secrets).await?;
                let words = token::server_words(&id, &secret, ca.as_bytes(), &key)?;
                print(&format!("ferrokube server --server {server} --token {words}\n"))
            }
            Token::List { output } => {
                let listed = secrets.list(&ListParams::default().fields(&format!("type={TYPE}"))).await?;
                let now = Timestamp::now();
                let tokens: Vec<Listed> = listed.items.iter().map(|secret| Listed::of(secret, now)).collect();
                match output {
                    Output::Json => print(&format!("{:#}\n", as_json(&tokens))),
                    Output::Table => print(&as_table(&tokens)),
                }
            }
            Token::Revoke { tokens } => revoke(&secrets, tokens).await,
        }
    })
}

/// How long what a further server must have can be read, as kubeadm has it.
const UPLOADED: Duration = Duration::from_secs(2 * 3600);

/// Shows what a further server must have; nobody can log in with the token that it goes with.
async fn upload(client: &kube::Client, host: &Host, secrets: &Api<Secret>) -> Result<CertificateKey> {
    let (id, secret) = token::fresh()?;
    let mut owner = made(&id, &secret, UPLOADED, Some(PROXY), Timestamp::now())?;
    let data = owner.string_data.get_or_insert_default();
    data.retain(|field, _| !field.starts_with("usage-") && field != "auth-extra-groups");
    let owner = secrets.create(&PostParams::default(), &owner).await?;
    let key = CertificateKey::fresh()?;
    certs::upload(client, host, &key, &owner).await?;
    Ok(key)
}

/// kubeadm's words for it.
const PROXY: &str = "Proxy for managing TTL for the kubeadm-certs secret";

fn made(id: &str, secret: &str, ttl: Duration, description: Option<&str>, now: Timestamp) -> Result<Secret> {
    let mut data = json!({
        "token-id": id, "token-secret": secret, "auth-extra-groups": published::JOINERS,
        "usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
    });
    if !ttl.is_zero() {
        let end = now.checked_add(ttl).context("--ttl: nobody can tell when that is over")?;
        data["expiration"] = meta::time::format(end).into();
    }
    if let Some(description) = description {
        data["description"] = description.into();
    }
    let object =
        json!({"metadata": {"name": secret_name(id), "namespace": NAMESPACE}, "type": TYPE, "stringData": data});
    Ok(serde_json::from_value(object)?)
}

async fn revoke(secrets: &Api<Secret>, tokens: &[String]) -> Result<()> {
    let ids: Vec<&str> = tokens
        .iter()
        .map(|text| {
            token::id_of(text).ok_or_else(|| Fault::usage(format!("{text:?} is no token: see `ferrokube token list`")))
        })
        .collect::<Result<_, _>>()?;
    for id in ids {
        match secrets.delete(&secret_name(id), &DeleteParams::default()).await {
            Ok(_) => print(&format!("revoked {id}\n"))?,
            Err(kube::Error::Api(status)) if status.code == 404 => {
                return Err(Fault::failed(format!("there is no token {id}: see `ferrokube token list`")).into());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What is shown of a token: not its secret.
struct Listed {
    id: String,
    left: Expiry,
    expiration: String,
    uses: Vec<&'static str>,
    groups: String,
    description: String,
}

impl Listed {
    fn of(secret: &Secret, now: Timestamp) -> Listed {
        let field = |name: &str| String::from_utf8(secret.data.as_ref()?.get(name)?.0.clone()).ok();
        let described = Described::read(field);
        let uses = [("authentication", described.authentication), ("signing", described.signing)];
        Listed {
            left: described.expiry(now),
            uses: uses.into_iter().filter_map(|(name, is)| is.then_some(name)).collect(),
            description: field("description").unwrap_or_default(),
            id: described.id,
            expiration: described.expiration,
            groups: described.extra_groups,
        }
    }

    fn time_left(&self) -> String {
        match self.left {
            Expiry::Never => "forever".into(),
            Expiry::Over => "over".into(),
            Expiry::In(seconds) if seconds >= 3600 => format!("{}h", seconds / 3600),
            Expiry::In(seconds) if seconds >= 60 => format!("{}m", seconds / 60),
            Expiry::In(seconds) => format!("{seconds}s"),
        }
    }
}

fn as_json(tokens: &[Listed]) -> Value {
    let one = |token: &Listed| {
        json!({"id": token.id, "expiration": token.expiration, "usages": token.uses,
            "groups": token.groups.split(',').filter(|g| !g.is_empty()).collect::<Vec<_>>(), "description": token.description})
    };
    tokens.iter().map(one).collect()
}

fn as_table(tokens: &[Listed]) -> String {
    let mut text = format!("{:<8}{:<9}{:<22}{:<24}DESCRIPTION\n", "ID", "LEFT", "EXPIRES", "USES");
    for token in tokens {
        let (left, uses) = (token.time_left(), token.uses.join(","));
        let line = format!("{:<8}{left:<9}{:<22}{uses:<24}{}", token.id, token.expiration, token.description);
        text += &format!("{}\n", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_is_made_shown_and_taken_back() {
        let (client, _server) = crate::api::tests::admin().await;
        let secrets: Api<Secret> = Api::namespaced(client, NAMESPACE);
        let now = Timestamp::now();
        let day = Duration::from_secs(86_400);
        let token = made("abcdef", "0123456789abcdef", day, Some("for lab 3"), now).expect("made");
        secrets.create(&PostParams::default(), &token).await.expect("stored");
        let found = secrets.get("bootstrap-token-abcdef").await.expect("there");
        let listed = Listed::of(&found, now);
        assert_eq!((listed.id.as_str(), listed.time_left().as_str()), ("abcdef", "24h"));
        let text = as_table(&[listed]);
        assert!(text.contains("for lab 3") && !text.contains("0123456789"), "{text}");
        let wrong = revoke(&secrets, &["nonsense!".into()]).await.expect_err("refused").to_string();
        assert!(wrong.contains("token list"), "{wrong}");
        revoke(&secrets, &["abcdef.0123456789abcdef".into()]).await.expect("taken back");
        let again = revoke(&secrets, &["abcdef".into()]).await.expect_err("gone").to_string();
        assert!(again.contains("there is no token abcdef"), "{again}");
    }

    #[test]
    fn a_token_for_ever_has_no_end() {
        let token = made("abcdef", "0123456789abcdef", Duration::ZERO, None, Timestamp::UNIX_EPOCH).expect("made");
        assert!(!token.string_data.expect("data").contains_key("expiration"));
    }
}
