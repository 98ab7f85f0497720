//! Signing on behalf of the controller manager: tokens kept in Secrets, and approved certificate requests. The keys
//! stay here; the controllers see traits.

mod certificate;

use std::path::Path;

use anyhow::{Context, Result};
use apiserver::authn::jwt::Signer;
use controller_manager::config::TokenSigner;

pub use certificate::read_ca_signer;

use crate::fault::Fault;

/// The key of `--service-account-private-key-file`: every form that the API server signs with.
pub struct TokenKey(Signer);

impl TokenKey {
    pub fn read(path: &Path) -> Result<TokenKey> {
        let pem = std::fs::read(path).with_context(|| path.display().to_string())?;
        let signer = Signer::from_pem(&pem).map_err(|why| Fault::failed(format!("{}: {why}", path.display())))?;
        Ok(TokenKey(signer))
    }
}

impl TokenSigner for TokenKey {
    fn sign(&self, claims: &serde_json::Value) -> Result<String, String> {
        self.0.sign(claims)
    }
}
