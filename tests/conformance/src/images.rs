//! The images that upstream's tests use, under their names: made from its own server and Debian's programs. I/O.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use crate::upstream::Programs;

/// Where upstream keeps its test images.
const HOME: &str = "registry.k8s.io/e2e-test-images";

/// Debian's programs in the image of the server, which upstream's has from elsewhere.
const TOOLS: [&str; 8] = [
    "/usr/bin/curl",
    "/usr/bin/dig",
    "/usr/bin/getent",
    "/usr/bin/iperf",
    "/usr/bin/printenv",
    "/usr/bin/socat",
    "/usr/bin/wget",
    "/bin/nc.openbsd",
];

/// Makes the archives that aren't there yet.
pub fn build(programs: &Programs, dir: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(dir)?;
    let server = |args: &[&str]| json!({"Entrypoint": ["/agnhost"], "Cmd": args});
    let page = |text: &str| json!({"Entrypoint": ["/bin/httpd", "-f", "-p", "80", "-h", text]});
    let images: [(&str, Value); 14] = [
        ("agnhost:2.66.1", json!({"Entrypoint": ["/agnhost"], "Cmd": ["pause"]})),
        ("agnhost:2.55", json!({"Entrypoint": ["/agnhost"], "Cmd": ["pause"]})),
        ("glibc-dns-testing:2.1.1", json!({"Entrypoint": ["/bin/sh"]})),
        ("busybox:1.37.0-2", json!({"Cmd": ["sh"]})),
        ("busybox:1.36.1-1", json!({"Cmd": ["sh"]})),
        ("nginx:1.27.0-2", server(&["netexec", "--http-port=80", "--udp-port=-1"])),
        ("nginx:1.28.0-2", server(&["netexec", "--http-port=80", "--udp-port=-1"])),
        ("pause:3.10.2", server(&["pause"])),
        ("nonroot:1.5", json!({"Entrypoint": ["/agnhost", "pause"], "User": "1234"})),
        ("nonewprivs:1.4", json!({"Entrypoint": ["/nnp"], "User": "1000"})),
        ("regression-issue-74839:1.5", server(&["pause"])),
        ("perl:5.26", json!({"Cmd": ["perl"]})),
        ("nautilus:1.8", page("/var/nautilus")),
        ("kitten:1.8", page("/var/kitten")),
    ];
    images.into_iter().map(|(name, config)| image(programs, dir, name, config)).collect()
}

fn image(programs: &Programs, dir: &Path, name: &str, mut config: Value) -> Result<PathBuf> {
    let file = dir.join(format!("{}.tar", name.replace(':', "-")));
    if file.exists() {
        return Ok(file);
    }
    config["Env"] = json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/"]);
    let kind = name.split(':').next().unwrap_or_default();
    let root = dir.join("root");
    testkit::image::busybox_root(&root)?;
    applets(&root)?;
    match kind {
        "busybox" => {}
        "perl" => testkit::image::copy_with_libraries(Path::new("/usr/bin/perl"), &root)?,
        "nonewprivs" => setuid(&root)?,
        "nautilus" | "kitten" => {
            let dir = root.join("var").join(kind);
            fs::create_dir_all(&dir)?;
            fs::write(dir.join("data.json"), format!("{{\"image\": \"{kind}.jpg\"}}\n"))?;
        }
        _ => serving(programs, &root, matches!(kind, "agnhost" | "glibc-dns-testing"))?,
    }
    let full = if kind == "pause" { format!("registry.k8s.io/{name}") } else { format!("{HOME}/{name}") };
    testkit::image::archive(&file, &root, &full, &config)?;
    fs::remove_dir_all(&root)?;
    Ok(file)
}

/// Every program of busybox, where tests look for them.
fn applets(root: &Path) -> Result<()> {
    let listed = testkit::output(Command::new("busybox").arg("--list"), "")?.ok()?;
    for dir in ["usr/bin", "usr/sbin", "sbin", "home", "mnt", "srv", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(dir))?;
    }
    for applet in listed.split_whitespace() {
        for dir in ["bin", "sbin", "usr/bin"] {
            let link = root.join(dir).join(applet);
            if fs::symlink_metadata(&link).is_err() {
                symlink("/bin/busybox", link)?;
            }
        }
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\ndefault-user:x:1001:1001::/home:/bin/sh\n",
    )?;
    fs::write(root.join("etc/group"), "root:x:0:\nnobody:x:65534:\nfirst:x:50000:default-user\n")?;
    Ok(())
}

/// Upstream's server; with a shell and tools that find others in the path before busybox's own.
fn serving(programs: &Programs, root: &Path, tools: bool) -> Result<()> {
    for name in ["agnhost", "agnhost-2"] {
        fs::copy(&programs.agnhost, root.join(name))?;
    }
    if !tools {
        return Ok(());
    }
    for tool in TOOLS.iter().copied().chain(["/bin/dash"]) {
        let _ = fs::remove_file(root.join(&tool[1..]));
        testkit::image::copy_with_libraries(Path::new(tool), root)?;
    }
    for (link, to) in [("bin/sh", "/bin/dash"), ("bin/nc", "/bin/nc.openbsd"), ("usr/bin/nc", "/bin/nc.openbsd")] {
        fs::remove_file(root.join(link))?;
        symlink(to, root.join(link))?;
    }
    let mut certificate = Command::new("openssl");
    certificate.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=localhost"]);
    certificate.args(["-addext", "subjectAltName=DNS:localhost", "-keyout"]).arg(root.join("localhost.key"));
    testkit::output(certificate.arg("-out").arg(root.join("localhost.crt")), "")?.ok()?;
    Ok(())
}

/// A program that tells as whom it runs, and would run as root.
fn setuid(root: &Path) -> Result<()> {
    let source = root.with_extension("c");
    fs::write(
        &source,
        "#include <stdio.h>\n#include <unistd.h>\nint main(void) { printf(\"Effective uid: %d\\n\", geteuid()); return 0; }\n",
    )?;
    let program = root.join("nnp");
    testkit::output(Command::new("cc").arg("-static").arg("-o").arg(&program).arg(&source), "")?.ok()?;
    fs::set_permissions(program, fs::Permissions::from_mode(0o4755))?;
    Ok(())
}
