//! A real etcd cluster of three members, with TLS for clients: Debian's, or what `ETCD` names. Members are killed and
//! started again one by one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{Host, eventually, output, tool};

/// How many there are: one may be lost.
pub const MEMBERS: usize = 3;
const CLIENTS: u16 = 2379;
const PEERS: u16 = 2380;
const FIRST: u16 = 100;

/// See the module's head. Members are killed when it is dropped.
pub struct Etcd<'a> {
    host: &'a Host,
    address: String,
    dir: PathBuf,
    members: [Option<Child>; MEMBERS],
}

impl<'a> Etcd<'a> {
    /// Starts it on a host, at this address of it; everything is kept in `dir`.
    pub fn start(host: &'a Host, address: &str, dir: &Path) -> Result<Etcd<'a>> {
        fs::create_dir_all(dir)?;
        certificates(dir, address)?;
        let mut etcd = Etcd { host, address: address.to_owned(), dir: dir.to_owned(), members: [None, None, None] };
        for member in 0..MEMBERS {
            etcd.run(member)?;
        }
        etcd.wait(Duration::from_secs(30))?;
        Ok(etcd)
    }

    fn port(member: usize, base: u16) -> u16 {
        base + FIRST * member as u16
    }

    /// URLs for clients.
    pub fn servers(&self) -> String {
        let url = |member| format!("https://{}:{}", self.address, Self::port(member, CLIENTS));
        (0..MEMBERS).map(url).collect::<Vec<_>>().join(",")
    }

    pub fn ca(&self) -> String {
        self.dir.join("ca.crt").display().to_string()
    }

    /// A client's certificate and key.
    pub fn client(&self) -> [String; 2] {
        ["client.crt", "client.key"].map(|name| self.dir.join(name).display().to_string())
    }

    /// Starts a member that isn't there.
    pub fn run(&mut self, member: usize) -> Result<()> {
        let peer = |member| format!("http://{}:{}", self.address, Self::port(member, PEERS));
        let cluster: Vec<String> = (0..MEMBERS).map(|member| format!("m{member}={}", peer(member))).collect();
        let client = format!("https://{}:{}", self.address, Self::port(member, CLIENTS));
        let mut command = self.host.command(tool("ETCD", "etcd"));
        command.args(["--name", &format!("m{member}"), "--initial-cluster", &cluster.join(",")]);
        command.arg("--data-dir").arg(self.dir.join(format!("m{member}")));
        command.args(["--listen-peer-urls", &peer(member), "--initial-advertise-peer-urls", &peer(member)]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client, "--client-cert-auth"]);
        command.args(["--trusted-ca-file", &self.ca()]);
        command.arg("--cert-file").arg(self.dir.join("server.crt"));
        command.arg("--key-file").arg(self.dir.join("server.key"));
        let log = fs::File::options().append(true).create(true).open(self.dir.join(format!("m{member}.log")))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.members[member] = Some(command.spawn().context("etcd: is the package etcd-server installed?")?);
        Ok(())
    }

    /// Kills a member as a power cut does.
    pub fn kill(&mut self, member: usize) -> Result<()> {
        let mut child = self.members[member].take().context("it runs")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Which of the members leads.
    pub fn leader(&self) -> Result<usize> {
        let said = self.etcdctl(&["endpoint", "status", "--write-out=simple"])?;
        let leads = |line: &&str| line.split(", ").nth(4) == Some("true");
        let line = said.lines().find(leads).with_context(|| said.clone())?;
        let port = |member| format!(":{},", Self::port(member, CLIENTS));
        (0..MEMBERS).find(|member| line.contains(&port(*member))).context("a member of ours")
    }

    /// Waits until it takes writes.
    pub fn wait(&self, patience: Duration) -> Result<()> {
        eventually(patience, || {
            let said = self.etcdctl(&["put", "/test/alive", "yes"])?;
            ensure!(said.contains("OK"), "{said}");
            Ok(())
        })
    }

    pub fn etcdctl(&self, args: &[&str]) -> Result<String> {
        let mut command = self.host.command("etcdctl");
        let [cert, key] = self.client();
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.servers(), "--cacert", &self.ca()]);
        command.args(["--cert", &cert, "--key", &key, "--command-timeout", "5s"]);
        output(command.args(args), "")?.ok()
    }
}

impl Drop for Etcd<'_> {
    fn drop(&mut self) {
        for child in self.members.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A CA, a certificate of the members and one of clients.
fn certificates(dir: &Path, address: &str) -> Result<()> {
    let new = |name: &str, subject: &str| {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]);
        openssl.args(["-subj", subject]);
        openssl.arg("-keyout").arg(dir.join(format!("{name}.key"))).arg("-out").arg(dir.join(format!("{name}.crt")));
        openssl
    };
    output(&mut new("ca", "/CN=etcd-ca"), "")?.ok()?;
    let names = format!("subjectAltName=IP:{address}");
    for (name, subject, extension) in
        [("server", "/CN=etcd", names.as_str()), ("client", "/CN=apiserver", "extendedKeyUsage=clientAuth")]
    {
        let mut openssl = new(name, subject);
        openssl.arg("-CA").arg(dir.join("ca.crt")).arg("-CAkey").arg(dir.join("ca.key"));
        openssl.args(["-addext", "basicConstraints=critical,CA:FALSE", "-addext", extension]);
        output(&mut openssl, "")?.ok()?;
    }
    Ok(())
}
