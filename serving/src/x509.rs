//! Whom a certificate names, as upstream reads it: the common name is the user, organisations are groups. Pure.

use std::time::{SystemTime, UNIX_EPOCH};

use x509_parser::prelude::{FromDer, X509Certificate};

/// A certificate's holder, and the seconds between which it is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// `CN`: the user's name. Empty when there is none.
    pub common_name: String,
    /// `O`, each: the groups of the user, in the certificate's order.
    pub organizations: Vec<String>,
    from: i64,
    until: i64,
}

impl Subject {
    /// Reads the subject of a certificate; nothing is checked. Of several common names Go takes the last: who signs
    /// and who is asked must mean the same one.
    pub fn of(der: &[u8]) -> Result<Subject, String> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        let subject = certificate.subject();
        let common_name = subject.iter_common_name().last().and_then(|name| name.as_str().ok());
        let organizations = subject.iter_organization().filter_map(|name| name.as_str().ok());
        Ok(Subject {
            common_name: common_name.unwrap_or_default().to_owned(),
            organizations: organizations.map(str::to_owned).collect(),
            from: certificate.validity().not_before.timestamp(),
            until: certificate.validity().not_after.timestamp(),
        })
    }

    /// The user of the API that the certificate names: the common name, and the organisations as groups. None without a
    /// common name: such a certificate is nobody's, whoever signed it. That the holder is authenticated, and so in
    /// `system:authenticated`, is for the caller to add, who knows whether the signature was checked.
    pub fn user(&self) -> Option<(String, Vec<String>)> {
        let name = Some(&self.common_name).filter(|name| !name.is_empty())?;
        Some((name.clone(), self.organizations.clone()))
    }

    /// Whether the certificate is valid at this time: a connection may outlive what was checked when it began.
    pub fn is_valid(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs() as i64);
        (self.from..=self.until).contains(&now)
    }

    /// The second after which the certificate is no longer valid.
    pub fn until(&self) -> i64 {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, CustomExtension, DnType, KeyPair};

    use super::*;

    fn certificate(names: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for name in names {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        params.distinguished_name.push(DnType::OrganizationName, "team");
        params.custom_extensions = Vec::<CustomExtension>::new();
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2026, 1, 1), rcgen::date_time_ymd(2027, 1, 1));
        params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate").der().to_vec()
    }

    #[test]
    fn a_certificate_is_an_identity_only_while_it_is_valid() {
        let subject = Subject::of(&certificate(&["ann"])).expect("a subject");
        assert_eq!((subject.common_name.as_str(), &subject.organizations[..]), ("ann", &["team".to_owned()][..]));
        // 2026-07-01, 2025-12-31 and 2027-01-02.
        let at = |second| UNIX_EPOCH + Duration::from_secs(second);
        assert!(subject.is_valid(at(1_782_864_000)));
        assert!(!subject.is_valid(at(1_767_139_200)) && !subject.is_valid(at(1_798_848_000)));
    }

    #[test]
    fn a_certificate_without_a_common_name_is_nobodys() {
        let user = |names: &[&str]| Subject::of(&certificate(names)).expect("a subject").user();
        assert_eq!(user(&["ann", "bob"]), Some(("bob".to_owned(), vec!["team".to_owned()])), "Go takes the last");
        assert_eq!((user(&[]), user(&[""])), (None, None));
    }

    #[test]
    fn bytes_that_are_no_certificate_are_an_error() {
        assert!(Subject::of(b"").is_err() && Subject::of(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]).is_err());
    }
}
