//! The files of ConfigMap, Secret, downward-API and projected volumes. Pure: objects and tokens are given.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Secret, Volume,
};

use crate::io::objects::Bundles;
use crate::pod::downward_api::{self, Facts};
use crate::pod::env::Sources;
use crate::pod::pods;

/// One file: content, mode, and who owns it if not root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub data: Vec<u8>,
    pub mode: u32,
    pub owner: Option<u32>,
}

/// Files by path relative to the volume.
pub type Payload = BTreeMap<String, File>;

/// Bytes of the files that the kubelet writes for one pod, in all its volumes: many times what the objects of an honest
/// pod hold. One key may stand in any number of files, so a small object could fill the node.
pub const MOST_BYTES: usize = 64 << 20;

/// Files as they are found, within what is left of the pod's bytes.
struct Filled<'a> {
    files: Payload,
    room: &'a mut usize,
}

impl Filled<'_> {
    fn add(&mut self, path: String, file: File) -> Result<(), String> {
        let left = self.room.checked_sub(file.data.len());
        *self.room =
            left.ok_or_else(|| format!("the files of the pod's volumes are longer than {MOST_BYTES} bytes"))?;
        self.files.insert(path, file);
        Ok(())
    }
}

/// Mode of files whose volume says none.
const DEFAULT_MODE: u32 = 0o644;

/// A token that a projected volume wants: which audience, how long, and where it is put.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenWish {
    pub audience: String,
    pub seconds: i64,
}

/// Tokens that the volume needs.
pub fn wishes(volume: &Volume) -> Vec<TokenWish> {
    let sources = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
    sources
        .filter_map(|s| s.service_account_token.as_ref())
        .map(|t| TokenWish {
            audience: t.audience.clone().unwrap_or_default(),
            seconds: t.expiration_seconds.unwrap_or(3600),
        })
        .collect()
}

/// Names of the ConfigMaps and Secrets that the volume needs.
pub fn references(volume: &Volume) -> (Vec<String>, Vec<String>) {
    let (mut maps, mut secrets) = (Vec::new(), Vec::new());
    maps.extend(volume.config_map.as_ref().map(|m| m.name.clone()));
    secrets.extend(volume.secret.as_ref().and_then(|s| s.secret_name.clone()));
    for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
        maps.extend(source.config_map.as_ref().map(|m| m.name.clone()));
        secrets.extend(source.secret.as_ref().map(|s| s.name.clone()));
    }
    (maps, secrets)
}

/// What fills the volumes of one pod.
pub struct Filling<'a> {
    pub pod: &'a Pod,
    pub facts: &'a Facts,
    pub sources: &'a Sources,
    pub tokens: &'a BTreeMap<TokenWish, String>,
    pub bundles: &'a Bundles,
}

fn mode(own: Option<i32>, default: Option<i32>) -> u32 {
    own.or(default).map_or(DEFAULT_MODE, |m| m as u32 & 0o777)
}

/// The files of a ConfigMap's volume, or why it can't be filled; `room` is what the pod's files may still have.
pub fn config_map(volume: &Volume, filling: &Filling<'_>, room: &mut usize) -> Result<Payload, String> {
    let mut out = Filled { files: Payload::new(), room };
    if let Some(source) = &volume.config_map {
        let optional = source.optional == Some(true);
        add_config_map(&source.name, source.items.as_deref(), optional, source.default_mode, filling, &mut out)?;
    }
    Ok(out.files)
}

/// As [`config_map`], of a Secret's.
pub fn secret(volume: &Volume, filling: &Filling<'_>, room: &mut usize) -> Result<Payload, String> {
    let mut out = Filled { files: Payload::new(), room };
    if let Some(source) = &volume.secret {
        let (name, optional) = (source.secret_name.as_deref().unwrap_or(""), source.optional == Some(true));
        add_secret(name, source.items.as_deref(), optional, source.default_mode, filling, &mut out)?;
    }
    Ok(out.files)
}

/// As [`config_map`], of fields of the pod itself.
pub fn downward_api(volume: &Volume, filling: &Filling<'_>, room: &mut usize) -> Result<Payload, String> {
    let mut out = Filled { files: Payload::new(), room };
    if let Some(source) = &volume.downward_api {
        add_downward(source.items.as_deref().unwrap_or(&[]), source.default_mode, filling, &mut out)?;
    }
    Ok(out.files)
}

/// As [`config_map`], of several sources in one directory.
pub fn projected(volume: &Volume, filling: &Filling<'_>, room: &mut usize) -> Result<Payload, String> {
    let mut out = Filled { files: Payload::new(), room };
    if let Some(source) = &volume.projected {
        add_projected(source, filling, &mut out)?;
    }
    Ok(out.files)
}

fn add_projected(source: &ProjectedVolumeSource, filling: &Filling<'_>, out: &mut Filled<'_>) -> Result<(), String> {
    let default = source.default_mode;
    for one in source.sources.iter().flatten() {
        if let Some(s) = &one.config_map {
            add_config_map(&s.name, s.items.as_deref(), s.optional == Some(true), default, filling, out)?;
        } else if let Some(s) = &one.secret {
            add_secret(&s.name, s.items.as_deref(), s.optional == Some(true), default, filling, out)?;
        } else if let Some(s) = &one.downward_api {
            add_downward(s.items.as_deref().unwrap_or(&[]), default, filling, out)?;
        } else if let Some(s) = &one.service_account_token {
            let wish = TokenWish {
                audience: s.audience.clone().unwrap_or_default(),
                seconds: s.expiration_seconds.unwrap_or(3600),
            };
            let token = filling.tokens.get(&wish).ok_or("no service account token was issued")?;
            let (mode, owner) = token_mode(filling.pod, default);
            out.add(s.path.clone(), File { data: token.clone().into_bytes(), mode, owner })?;
        } else if let Some(s) = &one.cluster_trust_bundle {
            let (mode, owner) = token_mode(filling.pod, default);
            let data = super::trust::content(s, filling.bundles)?;
            out.add(clean(&s.path), File { data, mode, owner })?;
        } else if one.pod_certificate.is_some() {
            return Err("projected source podCertificate is not supported by this kubelet".into());
        }
    }
    Ok(())
}

/// A token is for its owner only as soon as it is known who that is.
fn token_mode(pod: &Pod, default: Option<i32>) -> (u32, Option<u32>) {
    let users: Vec<Option<i64>> =
        pods::containers(pod).iter().map(|(_, c)| crate::pod::security::run_as_user(pod, c)).collect();
    let one = users.first().copied().flatten().filter(|u| users.iter().all(|other| *other == Some(*u)));
    let group = pods::spec(pod).security_context.as_ref().and_then(|c| c.fs_group);
    if one.is_some() || group.is_some() {
        (0o600, one.and_then(|u| u32::try_from(u).ok()))
    } else {
        (mode(None, default), None)
    }
}

fn pick(
    all: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    optional: bool,
    default: Option<i32>,
    what: &str,
    out: &mut Filled<'_>,
) -> Result<(), String> {
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        for (key, data) in all {
            out.add(key, File { data, mode: mode(None, default), owner: None })?;
        }
        return Ok(());
    };
    for item in items {
        match all.get(&item.key) {
            Some(data) => {
                out.add(clean(&item.path), File { data: data.clone(), mode: mode(item.mode, default), owner: None })?;
            }
            None if optional => {}
            None => {
                return Err(format!(
                    "{what} references non-existent {what_key}: {}",
                    item.key,
                    what_key = key_word(what)
                ));
            }
        }
    }
    Ok(())
}

fn key_word(what: &str) -> &'static str {
    if what == "configmap" { "config key" } else { "secret key" }
}

fn clean(path: &str) -> String {
    path.split('/').filter(|p| !p.is_empty() && *p != ".").collect::<Vec<_>>().join("/")
}

fn add_config_map(
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: bool,
    default: Option<i32>,
    filling: &Filling<'_>,
    out: &mut Filled<'_>,
) -> Result<(), String> {
    let found = filling.sources.config_maps.get(name);
    if found.is_none() && !optional {
        return Err(format!("configmap \"{name}\" not found"));
    }
    pick(found.map(|m| map_data(m)).unwrap_or_default(), items, optional, default, "configmap", out)
}

fn map_data(map: &ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = map.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone().into_bytes()));
    text.chain(map.binary_data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()))).collect()
}

fn add_secret(
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: bool,
    default: Option<i32>,
    filling: &Filling<'_>,
    out: &mut Filled<'_>,
) -> Result<(), String> {
    let found = filling.sources.secrets.get(name);
    if found.is_none() && !optional {
        return Err(format!("secret \"{name}\" not found"));
    }
    let data = |s: &Secret| s.data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())).collect();
    pick(found.map(|s| data(s)).unwrap_or_default(), items, optional, default, "secret", out)
}

fn add_downward(
    items: &[DownwardAPIVolumeFile],
    default: Option<i32>,
    filling: &Filling<'_>,
    out: &mut Filled<'_>,
) -> Result<(), String> {
    for item in items {
        let text = if let Some(field) = &item.field_ref {
            downward_api::field(filling.pod, filling.facts, &field.field_path)?
        } else if let Some(resource) = &item.resource_field_ref {
            downward_api::resource(filling.pod, filling.facts, None, resource)?
        } else {
            continue;
        };
        out.add(clean(&item.path), File { data: text.into_bytes(), mode: mode(item.mode, default), owner: None })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    /// As the manager asks: by the volume's row.
    fn payload(volume: &Volume, filling: &Filling<'_>, room: &mut usize) -> Result<Payload, String> {
        let fill = crate::volumes::plugins::of(volume)?.files.ok_or("its files are not the kubelet's")?;
        fill(volume, filling, room)
    }

    #[test]
    fn a_projected_volume_merges_its_sources() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c"}]}}))
            .unwrap();
        let volume: Volume =
            serde_json::from_value(json!({"name": "v", "projected": {"defaultMode": 0o640, "sources": [
            {"configMap": {"name": "m", "items": [{"key": "k", "path": "d/k", "mode": 0o400}]}},
            {"secret": {"name": "s"}},
            {"secret": {"name": "missing", "optional": true}},
            {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}]}}))
            .unwrap();
        let mut sources = Sources::default();
        let map: ConfigMap = serde_json::from_value(json!({"data": {"k": "v", "other": "x"}})).unwrap();
        let secret: Secret = serde_json::from_value(json!({"data": {"pw": "eA=="}})).unwrap();
        sources.config_maps.insert("m".into(), Arc::new(map));
        sources.secrets.insert("s".into(), Arc::new(secret));
        let tokens = BTreeMap::from([(wishes(&volume)[0].clone(), "jwt".to_owned())]);
        let facts = Facts::default();
        let bundles = Bundles::default();
        let filling = Filling { pod: &pod, facts: &facts, sources: &sources, tokens: &tokens, bundles: &bundles };
        let made = payload(&volume, &filling, &mut MOST_BYTES.clone()).unwrap();
        let shown: Vec<(String, String, u32)> =
            made.iter().map(|(p, f)| (p.clone(), String::from_utf8(f.data.clone()).unwrap(), f.mode)).collect();
        assert_eq!(
            shown,
            [
                ("d/k".to_owned(), "v".to_owned(), 0o400),
                ("labels".to_owned(), "a=\"b\"".to_owned(), 0o640),
                ("pw".to_owned(), "x".to_owned(), 0o640),
                ("token".to_owned(), "jwt".to_owned(), 0o640),
            ]
        );
        let empty = Sources::default();
        let filling = Filling { sources: &empty, ..filling };
        assert_eq!(payload(&volume, &filling, &mut MOST_BYTES.clone()).unwrap_err(), "configmap \"m\" not found");
    }

    /// A restricted pod's 500 files of one key of a megabyte were 500 megabytes of the daemon's memory and of tmpfs.
    #[test]
    fn one_key_in_many_files_ends_at_what_a_pod_may_have() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": []}})).unwrap();
        let items: Vec<_> = (0..500).map(|i| json!({"key": "k", "path": format!("a{i}")})).collect();
        let volume: Volume =
            serde_json::from_value(json!({"name": "v", "configMap": {"name": "m", "items": items}})).unwrap();
        let map: ConfigMap = serde_json::from_value(json!({"data": {"k": "x".repeat(1 << 20)}})).unwrap();
        let mut sources = Sources::default();
        sources.config_maps.insert("m".into(), Arc::new(map));
        let (facts, tokens, bundles) = (Facts::default(), BTreeMap::new(), Bundles::default());
        let filling = Filling { pod: &pod, facts: &facts, sources: &sources, tokens: &tokens, bundles: &bundles };
        let why = payload(&volume, &filling, &mut MOST_BYTES.clone()).unwrap_err();
        assert!(why.contains("longer than 67108864 bytes"), "{why}");
    }
}
