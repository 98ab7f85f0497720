//! An authority made by openssl, and what it signs: for control planes and nodes that a test puts together by hand. I/O:
//! files in the directory of the test.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use serde_json::json;
use testkit::output;

/// See the module's head: `ca.crt` and `ca.key` in this directory, and beside them what was signed.
pub struct Authority {
    pub dir: PathBuf,
}

impl Authority {
    pub fn new(dir: PathBuf) -> Result<Authority> {
        let authority = Authority { dir };
        authority.sign("ca", "/CN=by-hand", "", &[])?;
        Ok(authority)
    }

    pub fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    pub fn openssl(&self, args: &[&str]) -> Result<String> {
        output(Command::new("openssl").args(args).current_dir(&self.dir), "")?.ok()
    }

    /// A key and a certificate of the authority, for server and client; `names` as openssl writes them.
    pub fn certificate(&self, name: &str, subject: &str, names: &str) -> Result<()> {
        let by = ["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"];
        self.sign(name, subject, names, &[&by[..], &["-addext", "extendedKeyUsage=serverAuth,clientAuth"]].concat())
    }

    fn sign(&self, name: &str, subject: &str, names: &str, by: &[&str]) -> Result<()> {
        let (key, cert, san) = (format!("{name}.key"), format!("{name}.crt"), format!("subjectAltName={names}"));
        let mut args =
            vec!["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"];
        args.extend(["-keyout", &key, "-out", &cert, "-subj", subject]);
        args.extend(by);
        if !names.is_empty() {
            args.extend(["-addext", &san]);
        }
        self.openssl(&args).map(drop)
    }

    /// A kubeconfig of a user, with all that it needs in it.
    pub fn kubeconfig(&self, name: &str, subject: &str, server: &str) -> Result<String> {
        self.certificate(name, subject, "")?;
        let inline = |file: &str| self.openssl(&["base64", "-A", "-in", file]);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {
                "server": server, "certificate-authority-data": inline("ca.crt")?}}],
            "users": [{"name": "u", "user": {"client-certificate-data": inline(&format!("{name}.crt"))?,
                "client-key-data": inline(&format!("{name}.key"))?}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        let file = self.file(&format!("{name}.kubeconfig"));
        fs::write(&file, config.to_string())?;
        Ok(file)
    }
}
