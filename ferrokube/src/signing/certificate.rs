//! A CA that signs certificate requests (RFC 5280). Subject and key are the request's own bytes, so that no part of a
//! name is lost; of its extensions only the alternative names are taken. Called by the signing controller.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use controller_manager::config::{CertificateSigner, SignError, SignRequest};
use rcgen::{KeyPair, SignatureAlgorithm, SigningKey};
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::{Pem, parse_x509_pem};
use x509_parser::prelude::FromDer;
use yasna::models::{GeneralizedTime, ObjectIdentifier, UTCTime};
use yasna::{DERWriter, DERWriterSeq, Tag, construct_der};

/// Certificates are valid from a little before: clocks differ.
const BACKDATE: Duration = Duration::from_secs(300);
/// Those that live shorter than this live as long as was asked for, and a little before.
const SHORT: Duration = Duration::from_secs(8 * 3600);
/// Years from this one on are written with four digits (RFC 5280, 4.1.2.5).
const LONG_YEARS: i32 = 2050;

const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const ALTERNATIVE_NAMES: &[u64] = &[2, 5, 29, 17];
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const AUTHORITY_KEY: &[u64] = &[2, 5, 29, 35];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];

/// Bits of the key usage extension by the API's names.
const KEY_USAGES: &[(&str, usize)] = &[
    ("signing", 0),
    ("digital signature", 0),
    ("content commitment", 1),
    ("key encipherment", 2),
    ("data encipherment", 3),
    ("key agreement", 4),
    ("cert sign", 5),
    ("crl sign", 6),
    ("encipher only", 7),
    ("decipher only", 8),
];

/// Extended key usages by the API's names.
const EXTENDED_USAGES: &[(&str, &[u64])] = &[
    ("any", &[2, 5, 29, 37, 0]),
    ("server auth", &[1, 3, 6, 1, 5, 5, 7, 3, 1]),
    ("client auth", &[1, 3, 6, 1, 5, 5, 7, 3, 2]),
    ("code signing", &[1, 3, 6, 1, 5, 5, 7, 3, 3]),
    ("email protection", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("s/mime", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("ipsec end system", &[1, 3, 6, 1, 5, 5, 7, 3, 5]),
    ("ipsec tunnel", &[1, 3, 6, 1, 5, 5, 7, 3, 6]),
    ("ipsec user", &[1, 3, 6, 1, 5, 5, 7, 3, 7]),
    ("timestamping", &[1, 3, 6, 1, 5, 5, 7, 3, 8]),
    ("ocsp signing", &[1, 3, 6, 1, 5, 5, 7, 3, 9]),
    ("microsoft sgc", &[1, 3, 6, 1, 4, 1, 311, 10, 3, 3]),
    ("netscape sgc", &[2, 16, 840, 1, 113730, 4, 1]),
];

/// The certificate and key of a CA.
pub struct CaSigner {
    certificate: Pem,
    key: KeyPair,
    algorithm: Algorithm,
}

/// How the CA's signatures are called.
struct Algorithm {
    oid: &'static [u64],
    /// RSA has parameters, and they are null.
    null: bool,
}

/// Reads `--cluster-signing-cert-file` and its key.
pub fn read_ca_signer(cert: &Path, key: &Path) -> Result<CaSigner> {
    let read = |path: &Path| std::fs::read_to_string(path).with_context(|| path.display().to_string());
    let pair = KeyPair::from_pem(&read(key)?).with_context(|| key.display().to_string())?;
    let certificate = read(cert)?;
    CaSigner::new(&certificate, pair).map_err(|why| anyhow::anyhow!("{}: {why}", cert.display()))
}

impl CaSigner {
    fn new(certificate: &str, key: KeyPair) -> Result<CaSigner, String> {
        let (_, certificate) = parse_x509_pem(certificate.as_bytes()).map_err(|e| e.to_string())?;
        let ca = certificate.parse_x509().map_err(|e| e.to_string())?;
        if *ca.public_key().subject_public_key.data != *key.public_key_raw() {
            return Err("the certificate is not that of the key".into());
        }
        let algorithm = algorithm(key.algorithm())?;
        Ok(CaSigner { certificate, key, algorithm })
    }

    fn issue(&self, request: &SignRequest<'_>, now: OffsetDateTime) -> Result<String, SignError> {
        let refuse = |why: &dyn std::fmt::Display| SignError::Request(why.to_string());
        let (_, pem) = parse_x509_pem(request.request).map_err(|e| refuse(&e))?;
        let (_, csr) = X509CertificationRequest::from_der(&pem.contents).map_err(|e| refuse(&e))?;
        csr.verify_signature().map_err(|_| refuse(&"the request is not signed with its own key"))?;
        check_names(&csr).map_err(|e| refuse(&e))?;
        self.certify(&csr, request, now).map_err(SignError::Signer)
    }

    fn certify(
        &self,
        csr: &X509CertificationRequest<'_>,
        request: &SignRequest<'_>,
        now: OffsetDateTime,
    ) -> Result<String, String> {
        let ca = self.certificate.parse_x509().map_err(|e| e.to_string())?;
        let valid = validity(request.expiration, now, ca.validity().not_after.to_datetime())?;
        let serial = serial()?;
        let body = construct_der(|writer| {
            writer.write_sequence(|seq| self.write_body(seq, &ca, csr, request.usages, serial, valid));
        });
        let signature = self.key.sign(&body).map_err(|e| e.to_string())?;
        let der = construct_der(|writer| {
            writer.write_sequence(|seq| {
                seq.next().write_der(&body);
                self.algorithm.write(seq.next());
                seq.next().write_bitvec_bytes(&signature, signature.len() * 8);
            });
        });
        Ok(pem_of(&der))
    }

    /// The TBSCertificate.
    fn write_body(
        &self,
        seq: &mut DERWriterSeq<'_>,
        ca: &X509Certificate<'_>,
        csr: &X509CertificationRequest<'_>,
        usages: &[String],
        serial: [u8; 16],
        (from, to): (OffsetDateTime, OffsetDateTime),
    ) {
        const VERSION_3: u8 = 2;
        let asked = &csr.certification_request_info;
        seq.next().write_tagged(Tag::context(0), |w| w.write_u8(VERSION_3));
        seq.next().write_bigint_bytes(&serial, true);
        self.algorithm.write(seq.next());
        seq.next().write_der(ca.subject().as_raw());
        seq.next().write_sequence(|w| {
            write_time(w.next(), from);
            write_time(w.next(), to);
        });
        seq.next().write_der(asked.subject.as_raw());
        seq.next().write_der(asked.subject_pki.raw);
        seq.next().write_tagged(Tag::context(3), |w| w.write_sequence(|w| write_extensions(w, ca, csr, usages)));
    }
}

impl CertificateSigner for CaSigner {
    fn sign(&self, request: &SignRequest<'_>) -> Result<String, SignError> {
        self.issue(request, OffsetDateTime::now_utc())
    }
}

impl Algorithm {
    fn write(&self, writer: DERWriter<'_>) {
        writer.write_sequence(|w| {
            w.next().write_oid(&oid(self.oid));
            if self.null {
                w.next().write_null();
            }
        });
    }
}

fn algorithm(of: &SignatureAlgorithm) -> Result<Algorithm, String> {
    let known: [(&SignatureAlgorithm, &'static [u64], bool); 4] = [
        (&rcgen::PKCS_ECDSA_P256_SHA256, &[1, 2, 840, 10045, 4, 3, 2], false),
        (&rcgen::PKCS_ECDSA_P384_SHA384, &[1, 2, 840, 10045, 4, 3, 3], false),
        (&rcgen::PKCS_RSA_SHA256, &[1, 2, 840, 113549, 1, 1, 11], true),
        (&rcgen::PKCS_ED25519, &[1, 3, 101, 112], false),
    ];
    let found = known.into_iter().find(|(algorithm, ..)| *algorithm == of);
    let (_, oid, null) = found.ok_or("keys of a CA are RSA, ECDSA (P-256, P-384) or Ed25519")?;
    Ok(Algorithm { oid, null })
}

/// From when to when: long lives are counted from the backdated start, and nothing outlives its CA.
fn validity(
    life: Duration,
    now: OffsetDateTime,
    end_of_ca: OffsetDateTime,
) -> Result<(OffsetDateTime, OffsetDateTime), String> {
    if now >= end_of_ca {
        return Err(format!("the signer has expired: NotAfter={end_of_ca}"));
    }
    let life = if life < SHORT { life } else { life - BACKDATE };
    Ok((now - BACKDATE, (now + life).min(end_of_ca)))
}

fn write_extensions(
    seq: &mut DERWriterSeq<'_>,
    ca: &X509Certificate<'_>,
    csr: &X509CertificationRequest<'_>,
    usages: &[String],
) {
    let asks = |name: &str| usages.iter().any(|u| u == name);
    let bits = KEY_USAGES.iter().filter(|(name, _)| asks(name)).map(|(_, bit)| *bit);
    if let Some((bytes, count)) = bit_string(bits) {
        extension(seq, KEY_USAGE, true, |w| w.write_bitvec_bytes(&bytes, count));
    }
    let extended: Vec<_> = EXTENDED_USAGES.iter().filter(|(name, _)| asks(name)).map(|(_, id)| oid(id)).collect();
    if !extended.is_empty() {
        extension(seq, EXTENDED_KEY_USAGE, false, |w| {
            w.write_sequence(|w| extended.iter().for_each(|id| w.next().write_oid(id)));
        });
    }
    // Empty: no CA.
    extension(seq, BASIC_CONSTRAINTS, true, |w| w.write_sequence(|_| ()));
    let key = ca.extensions().iter().find_map(|e| match e.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(key) => Some(key.0),
        _ => None,
    });
    if let Some(key) = key {
        extension(seq, AUTHORITY_KEY, false, |w| {
            w.write_sequence(|w| w.next().write_tagged_implicit(Tag::context(0), |w| w.write_bytes(key)));
        });
    }
    let names: Vec<&GeneralName<'_>> = alternative_names(csr).filter(|name| tag(name).is_some()).collect();
    if !names.is_empty() {
        // A name must be somewhere that has to be looked at.
        let critical = csr.certification_request_info.subject.iter_rdn().next().is_none();
        extension(seq, ALTERNATIVE_NAMES, critical, |w| {
            w.write_sequence(|w| names.iter().for_each(|name| write_name(w, name)));
        });
    }
}

fn alternative_names<'a>(csr: &'a X509CertificationRequest<'_>) -> impl Iterator<Item = &'a GeneralName<'a>> {
    let names = csr.requested_extensions().into_iter().flatten().filter_map(|extension| match extension {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    names.flatten()
}

/// Names are signed only as everybody reads them: those of the certificate's alternative names are ASCII, and text of
/// the subject that some programs can't read may be any name to others.
fn check_names(csr: &X509CertificationRequest<'_>) -> Result<(), &'static str> {
    let subject = &csr.certification_request_info.subject;
    if subject.iter_common_name().chain(subject.iter_organization()).any(|name| name.as_str().is_err()) {
        return Err("the subject holds text of an unsupported string type");
    }
    for name in alternative_names(csr) {
        match name {
            GeneralName::RFC822Name(text) if !text.is_ascii() => return Err("SAN rfc822Name is malformed"),
            GeneralName::DNSName(text) if !text.is_ascii() => return Err("SAN dNSName is malformed"),
            GeneralName::URI(text) if !text.is_ascii() => return Err("SAN uniformResourceIdentifier is malformed"),
            GeneralName::IPAddress(bytes) if !matches!(bytes.len(), 4 | 16) => {
                return Err("SAN iPAddress is malformed");
            }
            GeneralName::Invalid(..) => return Err("SAN is malformed"),
            _ => {}
        }
    }
    Ok(())
}

fn extension(seq: &mut DERWriterSeq<'_>, id: &[u64], critical: bool, value: impl FnOnce(DERWriter<'_>)) {
    seq.next().write_sequence(|w| {
        w.next().write_oid(&oid(id));
        if critical {
            w.next().write_bool(true);
        }
        w.next().write_bytes(&construct_der(value));
    });
}

/// The tag of a kind of name that certificates of clusters have.
fn tag(name: &GeneralName<'_>) -> Option<u64> {
    match name {
        GeneralName::RFC822Name(_) => Some(1),
        GeneralName::DNSName(_) => Some(2),
        GeneralName::URI(_) => Some(6),
        GeneralName::IPAddress(_) => Some(7),
        _ => None,
    }
}

fn write_name(seq: &mut DERWriterSeq<'_>, name: &GeneralName<'_>) {
    let Some(number) = tag(name) else { return };
    seq.next().write_tagged_implicit(Tag::context(number), |w| match name {
        GeneralName::RFC822Name(text) | GeneralName::DNSName(text) | GeneralName::URI(text) => w.write_ia5_string(text),
        GeneralName::IPAddress(bytes) => w.write_bytes(bytes),
        _ => {}
    });
}

/// The bits from the left, without zeros at the end.
fn bit_string(bits: impl Iterator<Item = usize>) -> Option<(Vec<u8>, usize)> {
    let mut bytes = vec![0; 2];
    let mut last = None;
    for bit in bits {
        bytes[bit / 8] |= 0x80 >> (bit % 8);
        last = last.max(Some(bit));
    }
    let count = last? + 1;
    bytes.truncate(count.div_ceil(8));
    Some((bytes, count))
}

/// 16 random bytes; positive, and never zero.
fn serial() -> Result<[u8; 16], String> {
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| "the system gave no random bytes")?;
    serial[0] = (serial[0] & 0x7f) | 0x40;
    Ok(serial)
}

fn write_time(writer: DERWriter<'_>, time: OffsetDateTime) {
    let time = time.replace_nanosecond(0).unwrap_or(time);
    if time.year() < LONG_YEARS {
        writer.write_utctime(&UTCTime::from_datetime(time));
    } else {
        writer.write_generalized_time(&GeneralizedTime::from_datetime(time));
    }
}

fn oid(parts: &[u64]) -> ObjectIdentifier {
    ObjectIdentifier::from_slice(parts)
}

fn pem_of(der: &[u8]) -> String {
    const LINE: usize = 64;
    let text = base64::prelude::BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(LINE).map(|at| &text[at..text.len().min(at + LINE)]).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa};

    const UMLAUT: &str = include_str!("../../../api/kinds/src/certificates/testdata/umlaut.csr");
    const TELETEX: &str = include_str!("../../../api/kinds/src/certificates/testdata/t61.csr");

    fn ca(key: KeyPair) -> CaSigner {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().pem();
        CaSigner::new(&certificate, key).unwrap()
    }

    fn request(key: &KeyPair) -> String {
        let mut params = CertificateParams::new(vec!["a.example".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::OrganizationName, "dev");
        params.distinguished_name.push(DnType::CommonName, "ann");
        params.serialize_request(key).unwrap().pem().unwrap()
    }

    fn signed(ca: &CaSigner, request: &str, usages: &[&str], expiration: Duration) -> Result<Pem, SignError> {
        let usages: Vec<String> = usages.iter().map(|u| (*u).to_owned()).collect();
        let pem = ca.sign(&SignRequest { request: request.as_bytes(), usages: &usages, expiration })?;
        Ok(parse_x509_pem(pem.as_bytes()).unwrap().1)
    }

    #[test]
    fn a_certificate_is_what_was_asked_for_and_verifies() {
        for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
            let ca = ca(KeyPair::generate_for(algorithm).unwrap());
            let (hour, key) = (Duration::from_secs(3600), KeyPair::generate().unwrap());
            let pem = signed(&ca, &request(&key), &["client auth", "digital signature"], hour).unwrap();
            let certificate = pem.parse_x509().unwrap();
            let issuer = ca.certificate.parse_x509().unwrap();
            certificate.verify_signature(Some(issuer.public_key())).unwrap();
            assert_eq!(certificate.issuer(), issuer.subject());
            assert_eq!(certificate.subject().to_string(), "CN=ann, O=dev");
            assert_eq!(*certificate.public_key().subject_public_key.data, *key.public_key_raw());
            assert!(!certificate.is_ca() && certificate.validity().is_valid());
            let usage = certificate.key_usage().unwrap().unwrap().value;
            assert!(usage.digital_signature() && !usage.key_encipherment());
            let extended = certificate.extended_key_usage().unwrap().unwrap().value;
            assert!(extended.client_auth && !extended.server_auth);
            let names = certificate.subject_alternative_name().unwrap().unwrap().value;
            let ip: &[u8] = &[10, 0, 0, 1];
            assert_eq!(names.general_names, [GeneralName::DNSName("a.example"), GeneralName::IPAddress(ip)]);
        }
    }

    #[test]
    fn a_request_that_another_key_signed_is_refused() {
        let ca = ca(KeyPair::generate().unwrap());
        let honest = request(&KeyPair::generate().unwrap());
        let (_, mut pem) = parse_x509_pem(honest.as_bytes()).unwrap();
        // The last byte of the signature.
        *pem.contents.last_mut().unwrap() ^= 1;
        let forged = pem_of(&pem.contents).replace("CERTIFICATE", "CERTIFICATE REQUEST");
        let error = signed(&ca, &forged, &[], SHORT).unwrap_err();
        assert_eq!(error, SignError::Request("the request is not signed with its own key".into()));
    }

    #[test]
    fn a_name_that_is_not_ascii_is_refused_and_no_panic() {
        let ca = ca(KeyPair::generate().unwrap());
        for (request, why) in
            [(UMLAUT, "SAN dNSName is malformed"), (TELETEX, "the subject holds text of an unsupported string type")]
        {
            assert_eq!(signed(&ca, request, &[], SHORT).unwrap_err(), SignError::Request(why.into()));
        }
    }

    #[test]
    fn lives_are_backdated_and_end_with_the_ca() {
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        let hours = |n: u64| Duration::from_secs(n * 3600);
        let (now, never) = (at(1_000_000_000), at(4_000_000_000));
        assert_eq!(validity(hours(1), now, never), Ok((now - BACKDATE, now + hours(1))));
        assert_eq!(validity(hours(24), now, never), Ok((now - BACKDATE, now + hours(24) - BACKDATE)));
        assert_eq!(validity(hours(1), now, now + BACKDATE), Ok((now - BACKDATE, now + BACKDATE)));
        assert!(validity(hours(1), now, now).unwrap_err().starts_with("the signer has expired"));
    }

    #[test]
    fn a_key_of_another_ca_is_refused() {
        let one = ca(KeyPair::generate().unwrap());
        let pem = pem_of(&one.certificate.contents);
        let error = CaSigner::new(&pem, KeyPair::generate().unwrap()).err();
        assert_eq!(error.as_deref(), Some("the certificate is not that of the key"));
    }
}
