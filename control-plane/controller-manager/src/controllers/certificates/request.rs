//! What a signing request asks for, and the rules of the built-in signers for it. Pure; called by the controllers that
//! approve and sign.

use std::collections::BTreeSet;
use std::net::IpAddr;

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::GeneralName;
use x509_parser::extensions::ParsedExtension;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;

const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";
const KUBELET_CLIENT_USAGES: [&str; 3] = ["client auth", "digital signature", "key encipherment"];
const KUBELET_SERVING_USAGES: [&str; 3] = ["digital signature", "key encipherment", "server auth"];
/// What only RSA keys need.
const FOR_RSA: &str = "key encipherment";

/// Subject and alternative names of a PKCS#10 request.
#[derive(Debug, Default, PartialEq)]
pub struct Request {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns: Vec<String>,
    pub emails: usize,
    pub ips: Vec<IpAddr>,
    pub uris: usize,
}

impl Request {
    /// Reads the PEM block of `spec.request`.
    pub fn parse(pem: &[u8]) -> Result<Request, String> {
        const WRONG: &str = "PEM block type must be CERTIFICATE REQUEST";
        let (_, block) = parse_x509_pem(pem).map_err(|_| WRONG)?;
        if block.label != "CERTIFICATE REQUEST" {
            return Err(WRONG.into());
        }
        let (_, csr) = X509CertificationRequest::from_der(&block.contents).map_err(|e| e.to_string())?;
        let subject = &csr.certification_request_info.subject;
        let mut request = Request {
            common_name: subject.iter_common_name().last().and_then(|n| n.as_str().ok()).unwrap_or("").into(),
            organizations: subject.iter_organization().filter_map(|n| n.as_str().ok().map(str::to_owned)).collect(),
            ..Request::default()
        };
        for extension in csr.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(name) => request.dns.push((*name).to_owned()),
                    GeneralName::RFC822Name(_) => request.emails += 1,
                    GeneralName::IPAddress(bytes) => request.ips.push(address(bytes)?),
                    GeneralName::URI(_) => request.uris += 1,
                    _ => {}
                }
            }
        }
        Ok(request)
    }

    /// A kubelet's client certificate.
    pub fn check_kubelet_client(&self, usages: &[String]) -> Result<(), String> {
        self.check_organization()?;
        let (dns, ips) = (self.dns.len(), self.ips.len());
        for (count, what) in [(dns, "DNS"), (self.emails, "Email"), (ips, "IP"), (self.uris, "URI")] {
            none(count, what)?;
        }
        self.check_common_name()?;
        check_usages(usages, KUBELET_CLIENT_USAGES)
    }

    /// The certificate that a kubelet serves with.
    pub fn check_kubelet_serving(&self, usages: &[String]) -> Result<(), String> {
        self.check_organization()?;
        if self.dns.is_empty() && self.ips.is_empty() {
            return Err("DNS or IP subjectAltName is required".into());
        }
        none(self.emails, "Email")?;
        none(self.uris, "URI")?;
        check_usages(usages, KUBELET_SERVING_USAGES)?;
        self.check_common_name()
    }

    fn check_organization(&self) -> Result<(), String> {
        let right = self.organizations == [NODES];
        right.then_some(()).ok_or_else(|| format!("subject organization is not {NODES}"))
    }

    fn check_common_name(&self) -> Result<(), String> {
        let right = self.common_name.starts_with(NODE_PREFIX);
        right.then_some(()).ok_or_else(|| format!("subject common name does not begin with {NODE_PREFIX}"))
    }
}

/// An address of a subjectAltName: four bytes, or sixteen.
fn address(bytes: &[u8]) -> Result<IpAddr, String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .map_err(|_| "an IP subjectAltName is no address".into())
}

/// A client of the API server, whoever it is.
pub fn check_client(usages: &[String]) -> Result<(), String> {
    for usage in usages {
        if !KUBELET_CLIENT_USAGES.contains(&usage.as_str()) {
            return Err(format!("invalid usage for client certificate: {usage}"));
        }
    }
    let has = usages.iter().any(|u| u == "client auth");
    has.then_some(()).ok_or_else(|| "missing required usage for client certificate: client auth".into())
}

fn none(count: usize, what: &str) -> Result<(), String> {
    if count == 0 { Ok(()) } else { Err(format!("{what} subjectAltNames are not allowed")) }
}

fn check_usages(usages: &[String], wanted: [&str; 3]) -> Result<(), String> {
    let asked: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let all = BTreeSet::from(wanted);
    let without_rsa: BTreeSet<&str> = all.iter().copied().filter(|u| *u != FOR_RSA).collect();
    if asked == all || asked == without_rsa {
        return Ok(());
    }
    Err(format!("usages did not match [{}]", wanted.join(" ")))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Made by `openssl req -new -subj /O=system:nodes/CN=system:node:a` with a P-256 key.
    pub const NODE: &str = include_str!("testdata/node.csr");
    /// The same with `subjectAltName = DNS:a, IP:10.0.0.1`.
    pub const SERVING: &str = include_str!("testdata/serving.csr");
    /// Two organizations: `/O=dev/O=ops/CN=ann`.
    pub const USER: &str = include_str!("testdata/user.csr");

    pub fn usages(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn requests_are_read() {
        let request = Request::parse(USER.as_bytes()).unwrap();
        assert_eq!((request.common_name.as_str(), request.organizations), ("ann", usages(&["dev", "ops"])));
        let request = Request::parse(SERVING.as_bytes()).unwrap();
        assert_eq!((request.dns, request.ips), (usages(&["a"]), vec![[10, 0, 0, 1].into()]));
        assert_eq!(Request::parse(b"x").unwrap_err(), "PEM block type must be CERTIFICATE REQUEST");
    }

    #[test]
    fn each_signer_says_what_is_wrong() {
        let node = Request::parse(NODE.as_bytes()).unwrap();
        let serving = Request::parse(SERVING.as_bytes()).unwrap();
        let user = Request::parse(USER.as_bytes()).unwrap();
        let client = usages(&["client auth", "digital signature"]);
        let server = usages(&["server auth", "digital signature", "key encipherment"]);
        assert_eq!(node.check_kubelet_client(&client), Ok(()));
        assert_eq!(serving.check_kubelet_serving(&server), Ok(()));
        let wrong = [
            (user.check_kubelet_client(&client), "subject organization is not system:nodes"),
            (serving.check_kubelet_client(&client), "DNS subjectAltNames are not allowed"),
            (
                node.check_kubelet_client(&server),
                "usages did not match [client auth digital signature key encipherment]",
            ),
            (node.check_kubelet_serving(&server), "DNS or IP subjectAltName is required"),
            (
                serving.check_kubelet_serving(&client),
                "usages did not match [digital signature key encipherment server auth]",
            ),
            (check_client(&server), "invalid usage for client certificate: server auth"),
            (
                check_client(&usages(&["digital signature"])),
                "missing required usage for client certificate: client auth",
            ),
        ];
        for (got, words) in wrong {
            assert_eq!(got.unwrap_err(), words);
        }
        let other = Request { common_name: "a".into(), ..node };
        let error = other.check_kubelet_client(&client).unwrap_err();
        assert_eq!(error, "subject common name does not begin with system:node:");
        assert_eq!(check_client(&client), Ok(()));
    }
}
