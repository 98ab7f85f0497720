//! Images made on the spot: docker archives of one layer, so that no test needs a registry.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::command::output;

/// Programs that the busybox image has as links.
const APPLETS: &[&str] = &[
    "sh", "ls", "cat", "echo", "sleep", "true", "false", "wget", "nc", "nslookup", "httpd", "id", "ps", "kill",
    "touch", "env", "hostname", "mkdir", "rm", "test", "tail", "head", "grep", "dd", "ping", "ip", "stat", "date",
    "mount", "tar", "printf", "seq", "chmod", "wc", "cp", "readlink", "sed", "awk", "tr", "pwd", "trap", "cut",
    "telnet", "base64",
];

/// Writes a docker archive of Debian's static busybox, tagged `name`.
pub fn busybox_archive(file: &Path, name: &str) -> Result<()> {
    let root = file.with_extension("root");
    let _ = fs::remove_dir_all(&root);
    for dir in ["bin", "etc", "tmp", "var/www", "root"] {
        fs::create_dir_all(root.join(dir))?;
    }
    let busybox = ["/usr/bin/busybox", "/bin/busybox"].into_iter().find(|p| Path::new(p).exists());
    fs::copy(busybox.context("busybox-static is not installed")?, root.join("bin/busybox"))?;
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\nnobody:x:65534:\n")?;
    fs::write(root.join("var/www/index.html"), "hello\n")?;
    let config = json!({"Env": ["PATH=/bin"], "Cmd": ["sh"]});
    archive(file, &root, name, &config)?;
    fs::remove_dir_all(&root)?;
    Ok(())
}

/// Writes a docker archive of one layer with the content of `root`.
pub fn archive(file: &Path, root: &Path, name: &str, config: &serde_json::Value) -> Result<()> {
    let work = file.with_extension("work");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work)?;
    tar(&["--numeric-owner", "--owner=0", "--group=0", "-C", text(root)?, "-cf", text(&work.join("layer.tar"))?, "."])?;
    let sum = output(Command::new("sha256sum").arg(work.join("layer.tar")), "")?.ok()?;
    let digest = sum.split_whitespace().next().context("sha256sum")?.to_owned();
    let image = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    fs::write(work.join("config.json"), image.to_string())?;
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    fs::write(work.join("manifest.json"), manifest.to_string())?;
    tar(&["-C", text(&work)?, "-cf", text(file)?, "manifest.json", "config.json", "layer.tar"])?;
    fs::remove_dir_all(&work)?;
    Ok(())
}

fn tar(args: &[&str]) -> Result<()> {
    output(Command::new("tar").args(args), "")?.ok().map(|_| ())
}

fn text(path: &Path) -> Result<&str> {
    let text = path.to_str().context("path is no text")?;
    ensure!(!text.is_empty(), "empty path");
    Ok(text)
}
