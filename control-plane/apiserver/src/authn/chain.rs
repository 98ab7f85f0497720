//! The chain of authenticators, in upstream's order: the first that knows the caller decides. A credential that is
//! presented and wrong ends in 401, never in anonymity. I/O: reads the CA's file when it is made.

use std::sync::{Arc, LazyLock};

use meta::Status;
use serving::refusals::Refusals;

use super::bootstrap_token::BootstrapTokens;
use super::jwt::{Signer, Verifier};
use super::service_account::{Objects, ServiceAccountTokens};
use super::x509::X509;
use super::{AUTHENTICATED, Authenticated, Authenticator, Credentials, anonymous};
use crate::cache::hub::Hub;
use crate::config::Config;
use crate::error::Error;
use crate::http::tls;
use crate::registry::Registry;

/// What was said of credentials that were refused.
static TOLD: LazyLock<Refusals> = LazyLock::new(Refusals::default);

/// Whoever is to be asked, in order.
pub struct Authenticators {
    chain: Vec<Box<dyn Authenticator>>,
    /// Who presents nothing is let in as nobody.
    anonymous: bool,
    /// Audiences of tokens that are meant for this server.
    pub audiences: Vec<String>,
}

impl Authenticators {
    /// The authenticators of the flags; `keys` check the tokens of service accounts.
    pub fn new(
        config: &Config,
        keys: Vec<Verifier>,
        registry: &Registry,
        hub: &Arc<Hub>,
    ) -> Result<Authenticators, Error> {
        let mut chain: Vec<Box<dyn Authenticator>> = Vec::new();
        if let Some(x509) = x509(config)? {
            chain.push(Box::new(x509));
        }
        let cache = |plural: &str| registry.cache("", plural);
        if let (Some(accounts), Some(pods), Some(secrets), Some(nodes)) =
            (cache("serviceaccounts"), cache("pods"), cache("secrets"), cache("nodes"))
        {
            let objects = Objects { hub: hub.clone(), accounts, pods, secrets, nodes };
            let issuer = config.service_account_issuer.clone();
            chain.push(Box::new(ServiceAccountTokens::new(issuer, keys, objects)));
        }
        if let Some(secrets) = cache("secrets").filter(|_| config.enable_bootstrap_token_auth) {
            chain.push(Box::new(BootstrapTokens { secrets }));
        }
        Ok(Authenticators { chain, anonymous: config.anonymous_auth, audiences: config.audiences().to_vec() })
    }

    /// The caller of a request; anonymous, where that is allowed and no credential is presented.
    pub async fn caller(&self, credentials: &Credentials<'_>) -> Result<Authenticated, Status> {
        match self.prove(credentials).await? {
            Some(caller) => Ok(caller),
            None if self.anonymous => Ok(Authenticated { user: anonymous(), ..Authenticated::default() }),
            None => Err(Status::unauthorized("Unauthorized")),
        }
    }

    /// Whom the credentials prove; `None` when there are none.
    pub async fn prove(&self, credentials: &Credentials<'_>) -> Result<Option<Authenticated>, Status> {
        let mut refused = false;
        for authenticator in &self.chain {
            match authenticator.authenticate(credentials).await {
                Ok(Some(mut caller)) => {
                    if !caller.user.groups.iter().any(|group| group == AUTHENTICATED) {
                        caller.user.groups.push(AUTHENTICATED.to_owned());
                    }
                    return Ok(Some(caller));
                }
                Ok(None) => {}
                Err(error) => {
                    if TOLD.is_news(&error.0) {
                        tracing::warn!(%error, "a credential was refused; for an hour no more is said of others like it");
                    } else {
                        tracing::debug!(%error, "a credential was refused");
                    }
                    refused = true;
                }
            }
        }
        if refused || credentials.bearer().is_some() {
            return Err(Status::unauthorized("Unauthorized"));
        }
        Ok(None)
    }
}

fn x509(config: &Config) -> Result<Option<X509>, Error> {
    const FLAG: &str = "--client-ca-file";
    let Some(path) = &config.client_ca_file else { return Ok(None) };
    let authorities = tls::certificates(FLAG, path)?;
    X509::new(&authorities).map(Some).map_err(|reason| Error::File { flag: FLAG, path: path.clone(), reason })
}

/// Key that signs tokens, and keys that check them (the signing key's own when no other is named).
pub fn token_keys(config: &Config) -> Result<(Option<Signer>, Vec<Verifier>), Error> {
    let mut keys = Vec::new();
    for path in &config.service_account_key_files {
        let fail = |reason| Error::File { flag: "--service-account-key-file", path: path.clone(), reason };
        keys.extend(Verifier::read(path).map_err(fail)?);
    }
    let Some(path) = &config.service_account_signing_key_file else { return Ok((None, keys)) };
    let fail = |reason: String| Error::File { flag: "--service-account-signing-key-file", path: path.clone(), reason };
    let pem = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    let signer = Signer::from_pem(&pem).map_err(fail)?;
    let own = signer.verifier().map_err(fail)?;
    if !keys.contains(&own) {
        keys.insert(0, own);
    }
    Ok((Some(signer), keys))
}
