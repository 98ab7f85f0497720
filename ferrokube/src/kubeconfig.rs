//! kubeconfig files: the cluster's own, and the entry merged into the user's. Nothing else in the user's file is
//! touched ([`text`]); what `up` put in, `reset` takes out, byte for byte when nobody changed the file in between.
//! I/O: reads and writes these files.

mod text;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::config::{Cluster, known, lock_host, write_private};
use crate::fault::Fault;
use crate::pki::Pki;

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
        first.unwrap_or_else(|| self.home.join(".kube/config"))
    }

    fn own(&self, path: &Path) {
        if let Some((uid, gid)) = self.ids {
            let _ = std::os::unix::fs::chown(path, Some(uid), Some(gid));
        }
    }

    /// Writes the person's file: a link stays one, and a file that was there keeps its owner and mode.
    fn write(&self, path: &Path, text: &str) -> Result<()> {
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let before = fs::metadata(&target).ok();
        if let Some(parent) = target.parent().filter(|p| !p.exists()) {
            fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
            self.own(parent);
        }
        write_private(&target, text.as_bytes())?;
        match before {
            Some(before) => {
                let _ = std::os::unix::fs::chown(&target, Some(before.uid()), Some(before.gid()));
                let _ = fs::set_permissions(&target, before.permissions());
            }
            None => self.own(&target),
        }
        Ok(())
    }
}

fn home_of(uid: u32) -> Option<PathBuf> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let line = passwd.lines().find(|l| l.split(':').nth(2) == Some(&uid.to_string()))?;
    line.split(':').nth(5).map(PathBuf::from)
}

/// Writes `<data-dir>/kubeconfig` for the administrator and gives back its content.
pub fn write_admin(cluster: &Cluster, pki: &Pki) -> Result<Value> {
    let encode = |path: &Path| -> Result<String> {
        Ok(STANDARD.encode(fs::read(path).with_context(|| path.display().to_string())?))
    };
    let admin = pki.pair("admin");
    let name = &cluster.name;
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {
            "certificate-authority-data": encode(&pki.ca())?, "server": cluster.server_url()}}],
        "users": [{"name": name, "user": {
            "client-certificate-data": encode(&admin.cert)?, "client-key-data": encode(&admin.key)?}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
        "preferences": {},
    });
    write_private(&cluster.kubeconfig(), to_yaml(&config)?.as_bytes())?;
    Ok(config)
}

/// The administrator's kubeconfig of a cluster that was started.
pub fn read_admin(cluster: &Cluster) -> Result<Value> {
    let path = cluster.kubeconfig();
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_saphyr::from_str(&text).with_context(|| path.display().to_string())
}

/// What the user's file was before the merge and what the merge made of it.
#[derive(Debug, Serialize, Deserialize)]
struct Undo {
    path: PathBuf,
    before: Option<String>,
    after: String,
    /// The directory was made for it.
    #[serde(default)]
    made_dir: bool,
}

fn undo_file(cluster: &Cluster) -> PathBuf {
    cluster.data_dir.join("kubeconfig.undo")
}

/// Fails in one sentence when the user's kubeconfig can't be read: asked before anything is started.
pub fn check_user_file() -> Result<()> {
    let Some(person) = Person::current() else { return Ok(()) };
    read_user_file(&person.kubeconfig()).map(|_| ())
}

fn read_user_file(path: &Path) -> Result<Option<(String, Value)>> {
    let bad = |why: &dyn std::fmt::Display| {
        Fault::failed(format!(
            "the kubeconfig {} can't be used ({why}): mend or move it, or set KUBECONFIG to another file",
            path.display()
        ))
    };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
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

/// Merges the cluster's context into the user's kubeconfig and makes it the current one. Returns the file.
pub fn merge_into_user(cluster: &Cluster, admin: &Value) -> Result<Option<PathBuf>> {
    let Some(person) = Person::current() else { return Ok(None) };
    let _lock = lock_host()?;
    let path = person.kubeconfig();
    let existing = read_user_file(&path)?;
    let before = existing.as_ref().map(|(text, _)| text.clone());
    let (text, value) = existing
        .unwrap_or_else(|| ("apiVersion: v1\nkind: Config\n".into(), json!({"apiVersion": "v1", "kind": "Config"})));
    let after = text::with(&text, &value, admin)?;
    if before.as_deref() == Some(&after) {
        return Ok(Some(path));
    }
    // The file as it was before the first merge is what `reset` gives back.
    let known = read_undo(cluster).filter(|undo| undo.path == path && Some(&undo.after) == before.as_ref());
    let original = known.as_ref().map_or(before, |undo| undo.before.clone());
    let made_dir = known.is_some_and(|undo| undo.made_dir) || path.parent().is_some_and(|dir| !dir.exists());
    let undo = Undo { path: path.clone(), before: original, after: after.clone(), made_dir };
    write_private(&undo_file(cluster), &serde_json::to_vec(&undo)?)?;
    person.write(&path, &after)?;
    Ok(Some(path))
}

fn read_undo(cluster: &Cluster) -> Option<Undo> {
    serde_json::from_slice(&fs::read(undo_file(cluster)).ok()?).ok()
}

/// Takes the cluster's context out of the kubeconfig it was merged into.
pub fn remove_from_user(cluster: &Cluster) -> Result<()> {
    let Some(undo) = read_undo(cluster) else { return Ok(()) };
    let _lock = lock_host()?;
    let Some((text, value)) = read_user_file(&undo.path)? else { return Ok(()) };
    let left = if text == undo.after {
        undo.before.clone()
    } else {
        let before = undo.before.as_deref().and_then(|b| parse(b).ok()).unwrap_or_default();
        Some(text::without(&text, &value, &cluster.name, &before)?)
    };
    match &left {
        // Who writes is root, who owns the file stays its owner: no matter who calls.
        Some(left) => Person { home: PathBuf::new(), ids: None }.write(&undo.path, left)?,
        None => {
            fs::remove_file(&undo.path).with_context(|| undo.path.display().to_string())?;
            if let Some(dir) = undo.path.parent().filter(|_| undo.made_dir) {
                // Unless something else has come into it.
                let _ = fs::remove_dir(dir);
            }
        }
    }
    hand_over(cluster, &undo, left.as_deref())
}

/// Another cluster of this host that was merged into the same file after this one gives back what was there before
/// this one.
fn hand_over(gone: &Cluster, undo: &Undo, left: Option<&str>) -> Result<()> {
    for other in known().into_iter().filter(|other| other.name != gone.name) {
        let Some(mut later) = read_undo(&other).filter(|later| later.path == undo.path) else { continue };
        if later.before.as_ref() != Some(&undo.after) {
            continue;
        }
        later.before.clone_from(&undo.before);
        later.made_dir |= undo.made_dir;
        if let Some(left) = left {
            left.clone_into(&mut later.after);
        }
        write_private(&undo_file(&other), &serde_json::to_vec(&later)?)?;
    }
    Ok(())
}

/// Brings the administrator's new certificate into every file that the cluster was merged into, and into what is
/// remembered of these files: what `reset` gives back must not be a certificate that has run out.
pub fn renew_in_user_files(cluster: &Cluster, admin: &Value) -> Result<()> {
    let Some(undo) = read_undo(cluster) else { return Ok(()) };
    let _lock = lock_host()?;
    if let Some((text, value)) = read_user_file(&undo.path)? {
        let renewed = text::renewed(&text, &value, admin)?;
        if renewed != text {
            // Who writes is root, who owns the file stays its owner.
            Person { home: PathBuf::new(), ids: None }.write(&undo.path, &renewed)?;
        }
    }
    let again = |text: &str| match parse(text) {
        Ok(value) => text::renewed(text, &value, admin),
        Err(_) => Ok(text.to_owned()),
    };
    let others = known().into_iter().filter(|other| other.name != cluster.name);
    for cluster in std::iter::once(cluster.clone()).chain(others) {
        let Some(mut remembered) = read_undo(&cluster).filter(|other| other.path == undo.path) else { continue };
        remembered.after = again(&remembered.after)?;
        if let Some(before) = &remembered.before {
            remembered.before = Some(again(before)?);
        }
        write_private(&undo_file(&cluster), &serde_json::to_vec(&remembered)?)?;
    }
    Ok(())
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
        config.insert("current-context".into(), before.get("current-context").cloned().unwrap_or_else(|| json!("")));
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
