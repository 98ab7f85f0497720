//! What a host that has joined keeps: the cluster's CA, its own certificates, and kubeconfigs under kubeadm's names, in
//! `<data-dir>/pki`. Every part of the node speaks as the node: there is one key to lose. I/O: reads and writes the files.

use std::path::Path;

use anyhow::{Context, Result};
use rcgen::KeyPair;
use serde_json::json;

use crate::api::Identity;
use crate::config::{private_dir, write_private, write_private_all};
use crate::pki::{Pki, SPEAKER};

/// The leaf by which the node speaks to the API server.
pub const CLIENT: &str = SPEAKER;

/// The key of a leaf that is being asked for: kept, so that who asks again asks for the same.
pub fn next_key(pki: &Pki, leaf: &str) -> Result<KeyPair> {
    let path = pki.pair(leaf).key.with_extension("key.next");
    if let Ok(pem) = std::fs::read_to_string(&path)
        && let Ok(key) = KeyPair::from_pem(&pem)
    {
        return Ok(key);
    }
    let key = KeyPair::generate().context("generating a key")?;
    if let Some(dir) = path.parent() {
        private_dir(dir)?;
    }
    write_private(&path, key.serialize_pem().as_bytes())?;
    Ok(key)
}

/// Puts a certificate that came, and its key, in the place of those before.
pub fn keep(pki: &Pki, leaf: &str, certificate: &str, key: &KeyPair) -> Result<()> {
    let (files, pem) = (pki.pair(leaf), key.serialize_pem());
    write_private_all(&[(&files.key, pem.as_bytes()), (&files.cert, certificate.as_bytes())])?;
    let next = files.key.with_extension("key.next");
    std::fs::remove_file(&next).with_context(|| next.display().to_string())
}

/// The name that every API server's certificate has, whatever its address.
pub const SERVER_NAME: &str = "kubernetes";

/// Writes the CA and the kubeconfigs. `server` is where this host reaches whichever API server works.
pub fn write(pki: &Pki, node: &str, server: &str, ca: &str) -> Result<()> {
    let dir = pki.ca().parent().map(Path::to_owned).unwrap_or_default();
    let files = files(pki, node, server, ca).map(|(name, text)| (dir.join(name), text));
    write_private_all(&files.each_ref().map(|(path, text)| (path.as_path(), text.as_bytes())))
}

/// The same by name, for whoever writes them elsewhere.
pub fn files(pki: &Pki, node: &str, server: &str, ca: &str) -> [(&'static str, String); 5] {
    let client = pki.pair(CLIENT);
    let config = kubeconfig(server, &pki.ca(), &client.cert, &client.key);
    let whose = [Identity::Node(node.to_owned()), Identity::Proxy, Identity::Dns, Identity::Flannel];
    let [kubelet, proxy, dns, flannel] = whose.map(|who| (who.file(), config.clone()));
    [("ca.crt", ca.to_owned()), kubelet, proxy, dns, flannel]
}

fn kubeconfig(server: &str, ca: &Path, cert: &Path, key: &Path) -> String {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "default",
        "clusters": [{"name": "default", "cluster": {"server": server, "tls-server-name": SERVER_NAME, "certificate-authority": ca}}],
        "users": [{"name": "default", "user": {"client-certificate": cert, "client-key": key}}],
        "contexts": [{"name": "default", "context": {"cluster": "default", "user": "default"}}],
    });
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stays_until_its_certificate_has_come() {
        let dir = tempfile::tempdir().expect("a directory");
        let pki = Pki::of(&crate::config::tests::host(dir.path()));
        let key = next_key(&pki, CLIENT).expect("a key");
        assert_eq!(next_key(&pki, CLIENT).expect("a key").serialize_pem(), key.serialize_pem());
        keep(&pki, CLIENT, "PEM", &key).expect("kept");
        assert_eq!(std::fs::read_to_string(pki.pair(CLIENT).key).expect("there"), key.serialize_pem());
        assert_ne!(next_key(&pki, CLIENT).expect("a key").serialize_pem(), key.serialize_pem());
    }
}
