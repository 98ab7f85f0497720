//! Debian's docker-registry, for tests that pull.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context, Result};

use crate::Cluster;
use crate::command::output;

/// Debian's registry on a free port of loopback.
#[derive(Debug)]
pub struct Registry {
    server: Child,
    cluster: Cluster,
    /// Host and port, as image names begin.
    pub address: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Registry {
    /// Starts it where the cluster runs.
    pub fn start(cluster: &Cluster) -> Result<Registry> {
        let dir = cluster.dir.join("registry");
        fs::create_dir_all(dir.join("data"))?;
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}/data}}}}\n\
             http: {{addr: '127.0.0.1:0'}}\n",
            dir.display()
        );
        fs::write(dir.join("config.yml"), config)?;
        let mut command = cluster.program(Path::new("docker-registry"));
        command.arg("serve").arg(dir.join("config.yml")).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut server = command.spawn().context("docker-registry")?;
        let log = BufReader::new(server.stderr.take().context("no log")?);
        let mut registry = Registry { server, cluster: cluster.clone(), address: String::new() };
        let mut lines = log.lines();
        let line = lines.find(|l| l.as_ref().is_ok_and(|l| l.contains("listening on "))).context("no address")??;
        let words = line.split("listening on ").nth(1).context("no address")?;
        registry.address = words.split(['"', ' ']).next().unwrap_or_default().to_owned();
        // What it says later must go somewhere.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(registry)
    }

    /// Pushes what an OCI layout holds.
    pub fn push(&self, layout: &Path, name: &str) -> Result<()> {
        let index: serde_json::Value = serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
        let digest = index["manifests"][0]["digest"].as_str().context("digest")?.to_owned();
        let blobs = layout.join("blobs/sha256");
        for entry in fs::read_dir(&blobs)?.flatten() {
            let start = format!("http://{}/v2/{name}/blobs/uploads/", self.address);
            let upload = self.curl(&["-X", "POST", "-o", "/dev/null", "-D", "-", &start])?;
            let location = upload.lines().find_map(|l| l.strip_prefix("Location: ")).context("no location")?.trim();
            let digest = format!("sha256:{}", entry.file_name().to_string_lossy());
            let data = format!("@{}", entry.path().display());
            let to = format!("{location}&digest={digest}");
            self.curl(&["-X", "PUT", "-H", "content-type: application/octet-stream", "--data-binary", &data, &to])?;
        }
        let manifest = format!("@{}", blobs.join(digest.trim_start_matches("sha256:")).display());
        let to = format!("http://{}/v2/{name}/manifests/1", self.address);
        let kind = "content-type: application/vnd.oci.image.manifest.v1+json";
        self.curl(&["-X", "PUT", "-H", kind, "--data-binary", &manifest, &to]).map(drop)
    }

    fn curl(&self, args: &[&str]) -> Result<String> {
        let mut command = self.cluster.program(Path::new("curl"));
        output(command.args(["-sS", "--fail", "--max-time", "20"]).args(args), "")?.ok()
    }
}
