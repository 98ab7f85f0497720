//! Clients that speak as service accounts, each with short-lived tokens that it asks for as it needs them: how the
//! controllers of a controller manager that reaches its server from outside have only the rights of their own. I/O.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderValue};
use http::{Request, StatusCode};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use kube::client::Body;
use tokio::sync::Mutex;
use tower::{BoxError, service_fn};

use crate::connect::{ConnectError, in_process, read_config};

/// How long tokens are asked for.
const LIFE: Duration = Duration::from_secs(3600);

/// The accounts of one namespace.
pub struct ServiceAccounts {
    /// Makes accounts and asks for their tokens.
    own: Api<ServiceAccount>,
    /// The same server without anybody's credentials.
    bare: kube::Client,
}

impl ServiceAccounts {
    /// Who the kubeconfig's current context speaks as needs the rights to make accounts and tokens.
    pub async fn from_kubeconfig(path: &Path, namespace: &str) -> Result<ServiceAccounts, ConnectError> {
        let config = read_config(path).await?;
        let mut bare = config.clone();
        bare.auth_info = kube::config::AuthInfo::default();
        let client = |config| {
            kube::Client::try_from(config)
                .map_err(|e| ConnectError::Client { path: path.display().to_string(), source: Box::new(e) })
        };
        Ok(ServiceAccounts { own: Api::namespaced(client(config)?, namespace), bare: client(bare)? })
    }

    /// A client that speaks as this account, which is made when it isn't there.
    pub fn client(&self, account: &str) -> kube::Client {
        let tokens = Arc::new(Tokens { own: self.own.clone(), account: account.to_owned(), held: Mutex::default() });
        let bare = self.bare.clone();
        in_process(service_fn(move |mut request: Request<Body>| {
            let (tokens, bare) = (tokens.clone(), bare.clone());
            async move {
                request.headers_mut().insert(AUTHORIZATION, tokens.header().await?);
                let answer = bare.send(request).await?;
                if answer.status() == StatusCode::UNAUTHORIZED {
                    // The account was made anew: its old tokens are nobody's.
                    tokens.held.lock().await.take();
                }
                Ok::<_, BoxError>(answer)
            }
        }))
    }
}

/// The tokens of one account.
struct Tokens {
    own: Api<ServiceAccount>,
    account: String,
    held: Mutex<Option<Held>>,
}

struct Held {
    header: HeaderValue,
    renew: Timestamp,
}

impl Tokens {
    async fn header(&self) -> Result<HeaderValue, BoxError> {
        let (mut held, now) = (self.held.lock().await, Timestamp::now());
        if let Some(held) = held.as_ref().filter(|held| now < held.renew) {
            return Ok(held.header.clone());
        }
        let status = self.ask().await?.status.unwrap_or_default();
        let (token, end) = status.token.zip(status.expiration_timestamp).ok_or("the server made no token")?;
        let mut header = HeaderValue::try_from(format!("Bearer {token}"))?;
        header.set_sensitive(true);
        let renew = renewal(now, end.0);
        *held = Some(Held { header: header.clone(), renew });
        Ok(header)
    }

    async fn ask(&self) -> Result<TokenRequest, kube::Error> {
        let (params, name) = (PostParams::default(), self.account.as_str());
        let spec = TokenRequestSpec { expiration_seconds: Some(LIFE.as_secs() as i64), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        match self.own.create_token_request(name, &params, &request).await {
            Err(kube::Error::Api(status)) if status.code == StatusCode::NOT_FOUND.as_u16() => {}
            answer => return answer,
        }
        let mut account = ServiceAccount::default();
        account.metadata.name = Some(self.account.clone());
        match self.own.create(&params, &account).await {
            Err(kube::Error::Api(status)) if status.code == StatusCode::CONFLICT.as_u16() => {}
            made => drop(made?),
        }
        self.own.create_token_request(name, &params, &request).await
    }
}

/// When four fifths of a token's life are over.
fn renewal(now: Timestamp, end: Timestamp) -> Timestamp {
    let life = end.duration_since(now);
    now.saturating_add(life * 4 / 5).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_before_they_end() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(renewal(at(1000), at(1100)), at(1080));
        assert!(renewal(at(1000), at(900)) < at(1000), "one that has ended is not used");
    }
}
