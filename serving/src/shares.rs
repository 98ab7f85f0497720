//! How many connections each port may hold. All ports of a process share its descriptors: the sum of the shares stays
//! below the limit, so that no port can take the files and outgoing connections of the others away. I/O: asks for
//! the process's limit.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The ports that this program can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// kube-apiserver's secure port.
    ApiServer,
    /// The kubelet's secure port.
    Kubelet,
    /// etcd's client URLs.
    Etcd,
    /// Cluster DNS over TCP.
    DnsTcp,
    /// Health and metrics of a component: one of these each.
    Pages,
    /// All health-check node ports of Services together.
    HealthChecks,
    /// The container runtime's socket.
    Runtime,
    /// Exec, attach and port-forward of the container runtime.
    Streams,
    /// A node's way to the API servers.
    Servers,
}

/// A port's part of the descriptors.
struct Share {
    port: Port,
    /// Thousandths of the process's limit, for each port of this kind.
    thousandths: u64,
    /// However many descriptors there are, more connections are memory that nobody needs.
    most: u64,
    /// Ports of this kind in one process, at most.
    count: u64,
}

const fn share(port: Port, thousandths: u64, most: u64, count: u64) -> Share {
    Share { port, thousandths, most, count }
}

/// The sum is [`SHARED`] at most. A pod's exec is a connection at the API server, one to and at the kubelet and one to
/// and at the runtime: outgoing ones are among those that are left over, and never more than came in.
const SHARES: &[Share] = &[
    share(Port::ApiServer, 330, 32_768, 1),
    share(Port::Kubelet, 80, 4096, 1),
    share(Port::Etcd, 80, 8192, 1),
    share(Port::DnsTcp, 40, 4096, 1),
    share(Port::Pages, 8, 256, 8),
    share(Port::HealthChecks, 16, 1024, 1),
    share(Port::Runtime, 30, 1024, 1),
    share(Port::Streams, 60, 4096, 1),
    share(Port::Servers, 30, 1024, 1),
];

/// Thousandths of the descriptors that connections may take: the rest is for files, outgoing connections, inotify.
const SHARED: u64 = 750;

const _: () = {
    let (mut at, mut sum) = (0, 0);
    while at < SHARES.len() {
        sum += SHARES[at].thousandths * SHARES[at].count;
        at += 1;
    }
    assert!(sum <= SHARED, "all ports together leave descriptors for files");
};

/// However few descriptors there are, a port that takes fewer connections is of no use.
const LEAST: u64 = 8;

/// What is assumed where there is no limit.
const UNLIMITED: u64 = 1 << 20;

/// Connections that a port may hold.
pub fn limit(port: Port) -> usize {
    limit_of(port, getrlimit(Resource::Nofile).current.unwrap_or(UNLIMITED))
}

fn limit_of(port: Port, descriptors: u64) -> usize {
    let found = SHARES.iter().find(|share| share.port == port);
    found.map_or(LEAST, |share| (descriptors * share.thousandths / 1000).clamp(LEAST, share.most)) as usize
}

/// Raises the process's limit of descriptors to what it may be, as Go's programs do at their start: login shells have
/// 1,024. What can't be raised stays.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ports_together_leave_descriptors_for_files() {
        for descriptors in [1024, 4096, 20_000, 1 << 20] {
            let all: u64 = SHARES.iter().map(|s| limit_of(s.port, descriptors) as u64 * s.count).sum();
            assert!(all <= descriptors * SHARED / 1000, "{all} of {descriptors}");
        }
        assert_eq!(limit_of(Port::ApiServer, 20_000), 6600);
        assert_eq!(limit_of(Port::Pages, 256), LEAST as usize, "a few at least");
        assert_eq!(limit_of(Port::Kubelet, 1 << 20), 4096, "and no more than are needed");
    }
}
