//! Which versions and suites of TLS a port speaks, by upstream's names. Pure; called by `tls`.

/// Which TLS is spoken: `--tls-min-version`, `--tls-cipher-suites`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// TLS 1.3 alone; 1.2 is the oldest that is spoken at all.
    pub only_13: bool,
    /// Suites of TLS 1.2 by their IANA names. Empty: all that we have. Those of 1.3 can't be chosen, as in Go.
    pub suites: Vec<String>,
}

/// How Go names suites that IANA names otherwise.
const GO_NAMES: [(&str, &str); 2] = [
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
];

static ONLY_13: [&rustls::SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

impl Policy {
    /// Sets the oldest version by upstream's name of it.
    pub fn set_min_version(&mut self, name: &str) -> Result<(), String> {
        self.only_13 = match name {
            "VersionTLS12" => false,
            "VersionTLS13" => true,
            other => return Err(format!("{other} can't be had here: only VersionTLS12 or VersionTLS13")),
        };
        Ok(())
    }

    /// Sets the suites by upstream's names of them.
    pub fn set_suites(&mut self, names: Vec<String>) -> Result<(), String> {
        let known: Vec<&str> = suites(&rustls::crypto::aws_lc_rs::default_provider()).collect();
        let iana = |name: String| match GO_NAMES.iter().find(|(go, _)| *go == name) {
            Some((_, iana)) => (*iana).to_owned(),
            // The suites of 1.3 begin with their version there.
            None if known.contains(&name.replacen("TLS_", "TLS13_", 1).as_str()) => name.replacen("TLS_", "TLS13_", 1),
            None => name,
        };
        let names: Vec<String> = names.into_iter().map(iana).collect();
        if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
            let all: Vec<String> = known.iter().map(|name| name.replacen("TLS13_", "TLS_", 1)).collect();
            return Err(format!("{unknown} can't be had here: only {}", all.join(", ")));
        }
        self.suites = names;
        Ok(())
    }

    pub(crate) fn versions(&self) -> &'static [&'static rustls::SupportedProtocolVersion] {
        if self.only_13 { &ONLY_13 } else { rustls::DEFAULT_VERSIONS }
    }

    pub(crate) fn provider(&self) -> rustls::crypto::CryptoProvider {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        if !self.suites.is_empty() {
            let wanted = |name: &str| self.suites.iter().any(|s| s == name);
            provider.cipher_suites.retain(|suite| {
                suite.version() == &rustls::version::TLS13 || suite.suite().as_str().is_some_and(wanted)
            });
        }
        provider
    }
}

fn suites(provider: &rustls::crypto::CryptoProvider) -> impl Iterator<Item = &'static str> {
    provider.cipher_suites.iter().filter_map(|suite| suite.suite().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_and_versions_are_named_as_upstream_names_them() {
        let mut policy = Policy::default();
        let wanted = ["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_AES_128_GCM_SHA256"];
        policy.set_suites(wanted.map(str::to_owned).into()).expect("known");
        let provider = policy.provider();
        let old: Vec<&str> = suites(&provider).filter(|name| !name.starts_with("TLS13_")).collect();
        assert_eq!(old, ["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"]);
        assert!(provider.cipher_suites.len() > 1, "those of TLS 1.3 can't be taken away");
        let error = policy.set_suites(vec!["TLS_RSA_WITH_AES_128_CBC_SHA".into()]).expect_err("unknown");
        assert!(error.starts_with("TLS_RSA_WITH_AES_128_CBC_SHA can't be had here: only TLS_AES_"), "{error}");
        assert!(policy.set_min_version("VersionTLS10").is_err());
        policy.set_min_version("VersionTLS13").expect("known");
        assert_eq!(policy.versions().len(), 1);
    }
}
