//! What a further server must have of those that are there: the keys of the cluster's authorities and of its tokens, the
//! way to its etcd, its settings. Each is sealed by a certificate key, which only the words of the person who adds the
//! server hold, and kept in the Secret `kube-system/kubeadm-certs` for two hours, as `kubeadm init phase upload-certs` does
//! it: a token alone gets what it can't read. I/O: files, the API server, chance.
//!
//! ```text
//!   a server                                            the one that joins
//!   token create --control-plane
//!     pki/*, etcd's files, settings ── AES-256-GCM ──>  Secret kubeadm-certs ──> opened by the key in the words
//!     Secret bootstrap-token-… (2 h)  <── owner ──┘     (gone with its owner)
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::aead::{self, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::published::{JOINERS, RBAC, binding, group};
use crate::apply::put;
use crate::config::{Cluster, Host};
use crate::fault::Fault;
use crate::hardening::encryption;

pub const NAMESPACE: &str = "kube-system";
pub const SECRET: &str = "kubeadm-certs";
const ROLE: &str = "kubeadm:kubeadm-certs";
const KEY: usize = 32;

/// The entry that holds what is equal on all servers.
const CLUSTER: &str = "ferrokube-cluster.json";

/// Entries of the Secret under kubeadm's names, where a server that joins keeps each in its data directory, and whether it
/// can't do without.
const FILES: &[(&str, &str, bool)] = &[
    ("ca.crt", "pki/ca.crt", true),
    ("ca.key", "pki/ca.key", true),
    ("front-proxy-ca.crt", "pki/front-proxy-ca.crt", true),
    ("front-proxy-ca.key", "pki/front-proxy-ca.key", true),
    ("sa.key", "pki/sa.key", true),
    ("sa.pub", "pki/sa.pub", true),
    (ETCD_CA, "pki/external-etcd-ca.crt", false),
    (ETCD_CERT, "pki/external-etcd.crt", false),
    (ETCD_KEY, "pki/external-etcd.key", false),
    (ENCRYPTION, "security/encryption.key", false),
];
const ETCD_CA: &str = "external-etcd-ca.crt";
const ETCD_CERT: &str = "external-etcd.crt";
const ETCD_KEY: &str = "external-etcd.key";
const ENCRYPTION: &str = "ferrokube-encryption.key";

/// What seals the entries: kubeadm's certificate key.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateKey([u8; KEY]);

impl CertificateKey {
    pub fn fresh() -> Result<CertificateKey> {
        Ok(CertificateKey(random()?))
    }

    /// 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<CertificateKey> {
        let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
        let bytes: Vec<u8> =
            digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
        (digits.len() == 2 * KEY).then(|| bytes.try_into().ok().map(CertificateKey)).flatten()
    }

    pub fn hex(&self) -> String {
        runtime::digest::hex(&self.0)
    }

    fn cipher(&self) -> Result<LessSafeKey> {
        let key = UnboundKey::new(&aead::AES_256_GCM, &self.0).map_err(|_| anyhow!("the cipher failed"))?;
        Ok(LessSafeKey::new(key))
    }

    /// A nonce, and what only this key opens.
    fn seal(&self, plain: &[u8]) -> Result<Vec<u8>> {
        let nonce: [u8; NONCE_LEN] = random()?;
        let mut sealed = plain.to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        let done = self.cipher()?.seal_in_place_append_tag(unique, Aad::empty(), &mut sealed);
        done.map_err(|_| anyhow!("the cipher failed"))?;
        Ok([&nonce[..], &sealed].concat())
    }

    fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut opened = sealed.to_vec();
        let plain = self.cipher().ok()?.open_in_place(nonce, Aad::empty(), &mut opened).ok()?;
        Some(plain.to_vec())
    }
}

/// Not the key: what is parsed ends in logs.
impl std::fmt::Debug for CertificateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a certificate key")
    }
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| anyhow!("the kernel gives no random bytes"))?;
    Ok(bytes)
}

/// The file of a server that is there.
fn source(host: &Host, entry: &str, place: &str) -> Option<PathBuf> {
    match entry {
        ETCD_CA => host.options.etcd_cafile.clone(),
        ETCD_CERT => host.options.etcd_certfile.clone(),
        ETCD_KEY => host.options.etcd_keyfile.clone(),
        ENCRYPTION => encryption::config_file(host).map(|_| host.data_dir.join(place)),
        _ => Some(host.data_dir.join(place)),
    }
}

fn gathered(host: &Host) -> Result<BTreeMap<&'static str, Vec<u8>>> {
    let mut all = BTreeMap::from([(CLUSTER, serde_json::to_vec(&host.cluster)?)]);
    for (entry, place, _) in FILES {
        if let Some(path) = source(host, entry, place) {
            all.insert(*entry, std::fs::read(&path).with_context(|| path.display().to_string())?);
        }
    }
    Ok(all)
}

/// Shows what a further server must have to whoever has a token, sealed. It goes when its owner, a Secret, does.
pub async fn upload(client: &kube::Client, host: &Host, key: &CertificateKey, owner: &Secret) -> Result<()> {
    for (plural, object) in objects(&gathered(host)?, key, owner)? {
        put(client, plural, &object).await?;
    }
    Ok(())
}

fn objects(
    all: &BTreeMap<&'static str, Vec<u8>>,
    key: &CertificateKey,
    owner: &Secret,
) -> Result<Vec<(&'static str, Value)>> {
    let mut data = serde_json::Map::new();
    for (entry, plain) in all {
        data.insert((*entry).to_owned(), BASE64_STANDARD.encode(key.seal(plain)?).into());
    }
    let metadata = |name: &str| json!({"name": name, "namespace": NAMESPACE});
    let mut of_secret = metadata(SECRET);
    of_secret["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Secret", "name": owner.metadata.name,
        "uid": owner.metadata.uid, "controller": true, "blockOwnerDeletion": true}]);
    let rule = json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": [SECRET], "verbs": ["get"]});
    Ok(vec![
        ("secrets", json!({"apiVersion": "v1", "kind": "Secret", "metadata": of_secret, "data": data})),
        ("roles", json!({"apiVersion": RBAC, "kind": "Role", "metadata": metadata(ROLE), "rules": [rule]})),
        ("rolebindings", binding("Role", ROLE, Some(NAMESPACE), ROLE, &[group(JOINERS)])),
    ])
}

/// What a server that joins was given.
pub struct Opened {
    pub cluster: Cluster,
    entries: BTreeMap<&'static str, Vec<u8>>,
}

/// Opens what is uploaded.
pub fn open(secret: &Secret, key: &CertificateKey) -> Result<Opened, String> {
    let data = secret.data.as_ref();
    let plain = |entry: &str| match data.and_then(|data| data.get(entry)) {
        None => Ok(None),
        Some(sealed) => {
            let wrong =
                "another key has sealed them: a later `token create --control-plane` took the place of this one";
            key.open(&sealed.0).map(Some).ok_or_else(|| wrong.to_owned())
        }
    };
    let lacks = |entry: &str| format!("{entry} is not among them: a server of this program uploads it");
    let cluster = plain(CLUSTER)?.ok_or_else(|| lacks(CLUSTER))?;
    let cluster: Cluster = serde_json::from_slice(&cluster).map_err(|error| format!("{CLUSTER}: {error}"))?;
    let mut entries = BTreeMap::new();
    for (entry, _, needed) in FILES {
        match plain(entry)? {
            Some(content) => drop(entries.insert(*entry, content)),
            None if *needed => return Err(lacks(entry)),
            None => {}
        }
    }
    if !cluster.has_etcd_elsewhere() {
        return Err("its etcd is in the process of its one server, and several servers need --etcd-servers".into());
    }
    Ok(Opened { cluster, entries })
}

impl Opened {
    /// Files to be written in a data directory, with their content.
    pub fn files(&self, data_dir: &Path) -> Vec<(PathBuf, &[u8])> {
        let place = |entry: &&str| FILES.iter().find(|(name, _, _)| name == entry).map(|(_, place, _)| *place);
        let files = self.entries.iter().filter_map(|(entry, content)| Some((place(entry)?, content.as_slice())));
        files.map(|(place, content)| (data_dir.join(place), content)).collect()
    }

    /// Where its way to etcd will be: CA, certificate and key, as far as there are any.
    pub fn etcd(&self, data_dir: &Path) -> [Option<PathBuf>; 3] {
        let path = |entry: &str| {
            let (_, place, _) = FILES.iter().find(|(name, _, _)| *name == entry)?;
            self.entries.contains_key(entry).then(|| data_dir.join(place))
        };
        [ETCD_CA, ETCD_CERT, ETCD_KEY].map(path)
    }
}

/// Why a cluster can have no further server.
pub fn refuse(host: &Host) -> Result<(), Fault> {
    if host.cluster.has_etcd_elsewhere() {
        return Ok(());
    }
    let sentence = "--control-plane: the store of this cluster is an etcd in this server's process, and no other server \
                    can have it: a cluster of several servers is started with --etcd-servers";
    Err(Fault::failed(sentence))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(dir: &Path) -> Host {
        let mut host = crate::config::tests::host(dir);
        host.cluster.options.etcd_servers = Some(vec!["https://192.0.2.9:2379".into()]);
        host.options.etcd_cafile = Some(dir.join("their-ca.crt"));
        host
    }

    fn uploaded(host: &Host, key: &CertificateKey) -> Secret {
        let mut owner = Secret::default();
        (owner.metadata.name, owner.metadata.uid) = (Some("bootstrap-token-abcdef".into()), Some("u".into()));
        let objects = objects(&gathered(host).expect("gathered"), key, &owner).expect("sealed");
        serde_json::from_value(objects[0].1.clone()).expect("a Secret")
    }

    #[test]
    fn a_server_that_joins_has_what_the_others_have_and_nobody_reads_it_on_the_way() {
        let (there, here) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let host = host(there.path());
        crate::pki::Pki::ensure(&host, &[[192, 0, 2, 1].into()]).expect("keys");
        std::fs::write(there.path().join("their-ca.crt"), "etcd's").expect("written");
        let key = CertificateKey::fresh().expect("a key");
        let secret = uploaded(&host, &key);
        let ca_key = std::fs::read(there.path().join("pki/ca.key")).expect("there");
        let data = secret.data.as_ref().expect("data");
        assert!(data.values().all(|sealed| !sealed.0.windows(9).any(|part| part == b"PRIVATE K")), "sealed");
        assert_eq!(secret.metadata.owner_references.as_ref().map(Vec::len), Some(1), "it goes with its owner");
        let opened = open(&secret, &key).expect("opened");
        assert_eq!(opened.cluster, host.cluster);
        let files = opened.files(here.path());
        let found =
            |name: &str| files.iter().find(|(path, _)| *path == here.path().join(name)).map(|(_, c)| c.to_vec());
        assert_eq!(found("pki/ca.key"), Some(ca_key));
        assert_eq!(found("pki/external-etcd-ca.crt").as_deref(), Some(&b"etcd's"[..]));
        let etcd = opened.etcd(here.path());
        assert_eq!((etcd[0].clone(), etcd[1].clone()), (Some(here.path().join("pki/external-etcd-ca.crt")), None));
        let other = CertificateKey::fresh().expect("a key");
        assert!(open(&secret, &other).is_err_and(|said| said.contains("another key")));
        let mut torn = secret.clone();
        torn.data.as_mut().expect("data").remove("sa.key");
        assert!(open(&torn, &key).is_err_and(|said| said.starts_with("sa.key is not among them")));
    }

    #[test]
    fn a_cluster_of_its_own_etcd_has_one_server() {
        let host = crate::config::tests::host("/nowhere".as_ref());
        assert!(refuse(&host).is_err_and(|fault| fault.sentence.contains("--etcd-servers")));
    }

    #[test]
    fn a_key_is_64_digits() {
        let key = CertificateKey::fresh().expect("a key");
        assert_eq!(CertificateKey::parse(&key.hex()), Some(key.clone()));
        for wrong in ["", "00", &key.hex()[1..], &format!("{}0", key.hex()), &"g".repeat(64)] {
            assert_eq!(CertificateKey::parse(wrong), None, "{wrong}");
        }
        assert!(!format!("{key:?}").contains(&key.hex()[..8]));
    }

    #[tokio::test]
    async fn an_api_server_takes_it() {
        let (client, _server) = crate::api::tests::admin().await;
        let dir = tempfile::tempdir().expect("a directory");
        let host = host(dir.path());
        crate::pki::Pki::ensure(&host, &[[192, 0, 2, 1].into()]).expect("keys");
        std::fs::write(dir.path().join("their-ca.crt"), "etcd's").expect("written");
        let secrets: kube::Api<Secret> = kube::Api::namespaced(client.clone(), NAMESPACE);
        let mut owner = Secret::default();
        owner.metadata.name = Some("owner".into());
        let owner = secrets.create(&kube::api::PostParams::default(), &owner).await.expect("made");
        for _ in 0..2 {
            let key = CertificateKey::fresh().expect("a key");
            upload(&client, &host, &key, &owner).await.expect("uploaded");
            open(&secrets.get(SECRET).await.expect("there"), &key).expect("by the newest key");
        }
    }
}
