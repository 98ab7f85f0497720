//! Hosts on a switch, and the programs that run on them.

use std::fs::{File, Permissions};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use linux::netlink::{Mac, NewVeth, Rtnl};
use linux::netns::NetNs;
use meta::Prefix;
use tempfile::TempDir;

/// Long enough for a loaded machine; only waited for when something is wrong.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// What the end of a log may tell of a failure.
const TAIL: usize = 6000;

/// Tries until it works; after [`PATIENCE`] fails with the last reason.
pub fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Result<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) if Instant::now() > deadline => panic!("{what}, not within {PATIENCE:?}: {error:#}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// A switch.
pub struct Lab {
    ns: NetNs,
    dir: TempDir,
}

/// A host on it: `eth0` with 10.0.0.N/24 and fd00::N/64.
#[derive(Clone)]
pub struct Host {
    pub ns: Arc<NetNs>,
    pub n: u8,
    pub dir: PathBuf,
}

impl Lab {
    pub fn new() -> Lab {
        let ns = NetNs::create().unwrap();
        Rtnl::open_in(&ns).unwrap().add_bridge("switch", Mac([2, 0, 0, 0, 1, 1]), 1500).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        Lab { ns, dir }
    }

    pub fn host(&self, n: u8) -> Host {
        let ns = NetNs::create().unwrap();
        let mut rtnl = Rtnl::open_in(&self.ns).unwrap();
        let master = rtnl.link("switch").unwrap().map(|link| link.index);
        let (name, peer_ns) = (format!("port{n}"), Some(ns.as_fd()));
        let veth = NewVeth { name: &name, mac: None, master, mtu: 1500, peer_name: "eth0", peer_mac: None, peer_ns };
        rtnl.add_veth(&veth).unwrap();
        let mut inside = Rtnl::open_in(&ns).unwrap();
        // Link-local addresses are there at once: nobody else can have them.
        ns.run(|| linux::sysctl::set("net.ipv6.conf.eth0.accept_dad", "0").unwrap()).unwrap();
        for name in ["lo", "eth0"] {
            let index = inside.link(name).unwrap().unwrap().index;
            inside.set_up(index, true).unwrap();
        }
        let eth0 = inside.link("eth0").unwrap().unwrap().index;
        inside.put_address(eth0, Prefix::new(v4(n), 24)).unwrap();
        inside.put_address(eth0, Prefix::new(v6(n), 64)).unwrap();
        let dir = self.dir.path().join(format!("host{n}"));
        std::fs::create_dir(&dir).unwrap();
        // FRR's programs give their rights away.
        std::fs::set_permissions(&dir, Permissions::from_mode(0o777)).unwrap();
        Host { ns: Arc::new(ns), n, dir }
    }

    /// Cuts a host off, or mends that. It doesn't notice by its own link.
    pub fn cut(&self, host: &Host, off: bool) {
        let mut rtnl = Rtnl::open_in(&self.ns).unwrap();
        let port = rtnl.link(&format!("port{}", host.n)).unwrap().unwrap().index;
        rtnl.set_up(port, !off).unwrap();
    }
}

pub fn v4(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, n])
}

pub fn v6(n: u8) -> IpAddr {
    IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)])
}

impl Host {
    /// Writes a file of this host.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Starts a program here; what it says goes to `NAME.log`. A link that was made a moment ago has its addresses by now.
    pub fn start(&self, name: &str, command: &mut Command) -> Program {
        let log = self.dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let child = self.ns.run(|| command.spawn()).unwrap();
        Program { child: child.unwrap_or_else(|error| panic!("{command:?}: {error}")), log }
    }

    /// What a program says that must succeed.
    pub fn say(&self, command: &mut Command) -> Result<String> {
        let shown = format!("{command:?}");
        let output = self.ns.run(|| command.stdin(Stdio::null()).output())?.with_context(|| shown.clone())?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{shown}: {said}{}", String::from_utf8_lossy(&output.stderr));
        Ok(said)
    }

    /// The address of the link's own.
    pub fn link_local(&self) -> IpAddr {
        let all = self.rtnl().addresses(None).unwrap();
        let of_link = |address: &IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        all.iter().map(|known| known.prefix.addr).find(of_link).unwrap()
    }

    pub fn rtnl(&self) -> Rtnl {
        Rtnl::open_in(&self.ns).unwrap()
    }
}

/// A program that is killed at the end.
pub struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// kill -9.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn log(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            println!("--- end of {}\n{}", self.log.display(), self.log());
        }
    }
}

fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&text[text.len().saturating_sub(TAIL)..]).into_owned()
}
