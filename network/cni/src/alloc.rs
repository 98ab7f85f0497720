//! host-local: hands out the addresses of a subnet of this host, of either family. Does I/O: one file an address. Subnets of
//! both families share a directory.
//!
//! A record is a file named like the address that holds `container id CRLF interface`, the layout of the
//! reference host-local plugin, so either can read what the other left. A record appears whole or not at all:
//! it is written under another name and linked to its own, which fails when the address is taken. So there is
//! no lock, and a crash at any moment leaves at most a stray temporary file, removed by [`Allocator::gc`].

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use meta::Prefix;

use crate::Error;

const TEMPORARY: &str = ".new-";

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// `CNI_CONTAINERID`: the sandbox's ID.
    pub container_id: String,
    /// `CNI_IFNAME`: a container may have several interfaces in one network.
    pub ifname: String,
}

/// The addresses of one subnet.
#[derive(Debug)]
pub struct Allocator {
    dir: PathBuf,
    subnet: Prefix,
    gateway: IpAddr,
    /// The first and the last address that is given, as steps from the subnet's own.
    first: u128,
    last: u128,
    taken: BTreeMap<IpAddr, Owner>,
    /// Where the search for a free address starts: after the last given, so that addresses rest before reuse.
    next: u128,
}

impl Allocator {
    /// Opens the records in `dir`, which is made when missing. `range` narrows the subnet.
    pub fn open(
        dir: impl Into<PathBuf>,
        subnet: Prefix,
        gateway: IpAddr,
        range: Option<(IpAddr, IpAddr)>,
    ) -> Result<Self, Error> {
        let dir = dir.into();
        if subnet.len == 0 {
            return Err(Error::config("subnet", format!("{subnet} is all addresses there are")));
        }
        if subnet.width() - subnet.len < 2 {
            return Err(Error::config("subnet", format!("{subnet} has no room for a gateway and a pod")));
        }
        crate::files::make_dir(&dir).map_err(Error::io(format!("making {}", dir.display())))?;
        let outside = || Error::config("subnet", format!("an address is not in {subnet}"));
        let step = |addr: IpAddr| subnet.offset(addr).ok_or_else(outside);
        let (first, last) = match range {
            Some((first, last)) => (step(first)?, step(last)?),
            // IPv4's last address is for all of the link.
            None => (1, step(subnet.last())? - u128::from(!subnet.is_ipv6())),
        };
        let mut allocator = Allocator { dir, subnet, gateway, first, last, taken: BTreeMap::new(), next: first };
        allocator.load()?;
        if let Some((newest, _)) = allocator.newest() {
            allocator.next = step(newest)? + 1;
        }
        Ok(allocator)
    }

    /// Gives the container an address, the one it has already when it has one.
    pub fn allocate(&mut self, owner: &Owner) -> Result<IpAddr, Error> {
        if let Some(addr) = self.of(owner) {
            return Ok(addr);
        }
        let size = self.last - self.first + 1;
        for step in 0..size {
            let place = self.first + (self.next.saturating_sub(self.first) + step) % size;
            let Some(addr) = self.subnet.nth(place) else { continue };
            if addr == self.gateway || self.taken.contains_key(&addr) {
                continue;
            }
            if self.record(addr, owner)? {
                self.taken.insert(addr, owner.clone());
                self.next = place + 1;
                return Ok(addr);
            }
            // Someone else's process has it: learn whose it is and go on.
            self.learn(addr)?;
        }
        Err(Error::NoAddress { subnet: self.subnet.to_string(), used: self.taken.len() })
    }

    /// The address of a container's interface.
    pub fn of(&self, owner: &Owner) -> Option<IpAddr> {
        self.taken.iter().find(|(_, o)| *o == owner).map(|(addr, _)| *addr)
    }

    /// Frees what the container's interface has; returns the addresses that were freed.
    pub fn release(&mut self, owner: &Owner) -> Result<Vec<IpAddr>, Error> {
        self.release_where(|o| o == owner)
    }

    /// Frees all addresses whose owners are not among these, and what a crash left; returns the addresses.
    pub fn gc(&mut self, valid: &[Owner]) -> Result<Vec<IpAddr>, Error> {
        self.load()?;
        for entry in self.entries()? {
            if entry.starts_with(TEMPORARY) {
                remove(&self.dir.join(entry))?;
            }
        }
        self.release_where(|o| !valid.contains(o))
    }

    /// Who has what.
    pub fn taken(&self) -> impl Iterator<Item = (IpAddr, &Owner)> {
        self.taken.iter().map(|(addr, owner)| (*addr, owner))
    }

    /// Whether another container could be given an address.
    pub fn has_room(&self) -> bool {
        let is_given = |step: u128| (self.first..=self.last).contains(&step);
        let gateway = u128::from(self.subnet.offset(self.gateway).is_some_and(is_given));
        (self.taken.len() as u128) < self.last - self.first + 1 - gateway
    }

    fn release_where(&mut self, mut stale: impl FnMut(&Owner) -> bool) -> Result<Vec<IpAddr>, Error> {
        let addrs: Vec<_> = self.taken.iter().filter(|(_, o)| stale(o)).map(|(addr, _)| *addr).collect();
        for addr in &addrs {
            remove(&self.dir.join(addr.to_string()))?;
            self.taken.remove(addr);
        }
        Ok(addrs)
    }

    /// Writes the record; false when the address has one.
    fn record(&self, addr: IpAddr, owner: &Owner) -> Result<bool, Error> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
        let temporary = self.dir.join(format!("{TEMPORARY}{}-{unique}", std::process::id()));
        let what = || format!("recording address {addr} in {}", self.dir.display());
        crate::files::write(&temporary, format!("{}\r\n{}", owner.container_id, owner.ifname))
            .map_err(Error::io(what()))?;
        let linked = fs::hard_link(&temporary, self.dir.join(addr.to_string()));
        remove(&temporary)?;
        match linked {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(Error::io(what())(e)),
        }
    }

    fn load(&mut self) -> Result<(), Error> {
        self.taken.clear();
        for name in self.entries()? {
            // Of a range that the node had before, too: whoever has it may be there still.
            if let Ok(addr) = name.parse::<IpAddr>()
                && addr.is_ipv6() == self.subnet.is_ipv6()
            {
                self.learn(addr)?;
            }
        }
        Ok(())
    }

    fn learn(&mut self, addr: IpAddr) -> Result<(), Error> {
        let path = self.dir.join(addr.to_string());
        match fs::read_to_string(&path) {
            Ok(text) => {
                // An empty record, left by a power cut, has an owner that nobody claims: gc frees it.
                let mut lines = text.split("\r\n");
                let container_id = lines.next().unwrap_or_default().trim().to_owned();
                let ifname = lines.next().unwrap_or("eth0").trim().to_owned();
                self.taken.insert(addr, Owner { container_id, ifname });
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(Error::io(format!("reading {}", path.display()))(e)),
        }
    }

    /// The record written last.
    fn newest(&self) -> Option<(IpAddr, std::time::SystemTime)> {
        self.taken
            .keys()
            .filter(|addr| self.subnet.contains(**addr))
            .filter_map(|addr| Some((*addr, fs::metadata(self.dir.join(addr.to_string())).ok()?.modified().ok()?)))
            .max_by_key(|(addr, at)| (*at, *addr))
    }

    fn entries(&self) -> Result<Vec<String>, Error> {
        let what = || format!("listing {}", self.dir.display());
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(Error::io(what()))? {
            names.extend(entry.map_err(Error::io(what()))?.file_name().into_string().ok());
        }
        Ok(names)
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(format!("removing {}", path.display()))(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(id: &str) -> Owner {
        Owner { container_id: id.to_owned(), ifname: "eth0".to_owned() }
    }

    fn open(dir: &Path, subnet: &str) -> Allocator {
        let subnet: Prefix = subnet.parse().unwrap();
        Allocator::open(dir, subnet, subnet.nth(1).unwrap(), None).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn two_families_share_a_directory_and_know_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let both = || (open(dir.path(), "10.0.0.0/29"), open(dir.path(), "fd00:0:0:1::/64"));
        let (mut v4, mut v6) = both();
        assert_eq!(v4.allocate(&owner("a")).unwrap(), ip("10.0.0.2"));
        assert_eq!(v6.allocate(&owner("a")).unwrap(), ip("fd00:0:0:1::2"));
        let (mut v4, mut v6) = both();
        assert_eq!(v6.allocate(&owner("b")).unwrap(), ip("fd00:0:0:1::3"));
        assert!(v6.has_room() && v4.taken().count() == 1);
        assert_eq!(v4.gc(&[]).unwrap(), [ip("10.0.0.2")]);
        assert_eq!(v6.gc(&[owner("b")]).unwrap(), [ip("fd00:0:0:1::2")]);
    }

    #[test]
    fn addresses_are_unique_rest_before_reuse_and_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut alloc = open(dir.path(), "10.0.0.0/29");
        assert_eq!(alloc.allocate(&owner("a")).unwrap(), ip("10.0.0.2"));
        assert_eq!(alloc.allocate(&owner("b")).unwrap(), ip("10.0.0.3"));
        assert_eq!(alloc.allocate(&owner("a")).unwrap(), ip("10.0.0.2"));
        alloc.release(&owner("a")).unwrap();
        assert_eq!(alloc.allocate(&owner("c")).unwrap(), ip("10.0.0.4"));

        let mut again = open(dir.path(), "10.0.0.0/29");
        assert_eq!(again.of(&owner("b")), Some(ip("10.0.0.3")));
        for id in ["d", "e", "f"] {
            again.allocate(&owner(id)).unwrap();
        }
        assert!(!again.has_room());
        let e = again.allocate(&owner("g")).unwrap_err();
        assert_eq!(e.to_string(), "no free address in 10.0.0.0/29: all 5 are in use");
        assert_eq!(again.gc(&[owner("b")]).unwrap().len(), 4);
        assert!(again.has_room());
    }

    #[test]
    fn two_processes_never_give_the_same_address() {
        let dir = tempfile::tempdir().unwrap();
        let (mut one, mut two) = (open(dir.path(), "10.0.0.0/24"), open(dir.path(), "10.0.0.0/24"));
        let a: Vec<_> = (0..20).map(|i| one.allocate(&owner(&format!("a{i}"))).unwrap()).collect();
        let b: Vec<_> = (0..20).map(|i| two.allocate(&owner(&format!("b{i}"))).unwrap()).collect();
        assert!(a.iter().all(|addr| !b.contains(addr)));
    }

    #[test]
    fn what_a_crash_leaves_is_collected() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".new-1-1"), "half").unwrap();
        fs::write(dir.path().join("10.0.0.9"), "").unwrap();
        let mut alloc = open(dir.path(), "10.0.0.0/24");
        assert_eq!(alloc.gc(&[]).unwrap(), [ip("10.0.0.9")]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
