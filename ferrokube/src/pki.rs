//! The cluster's certificates and keys: who may speak as whom. Made at the first start, kept in `<data-dir>/pki` with
//! kubeadm's file names, renewed at a start when less than a third of their life is left. Called by `server`. I/O:
//! reads and writes the files.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::config::{Cluster, private_dir, write_private_all};
use crate::fault::Fault;

const CA_DAYS: i64 = 3650;
const LEAF_DAYS: i64 = 365;
/// A certificate is renewed when a start finds less than this left of it.
const RENEW_DAYS: i64 = LEAF_DAYS / 3;

/// Paths of everything in `<data-dir>/pki`.
#[derive(Debug, Clone)]
pub struct Pki {
    dir: PathBuf,
}

/// A certificate and its key, as files.
#[derive(Debug, Clone)]
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

const SERVER: [ExtendedKeyUsagePurpose; 1] = [ExtendedKeyUsagePurpose::ServerAuth];
const CLIENT: [ExtendedKeyUsagePurpose; 1] = [ExtendedKeyUsagePurpose::ClientAuth];
const BOTH: [ExtendedKeyUsagePurpose; 2] = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];

/// What a leaf says of its holder.
struct Leaf<'a> {
    name: &'a str,
    ca: &'a str,
    common_name: &'a str,
    organisation: Option<&'a str>,
    sans: Vec<SanType>,
    usages: &'a [ExtendedKeyUsagePurpose],
}

impl Pki {
    /// Where everything is, whether or not it was made.
    pub fn of(cluster: &Cluster) -> Pki {
        Pki { dir: cluster.pki() }
    }

    pub fn pair(&self, name: &str) -> Pair {
        Pair { cert: self.dir.join(format!("{name}.crt")), key: self.dir.join(format!("{name}.key")) }
    }

    pub fn ca(&self) -> PathBuf {
        self.pair("ca").cert
    }

    pub fn etcd_ca(&self) -> PathBuf {
        self.pair("etcd/ca").cert
    }

    /// PKCS#8 key that signs service-account tokens.
    pub fn service_account_key(&self) -> PathBuf {
        self.dir.join("sa.key")
    }

    /// Makes what is missing or runs out. `node_ip` is the address by which pods reach this host.
    pub fn ensure(cluster: &Cluster, node_ip: Ipv4Addr) -> Result<Pki> {
        let pki = Pki { dir: cluster.pki() };
        private_dir(&pki.dir)?;
        private_dir(&pki.dir.join("etcd"))?;
        let mut made = Made(BTreeMap::new());
        for (name, common_name) in [("ca", "kubernetes"), ("etcd/ca", "etcd-ca"), ("front-proxy-ca", "front-proxy-ca")]
        {
            made.ensure_ca(pki.pair(name), common_name)?;
        }
        let node = format!("system:node:{}", cluster.node_name);
        for leaf in leaves(cluster, &node, node_ip) {
            made.ensure_leaf(&pki, &leaf)?;
        }
        made.ensure_service_account_key(&pki)?;
        made.write()?;
        Ok(pki)
    }
}

/// Files that were made and aren't written yet.
struct Made(BTreeMap<PathBuf, String>);

impl Made {
    fn write(&self) -> Result<()> {
        let files: Vec<_> = self.0.iter().map(|(path, text)| (path.as_path(), text.as_bytes())).collect();
        write_private_all(&files)
    }

    fn read(&self, path: &Path) -> Result<String> {
        match self.0.get(path) {
            Some(text) => Ok(text.clone()),
            None => fs::read_to_string(path).with_context(|| path.display().to_string()),
        }
    }

    fn add(&mut self, files: Pair, key: &KeyPair, cert: &rcgen::Certificate) {
        self.0.insert(files.key, key.serialize_pem());
        self.0.insert(files.cert, cert.pem());
    }

    fn ensure_ca(&mut self, files: Pair, common_name: &str) -> Result<()> {
        if files.cert.exists() && files.key.exists() {
            return Ok(());
        }
        let key = KeyPair::generate().context("generating a key")?;
        let mut params = params(common_name, None, CA_DAYS);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let cert = params.self_signed(&key).context("signing the CA certificate")?;
        self.add(files, &key, &cert);
        Ok(())
    }

    fn ensure_leaf(&mut self, pki: &Pki, leaf: &Leaf) -> Result<()> {
        let (files, ca) = (pki.pair(leaf.name), pki.pair(leaf.ca));
        let new_ca = self.0.contains_key(&ca.cert);
        if !new_ca && files.key.exists() && lasts(&files.cert, &leaf.sans) {
            return Ok(());
        }
        let ca_key = KeyPair::from_pem(&self.read(&ca.key)?).map_err(|e| damaged(&ca.key, &e))?;
        let issuer = Issuer::from_ca_cert_pem(&self.read(&ca.cert)?, ca_key).map_err(|e| damaged(&ca.cert, &e))?;
        let key = KeyPair::generate().context("generating a key")?;
        let mut params = params(leaf.common_name, leaf.organisation, LEAF_DAYS);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = leaf.usages.to_vec();
        params.subject_alt_names = leaf.sans.clone();
        params.use_authority_key_identifier_extension = true;
        let cert = params.signed_by(&key, &issuer).context("signing a certificate")?;
        self.add(files, &key, &cert);
        Ok(())
    }

    fn ensure_service_account_key(&mut self, pki: &Pki) -> Result<()> {
        let path = pki.service_account_key();
        if path.exists() {
            return Ok(());
        }
        let key = KeyPair::generate().context("generating a key")?;
        self.0.insert(pki.dir.join("sa.pub"), key.public_key_pem());
        self.0.insert(path, key.serialize_pem());
        Ok(())
    }
}

/// A certificate that signs itself, for a server that is given none; made once and kept in `dir`.
pub fn self_signed(dir: &Path, name: &str, addresses: &[IpAddr]) -> Result<Pair> {
    let files = Pair { cert: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) };
    let mut sans = vec![dns("localhost")];
    sans.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
    if files.key.exists() && lasts(&files.cert, &sans) {
        return Ok(files);
    }
    private_dir(dir)?;
    let key = KeyPair::generate().context("generating a key")?;
    let mut params = params(name, None, LEAF_DAYS);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = SERVER.to_vec();
    params.subject_alt_names = sans;
    let cert = params.self_signed(&key).context("signing a certificate")?;
    let (key, cert) = (key.serialize_pem(), cert.pem());
    write_private_all(&[(&files.key, key.as_bytes()), (&files.cert, cert.as_bytes())])?;
    Ok(files)
}

/// Every leaf of a cluster. `node` is the node's name as an API user.
fn leaves<'a>(cluster: &'a Cluster, node: &'a str, node_ip: Ipv4Addr) -> Vec<Leaf<'a>> {
    let host = || vec![dns(&cluster.node_name), dns("localhost"), ip(Ipv4Addr::LOCALHOST), ip(node_ip)];
    let mut api = host();
    api.push(ip(cluster.api_service_ip()));
    for name in ["kubernetes", "kubernetes.default", "kubernetes.default.svc"] {
        api.push(dns(name));
    }
    api.push(dns(&format!("kubernetes.default.svc.{}", cluster.cluster_domain)));
    let client = |name, ca, common_name, organisation| Leaf {
        name,
        ca,
        common_name,
        organisation,
        sans: vec![],
        usages: &CLIENT,
    };
    let server =
        |name, ca, common_name, organisation, sans, usages| Leaf { name, ca, common_name, organisation, sans, usages };
    vec![
        server("apiserver", "ca", "kube-apiserver", None, api, &SERVER),
        client("apiserver-kubelet-client", "ca", "kube-apiserver-kubelet-client", Some("system:masters")),
        server("kubelet", "ca", node, Some("system:nodes"), host(), &SERVER),
        client("admin", "ca", "kubernetes-admin", Some("system:masters")),
        client("front-proxy-client", "front-proxy-ca", "front-proxy-client", None),
        server("etcd/server", "etcd/ca", &cluster.node_name, None, host(), &BOTH),
        client("etcd/healthcheck-client", "etcd/ca", "kube-etcd-healthcheck-client", None),
    ]
}

fn params(common_name: &str, organisation: Option<&str>, days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    if let Some(organisation) = organisation {
        name.push(DnType::OrganizationName, organisation);
    }
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    let now = time::OffsetDateTime::now_utc();
    // A clock that is a little behind elsewhere must not refuse a new certificate.
    params.not_before = now - time::Duration::minutes(5);
    params.not_after = now + time::Duration::days(days);
    params
}

/// Whether the certificate is whole, has more than a third of its life left and names every address it must.
fn lasts(cert: &Path, sans: &[SanType]) -> bool {
    let Ok(pem) = fs::read(cert) else { return false };
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(&pem) else { return false };
    let Ok(cert) = pem.parse_x509() else { return false };
    let left = cert.validity().not_after.timestamp() - jiff::Timestamp::now().as_second();
    left > RENEW_DAYS * 86_400 && names_all(&cert, sans)
}

fn names_all(cert: &x509_parser::certificate::X509Certificate<'_>, sans: &[SanType]) -> bool {
    use x509_parser::extensions::GeneralName;
    let Ok(Some(extension)) = cert.subject_alternative_name() else { return sans.is_empty() };
    sans.iter().all(|san| {
        extension.value.general_names.iter().any(|name| match (san, name) {
            (SanType::DnsName(a), GeneralName::DNSName(b)) => a.as_str() == *b,
            (SanType::IpAddress(IpAddr::V4(a)), GeneralName::IPAddress(b)) => a.octets() == *b,
            _ => false,
        })
    })
}

fn dns(name: &str) -> SanType {
    // Host names are checked when the cluster's configuration is made.
    SanType::DnsName(name.try_into().unwrap_or_else(|_| "localhost".try_into().expect("a host name")))
}

fn ip(address: Ipv4Addr) -> SanType {
    SanType::IpAddress(IpAddr::V4(address))
}

fn damaged(path: &Path, error: &dyn std::fmt::Display) -> Fault {
    Fault::failed(format!("{} is damaged ({error}): restore it from a backup, or `ferrokube reset`", path.display()))
}
