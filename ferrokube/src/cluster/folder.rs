//! The folder of YAML that is applied: at a start, and whenever something in it changes, by server-side apply under a
//! name of our own. A bad file is told in the log and in an event, and keeps none of the others; what the API refuses is
//! tried again for a while, as it may need what comes later. Objects of a file that is removed stay. I/O: reads the
//! folder, waits for its changes, writes to the API.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};
use kubelet::files::Watcher;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::told;
use crate::backoff::Backoff;
use crate::config::Host;
use crate::fault::best_effort;
use crate::yaml;

/// Who owns the fields that are applied.
const MANAGER: &str = "ferrokube-apply";
/// An editor writes a file in several steps: it is read when it was quiet for this long.
const QUIET: Duration = Duration::from_millis(200);
/// A definition and what it defines may stand in one folder: so often what was refused is tried again, in about two
/// minutes; later only a change makes us try.
const ATTEMPTS: usize = 8;
/// As much as a file of static pods may be.
const MAX_FILE: u64 = 10 << 20;
/// More files than this are not looked at.
const MAX_FILES: usize = 1000;

/// Applies the folder until `stop`.
pub async fn run(host: Arc<Host>, client: kube::Client, stop: CancellationToken) -> Result<()> {
    tokio::select! {
        () = stop.cancelled() => {}
        () = follow(&host, &client) => {}
    }
    Ok(())
}

async fn follow(host: &Host, client: &kube::Client) {
    let dir = host.to_apply();
    // What is put there is applied by who may do everything: it is nobody else's to write.
    best_effort("the folder of YAML", fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir));
    let mut watcher = match Watcher::new().and_then(|watcher| watcher.add_dir(&dir).map(|()| watcher)) {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(%error, dir = %dir.display(), "the folder can't be watched: it is applied at a start only");
            apply_again(host, client, &dir, &mut BTreeMap::new()).await;
            return std::future::pending().await;
        }
    };
    let mut applied = BTreeMap::new();
    loop {
        tokio::select! {
            () = apply_again(host, client, &dir, &mut applied) => watcher.changed().await,
            () = watcher.changed() => {}
        }
        while tokio::time::timeout(QUIET, watcher.changed()).await.is_ok() {}
    }
}

/// Applies what differs from what was applied, by its digest (the folder may be larger than what is free of memory),
/// again and again while something is refused.
async fn apply_again(host: &Host, client: &kube::Client, dir: &Path, applied: &mut BTreeMap<PathBuf, String>) {
    let mut backoff = Backoff::default();
    for attempt in 1..=ATTEMPTS {
        tokio::time::sleep(backoff.after(Duration::ZERO)).await;
        let mut refused = false;
        let files = files(dir);
        // One that was taken away and comes back is new, whatever it says.
        applied.retain(|path, _| files.binary_search(path).is_ok());
        for path in files {
            let outcome = match read(&path) {
                Ok(text) => {
                    let digest = runtime::digest::of(text.as_bytes());
                    if applied.get(&path) == Some(&digest) {
                        continue;
                    }
                    file(client, &text).await.map(|()| digest)
                }
                Err(why) => Err(Refused { why, for_good: true }),
            };
            match outcome {
                Ok(digest) => {
                    tracing::info!(file = %path.display(), "applied");
                    applied.insert(path, digest);
                }
                Err(Refused { why, for_good }) => {
                    refused |= !for_good;
                    if for_good && attempt == 1 || attempt == ATTEMPTS {
                        told::failed(client, host, "ApplyFailed", &path, &why).await;
                    } else {
                        tracing::warn!(file = %path.display(), why, attempt, "not applied yet");
                    }
                }
            }
        }
        if !refused {
            return;
        }
    }
}

struct Refused {
    why: String,
    /// Only another file helps.
    for_good: bool,
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().take(MAX_FILES).map(|entry| entry.path());
    let wanted = |path: &PathBuf| {
        let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        !hidden && path.extension().is_some_and(|kind| ["yaml", "yml", "json"].iter().any(|known| kind == *known))
    };
    let mut found: Vec<_> = entries.filter(wanted).collect();
    found.sort();
    found
}

fn read(path: &Path) -> Result<String, String> {
    // A link in the folder is meant; a pipe or a device would hold us for ever.
    let path = path.canonicalize().map_err(|error| error.to_string())?;
    let bytes = linux::root::read_regular(path, MAX_FILE).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|error| error.to_string())
}

/// Applies every object of a file; the first that can't be is told, when the others were tried.
async fn file(client: &kube::Client, text: &str) -> Result<(), Refused> {
    let mut outcome = Ok(());
    for object in objects(text).map_err(|why| Refused { why, for_good: true })? {
        let applied = apply(client, &object).await;
        outcome = outcome.and(applied.map_err(|why| Refused { why, for_good: false }));
    }
    outcome
}

/// The objects of a text: several documents, lists with their items.
fn objects(text: &str) -> Result<Vec<Value>, String> {
    let mut found = Vec::new();
    for (n, document) in yaml::parse_all(text)?.into_iter().enumerate() {
        let is_list = document["kind"].as_str().is_some_and(|kind| kind == "List");
        match document {
            Value::Null => {}
            Value::Object(mut fields) if is_list => match fields.remove("items") {
                Some(Value::Array(items)) => found.extend(items),
                _ => return Err(format!("document {}: a List without items", n + 1)),
            },
            object => found.push(object),
        }
    }
    for (n, object) in found.iter().enumerate() {
        let named = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
        for (field, value) in [
            ("apiVersion", &object["apiVersion"]),
            ("kind", &object["kind"]),
            ("metadata.name", &object["metadata"]["name"]),
        ] {
            if !named(value) {
                return Err(format!("object {}: it has no {field}", n + 1));
            }
        }
    }
    Ok(found)
}

async fn apply(client: &kube::Client, object: &Value) -> Result<(), String> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (api_version, kind) = (word(&object["apiVersion"]), word(&object["kind"]));
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let name = word(&object["metadata"]["name"]);
    let what = |error: kube::Error| match error {
        kube::Error::Api(status) => format!("{kind} {name}: {}", status.message),
        other => format!("{kind} {name}: {other}"),
    };
    let gvk = GroupVersionKind::gvk(group, version, &kind);
    let (resource, capabilities) = pinned_kind(client, &gvk).await.map_err(what)?;
    let api: Api<DynamicObject> = match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => {
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
    };
    api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object)).await.map(drop).map_err(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_hold_several_objects_and_a_bad_one_is_told_by_what_it_lacks() {
        let names =
            |text: &str| objects(text).map(|all| all.iter().map(|o| o["metadata"]["name"].clone()).collect::<Vec<_>>());
        let one = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
        let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: b}}\n";
        assert_eq!(names(&format!("---\n{one}---\n# nothing\n---\n{list}")), Ok(vec!["a".into(), "b".into()]));
        assert_eq!(names("kind: ConfigMap\n"), Err("object 1: it has no apiVersion".into()));
        assert_eq!(names("apiVersion: v1\nkind: ConfigMap\n"), Err("object 1: it has no metadata.name".into()));
        assert!(names("a: [").is_err() && names("just words").is_err());
        assert_eq!(names(""), Ok(vec![]));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_folder_is_applied_and_followed_and_a_bad_file_keeps_none_of_the_others() {
        let (client, _server) = crate::api::tests::admin().await;
        let dir = tempfile::tempdir().expect("a directory");
        let host = Arc::new(crate::config::tests::host(dir.path()));
        let folder = host.to_apply();
        fs::create_dir(&folder).expect("a directory");
        let map = |name: &str, value: &str| {
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{a: {value}}}\n")
        };
        let space = "apiVersion: v1\nkind: Namespace\nmetadata: {name: mine}\n";
        let inside = map("inside", "x").replace("{name: inside}", "{name: inside, namespace: mine}");
        fs::write(folder.join("a.yaml"), "kind: [\n").expect("written");
        fs::write(folder.join("b.yaml"), format!("{space}---\n{inside}---\n{}", map("one", "first"))).expect("written");
        let stop = CancellationToken::new();
        let running = tokio::spawn(run(host, client.clone(), stop.clone()));
        let maps =
            |namespace: &str| Api::<k8s_openapi::api::core::v1::ConfigMap>::namespaced(client.clone(), namespace);
        let value = async |namespace: &str, name: &str| {
            let found = maps(namespace).get_opt(name).await.expect("answered")?;
            let managers = found.metadata.managed_fields.unwrap_or_default();
            assert!(managers.iter().all(|m| m.manager.as_deref() == Some(MANAGER)), "{managers:?}");
            found.data?.remove("a")
        };
        let comes = async |namespace: &str, name: &str, wanted: &str| {
            for _ in 0..200 {
                if value(namespace, name).await.as_deref() == Some(wanted) {
                    return true;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            false
        };
        assert!(comes("mine", "inside", "x").await && comes("default", "one", "first").await);
        fs::write(folder.join("b.yaml"), map("one", "second")).expect("written");
        fs::write(
            folder.join("c.json"),
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"two"},"data":{"a":"x"}}"#,
        )
        .expect("written");
        assert!(comes("default", "one", "second").await && comes("default", "two", "x").await, "followed");
        assert!(value("mine", "inside").await.is_some(), "what is in no file any more stays");
        fs::rename(folder.join("c.json"), dir.path().join("c.json")).expect("moved");
        tokio::time::sleep(QUIET * 5).await;
        maps("default").delete("two", &kube::api::DeleteParams::default()).await.expect("deleted");
        fs::rename(dir.path().join("c.json"), folder.join("c.json")).expect("moved");
        assert!(comes("default", "two", "x").await, "a file that comes back is applied again");
        let events = Api::<k8s_openapi::api::core::v1::Event>::all(client.clone());
        let events = events.list(&kube::api::ListParams::default()).await.expect("events").items;
        let about = |event: &&k8s_openapi::api::core::v1::Event| event.reason.as_deref() == Some("ApplyFailed");
        let note = events.iter().find(about).and_then(|event| event.message.clone()).unwrap_or_default();
        assert!(note.contains("/apply/a.yaml: "), "{events:?}");
        stop.cancel();
        running.await.expect("ended").expect("well");
    }

    #[tokio::test]
    async fn every_object_of_a_file_is_tried_and_the_first_that_is_refused_told() {
        let (client, _server) = crate::api::tests::admin().await;
        let text = "apiVersion: v1\nkind: Foo\nmetadata: {name: a}\n---\n\
            apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n";
        let refused = file(&client, text).await.expect_err("refused");
        assert!(refused.why.contains("Foo a: ") && !refused.for_good, "{}", refused.why);
        let maps = Api::<k8s_openapi::api::core::v1::ConfigMap>::namespaced(client, "default");
        assert!(maps.get("b").await.is_ok());
    }

    #[test]
    fn only_files_of_yaml_and_json_are_looked_at_in_order() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["b.yml", "a.yaml", "c.json", ".a.yaml.swp", "README.md"] {
            fs::write(dir.path().join(name), "").expect("a file");
        }
        assert_eq!(files(dir.path()), ["a.yaml", "b.yml", "c.json"].map(|name| dir.path().join(name)));
    }
}
