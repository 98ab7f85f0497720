//! `assets DIR`: the folder in which controller-runtime's envtest, and whoever starts a control plane for tests the same
//! way, looks for programs: links of their names to this one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::misc::print;
use crate::fault::{Fault, best_effort};

/// The programs that are this one.
const OURS: [&str; 2] = ["etcd", "kube-apiserver"];
const KUBECTL: &str = "kubectl";

pub fn run(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let dir = dir.canonicalize().with_context(|| dir.display().to_string())?;
    let program = std::env::current_exe().context("this program's own file")?;
    for name in OURS {
        link(&program, &dir.join(name))?;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    match on_path(std::env::split_paths(&path), &dir) {
        Some(kubectl) => link(&kubectl, &dir.join(KUBECTL))?,
        None => eprintln!("no kubectl is on the PATH: tests that call it will miss it, others need none"),
    }
    print(&format!("export KUBEBUILDER_ASSETS={}\n", quoted(&dir.display().to_string())))
}

/// The first kubectl of these folders, besides the one that is made here.
fn on_path(folders: impl Iterator<Item = PathBuf>, except: &Path) -> Option<PathBuf> {
    let other = folders.filter(|folder| folder.is_absolute() && folder.canonicalize().is_ok_and(|f| f != except));
    other.map(|folder| folder.join(KUBECTL)).find(|file| file.is_file())
}

/// Makes a link, in the place of one that is there. A file that somebody put there stays.
fn link(target: &Path, place: &Path) -> Result<()> {
    let there = fs::symlink_metadata(place);
    if there.as_ref().is_ok_and(|there| !there.is_symlink()) {
        let sentence =
            format!("{} is there already and no link: take it away, or name another folder", place.display());
        return Err(Fault::failed(sentence).into());
    }
    let new = place.with_extension("new");
    best_effort("an old draft", fs::remove_file(&new));
    symlink(target, &new).and_then(|()| fs::rename(&new, place)).with_context(|| place.display().to_string())
}

/// As a shell reads it.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_made_anew_and_files_of_others_stay() {
        let dir = tempfile::tempdir().expect("a folder");
        let place = dir.path().join("etcd");
        for target in ["/first", "/second", "/second"] {
            link(Path::new(target), &place).expect("linked");
            assert_eq!(fs::read_link(&place).expect("a link"), Path::new(target));
        }
        let file = dir.path().join("kube-apiserver");
        fs::write(&file, "theirs").expect("written");
        let said = link(Path::new("/ours"), &file).expect_err("refused").to_string();
        assert!(said.contains("kube-apiserver is there already and no link"), "{said}");
        assert_eq!(fs::read(&file).expect("there"), b"theirs");
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 2, "nothing else is left");
    }

    #[test]
    fn the_kubectl_of_the_folder_itself_is_not_the_one_on_the_path() {
        let (ours, theirs) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        for dir in [&ours, &theirs] {
            fs::write(dir.path().join(KUBECTL), "").expect("written");
        }
        let except = ours.path().canonicalize().expect("a path");
        let folders = || [PathBuf::from("relative"), ours.path().into(), "/nowhere".into(), theirs.path().into()];
        assert_eq!(on_path(folders().into_iter(), &except), Some(theirs.path().join(KUBECTL)));
        assert_eq!(on_path(folders().into_iter().take(3), &except), None);
    }

    #[test]
    fn a_shell_reads_the_folder_as_it_is() {
        assert_eq!(quoted("/tmp/a-b_c.d"), "/tmp/a-b_c.d");
        assert_eq!(quoted("/tmp/a b"), "'/tmp/a b'");
        assert_eq!(quoted("/it's"), r"'/it'\''s'");
    }
}
