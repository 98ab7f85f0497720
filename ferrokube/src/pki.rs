//! The cluster's certificates and keys: who may speak as whom. Made at the first start, kept in `<data-dir>/pki` with
//! kubeadm's file names, renewed when two thirds of their life have passed: at a start, and while the cluster runs by
//! `cluster::renewal`. Servers and clients read them again by themselves. The time is the caller's to tell. I/O: reads
//! and writes the files.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::config::{Cluster, list, private_dir, write_private, write_private_all};
use crate::fault::Fault;

const CA_DAYS: i64 = 3650;
const LEAF_DAYS: i64 = 365;
/// How often certificates that are made for standalone servers are looked at.
const LOOK: std::time::Duration = std::time::Duration::from_secs(3600);

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

    /// Makes what is missing at a start. `node_ip` is the address by which pods reach this host.
    pub fn ensure(cluster: &Cluster, node_ip: Ipv4Addr) -> Result<Pki> {
        Pki::renew(cluster, node_ip, Timestamp::now()).map(|renewal| renewal.pki)
    }

    /// Makes what is missing at this time, and what two thirds of its life have passed of.
    pub fn renew(cluster: &Cluster, node_ip: Ipv4Addr, now: Timestamp) -> Result<Renewal> {
        let pki = Pki { dir: cluster.pki() };
        private_dir(&pki.dir)?;
        private_dir(&pki.dir.join("etcd"))?;
        let mut made = Made { files: BTreeMap::new(), now };
        for (name, common_name) in [("ca", "kubernetes"), ("etcd/ca", "etcd-ca"), ("front-proxy-ca", "front-proxy-ca")]
        {
            made.ensure_ca(pki.pair(name), common_name)?;
        }
        let node = format!("system:node:{}", cluster.node_name);
        let mut renewed = Vec::new();
        for leaf in leaves(cluster, &node, node_ip) {
            if made.ensure_leaf(&pki, &leaf)? {
                renewed.push(leaf.name.to_owned());
            }
        }
        made.ensure_service_account_key(&pki)?;
        made.write()?;
        Ok(Renewal { pki, renewed })
    }
}

/// What was made anew.
#[derive(Debug)]
pub struct Renewal {
    pub pki: Pki,
    /// Names of the leaves.
    pub renewed: Vec<String>,
}

/// Files that were made and aren't written yet.
struct Made {
    files: BTreeMap<PathBuf, String>,
    now: Timestamp,
}

impl Made {
    fn write(&self) -> Result<()> {
        let files: Vec<_> = self.files.iter().map(|(path, text)| (path.as_path(), text.as_bytes())).collect();
        write_private_all(&files)
    }

    fn read(&self, path: &Path) -> Result<String> {
        match self.files.get(path) {
            Some(text) => Ok(text.clone()),
            None => fs::read_to_string(path).with_context(|| path.display().to_string()),
        }
    }

    fn add(&mut self, files: Pair, key: &KeyPair, cert: &rcgen::Certificate) {
        self.files.insert(files.key, key.serialize_pem());
        self.files.insert(files.cert, cert.pem());
    }

    fn ensure_ca(&mut self, files: Pair, common_name: &str) -> Result<()> {
        if files.cert.exists() && files.key.exists() {
            return Ok(());
        }
        let key = KeyPair::generate().context("generating a key")?;
        let mut params = params(common_name, None, self.now, CA_DAYS)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let cert = params.self_signed(&key).context("signing the CA certificate")?;
        self.add(files, &key, &cert);
        Ok(())
    }

    /// Whether the leaf was made anew.
    fn ensure_leaf(&mut self, pki: &Pki, leaf: &Leaf) -> Result<bool> {
        let (files, ca) = (pki.pair(leaf.name), pki.pair(leaf.ca));
        let new_ca = self.files.contains_key(&ca.cert);
        if !new_ca && lasts(&files, &leaf.sans, self.now) {
            return Ok(false);
        }
        let (ca_key, ca_pem) = (self.read(&ca.key)?, self.read(&ca.cert)?);
        let ca_key = KeyPair::from_pem(&ca_key).map_err(|e| damaged(&ca.key, &e))?;
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, ca_key).map_err(|e| damaged(&ca.cert, &e))?;
        let key = KeyPair::generate().context("generating a key")?;
        let mut params = params(leaf.common_name, leaf.organisation, self.now, LEAF_DAYS)?;
        let end = end_of(&ca_pem).ok_or_else(|| damaged(&ca.cert, &"it can't be read"))?;
        if end <= params.not_before {
            let sentence = format!("{} has run out on {end}: nothing it signs is trusted any more", ca.cert.display());
            return Err(Fault::failed(sentence).into());
        }
        // Nothing outlives its CA.
        params.not_after = params.not_after.min(end);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = leaf.usages.to_vec();
        params.subject_alt_names = leaf.sans.clone();
        params.use_authority_key_identifier_extension = true;
        let cert = params.signed_by(&key, &issuer).context("signing a certificate")?;
        self.add(files, &key, &cert);
        Ok(true)
    }

    fn ensure_service_account_key(&mut self, pki: &Pki) -> Result<()> {
        let path = pki.service_account_key();
        if path.exists() {
            return Ok(());
        }
        let key = KeyPair::generate().context("generating a key")?;
        self.files.insert(pki.dir.join("sa.pub"), key.public_key_pem());
        self.files.insert(path, key.serialize_pem());
        Ok(())
    }
}

/// The organisation in certificates that sign themselves: by it those that were made here are told from others.
const OWN: &str = "ferrokube self-signed";

/// The certificate of a server that is given none: the pair that is in `dir`, whatever it says, or one that signs itself,
/// is kept there, and renewed as long as the process lives.
pub fn self_signed(dir: &Path, name: &str, addresses: &[IpAddr]) -> Result<Pair> {
    let files = Pair { cert: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) };
    if !is_own(&files.cert) {
        match (files.cert.exists(), files.key.exists()) {
            (true, true) => return Ok(files),
            (true, false) => return Err(half(&files.cert, &files.key).into()),
            (false, true) => return Err(half(&files.key, &files.cert).into()),
            (false, false) => {}
        }
    }
    let mut sans = vec![dns("localhost")];
    sans.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
    ensure_self_signed(&files, name, &sans, Timestamp::now())?;
    let (kept, name) = (files.clone(), name.to_owned());
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(LOOK);
            if let Err(error) = ensure_self_signed(&kept, &name, &sans, Timestamp::now()) {
                tracing::warn!(%error, "the server's own certificate could not be renewed");
            }
        }
    });
    Ok(files)
}

fn half(there: &Path, missing: &Path) -> Fault {
    let (there, missing) = (there.display(), missing.display());
    Fault::failed(format!("{there} is there without {missing}: put that beside it, or take the one away"))
}

/// Whether a certificate was made here.
fn is_own(cert: &Path) -> bool {
    let Ok(pem) = fs::read(cert) else { return false };
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(&pem) else { return false };
    let Ok(cert) = pem.parse_x509() else { return false };
    let own = cert.subject().iter_organization().any(|name| name.as_str() == Ok(OWN));
    own && cert.subject().as_raw() == cert.issuer().as_raw()
}

fn ensure_self_signed(files: &Pair, name: &str, sans: &[SanType], now: Timestamp) -> Result<()> {
    if lasts(files, sans, now) {
        return Ok(());
    }
    if let Some(dir) = files.cert.parent().filter(|dir| !dir.exists()) {
        private_dir(dir)?;
    }
    let key = KeyPair::generate().context("generating a key")?;
    let mut params = params(name, Some(OWN), now, LEAF_DAYS)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = SERVER.to_vec();
    params.subject_alt_names = sans.to_vec();
    let cert = params.self_signed(&key).context("signing a certificate")?;
    // What a crash leaves between the two is a certificate of ours, which is made anew.
    write_private(&files.cert, cert.pem().as_bytes())?;
    write_private(&files.key, key.serialize_pem().as_bytes())
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
    let bound = cluster.options.bind_address.filter(|address| !address.is_unspecified());
    api.extend([bound.map(IpAddr::V4), cluster.api_address_of_pods()].into_iter().flatten().map(ip));
    api.extend(list(&cluster.options.tls_san).iter().map(|name| match name.parse() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => dns(name),
    }));
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

fn params(common_name: &str, organisation: Option<&str>, now: Timestamp, days: i64) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    if let Some(organisation) = organisation {
        name.push(DnType::OrganizationName, organisation);
    }
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    let now = time::OffsetDateTime::from_unix_timestamp(now.as_second()).context("the time")?;
    // A clock that is a little behind elsewhere must not refuse a new certificate.
    params.not_before = now - time::Duration::minutes(5);
    params.not_after = now + time::Duration::days(days);
    Ok(params)
}

/// When a certificate ends.
fn end_of(pem: &str) -> Option<time::OffsetDateTime> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    Some(pem.parse_x509().ok()?.validity().not_after.to_datetime())
}

/// Whether the pair is whole, valid, in the first two thirds of its life, and names every address it must. A crash
/// between the writing of a key and of its certificate leaves two that don't belong together.
fn lasts(files: &Pair, sans: &[SanType], now: Timestamp) -> bool {
    let (Ok(key), Ok(pem)) = (fs::read_to_string(&files.key), fs::read(&files.cert)) else { return false };
    let Ok(key) = KeyPair::from_pem(&key) else { return false };
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(&pem) else { return false };
    let Ok(cert) = pem.parse_x509() else { return false };
    let life = cert.validity();
    *cert.public_key().subject_public_key.data == *key.public_key_raw()
        && !due(life.not_before.timestamp(), life.not_after.timestamp(), now.as_second())
        && names_all(&cert, sans)
}

/// Whether a certificate is to be renewed: two thirds of its life have passed, as for upstream's kubelet, or it has
/// not begun, because the clock was wrong when it was made.
fn due(from: i64, until: i64, now: i64) -> bool {
    now < from || now >= from + (until - from) / 3 * 2
}

fn names_all(cert: &x509_parser::certificate::X509Certificate<'_>, sans: &[SanType]) -> bool {
    use x509_parser::extensions::GeneralName;
    let Ok(Some(extension)) = cert.subject_alternative_name() else { return sans.is_empty() };
    sans.iter().all(|san| {
        extension.value.general_names.iter().any(|name| match (san, name) {
            (SanType::DnsName(a), GeneralName::DNSName(b)) => a.as_str() == *b,
            (SanType::IpAddress(IpAddr::V4(a)), GeneralName::IPAddress(b)) => a.octets() == *b,
            (SanType::IpAddress(IpAddr::V6(a)), GeneralName::IPAddress(b)) => a.octets() == *b,
            _ => false,
        })
    })
}

fn dns(name: &str) -> SanType {
    // Host names are checked when the cluster's configuration is made.
    SanType::DnsName(name.try_into().unwrap_or_else(|_| "localhost".try_into().expect("a host name")))
}

fn ip(address: impl Into<IpAddr>) -> SanType {
    SanType::IpAddress(address.into())
}

fn damaged(path: &Path, error: &dyn std::fmt::Display) -> Fault {
    Fault::failed(format!("{} is damaged ({error}): restore it from a backup, or `ferrokube reset`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::cluster;

    const DAY: i64 = 86_400;
    const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    fn at(day: i64) -> Timestamp {
        // 2026-01-01
        Timestamp::from_second(1_767_225_600 + day * DAY).expect("a time")
    }

    fn life(path: &Path) -> (i64, i64) {
        let pem = fs::read(path).expect("a file");
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).expect("PEM");
        let validity = pem.parse_x509().expect("a certificate").validity().clone();
        (validity.not_before.timestamp(), validity.not_after.timestamp())
    }

    #[test]
    fn a_year_passes_and_no_certificate_runs_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let cluster = cluster(dir.path());
        let first = Pki::renew(&cluster, NODE, at(0)).expect("certificates");
        let names = first.renewed.clone();
        assert_eq!(names.len(), 7);
        let authorities = fs::read(first.pki.ca()).expect("a CA");
        let mut renewals = Vec::new();
        for day in 1..=800 {
            let renewal = Pki::renew(&cluster, NODE, at(day)).expect("certificates");
            for name in &names {
                let (from, until) = life(&renewal.pki.pair(name).cert);
                let now = at(day).as_second();
                assert!(from <= now && until - now > 120 * DAY, "{name} on day {day}");
            }
            if !renewal.renewed.is_empty() {
                assert_eq!(renewal.renewed, names, "all were made on one day");
                renewals.push(day);
            }
        }
        assert_eq!(renewals, [244, 488, 732], "after two thirds of a year");
        assert_eq!(fs::read(first.pki.ca()).expect("a CA"), authorities, "what is trusted stays");
    }

    #[test]
    fn a_pair_that_a_crash_tore_is_made_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let cluster = cluster(dir.path());
        let pki = Pki::renew(&cluster, NODE, at(0)).expect("certificates").pki;
        let pair = pki.pair("kubelet");
        fs::write(&pair.key, KeyPair::generate().expect("a key").serialize_pem()).expect("written");
        assert_eq!(Pki::renew(&cluster, NODE, at(1)).expect("certificates").renewed, ["kubelet"]);
        fs::write(&pair.cert, "").expect("written");
        assert_eq!(Pki::renew(&cluster, NODE, at(1)).expect("certificates").renewed, ["kubelet"]);
        assert!(Pki::renew(&cluster, NODE, at(1)).expect("certificates").renewed.is_empty());
    }

    #[test]
    fn a_further_name_is_in_the_servers_certificate_at_the_next_start() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut cluster = cluster(dir.path());
        Pki::renew(&cluster, NODE, at(0)).expect("certificates");
        cluster.options.tls_san = Some(vec!["api.example".into(), "192.0.2.7".into()]);
        assert_eq!(Pki::renew(&cluster, NODE, at(1)).expect("certificates").renewed, ["apiserver"]);
        assert!(Pki::renew(&cluster, NODE, at(2)).expect("certificates").renewed.is_empty());
        cluster.options.bind_address = Some(Ipv4Addr::LOCALHOST);
        assert_eq!(Pki::renew(&cluster, NODE, at(3)).expect("certificates").renewed, ["apiserver"], "as pods know it");
    }

    #[test]
    fn nothing_outlives_its_authority_and_a_wrong_clock_is_mended() {
        let dir = tempfile::tempdir().expect("a directory");
        let cluster = cluster(dir.path());
        let pki = Pki::renew(&cluster, NODE, at(0)).expect("certificates").pki;
        assert_eq!(Pki::renew(&cluster, NODE, at(-30)).expect("certificates").renewed.len(), 7, "not valid yet");
        Pki::renew(&cluster, NODE, at(3600)).expect("certificates");
        assert_eq!(life(&pki.pair("admin").cert).1, life(&pki.ca()).1);
        let error = Pki::renew(&cluster, NODE, at(3651)).expect_err("run out").to_string();
        assert!(error.contains("has run out on"), "{error}");
    }

    #[test]
    fn a_pair_in_cert_dir_is_served_as_it_is_and_never_overwritten() {
        let dir = tempfile::tempdir().expect("a directory");
        let (cert, key) = (dir.path().join("apiserver.crt"), dir.path().join("apiserver.key"));
        // Ended long ago, for another name, with our common name: it is the user's all the same.
        let pair = KeyPair::generate().expect("a key");
        let mut given = params("apiserver", None, at(-1000), 1).expect("parameters");
        given.subject_alt_names = vec![dns("elsewhere")];
        let (pem, secret) = (given.self_signed(&pair).expect("a certificate").pem(), pair.serialize_pem());
        fs::write(&cert, &pem).expect("written");
        let refused = |missing: &Path| {
            let error = self_signed(dir.path(), "apiserver", &[]).expect_err("half a pair").to_string();
            assert!(error.contains(&format!("without {}", missing.display())), "{error}");
        };
        refused(&key);
        fs::write(&key, &secret).expect("written");
        let files = self_signed(dir.path(), "apiserver", &[IpAddr::from([192, 0, 2, 9])]).expect("a pair");
        let now = (fs::read_to_string(files.cert).expect("there"), fs::read_to_string(files.key).expect("there"));
        assert_eq!(now, (pem, secret));
        fs::remove_file(&cert).expect("removed");
        refused(&cert);
        // What was made here is made anew when it is no pair.
        fs::remove_file(&key).expect("removed");
        self_signed(dir.path(), "apiserver", &[]).expect("made");
        assert!(is_own(&cert));
        fs::remove_file(&key).expect("removed");
        self_signed(dir.path(), "apiserver", &[]).expect("made anew");
        assert!(key.exists());
    }

    #[test]
    fn certificates_that_sign_themselves_are_renewed_too() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = Pair { cert: dir.path().join("a.crt"), key: dir.path().join("a.key") };
        let sans = [dns("localhost"), SanType::IpAddress("::1".parse().expect("an address"))];
        let mut ends = Vec::new();
        for day in [0, 100, 250] {
            ensure_self_signed(&files, "a", &sans, at(day)).expect("a certificate");
            ends.push(life(&files.cert).1);
        }
        assert!(ends[0] == ends[1] && ends[1] < ends[2], "{ends:?}");
    }
}
