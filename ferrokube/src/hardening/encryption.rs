//! Encryption at rest of a hardened cluster: Secrets are sealed in etcd with a key that is made once and kept with the
//! cluster. Taken back, what was sealed is still read: the key stays. [`seal`] writes anew what was stored before.
//! I/O: files, the store.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use apiserver::storage::{KeyValue, RangeRequest, Store, keys};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::config::{Host, write_private};
use crate::fault::Fault;

/// NaCl's secretbox: whoever changes a sealed value is noticed, and no number of writes wears the key out.
const PROVIDER: &str = "secretbox";
const KEY_BYTES: usize = 32;
/// Where Secrets are stored, and what a sealed value begins with.
const SECRETS: &str = "/registry/secrets/";
const SEALED: &[u8] = b"k8s:enc:";
/// Secrets read from the store at a time, and written anew at the same time.
const PAGE: usize = 500;
const AT_ONCE: usize = 32;

fn key_file(host: &Host) -> PathBuf {
    host.security().join("encryption.key")
}

/// The configuration of this cluster's API server; none where nothing was ever sealed.
pub fn config_file(host: &Host) -> Option<PathBuf> {
    key_file(host).exists().then(|| configuration_path(host))
}

fn configuration_path(host: &Host) -> PathBuf {
    host.security().join("encryption.yaml")
}

/// Writes key and configuration. A key that was lost is never replaced by another: what it sealed would be lost with it.
pub fn write(host: &Host) -> Result<()> {
    let (file, configured) = (key_file(host), configuration_path(host));
    let key = match fs::read_to_string(&file) {
        Ok(key) => key.trim().to_owned(),
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e).context(file.display().to_string()),
        Err(_) if configured.exists() => {
            return Err(Fault::failed(format!(
                "{} is gone, and with it what it sealed in etcd: bring it back from a backup, or remove {} to go on without those Secrets",
                file.display(),
                configured.display()
            ))
            .into());
        }
        Err(_) if !host.cluster.hardened => return Ok(()),
        Err(_) => {
            let mut key = [0; KEY_BYTES];
            aws_lc_rs::rand::fill(&mut key).map_err(|_| Fault::failed("there are no random numbers"))?;
            let key = STANDARD.encode(key);
            write_private(&file, key.as_bytes())?;
            // The directory may be as new as the key.
            sync_dir(&host.data_dir)?;
            key
        }
    };
    if !STANDARD.decode(&key).is_ok_and(|key| key.len() == KEY_BYTES) {
        let sentence = format!("{} holds no key: bring it back from a backup", file.display());
        return Err(Fault::failed(sentence).into());
    }
    write_private(&configured, format!("{:#}\n", configuration(&key, host.cluster.hardened)).as_bytes())
}

fn sync_dir(dir: &Path) -> Result<()> {
    fs::File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| dir.display().to_string())
}

/// The first provider seals, every one reads. JSON is YAML.
fn configuration(key: &str, seals: bool) -> Value {
    let keyed = json!({PROVIDER: {"keys": [{"name": "key1", "secret": key}]}});
    let plain = json!({"identity": {}});
    json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": if seals { [keyed, plain] } else { [plain, keyed] }}],
    })
}

/// What seals new Secrets by this configuration: the first provider's name; none if they are stored as they are.
pub fn provider(config_file: &Path) -> Option<String> {
    let config: Value = serde_json::from_slice(&fs::read(config_file).ok()?).ok()?;
    let resources = config["resources"].as_array()?;
    let of_secrets = |part: &&Value| part["resources"].as_array().is_some_and(|all| all.contains(&json!("secrets")));
    let first = resources.iter().find(of_secrets)?["providers"][0].as_object()?.keys().next()?;
    (first != "identity").then(|| first.clone())
}

/// Keys of Secrets that are stored as they are, in the store itself.
pub async fn plain(store: &dyn Store) -> Result<Vec<Bytes>> {
    let (mut from, end) = (Bytes::from_static(SECRETS.as_bytes()), keys::prefix_end(SECRETS.as_bytes()));
    let mut found = Vec::new();
    loop {
        let request = RangeRequest { key: from, end: end.clone(), limit: PAGE, ..RangeRequest::default() };
        let page = store.range(request).await?.kvs;
        let Some(KeyValue { key: last, .. }) = page.last() else { return Ok(found) };
        from = [last, &b"\0"[..]].concat().into();
        found.extend(page.into_iter().filter(|kv| !kv.value.starts_with(SEALED)).map(|kv| kv.key));
    }
}

/// Writes Secrets anew that were stored before they were to be sealed: a write without a change does it.
pub async fn seal(store: &dyn Store, client: &kube::Client, host: &Host) -> Result<()> {
    if !host.cluster.hardened {
        return Ok(());
    }
    let plain = plain(store).await?;
    let writes = plain.into_iter().map(|key| rewrite(client.clone(), key)).collect::<Vec<_>>();
    stream::iter(writes).buffer_unordered(AT_ONCE).for_each(|()| std::future::ready(())).await;
    Ok(())
}

async fn rewrite(client: kube::Client, key: Bytes) {
    let path = String::from_utf8_lossy(&key);
    let Some((namespace, name)) = path.strip_prefix(SECRETS).and_then(|rest| rest.split_once('/')) else { return };
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    let written = match secrets.get(name).await {
        Ok(secret) => secrets.replace(name, &PostParams::default(), &secret).await.map(drop),
        Err(error) => Err(error),
    };
    match written {
        // Somebody else has just written or removed it.
        Ok(()) => {}
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
        Err(error) => tracing::error!(namespace, name, %error, "a Secret could not be sealed: it is stored as it is"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::private_dir;
    use crate::config::tests::host;

    fn first(host: &Host) -> Option<String> {
        write(host).expect("written");
        config_file(host).and_then(|file| provider(&file))
    }

    fn hardened(host: &Host, hardened: bool) -> Host {
        let mut host = host.clone();
        host.cluster.hardened = hardened;
        host
    }

    #[test]
    fn the_key_is_made_once_and_outlives_the_hardening() {
        let dir = tempfile::tempdir().expect("a directory");
        let plain = host(dir.path());
        private_dir(&plain.security()).expect("made");
        assert_eq!((first(&plain), config_file(&plain)), (None, None), "nobody asked for it");
        assert_eq!(first(&hardened(&plain, true)).as_deref(), Some("secretbox"));
        let key = fs::read(key_file(&plain)).expect("a key");
        let mode = fs::metadata(key_file(&plain)).expect("there").permissions().mode();
        assert_eq!((mode & 0o777, STANDARD.decode(&key).map(|key| key.len())), (0o600, Ok(KEY_BYTES)));
        for again in [true, false, true] {
            assert_eq!(first(&hardened(&plain, again)).is_some(), again);
            assert_eq!(fs::read(key_file(&plain)).expect("a key"), key);
        }
        write(&plain).expect("taken back");
        let config: Value =
            serde_json::from_slice(&fs::read(configuration_path(&plain)).expect("there")).expect("JSON");
        let providers = &config["resources"][0]["providers"];
        assert_eq!(providers[0], json!({"identity": {}}), "written plain");
        assert!(providers[1]["secretbox"].is_object(), "and what was sealed is read");
    }

    #[test]
    fn a_lost_key_is_told_and_not_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let host = hardened(&host(dir.path()), true);
        private_dir(&host.security()).expect("made");
        write(&host).expect("written");
        fs::write(key_file(&host), "short").expect("damaged");
        assert!(write(&host).expect_err("damaged").to_string().contains("holds no key"));
        fs::remove_file(key_file(&host)).expect("lost");
        assert!(write(&host).expect_err("lost").to_string().contains("backup"));
        assert!(!key_file(&host).exists());
        fs::remove_file(configuration_path(&host)).expect("given up");
        assert_eq!(first(&host).as_deref(), Some("secretbox"));
    }

    #[tokio::test]
    async fn secrets_that_lie_plain_are_found() {
        use apiserver::storage::{Txn, memory::MemoryStore};
        let store = MemoryStore::default();
        for n in 0..PAGE + 2 {
            let value: &[u8] = if n == 3 || n > PAGE { b"k8s\0plain" } else { b"k8s:enc:secretbox:v1:key1:x" };
            let key = Bytes::from(format!("{SECRETS}ns/{n:04}"));
            store.txn(Txn::create(key, Bytes::copy_from_slice(value), 0)).await.expect("put");
        }
        store.txn(Txn::create(Bytes::from_static(b"/registry/services/x"), Bytes::new(), 0)).await.expect("put");
        let found = plain(&store).await.expect("read");
        assert_eq!(found, ["ns/0003", "ns/0501"].map(|name| Bytes::from(format!("{SECRETS}{name}"))));
    }
}
