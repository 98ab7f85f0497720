//! Client certificates of X.509 v1: what `openssl x509 -req` without extensions makes. They say nothing of what they are
//! for, so they are for any use but one: they are never an authority. One is taken when an authority that was named as
//! such signed it itself; what else a client shows is not looked at. Pure. Caller: `clients`, `tls`.

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, Error, OtherError};
use std::sync::Arc;
use x509_parser::asn1_rs::{FromDer, Oid, Sequence};
use x509_parser::oid_registry::{
    OID_PKCS1_RSASSAPSS, OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA,
    OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ED25519,
};
use x509_parser::prelude::X509Certificate;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Version};

/// What a certificate may be signed with; none of them with SHA-1.
const SIGNATURES: [Oid<'static>; 7] = [
    OID_PKCS1_SHA256WITHRSA,
    OID_PKCS1_SHA384WITHRSA,
    OID_PKCS1_SHA512WITHRSA,
    OID_PKCS1_RSASSAPSS,
    OID_SIG_ECDSA_WITH_SHA256,
    OID_SIG_ECDSA_WITH_SHA384,
    OID_SIG_ED25519,
];

/// Why a certificate of this version is refused that another version might say more of.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("an authority's own certificate is no client's")]
    Authority,
    #[error("it has extensions and says that it is of X.509 v1")]
    Extensions,
    #[error("its signature is of a kind that isn't taken")]
    Signature,
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refused))))
    }
}

/// The public key, with its kind, of a certificate that is older than v3.
pub fn key(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    (certificate.version() != X509Version::V3).then(|| certificate.public_key().raw.to_vec())
}

/// The kind of a public key, as algorithms name theirs, and the key itself.
pub fn parts(key: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (_, whole) = Sequence::from_der(key).ok()?;
    let (_, kind) = Sequence::from_der(&whole.content).ok()?;
    let (_, parsed) = SubjectPublicKeyInfo::from_der(key).ok()?;
    Some((kind.content.to_vec(), parsed.subject_public_key.data.to_vec()))
}

/// Whether one of these authorities signed the certificate, and it is valid now.
pub fn check(leaf: &[u8], authorities: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
    let refused = Error::InvalidCertificate;
    let (rest, certificate) = X509Certificate::from_der(leaf).map_err(|_| refused(CertificateError::BadEncoding))?;
    if !rest.is_empty() {
        return Err(refused(CertificateError::BadEncoding));
    }
    if authorities.iter().any(|authority| authority.as_ref() == leaf) {
        return Err(Refused::Authority.into());
    }
    if !certificate.extensions().is_empty() {
        return Err(Refused::Extensions.into());
    }
    let kind = &certificate.signature_algorithm;
    if *kind != certificate.tbs_certificate.signature || !SIGNATURES.contains(&kind.algorithm) {
        return Err(Refused::Signature.into());
    }
    let second = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let life = certificate.validity();
    if second < life.not_before.timestamp() {
        return Err(refused(CertificateError::NotValidYet));
    }
    if second > life.not_after.timestamp() {
        return Err(refused(CertificateError::Expired));
    }
    let mut named = false;
    for authority in authorities {
        let Ok((_, authority)) = X509Certificate::from_der(authority) else { continue };
        if authority.subject().as_raw() != certificate.issuer().as_raw() || !may_sign(&authority, second) {
            continue;
        }
        if certificate.verify_signature(Some(authority.public_key())).is_ok() {
            return Ok(());
        }
        named = true;
    }
    Err(refused(if named { CertificateError::BadSignature } else { CertificateError::UnknownIssuer }))
}

/// Whether a certificate that was named as an authority says nothing against it. Constraints of names speak of what v1
/// doesn't have.
fn may_sign(authority: &X509Certificate<'_>, second: i64) -> bool {
    let life = authority.validity();
    let alive = (life.not_before.timestamp()..=life.not_after.timestamp()).contains(&second);
    let constrained = !matches!(authority.name_constraints(), Ok(None));
    let may = match (authority.basic_constraints(), authority.key_usage()) {
        (Ok(Some(basic)), Ok(usage)) => basic.value.ca && usage.is_none_or(|usage| usage.value.key_cert_sign()),
        (Ok(None), Ok(_)) => authority.version() != X509Version::V3,
        _ => false,
    };
    alive && may && !constrained
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SigningKey};

    use super::*;

    fn as_v1(certificate: &[u8], signer: &KeyPair) -> Vec<u8> {
        testkit::certificates::as_v1(certificate, |bytes| signer.sign(bytes).expect("a signature"))
    }

    struct Authority {
        der: CertificateDer<'static>,
        params: CertificateParams,
        key: KeyPair,
    }

    fn authority(set: impl FnOnce(&mut CertificateParams)) -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        set(&mut params);
        Authority { der: params.self_signed(&key).expect("a certificate").der().clone(), params, key }
    }

    fn leaf(authority: &Authority) -> Vec<u8> {
        let issuer = Issuer::from_params(&authority.params, &authority.key);
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "ann");
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2026, 1, 1), rcgen::date_time_ymd(2027, 1, 1));
        let v3 = params.signed_by(&KeyPair::generate().expect("a key"), &issuer).expect("signed");
        as_v1(v3.der(), &authority.key)
    }

    fn at(second: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(second))
    }

    /// 2026-07-01.
    const MIDDLE: u64 = 1_782_864_000;

    #[test]
    fn a_certificate_of_v1_is_taken_from_whom_its_authority_made_it_for() {
        let ours = authority(|_| {});
        let (leaf, all) = (leaf(&ours), [authority(|_| {}).der, ours.der.clone()]);
        assert!(key(&leaf).is_some() && key(&ours.der).is_none());
        check(&leaf, &all, at(MIDDLE)).expect("taken");
        let why = |second| check(&leaf, &all, at(second)).expect_err("refused").to_string();
        assert!(why(1_767_139_200).contains("NotValidYet"), "{}", why(1_767_139_200));
        assert!(why(1_798_848_000).contains("Expired"), "{}", why(1_798_848_000));
        assert_eq!(crate::x509::Subject::of(&leaf).expect("a subject").common_name, "ann");
    }

    #[test]
    fn nobody_but_an_authority_makes_one() {
        let ours = authority(|_| {});
        let foreign = [authority(|_| {}).der];
        assert!(check(&leaf(&ours), &foreign, at(MIDDLE)).is_err(), "the name alone is not enough");
        let mut forged = leaf(&ours);
        let last = forged.len() - 1;
        forged[last] ^= 1;
        assert!(check(&forged, std::slice::from_ref(&ours.der), at(MIDDLE)).is_err());
        let may_not = [
            authority(|params| params.is_ca = IsCa::ExplicitNoCa),
            authority(|params| params.is_ca = IsCa::NoCa),
            authority(|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]),
            authority(|params| params.not_after = rcgen::date_time_ymd(2026, 2, 1)),
        ];
        for other in may_not {
            assert!(check(&leaf(&other), std::slice::from_ref(&other.der), at(MIDDLE)).is_err());
        }
        // One that signs itself: whoever has that key is the authority.
        let issuer = Issuer::from_params(&ours.params, &ours.key);
        let own = ours.params.signed_by(&ours.key, &issuer).expect("signed");
        let own = as_v1(own.der(), &ours.key);
        assert!(check(&own, &[CertificateDer::from(own.clone())], at(MIDDLE)).is_err());
    }

    #[test]
    fn rubbish_is_refused() {
        let ours = authority(|_| {});
        let mut long = leaf(&ours);
        for cut in 0..long.len() {
            assert!(check(&long[..cut], std::slice::from_ref(&ours.der), at(MIDDLE)).is_err());
        }
        long.push(0);
        assert!(check(&long, std::slice::from_ref(&ours.der), at(MIDDLE)).is_err());
    }
}
