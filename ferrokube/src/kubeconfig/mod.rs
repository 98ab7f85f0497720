//! kubeconfig files: the cluster's own, and the entry merged into people's ([`user`]). Nothing else in a person's file is
//! touched ([`text`]), and it is touched with the rights of whose directory it is in. I/O: reads and writes these files.

mod as_owner;
mod text;
mod user;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use self::as_owner::as_owner;
pub use self::user::{merge_into_user, remove_from_user, renew_in_user_files};
use crate::config::{Host, write_owned, write_private};
use crate::fault::{Fault, best_effort};
use crate::pki::{ADMIN, Pki};

/// No kubeconfig that a person has is larger.
const MAX_FILE: u64 = 16 << 20;

/// The person behind the command: under sudo, the one who called it.
#[derive(Debug, Clone)]
pub struct Person {
    pub home: PathBuf,
    pub ids: Option<(u32, u32)>,
}

impl Person {
    pub fn current() -> Option<Person> {
        let id = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
        if let (Some(uid), Some(gid)) = (id("SUDO_UID"), id("SUDO_GID"))
            && uid != 0
        {
            return Some(Person { home: home_of(uid)?, ids: Some((uid, gid)) });
        }
        Some(Person { home: std::env::var_os("HOME")?.into(), ids: None })
    }

    /// The file that kubectl would write to: the first of `KUBECONFIG`, or `~/.kube/config`.
    pub fn kubeconfig(&self) -> PathBuf {
        let first =
            std::env::var_os("KUBECONFIG").and_then(|v| std::env::split_paths(&v).find(|p| !p.as_os_str().is_empty()));
        let file = first.unwrap_or_else(|| self.home.join(".kube/config"));
        // `reset` may be called in another directory.
        std::path::absolute(&file).unwrap_or(file)
    }

    fn own(&self, path: &Path) {
        if let Some((uid, gid)) = self.ids {
            // Not what a link in its place leads to.
            best_effort("the owner of a kubeconfig's directory", std::os::unix::fs::lchown(path, Some(uid), Some(gid)));
        }
    }

    /// Writes the person's file: a link stays one, and a file that was there keeps its owner and mode.
    fn write(&self, path: &Path, text: &str) -> Result<()> {
        as_owner(path, || self.write_as_owner(path, text)).with_context(|| path.display().to_string())?
    }

    fn write_as_owner(&self, path: &Path, text: &str) -> Result<()> {
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let before = fs::metadata(&target).ok();
        if let Some(parent) = target.parent().filter(|p| !p.exists()) {
            fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
            self.own(parent);
        }
        let (mode, owner) = match before {
            Some(before) => (before.mode() & 0o7777, Some((before.uid(), before.gid()))),
            None => (0o600, self.ids),
        };
        write_owned(&target, text.as_bytes(), mode, owner)
    }
}

fn home_of(uid: u32) -> Option<PathBuf> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let line = passwd.lines().find(|l| l.split(':').nth(2) == Some(&uid.to_string()))?;
    line.split(':').nth(5).map(PathBuf::from)
}

/// Writes `<data-dir>/kubeconfig` for the administrator and gives back its content.
pub fn write_admin(host: &Host, pki: &Pki) -> Result<Value> {
    let encode = |path: &Path| -> Result<String> {
        Ok(STANDARD.encode(fs::read(path).with_context(|| path.display().to_string())?))
    };
    let admin = pki.pair(ADMIN);
    let name = &host.cluster.name;
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {
            "certificate-authority-data": encode(&pki.ca())?, "server": host.server_url()}}],
        "users": [{"name": name, "user": {
            "client-certificate-data": encode(&admin.cert)?, "client-key-data": encode(&admin.key)?}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
        "preferences": {},
    });
    write_private(&host.kubeconfig(), to_yaml(&config)?.as_bytes())?;
    Ok(config)
}

/// The administrator's kubeconfig of a cluster that was started.
pub fn read_admin(host: &Host) -> Result<Value> {
    let path = host.kubeconfig();
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_saphyr::from_str(&text).with_context(|| path.display().to_string())
}

/// Fails in one sentence when the user's kubeconfig can't be read: asked before anything is started.
pub fn check_user_file() -> Result<()> {
    let Some(person) = Person::current() else { return Ok(()) };
    read_user_file(&person.kubeconfig()).map(|_| ())
}

/// A link in a person's home is meant; a pipe would hold us, and the host's lock, for ever.
fn text_of(path: &Path) -> std::io::Result<String> {
    let bytes = linux::root::read_regular(path.canonicalize()?, MAX_FILE)?;
    String::from_utf8(bytes).map_err(std::io::Error::other)
}

fn read_user_file(path: &Path) -> Result<Option<(String, Value)>> {
    let bad = |why: &dyn std::fmt::Display| {
        Fault::failed(format!(
            "the kubeconfig {} can't be used ({why}): mend or move it, or set KUBECONFIG to another file",
            path.display()
        ))
    };
    let text = match as_owner(path, || text_of(path)).flatten() {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        // sudo with the caller's HOME leaves such files behind.
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(bad(&"the user whose directory it is in may not read it; chown gives it to them").into());
        }
        Err(e) => return Err(bad(&e).into()),
    };
    if text.trim().is_empty() {
        return Ok(Some((text, json!({}))));
    }
    let value = parse(&text).map_err(|e| bad(&e.to_string().lines().next().unwrap_or("")))?;
    if value.is_null() {
        return Ok(Some((text, json!({}))));
    }
    let lists = ["clusters", "users", "contexts"];
    if !value.is_object() || lists.iter().any(|l| value.get(l).is_some_and(|v| !v.is_array() && !v.is_null())) {
        return Err(bad(&"it isn't a kubeconfig").into());
    }
    Ok(Some((text, value)))
}

/// An entry of a list by its name.
fn entry<'a>(config: &'a Value, list: &str, name: &str) -> Option<&'a Value> {
    config.get(list)?.as_array()?.iter().find(|e| e["name"] == name)
}

fn merge(config: &mut Value, admin: &Value) {
    // An empty file.
    if config.is_null() {
        *config = json!({});
    }
    let Some(config) = config.as_object_mut() else { return };
    for list in ["clusters", "users", "contexts"] {
        let entry = &admin[list][0];
        let target = config.entry(list).or_insert_with(|| json!([]));
        if target.is_null() {
            *target = json!([]);
        }
        let Some(items) = target.as_array_mut() else { continue };
        match items.iter_mut().find(|i| i["name"] == entry["name"]) {
            Some(item) => *item = entry.clone(),
            None => items.push(entry.clone()),
        }
    }
    config.insert("current-context".into(), admin["current-context"].clone());
}

/// Takes the entries of this name out; what `before` had under the name, and its current context, come back.
fn remove(config: &mut Value, name: &str, before: &Value) {
    let Some(config) = config.as_object_mut() else { return };
    for list in ["clusters", "users", "contexts"] {
        let Some(items) = config.get_mut(list).and_then(Value::as_array_mut) else { continue };
        match (items.iter().position(|i| i["name"] == name), entry(before, list, name)) {
            (Some(at), Some(old)) => items[at] = old.clone(),
            (Some(at), None) => drop(items.remove(at)),
            (None, _) => {}
        }
    }
    if config.get("current-context").is_some_and(|c| c == name) {
        let former = before.get("current-context").and_then(Value::as_str).unwrap_or_default().to_owned();
        // What was current then may have gone meanwhile.
        let there = entry(&Value::Object(config.clone()), "contexts", &former).is_some();
        config.insert("current-context".into(), json!(if there { former.as_str() } else { "" }));
    }
}

fn parse(text: &str) -> Result<Value> {
    Ok(serde_saphyr::from_str_with_options(text, crate::yaml::bounded())?)
}

/// kubeconfigs are small and flat: this writes them as kubectl does, lists under their key without indent.
pub fn to_yaml(config: &Value) -> Result<String> {
    let empty = Map::new();
    let object = config.as_object().unwrap_or(&empty);
    serde_saphyr::to_string(object).context("writing YAML")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kubeconfig of a cluster that is called this.
    pub fn admin(name: &str) -> Value {
        json!({
            "clusters": [{"name": name, "cluster": {"server": "https://127.0.0.1:6443"}}],
            "users": [{"name": name, "user": {"token": "t"}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        })
    }

    #[test]
    fn merging_and_removing_leaves_the_others_alone() {
        let original = admin("work");
        let mut config = original.clone();
        merge(&mut config, &admin("ferrokube"));
        assert_eq!(config["clusters"].as_array().map(Vec::len), Some(2));
        assert_eq!(config["current-context"], "ferrokube");
        merge(&mut config, &admin("ferrokube"));
        assert_eq!(config["users"].as_array().map(Vec::len), Some(2), "merging twice adds nothing");
        remove(&mut config, "ferrokube", &original);
        assert_eq!(config, original);
    }

    #[test]
    fn yaml_round_trips() {
        let config = admin("a");
        let back: Value = serde_saphyr::from_str(&to_yaml(&config).expect("yaml")).expect("parsed");
        assert_eq!(back, config);
    }
}
