//! Images made on the spot: docker archives of one layer, so that no test needs a registry.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::command::output;

/// The image of [`busybox_archive`] as the end-to-end tests import it.
pub const BUSYBOX: &str = "docker.io/library/busybox:test";

/// The image of [`nginx_archive`] as the end-to-end tests import it.
pub const NGINX: &str = "docker.io/library/nginx:test";

/// Programs that the busybox image has as links.
const APPLETS: &[&str] = &[
    "sh", "ls", "cat", "echo", "sleep", "true", "false", "wget", "nc", "nslookup", "httpd", "id", "ps", "kill",
    "touch", "env", "hostname", "mkdir", "rm", "test", "tail", "head", "grep", "dd", "ping", "ip", "stat", "date",
    "mount", "tar", "printf", "seq", "chmod", "wc", "cp", "readlink", "sed", "awk", "tr", "pwd", "trap", "cut",
    "telnet", "base64", "stty", "tty",
];

/// Writes a docker archive of Debian's static busybox, tagged `name`.
pub fn busybox_archive(file: &Path, name: &str) -> Result<()> {
    let root = file.with_extension("root");
    busybox_root(&root)?;
    let config = json!({"Env": ["PATH=/bin"], "Cmd": ["sh"]});
    archive(file, &root, name, &config)?;
    fs::remove_dir_all(&root)?;
    Ok(())
}

/// Makes a root directory with busybox, its links, two users and a page for its httpd.
pub fn busybox_root(root: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(root);
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
    Ok(())
}

/// Writes a docker archive of Debian's nginx and curl with the libraries they need, on top of what the busybox image
/// has. Without more it serves `nginx` on port 80; what is in `/etc/nginx/conf.d` takes the place of that.
pub fn nginx_archive(file: &Path, name: &str) -> Result<()> {
    let root = file.with_extension("root");
    busybox_root(&root)?;
    for program in ["/usr/sbin/nginx", "/usr/bin/curl"] {
        copy_with_libraries(Path::new(program), &root)?;
    }
    for dir in ["etc/nginx/conf.d", "var/lib/nginx", "var/log/nginx", "run"] {
        fs::create_dir_all(root.join(dir))?;
    }
    fs::write(
        root.join("etc/nginx/nginx.conf"),
        "user root;\npid /run/nginx.pid;\nerror_log stderr;\nevents {}\nhttp {\n  access_log off;\n  \
         include /etc/nginx/conf.d/*.conf;\n}\n",
    )?;
    fs::write(
        root.join("etc/nginx/conf.d/default.conf"),
        "server { listen 80; location / { return 200 \"nginx\\n\"; } }\n",
    )?;
    let config = json!({"Env": ["PATH=/bin:/usr/bin:/usr/sbin"], "Cmd": ["nginx", "-g", "daemon off;"]});
    archive(file, &root, name, &config)?;
    fs::remove_dir_all(&root)?;
    Ok(())
}

/// Copies a program of the host to the same place below `root`, and every library that the loader would load for it.
pub fn copy_with_libraries(program: &Path, root: &Path) -> Result<()> {
    let libraries = output(Command::new("ldd").arg(program), "")?.ok().context("what does it need?")?;
    let paths = libraries.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new);
    for path in paths.chain([program]) {
        let target = root.join(path.strip_prefix("/")?);
        fs::create_dir_all(target.parent().context("a parent")?)?;
        fs::copy(path, &target).with_context(|| format!("{} isn't here: is its package installed?", path.display()))?;
    }
    Ok(())
}

/// Turns a docker archive of ours into an OCI layout in `dir`, under this name.
pub fn oci_layout(archive: &Path, dir: &Path, name: &str) -> Result<()> {
    let work = archive.with_extension("unpacked");
    fs::create_dir_all(&work)?;
    tar(&["-C", text(&work)?, "-xf", text(archive)?])?;
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let layer = blob(&blobs, "application/vnd.oci.image.layer.v1.tar", &fs::read(work.join("layer.tar"))?)?;
    let config = blob(&blobs, "application/vnd.oci.image.config.v1+json", &fs::read(work.join("config.json"))?)?;
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": [layer]});
    let mut manifest = blob(&blobs, manifest_type, manifest.to_string().as_bytes())?;
    manifest["annotations"] = json!({"io.containerd.image.name": name});
    fs::write(dir.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string())?;
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    fs::remove_dir_all(&work)?;
    Ok(())
}

/// Writes a blob under its digest and gives its descriptor.
fn blob(blobs: &Path, media_type: &str, bytes: &[u8]) -> Result<serde_json::Value> {
    let new = blobs.join("new");
    fs::write(&new, bytes)?;
    let digest = digest(&new)?;
    fs::rename(&new, blobs.join(&digest))?;
    Ok(json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()}))
}

fn digest(file: &Path) -> Result<String> {
    let sum = output(Command::new("sha256sum").arg(file), "")?.ok()?;
    Ok(sum.split_whitespace().next().context("sha256sum")?.to_owned())
}

/// Writes a docker archive of one layer with the content of `root`.
pub fn archive(file: &Path, root: &Path, name: &str, config: &serde_json::Value) -> Result<()> {
    let work = file.with_extension("work");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work)?;
    tar(&["--numeric-owner", "--owner=0", "--group=0", "-C", text(root)?, "-cf", text(&work.join("layer.tar"))?, "."])?;
    let digest = digest(&work.join("layer.tar"))?;
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

/// Debian's tar.
pub fn tar(args: &[&str]) -> Result<()> {
    output(Command::new("tar").args(args), "")?.ok().map(|_| ())
}

fn text(path: &Path) -> Result<&str> {
    let text = path.to_str().context("path is no text")?;
    ensure!(!text.is_empty(), "empty path");
    Ok(text)
}
