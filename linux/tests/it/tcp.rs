//! What a session's socket was told holds for packets: who has another key, or is too far away, is not heard.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use linux::netlink::Rtnl;
use linux::netns::NetNs;
use linux::tcp;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// A segment that is dropped is sent again after a second.
const UNHEARD: Duration = Duration::from_millis(300);

fn host() -> NetNs {
    let host = NetNs::create().unwrap();
    let mut rtnl = Rtnl::open_in(&host).unwrap();
    let lo = rtnl.link("lo").unwrap().unwrap().index;
    rtnl.set_up(lo, true).unwrap();
    host
}

/// Connects with a socket that was prepared, and says whether a byte comes back.
fn hears(to: SocketAddr, listener: &TcpListener, prepare: impl FnOnce(&OwnedFd)) -> bool {
    let family = if to.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let fd = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    prepare(&fd);
    let timeout = rustix::net::sockopt::Timeout::Send;
    rustix::net::sockopt::set_socket_timeout(&fd, timeout, Some(UNHEARD)).unwrap();
    match rustix::net::connect(&fd, &to) {
        Ok(()) => {}
        Err(rustix::io::Errno::INPROGRESS) => return false,
        Err(e) => panic!("connecting to {to}: {e}"),
    }
    let (mut accepted, _) = listener.accept().unwrap();
    let mut stream = TcpStream::from(fd);
    stream.write_all(b"?").unwrap();
    let mut byte = [0];
    accepted.read_exact(&mut byte).unwrap();
    accepted.write_all(b"!").unwrap();
    stream.read_exact(&mut byte).unwrap();
    byte == *b"!"
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Whether the kernel signs segments. Where it doesn't, nothing of that can be tried, and the test says so.
fn signs(listener: &TcpListener) -> bool {
    match tcp::tcp_md5(listener, listener.local_addr().unwrap().ip(), 32, b"key") {
        Err(e) if e.raw_os_error() == Some(libc::ENOPROTOOPT) => {
            println!("skipped: this kernel has no TCP-MD5 (CONFIG_TCP_MD5SIG)");
            false
        }
        answer => answer.is_ok(),
    }
}

#[test]
fn only_who_has_the_key_is_heard() {
    let signed = host().run(|| {
        // A socket of IPv6 for peers of both; 127.0.0.1 comes there as ::ffff:127.0.0.1.
        let both = TcpListener::bind("[::]:0").unwrap();
        let port = both.local_addr().unwrap().port();
        if !signs(&TcpListener::bind("127.0.0.1:0").unwrap()) {
            return;
        }
        for (to, range, length) in [("::1", "::", 64), ("127.0.0.1", "127.0.0.0", 8)] {
            let to = SocketAddr::new(ip(to), port);
            let key = |key: &'static str| move |fd: &OwnedFd| tcp::tcp_md5(fd, to.ip(), 32, key.as_bytes()).unwrap();
            assert!(hears(to, &both, |_| ()), "before anybody has a key");
            tcp::tcp_md5(&both, ip(range), length, b"secret").unwrap();
            assert!(hears(to, &both, key("secret")), "{to} with the key");
            assert!(!hears(to, &both, key("other")), "{to} with another");
            assert!(!hears(to, &both, |_| ()), "{to} with none");
            for _ in 0..2 {
                tcp::tcp_md5(&both, ip(range), length, b"").unwrap();
            }
            assert!(hears(to, &both, |_| ()), "{to} after the key was taken back");
            assert!(!hears(to, &both, key("secret")), "{to} with the key that was taken back");
        }
    });
    signed.unwrap();
}

#[test]
fn a_key_is_as_long_as_the_kernel_takes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    if signs(&listener) {
        tcp::tcp_md5(&listener, ip("127.0.0.2"), 32, &[7; tcp::LONGEST_MD5_KEY]).unwrap();
        let refused = tcp::tcp_md5(&listener, ip("127.0.0.2"), 32, &[7; tcp::LONGEST_MD5_KEY + 1]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(refused.to_string(), "a TCP-MD5 key has at most 80 bytes, this one has 81");
    }
}

#[test]
fn who_is_too_far_away_is_not_heard() {
    let tried = host().run(|| {
        for (local, v6) in [("127.0.0.1", false), ("::1", true)] {
            let listener = TcpListener::bind((ip(local), 0)).unwrap();
            let to = listener.local_addr().unwrap();
            tcp::ttl(&listener, v6, 255).unwrap();
            tcp::min_ttl(&listener, v6, 254).unwrap();
            assert!(hears(to, &listener, |fd| tcp::ttl(fd, v6, 255).unwrap()));
            assert!(hears(to, &listener, |fd| tcp::ttl(fd, v6, 254).unwrap()));
            assert!(!hears(to, &listener, |fd| tcp::ttl(fd, v6, 253).unwrap()));
            tcp::min_ttl(&listener, v6, 0).unwrap();
            assert!(hears(to, &listener, |fd| tcp::ttl(fd, v6, 1).unwrap()));
        }
    });
    tried.unwrap();
}

#[test]
fn a_socket_stays_on_its_link() {
    let tried = host().run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        assert!(hears(to, &listener, |fd| tcp::bind_to_device(fd, "lo").unwrap()));
        let mut rtnl = Rtnl::open().unwrap();
        rtnl.add_bridge("lan0", linux::netlink::Mac([2, 0, 0, 0, 0, 1]), 1500).unwrap();
        // What came by the link of the loopback is not for this one.
        assert_eq!(tcp::bound_device(&listener).unwrap(), None);
        tcp::bind_to_device(&listener, "lan0").unwrap();
        assert_eq!(tcp::bound_device(&listener).unwrap().as_deref(), Some("lan0"));
        let fd = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        assert_eq!(rustix::net::connect(&fd, &to), Err(rustix::io::Errno::CONNREFUSED));
        tcp::bind_to_device(&listener, "").unwrap();
        assert!(hears(to, &listener, |_| ()));
        assert!(tcp::bind_to_device(&listener, "nowhere").is_err());
    });
    tried.unwrap();
}

#[test]
fn a_connection_says_how_far_its_first_packet_came() {
    for (v6, host) in [(false, "127.0.0.1:0"), (true, "[::1]:0")] {
        let listener = std::net::TcpListener::bind(host).unwrap();
        linux::tcp::save_syn(&listener).unwrap();
        let family = if v6 { rustix::net::AddressFamily::INET6 } else { rustix::net::AddressFamily::INET };
        let socket = rustix::net::socket(family, rustix::net::SocketType::STREAM, None).unwrap();
        linux::tcp::ttl(&socket, v6, 77).unwrap();
        rustix::net::connect(&socket, &listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(linux::tcp::syn_ttl(&accepted).unwrap(), Some(77), "{host}");
        assert_eq!(linux::tcp::syn_ttl(&accepted).unwrap(), None, "it is given away once");
    }
}
