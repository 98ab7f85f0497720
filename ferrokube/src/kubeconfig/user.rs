//! The cluster's entry in the kubeconfigs of people: every file that it was put into is remembered in the data
//! directory, whoever called and whatever KUBECONFIG said, and `reset` takes it out of each. What nobody changed in
//! between comes back byte for byte; a file that a cluster of ours made goes with the last that is in it. I/O: reads and
//! writes these files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::as_owner::as_owner;
use super::{Person, parse, read_user_file, text};
use crate::config::{Host, known, lock_host, write_private};
use crate::fault::best_effort;

/// What a person's file was before the merge and what the merge made of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Undo {
    path: PathBuf,
    before: Option<String>,
    after: String,
    /// A cluster of ours made the file.
    #[serde(default)]
    made: bool,
    /// And the directory for it.
    #[serde(default)]
    made_dir: bool,
}

/// A record holds one file, as former versions knew it, or all of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Record {
    All(Vec<Undo>),
    One(Undo),
}

fn undo_file(host: &Host) -> PathBuf {
    host.data_dir.join("kubeconfig.undo")
}

/// Every file that the cluster is in.
fn read(host: &Host) -> Vec<Undo> {
    let record = fs::read(undo_file(host)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let all = match record {
        Some(Record::All(all)) => all,
        Some(Record::One(one)) => vec![one],
        None => Vec::new(),
    };
    all.into_iter().map(|undo| Undo { made: undo.made || undo.before.is_none(), ..undo }).collect()
}

fn write(host: &Host, all: &[Undo]) -> Result<()> {
    write_private(&undo_file(host), &serde_json::to_vec(all)?)
}

/// Merges the cluster's context into the user's kubeconfig and makes it the current one. Returns the file.
pub fn merge_into_user(host: &Host, admin: &Value) -> Result<Option<PathBuf>> {
    let Some(person) = Person::current() else { return Ok(None) };
    let _lock = lock_host()?;
    let path = person.kubeconfig();
    merge_into(host, admin, &person, &path)?;
    Ok(Some(path))
}

fn merge_into(host: &Host, admin: &Value, person: &Person, path: &Path) -> Result<()> {
    let existing = read_user_file(path)?;
    let before = existing.as_ref().map(|(text, _)| text.clone());
    let (text, value) = existing
        .unwrap_or_else(|| ("apiVersion: v1\nkind: Config\n".into(), json!({"apiVersion": "v1", "kind": "Config"})));
    let after = text::with(&text, &value, admin)?;
    if before.as_deref() == Some(&after) {
        return Ok(());
    }
    let mut all = read(host);
    let at = all.iter().position(|undo| undo.path == path);
    let former = at.map(|at| all.remove(at));
    let absent = before.is_none();
    // The file as it was before the first merge is what `reset` gives back.
    let original = match &former {
        Some(undo) if Some(&undo.after) == before.as_ref() => undo.before.clone(),
        // Somebody changed it in between, and our entry is still in it.
        Some(undo) if has_entry_of(undo, &value, &host.cluster.name) => {
            before.map(|before| without(undo, &before, &value, &host.cluster.name)).transpose()?
        }
        _ => before,
    };
    let made_dir = path.parent().is_some_and(|dir| !dir.exists());
    all.push(Undo {
        path: path.to_owned(),
        before: original,
        after: after.clone(),
        made: absent || former.as_ref().is_some_and(|undo| undo.made),
        made_dir: made_dir || former.is_some_and(|undo| undo.made_dir),
    });
    write(host, &all)?;
    person.write(path, &after)
}

/// Takes the cluster's context out of every kubeconfig it was merged into. One that can't be read keeps none of the
/// others from being cleaned, and is told.
pub fn remove_from_user(host: &Host) -> Result<()> {
    if read(host).is_empty() {
        return Ok(());
    }
    let _lock = lock_host()?;
    let others: Vec<_> = known().into_iter().filter(|other| other.cluster.name != host.cluster.name).collect();
    remove_from(host, &others)
}

fn remove_from(host: &Host, others: &[Host]) -> Result<()> {
    let all: Vec<Result<()>> = read(host).into_iter().map(|undo| remove_one(host, &undo, others)).collect();
    all.into_iter().collect()
}

fn remove_one(host: &Host, undo: &Undo, others: &[Host]) -> Result<()> {
    let Some((text, value)) = read_user_file(&undo.path)? else { return Ok(()) };
    let left = match text == undo.after {
        true => undo.before.clone(),
        false => Some(without(undo, &text, &value, &host.cluster.name)?),
    };
    // Somebody's comment is somebody's.
    let bare = |left: &String| !left.contains('#') && parse(left).is_ok_and(|value| is_bare(&value));
    let left = left.filter(|left| !(undo.made && bare(left)));
    match &left {
        // Who writes is root, who owns the file stays its owner: no matter who calls.
        Some(left) => Person { home: PathBuf::new(), ids: None }.write(&undo.path, left)?,
        None => {
            let removed = as_owner(&undo.path, || fs::remove_file(&undo.path)).flatten();
            removed.with_context(|| undo.path.display().to_string())?;
            if let Some(dir) = undo.path.parent().filter(|_| undo.made_dir) {
                // Unless something else has come into it.
                best_effort("the directory of a kubeconfig", as_owner(dir, || fs::remove_dir(dir)).flatten());
            }
        }
    }
    others.iter().try_for_each(|other| hand_over(&host.cluster.name, undo, &text, left.as_deref(), other))
}

/// A text without the cluster; what the file had under its name before comes back.
fn without(undo: &Undo, text: &str, value: &Value, name: &str) -> Result<String> {
    let before = undo.before.as_deref().and_then(|b| parse(b).ok()).unwrap_or_default();
    text::without(text, value, name, &before)
}

/// Whether a file still has the entry that was put into it.
fn has_entry_of(undo: &Undo, value: &Value, name: &str) -> bool {
    let put = parse(&undo.after).unwrap_or_default();
    let ours = super::entry(&put, "clusters", name);
    ours.is_some() && super::entry(value, "clusters", name) == ours
}

/// A kubeconfig that says nothing.
fn is_bare(value: &Value) -> bool {
    let nothing = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(fields) => fields.iter().all(|(name, value)| match name.as_str() {
            "apiVersion" | "kind" => true,
            _ => nothing(value),
        }),
        other => nothing(other),
    }
}

/// What another cluster of this host remembers of the same file no longer has this one in it: it gives back what was
/// there before this one, and inherits that the file is ours.
fn hand_over(name: &str, gone: &Undo, text: &str, left: Option<&str>, other: &Host) -> Result<()> {
    let mut all = read(other);
    let Some(later) = all.iter_mut().find(|later| later.path == gone.path) else { return Ok(()) };
    let forget = |remembered: &str| match parse(remembered) {
        Ok(value) => without(gone, remembered, &value, name),
        Err(_) => Ok(remembered.to_owned()),
    };
    later.before = match later.before.take() {
        Some(before) if before == gone.after => gone.before.clone(),
        Some(before) => Some(forget(&before)?),
        None => None,
    };
    later.after = match left {
        Some(left) if later.after == text => left.to_owned(),
        _ => forget(&later.after)?,
    };
    later.made |= gone.made;
    later.made_dir |= gone.made_dir;
    write(other, &all)
}

/// Brings the administrator's new certificate into every file that the cluster was merged into, and into what is
/// remembered of these files: what `reset` gives back must not be a certificate that has run out.
pub fn renew_in_user_files(host: &Host, admin: &Value) -> Result<()> {
    let files = read(host);
    if files.is_empty() {
        return Ok(());
    }
    let _lock = lock_host()?;
    let again = |text: &str| match parse(text) {
        Ok(value) => text::renewed(text, &value, admin),
        Err(_) => Ok(text.to_owned()),
    };
    let others = known().into_iter().filter(|other| other.cluster.name != host.cluster.name);
    for host in std::iter::once(host.clone()).chain(others) {
        let mut all = read(&host);
        for undo in all.iter_mut().filter(|undo| files.iter().any(|file| file.path == undo.path)) {
            undo.after = again(&undo.after)?;
            undo.before = undo.before.as_deref().map(again).transpose()?;
        }
        if !all.is_empty() {
            write(&host, &all)?;
        }
    }
    let renewed = files.iter().map(|file| {
        let Some((text, value)) = read_user_file(&file.path)? else { return Ok(()) };
        match text::renewed(&text, &value, admin)? {
            renewed if renewed == text => Ok(()),
            // Who writes is root, who owns the file stays its owner.
            renewed => Person { home: PathBuf::new(), ids: None }.write(&file.path, &renewed),
        }
    });
    // Each is tried; the first failure is told.
    let all: Vec<Result<()>> = renewed.collect();
    all.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubeconfig::tests::admin;

    struct Hosts {
        dir: tempfile::TempDir,
        clusters: Vec<Host>,
    }

    impl Hosts {
        fn new(names: &[&str]) -> Hosts {
            let dir = tempfile::tempdir().expect("a directory");
            let clusters = names.iter().map(|name| {
                let data = dir.path().join(name);
                fs::create_dir_all(&data).expect("a directory");
                crate::config::tests::named(name, &data)
            });
            Hosts { clusters: clusters.collect(), dir }
        }

        fn file(&self, home: &str) -> PathBuf {
            self.dir.path().join("homes").join(home).join(".kube/config")
        }

        fn merge(&self, name: &str, home: &str) {
            let person = Person { home: self.dir.path().join("homes").join(home), ids: None };
            merge_into(self.named(name), &admin(name), &person, &self.file(home)).expect("merged");
        }

        fn named(&self, name: &str) -> &Host {
            self.clusters.iter().find(|host| host.cluster.name == name).expect("a cluster")
        }

        fn reset(&mut self, name: &str) {
            let at = self.clusters.iter().position(|host| host.cluster.name == name).expect("a cluster");
            let gone = self.clusters.remove(at);
            remove_from(&gone, &self.clusters).expect("removed");
        }

        fn contexts(&self, home: &str) -> Vec<String> {
            let (_, value) = read_user_file(&self.file(home)).expect("read").expect("a file");
            let all = value["contexts"].as_array().cloned().unwrap_or_default();
            all.iter().map(|context| context["name"].as_str().unwrap_or_default().to_owned()).collect()
        }
    }

    #[test]
    fn every_file_that_a_cluster_was_put_into_is_cleaned() {
        let mut host = Hosts::new(&["a"]);
        fs::create_dir_all(host.dir.path().join("homes/eve/.kube")).expect("a directory");
        fs::write(host.file("eve"), "apiVersion: v1\nkind: Config\n# mine\n").expect("written");
        for home in ["root", "eve", "root"] {
            host.merge("a", home);
        }
        assert_eq!(host.contexts("root"), ["a"]);
        host.reset("a");
        assert!(!host.dir.path().join("homes/root/.kube").exists(), "the directory was made for it");
        assert_eq!(fs::read_to_string(host.file("eve")).expect("kept"), "apiVersion: v1\nkind: Config\n# mine\n");
    }

    /// Of three clusters in one file the first that went took the third out of what the second gave back.
    #[test]
    fn clusters_of_one_file_go_in_any_order_and_take_only_their_own() {
        let orders =
            [["a", "b", "c"], ["a", "c", "b"], ["b", "a", "c"], ["b", "c", "a"], ["c", "a", "b"], ["c", "b", "a"]];
        for order in orders {
            let mut host = Hosts::new(&["a", "b", "c"]);
            for name in ["a", "b", "c"] {
                host.merge(name, "root");
            }
            host.reset(order[0]);
            let mut two = host.contexts("root");
            two.sort();
            let mut expected = [order[1], order[2]];
            expected.sort_unstable();
            assert_eq!(two, expected, "{order:?}");
            host.reset(order[1]);
            assert_eq!(host.contexts("root"), [order[2]], "{order:?}");
            host.reset(order[2]);
            assert!(!host.file("root").exists() && !host.dir.path().join("homes/root/.kube").exists(), "{order:?}");
        }
    }

    /// kubectl had changed the current context: an empty file stayed.
    #[test]
    fn an_empty_file_that_we_made_does_not_stay_whatever_changed_in_between() {
        let mut host = Hosts::new(&["a", "b"]);
        host.merge("a", "root");
        let text = fs::read_to_string(host.file("root")).expect("a file");
        fs::write(host.file("root"), text.replace("current-context: a", "current-context: \"\"")).expect("written");
        host.merge("b", "root");
        host.reset("a");
        assert_eq!(host.contexts("root"), ["b"]);
        host.reset("b");
        assert!(!host.file("root").exists());
        for mine in ["x-mine: 1\n", "# mine\n"] {
            let mut host = Hosts::new(&["a"]);
            host.merge("a", "root");
            let text = fs::read_to_string(host.file("root")).expect("a file");
            fs::write(host.file("root"), text + mine).expect("written");
            host.reset("a");
            assert!(fs::read_to_string(host.file("root")).expect("kept").contains(mine), "it says something");
        }
    }

    /// A link to a file of root's was followed by root: who owned the home had it rewritten.
    #[test]
    fn a_home_of_links_leads_root_nowhere() {
        if !rustix::process::geteuid().is_root() {
            return println!("skipped: needs root");
        }
        const SOMEBODY: u32 = 65_534;
        let host = Hosts::new(&["a"]);
        let open = |dir: &Path| fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o755));
        open(host.dir.path()).expect("a mode");
        let (home, roots) = (host.dir.path().join("homes/eve"), host.dir.path().join("root/.kube"));
        for dir in [&home, &roots] {
            fs::create_dir_all(dir).expect("a directory");
        }
        std::os::unix::fs::chown(&home, Some(SOMEBODY), Some(SOMEBODY)).expect("an owner");
        let person = Person { home: home.clone(), ids: Some((SOMEBODY, SOMEBODY)) };
        let merge = || merge_into(host.named("a"), &admin("a"), &person, &host.file("eve"));
        std::os::unix::fs::symlink(&roots, home.join(".kube")).expect("a link");
        merge().expect_err("not into root's directory");
        assert!(!roots.join("config").exists());
        fs::remove_file(home.join(".kube")).expect("removed");
        merge().expect("merged");
        let file = fs::metadata(host.file("eve")).expect("a file");
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&file), SOMEBODY);
        // Later, when the cluster is in root's file too.
        fs::copy(host.file("eve"), roots.join("config")).expect("copied");
        let text = fs::read_to_string(roots.join("config")).expect("there");
        open(&roots).expect("a mode");
        fs::remove_file(host.file("eve")).expect("removed");
        std::os::unix::fs::symlink(roots.join("config"), host.file("eve")).expect("a link");
        let _ = remove_from(host.named("a"), &[]);
        assert_eq!(fs::read_to_string(roots.join("config")).expect("there"), text);
        let told = read_user_file(&host.file("eve")).expect_err("refused").to_string();
        assert!(told.contains("may not read it; chown"), "{told}");
    }

    /// The daemon renews certificates while it holds the host's lock.
    #[test]
    fn a_pipe_in_the_place_of_a_kubeconfig_holds_nobody() {
        let dir = tempfile::tempdir().expect("a directory");
        let pipe = dir.path().join("config");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).expect("a pipe");
        assert!(read_user_file(&pipe).expect_err("refused").to_string().contains("mend or move it"));
    }

    /// After `kubectl config use-context other`, `down` and `up`, `reset` gave back a file that had the cluster in it.
    #[test]
    fn a_cluster_that_was_started_again_in_a_changed_file_leaves_it() {
        let mut host = Hosts::new(&["a"]);
        let other = "apiVersion: v1\nkind: Config\ncontexts:\n- context: {cluster: o, user: o}\n  name: o\n\
            current-context: o\n";
        fs::create_dir_all(host.file("root").parent().expect("a directory")).expect("made");
        fs::write(host.file("root"), other).expect("written");
        for _ in 0..2 {
            host.merge("a", "root");
            let text = fs::read_to_string(host.file("root")).expect("a file");
            fs::write(host.file("root"), text.replace("current-context: a", "current-context: o")).expect("written");
        }
        host.merge("a", "root");
        assert_eq!(host.contexts("root"), ["o", "a"]);
        host.reset("a");
        assert_eq!(host.contexts("root"), ["o"]);
        let left = fs::read_to_string(host.file("root")).expect("kept");
        assert!(left.contains("current-context: o") && !left.contains("-data"), "{left}");
    }

    #[test]
    fn a_record_of_a_former_version_is_read() {
        let host = Hosts::new(&["a"]);
        let old = r#"{"path":"/h/.kube/config","before":null,"after":"x","made_dir":true}"#;
        fs::write(undo_file(host.named("a")), old).expect("written");
        let all = read(host.named("a"));
        assert!(all.len() == 1 && all[0].made && all[0].made_dir);
    }

    #[test]
    fn a_file_that_can_not_be_read_keeps_no_other_from_being_cleaned() {
        let host = Hosts::new(&["a"]);
        host.merge("a", "eve");
        host.merge("a", "root");
        fs::write(host.file("eve"), "clusters: [").expect("written");
        let told = remove_from(host.named("a"), &[]).expect_err("told").to_string();
        assert!(told.contains("eve/.kube/config"), "{told}");
        assert!(!host.file("root").exists());
    }
}
