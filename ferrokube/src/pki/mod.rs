//! The certificates and keys of this host: who may speak as whom. Made at the first start, kept in `<data-dir>/pki` with
//! kubeadm's file names, renewed when two thirds of their life have passed: at a start, and while the cluster runs by
//! `cluster::renewal`. Servers and clients read them again by themselves (`serving::tls::CertKeyPair`). The time is the
//! caller's to tell. I/O: reads and writes the files.
//!
//! What a host has is decided in [`leaf`]; here it is made, where the key of its authority is. A node alone has no such
//! key: its certificate comes from where the control plane is, into the same files.

mod leaf;
mod self_signed;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};

pub use self::leaf::of_node;
use self::leaf::{AUTHORITIES, ETCD_CA, Leaf, due, leaves, names_all, of_joined};
pub use self::leaf::{SERVICE_NAMES, SERVING, SPEAKER};
pub use self::self_signed::self_signed;
use crate::config::{Host, Roles, private_dir, record, write_private_all};
use crate::fault::Fault;

const CA_DAYS: i64 = 3650;
const LEAF_DAYS: i64 = 365;
/// How often certificates are looked at while they are served. A renewal has months of time, but a clock that jumps or
/// a host that slept may come out behind their end: then all that speaks TLS stands still until the next look.
pub const LOOK: Duration = Duration::from_secs(60);

/// The leaf of whoever administers the cluster.
pub const ADMIN: &str = "admin";

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

impl Pki {
    /// Where everything is, whether or not it was made.
    pub fn of(host: &Host) -> Pki {
        Pki { dir: host.pki() }
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

    /// Makes what is missing at a start. `node_ips` are the addresses by which pods reach this host.
    pub fn ensure(host: &Host, node_ips: &[IpAddr]) -> Result<Pki> {
        Pki::renew(host, node_ips, Timestamp::now()).map(|renewal| renewal.pki)
    }

    /// Makes what is missing at this time, and what two thirds of its life have passed of.
    pub fn renew(host: &Host, node_ips: &[IpAddr], now: Timestamp) -> Result<Renewal> {
        let pki = Pki { dir: host.pki() };
        let mut made = Made { files: BTreeMap::new(), now };
        if host.roles().has(Roles::CONTROL_PLANE) {
            private_dir(&pki.dir)?;
            let elsewhere = host.cluster.has_etcd_elsewhere();
            if !elsewhere {
                private_dir(&pki.dir.join("etcd"))?;
            }
            for (name, common_name) in AUTHORITIES {
                if name != ETCD_CA || !elsewhere {
                    made.ensure_ca(pki.pair(name), common_name)?;
                }
            }
            made.ensure_service_account_key(&pki)?;
        }
        let mut renewal = Renewal { pki, renewed: Vec::new(), owed: Vec::new() };
        let underlay = record::read(host)?.map(|record| record.gateways()).unwrap_or_default();
        for leaf in leaves(host, node_ips, &underlay) {
            match made.ensure_leaf(&renewal.pki, &leaf)? {
                Looked::Lasts => {}
                Looked::Renewed => renewal.renewed.push(leaf.name.to_owned()),
                Looked::Owed => renewal.owed.push(leaf.name.to_owned()),
            }
        }
        made.write()?;
        Ok(renewal)
    }
}

impl Pki {
    /// Whether the cluster's CA is to sign a certificate anew: it is due, names too little, or only stands in.
    pub fn owes(&self, name: &str, sans: &[SanType], now: Timestamp) -> bool {
        let files = self.pair(name);
        !lasts(&files, sans, now) || self_signed::is_own(&files.cert)
    }

    /// A certificate for the kubelet of a node alone that signs itself, until there is one of the cluster's CA.
    pub fn stand_in(&self, host: &Host, node_ips: &[IpAddr], now: Timestamp) -> Result<()> {
        let [_, leaf] = of_joined(host, node_ips);
        self_signed::ensure_self_signed(&self.pair(leaf.name), &leaf.common_name, &leaf.sans, now)
    }

    /// Certificates of the cluster's CA for a node alone, with their keys: of each leaf that what it has (`read`, by the
    /// name of a file in its directory) does not last. Answers files by name. For who has the CA's key.
    pub fn grant(
        &self,
        node: &Host,
        node_ips: &[IpAddr],
        now: Timestamp,
        read: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Vec<(String, String)>> {
        let (ca, mut files) = (self.pair("ca"), Vec::new());
        let made = Made { files: BTreeMap::new(), now };
        for leaf in of_joined(node, node_ips) {
            let [cert, key] = ["crt", "key"].map(|kind| format!("{}.{kind}", leaf.name));
            let there = read(&key).and_then(|key| String::from_utf8(key).ok()).zip(read(&cert));
            if there.is_some_and(|(key, cert)| pair_lasts(&key, &cert, &leaf.sans, now)) {
                continue;
            }
            let (pair, certificate) = made.sign(&ca, &leaf)?;
            files.extend([(key, pair.serialize_pem()), (cert, certificate.pem())]);
        }
        Ok(files)
    }
}

/// What was made anew.
#[derive(Debug)]
pub struct Renewal {
    pub pki: Pki,
    /// Names of the leaves.
    pub renewed: Vec<String>,
    /// Those that are due, and whose authority is on another host.
    pub owed: Vec<String>,
}

/// What a look at a leaf ended with.
enum Looked {
    Lasts,
    Renewed,
    Owed,
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

    /// Makes the leaf anew where it must be and can be.
    fn ensure_leaf(&mut self, pki: &Pki, leaf: &Leaf) -> Result<Looked> {
        let (files, ca) = (pki.pair(leaf.name), pki.pair(leaf.ca));
        let new_ca = self.files.contains_key(&ca.cert);
        if !new_ca && !pki.owes(leaf.name, &leaf.sans, self.now) {
            return Ok(Looked::Lasts);
        }
        if !new_ca && !ca.key.exists() {
            return owed(&files, &ca).map(|()| Looked::Owed);
        }
        let (key, cert) = self.sign(&ca, leaf)?;
        self.add(files, &key, &cert);
        Ok(Looked::Renewed)
    }

    /// A key for a leaf, and its certificate.
    fn sign(&self, ca: &Pair, leaf: &Leaf) -> Result<(KeyPair, rcgen::Certificate)> {
        let (ca_key, ca_pem) = (self.read(&ca.key)?, self.read(&ca.cert)?);
        let ca_key = KeyPair::from_pem(&ca_key).map_err(|e| damaged(&ca.key, &e))?;
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, ca_key).map_err(|e| damaged(&ca.cert, &e))?;
        let key = KeyPair::generate().context("generating a key")?;
        let mut params = params(&leaf.common_name, leaf.organisation, self.now, LEAF_DAYS)?;
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
        Ok((key, cert))
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

/// Without a certificate a server can't start; one that is due still serves while another is on its way.
fn owed(files: &Pair, ca: &Pair) -> Result<()> {
    for file in [&ca.cert, &files.cert, &files.key] {
        if !file.exists() {
            let (file, key) = (file.display(), ca.key.display());
            let sentence = format!("{file} is missing: the host that has {} makes it", key);
            return Err(Fault::failed(sentence).into());
        }
    }
    Ok(())
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
    pair_lasts(&key, &pem, sans, now)
}

/// The same of a pair that was read.
fn pair_lasts(key: &str, pem: &[u8], sans: &[SanType], now: Timestamp) -> bool {
    let Ok(key) = KeyPair::from_pem(key) else { return false };
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(pem) else { return false };
    let Ok(cert) = pem.parse_x509() else { return false };
    let life = cert.validity();
    *cert.public_key().subject_public_key.data == *key.public_key_raw()
        && !due(life.not_before.timestamp(), life.not_after.timestamp(), now.as_second())
        && names_all(&cert, sans)
}

fn damaged(path: &Path, error: &dyn std::fmt::Display) -> Fault {
    Fault::failed(format!("{} is damaged ({error}): restore it from a backup, or `ferrokube reset`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::host;

    const DAY: i64 = 86_400;
    const NODE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    pub fn at(day: i64) -> Timestamp {
        // 2026-01-01
        Timestamp::from_second(1_767_225_600 + day * DAY).expect("a time")
    }

    pub fn life(path: &Path) -> (i64, i64) {
        let pem = fs::read(path).expect("a file");
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).expect("PEM");
        let validity = pem.parse_x509().expect("a certificate").validity().clone();
        (validity.not_before.timestamp(), validity.not_after.timestamp())
    }

    #[test]
    fn a_year_passes_and_no_certificate_runs_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let host = host(dir.path());
        let first = Pki::renew(&host, &[NODE], at(0)).expect("certificates");
        let names = first.renewed.clone();
        assert_eq!(names.len(), 7);
        let authorities = fs::read(first.pki.ca()).expect("a CA");
        let mut renewals = Vec::new();
        for day in 1..=800 {
            let renewal = Pki::renew(&host, &[NODE], at(day)).expect("certificates");
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
        let host = host(dir.path());
        let pki = Pki::renew(&host, &[NODE], at(0)).expect("certificates").pki;
        let pair = pki.pair("kubelet");
        fs::write(&pair.key, KeyPair::generate().expect("a key").serialize_pem()).expect("written");
        assert_eq!(Pki::renew(&host, &[NODE], at(1)).expect("certificates").renewed, ["kubelet"]);
        fs::write(&pair.cert, "").expect("written");
        assert_eq!(Pki::renew(&host, &[NODE], at(1)).expect("certificates").renewed, ["kubelet"]);
        assert!(Pki::renew(&host, &[NODE], at(1)).expect("certificates").renewed.is_empty());
    }

    #[test]
    fn a_further_name_is_in_the_servers_certificate_at_the_next_start() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut host = host(dir.path());
        Pki::renew(&host, &[NODE], at(0)).expect("certificates");
        host.cluster.options.tls_san = Some(vec!["api.example".into(), "192.0.2.7".into()]);
        assert_eq!(Pki::renew(&host, &[NODE], at(1)).expect("certificates").renewed, ["apiserver"]);
        assert!(Pki::renew(&host, &[NODE], at(2)).expect("certificates").renewed.is_empty());
        host.options.bind_address = Some(std::net::Ipv4Addr::LOCALHOST.into());
        assert_eq!(Pki::renew(&host, &[NODE], at(3)).expect("certificates").renewed, ["apiserver"], "as pods know it");
    }

    #[test]
    fn nothing_outlives_its_authority_and_a_wrong_clock_is_mended() {
        let dir = tempfile::tempdir().expect("a directory");
        let host = host(dir.path());
        let pki = Pki::renew(&host, &[NODE], at(0)).expect("certificates").pki;
        assert_eq!(Pki::renew(&host, &[NODE], at(-30)).expect("certificates").renewed.len(), 7, "not valid yet");
        Pki::renew(&host, &[NODE], at(3600)).expect("certificates");
        assert_eq!(life(&pki.pair("admin").cert).1, life(&pki.ca()).1);
        let error = Pki::renew(&host, &[NODE], at(3651)).expect_err("run out").to_string();
        assert!(error.contains("has run out on"), "{error}");
    }

    #[test]
    fn a_server_on_an_etcd_elsewhere_signs_nothing_for_etcd() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut host = host(dir.path());
        host.cluster.options.etcd_servers = Some(vec!["https://192.0.2.9:2379".into()]);
        host.options.disable_node = Some(true);
        let made = Pki::renew(&host, &[NODE], at(0)).expect("certificates");
        assert_eq!(made.renewed, ["apiserver", "apiserver-kubelet-client", "admin", "front-proxy-client"]);
        assert!(!made.pki.dir.join("etcd").exists());
    }

    #[test]
    fn a_node_on_this_host_is_given_what_does_not_last() {
        let (there, here) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let (first, mut second) = (host(there.path()), host(here.path()));
        let pki = Pki::renew(&first, &[NODE], at(0)).expect("certificates").pki;
        (second.node_name, second.options.credentials) = ("second".into(), Some(here.path().to_owned()));
        let address = IpAddr::from([10, 202, 0, 2]);
        let grant = |day| {
            let read = |name: &str| fs::read(here.path().join(name)).ok();
            let files = pki.grant(&second, &[address], at(day), read).expect("granted");
            files.iter().for_each(|(name, text)| fs::write(here.path().join(name), text).expect("written"));
            files.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(grant(0), ["kubelet-client.key", "kubelet-client.crt", "kubelet.key", "kubelet.crt"]);
        assert!(grant(100).is_empty(), "it renews them itself");
        fs::write(here.path().join("kubelet-client.crt"), "x").expect("written");
        assert_eq!(grant(100), ["kubelet-client.key", "kubelet-client.crt"]);
        assert_eq!(grant(300), ["kubelet.key", "kubelet.crt"], "the other is of day 100");
        assert_eq!(grant(600).len(), 4, "it was stopped for too long");
        fs::copy(pki.ca(), here.path().join("ca.crt")).expect("copied");
        assert!(Pki::renew(&second, &[address], at(600)).expect("looked").owed.is_empty(), "a kubelet serves with it");
    }

    #[test]
    fn further_nodes_know_the_api_server_by_their_own_link() {
        let dir = tempfile::tempdir().expect("a directory");
        let host = host(dir.path());
        Pki::renew(&host, &[NODE], at(0)).expect("certificates");
        let record = record::Record::new("10.202.0.0/24".parse().expect("a range"));
        record::write(&host, &record).expect("written");
        assert_eq!(Pki::renew(&host, &[NODE], at(1)).expect("certificates").renewed, ["apiserver"]);
        assert!(Pki::renew(&host, &[NODE], at(2)).expect("certificates").renewed.is_empty());
    }

    #[test]
    fn a_node_alone_has_its_own_certificate_and_no_authority() {
        let (there, here) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let (first, mut second) = (host(there.path()), host(here.path()));
        second.options.credentials = Some(here.path().to_owned());
        let told = Pki::renew(&second, &[NODE], at(0)).expect_err("nothing is there").to_string();
        assert!(told.contains("ca.crt is missing: the host that has"), "{told}");
        let made = Pki::renew(&first, &[NODE], at(0)).expect("certificates").pki;
        for name in ["ca.crt", "kubelet.crt", "kubelet.key"] {
            fs::copy(made.dir.join(name), second.pki().join(name)).expect("copied");
        }
        let renewal = |day| Pki::renew(&second, &[NODE], at(day)).map(|r| (r.renewed, r.owed)).expect("looked");
        assert_eq!(renewal(1), (vec![], vec![]));
        assert_eq!(renewal(300), (vec![], vec!["kubelet".to_owned()]), "due, and another's to make");
        let mut files: Vec<_> = fs::read_dir(second.pki()).expect("read").flatten().map(|e| e.file_name()).collect();
        files.sort();
        assert_eq!(files, ["ca.crt", "kubelet.crt", "kubelet.key"], "no key of an authority was made");
    }
}
