//! The node's addresses as they are now: one value that everybody reads when it is needed, for they change while the
//! kubelet runs (DHCP, Wi-Fi, a cable). What is configured stays. Whoever decides them waits for [`Changes`]. Does I/O:
//! hears of changes from the kernel.

use std::net::IpAddr;
use std::time::Duration;

use linux::host_address::{self, Wanted};
use linux::netlink::Monitor;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::Instant;

/// A change of address is a handful of changes: the old one goes, routes go, new ones come. It is over when nothing
/// more happens for this long …
const QUIET: Duration = Duration::from_millis(250);
/// … and is looked at after this long however much goes on.
const LONGEST: Duration = Duration::from_secs(1);
/// A kernel that tells nothing is asked this often.
const BLIND: Duration = Duration::from_secs(5);

/// See the module's head. Clones share the value.
#[derive(Debug, Clone)]
pub struct Addresses(watch::Receiver<Vec<IpAddr>>);

impl Addresses {
    /// What a sender says, the primary one first.
    pub fn followed(receiver: watch::Receiver<Vec<IpAddr>>) -> Addresses {
        Addresses(receiver)
    }

    /// These for good.
    pub fn fixed(ips: Vec<IpAddr>) -> Addresses {
        Addresses(watch::channel(ips).1)
    }

    pub fn now(&self) -> Vec<IpAddr> {
        self.0.borrow().clone()
    }

    pub fn texts(&self) -> Vec<String> {
        self.0.borrow().iter().map(ToString::to_string).collect()
    }

    /// Returns when they are others than at the last call. Never, when nobody changes them any more.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// The addresses of a kubelet that is told none, and keeps them up to date until nobody reads them.
pub fn of_this_host() -> Addresses {
    // First the ears: what changes while it is looked would not be heard of.
    let mut changes = Changes::open();
    let (told, receiver) = watch::channel(best(None));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = told.closed() => return,
                () = changes.next() => {}
            }
            let before = told.borrow().first().copied();
            tell(&told, best(before));
        }
    });
    Addresses(receiver)
}

/// Whether that was news. A host that has lost all its addresses keeps the last one until it has another.
fn tell(told: &watch::Sender<Vec<IpAddr>>, found: Vec<IpAddr>) -> bool {
    told.send_if_modified(|known| {
        let news = !found.is_empty() && *known != found;
        if news {
            tracing::info!(before = ?known, now = ?found, "the node's address has changed");
            *known = found;
        }
        news
    })
}

fn best(before: Option<IpAddr>) -> Vec<IpAddr> {
    let scene = host_address::look().inspect_err(|error| tracing::warn!(%error, "this host's addresses"));
    scene.ok().and_then(|scene| host_address::choose(&scene, &Wanted::default(), before)).into_iter().collect()
}

/// Changes of the host's links, addresses and routes.
#[derive(Debug)]
pub struct Changes {
    fd: Option<AsyncFd<Monitor>>,
    /// Something has changed, and it may not be over.
    heard: bool,
}

impl Changes {
    /// Of the network namespace of the calling thread.
    pub fn open() -> Changes {
        Changes::of(Monitor::open(&host_address::TOPICS))
    }

    pub fn of(monitor: Result<Monitor, linux::netlink::Error>) -> Changes {
        let monitor = monitor.map_err(std::io::Error::other);
        // The successor is unsafe; what it asks for holds here: the descriptor is owned and never changes.
        #[allow(deprecated)]
        let opened = monitor.and_then(|m| AsyncFd::with_interest(m, Interest::READABLE));
        let fd = opened.inspect_err(|error| tracing::warn!(%error, "changes of addresses are looked for")).ok();
        Changes { fd, heard: false }
    }

    /// Returns when something has changed that may matter, once it is over. May be dropped and called again.
    pub async fn next(&mut self) {
        let Some(fd) = &self.fd else { return tokio::time::sleep(BLIND).await };
        while !self.heard {
            self.heard = news(fd).await;
        }
        let began = Instant::now();
        loop {
            let until = (began + LONGEST).min(Instant::now() + QUIET);
            match tokio::time::timeout_at(until, news(fd)).await {
                Ok(_) if Instant::now() < began + LONGEST => {}
                _ => break,
            }
        }
        self.heard = false;
    }
}

/// Whether what has come matters.
async fn news(fd: &AsyncFd<Monitor>) -> bool {
    let Ok(mut ready) = fd.readable().await else {
        tokio::time::sleep(BLIND).await;
        return true;
    };
    ready.clear_ready();
    let mut matters = false;
    match fd.get_ref().drain(|event| matters |= host_address::matters(&event)) {
        Ok(()) => matters,
        Err(error) => {
            tracing::warn!(%error, "changes of addresses");
            tokio::time::sleep(BLIND).await;
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use linux::netlink::{Mac, Rtnl};
    use linux::netns::NetNs;
    use meta::Prefix;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_host_that_loses_its_address_keeps_it_until_it_has_another() {
        let (told, reader) = watch::channel(vec![ip("192.0.2.1")]);
        assert!(!tell(&told, vec![]) && !tell(&told, vec![ip("192.0.2.1")]));
        assert!(tell(&told, vec![ip("192.0.2.2")]));
        assert_eq!(Addresses::followed(reader).texts(), ["192.0.2.2"]);
    }

    #[tokio::test]
    async fn what_is_configured_never_changes() {
        let mut fixed = Addresses::fixed(vec![ip("192.0.2.1")]);
        assert!(tokio::time::timeout(Duration::from_millis(20), fixed.changed()).await.is_err());
        assert_eq!(fixed.now(), [ip("192.0.2.1")]);
    }

    /// Needs root.
    #[tokio::test]
    async fn a_change_of_many_parts_is_one() {
        let host = NetNs::create().unwrap();
        let mut rtnl = Rtnl::open_in(&host).unwrap();
        rtnl.add_bridge("lan0", Mac([2, 0, 0, 0, 0, 1]), 1500).unwrap();
        let lan = rtnl.link("lan0").unwrap().unwrap().index;
        let mut changes = Changes::of(Monitor::open_in(&host, &host_address::TOPICS));
        let prefix = |n: u8| Prefix::new([192, 0, 2, n], 24);
        for n in 1..20 {
            rtnl.put_address(lan, prefix(n)).unwrap();
            rtnl.delete_address(lan, prefix(n - 1)).unwrap();
        }
        let soon = Duration::from_secs(4);
        tokio::time::timeout(soon, changes.next()).await.expect("heard of");
        assert!(tokio::time::timeout(QUIET * 2, changes.next()).await.is_err(), "once");
        rtnl.delete_address(lan, prefix(19)).unwrap();
        tokio::time::timeout(soon, changes.next()).await.expect("heard of again");
    }
}
