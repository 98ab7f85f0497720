//! `kubectl`: the one on the PATH, with this cluster's kubeconfig. I/O: this process becomes it.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::commands::misc::no_cluster;
use crate::config::Which;
use crate::fault::Fault;

pub fn run(which: &Which, args: &[OsString]) -> Result<()> {
    let host = which.load()?.ok_or_else(|| no_cluster(which))?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = find(&path).ok_or_else(|| Fault::failed(missing()))?;
    let error = Command::new(&program).args(args).env("KUBECONFIG", host.kubeconfig()).exec();
    Err(error).with_context(|| program.display().to_string())
}

fn missing() -> String {
    let version = meta::version::RELEASE;
    format!(
        "there is no kubectl on the PATH: get it from https://dl.k8s.io/release/{version}/bin/linux/{}/kubectl, or as \
         the package kubernetes-client or kubectl of your distribution",
        match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
    )
}

fn find(path: &OsStr) -> Option<PathBuf> {
    let runs = |file: &PathBuf| {
        std::fs::metadata(file).is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(path).filter(|dir| !dir.as_os_str().is_empty()).map(|dir| dir.join("kubectl")).find(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_can_be_run_is_taken_and_a_missing_one_is_told_where_to_get() {
        let dir = tempfile::tempdir().expect("a directory");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for (place, mode) in [(&a, 0o644), (&b, 0o755)] {
            std::fs::create_dir(place).expect("a directory");
            std::fs::write(place.join("kubectl"), "#!/bin/sh\n").expect("a file");
            std::fs::set_permissions(place.join("kubectl"), PermissionsExt::from_mode(mode)).expect("a mode");
        }
        let path = std::env::join_paths([&a, &b]).expect("a path");
        assert_eq!(find(&path), Some(b.join("kubectl")));
        assert_eq!(find(a.as_os_str()), None);
        assert!(missing().contains("https://dl.k8s.io/release/v1.37"), "{}", missing());
    }
}
