//! Keys of sockets: of one that listens, of one that is about to connect, and of a connection whose keys change while it
//! goes on. I/O: tells the kernel. Used by `listen` and `connection`.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use bgp::session::config::{AoKey, Authentication};
use linux::{tcp, tcp_ao};

use super::keys::Place;

/// The whole of an address.
pub fn host(address: IpAddr) -> Place {
    (address, if address.is_ipv4() { 32 } else { 128 })
}

/// Of a socket that listens: who is there has these keys from now on. There is no moment without any between the two.
pub fn change(
    socket: impl AsFd,
    place: Place,
    before: Option<&Authentication>,
    after: Option<&Authentication>,
) -> io::Result<()> {
    let (old, new) = (keys(before), keys(after));
    let gone = || old.iter().filter(|key| !new.contains(key));
    let (late, soon): (Vec<&AoKey>, Vec<&AoKey>) =
        new.iter().filter(|key| !old.contains(key)).partition(|key| gone().any(|other| key.clashes(other)));
    // The kernel has not both for one address.
    if let (Some(Authentication::Md5(_)), None | Some(Authentication::Ao(_))) = (before, after) {
        tcp::tcp_md5(&socket, place.0, place.1, b"")?;
    }
    soon.into_iter().try_for_each(|key| add(&socket, place, key, false))?;
    gone().try_for_each(|key| tcp_ao::remove(&socket, place.0, place.1, ids(key), None))?;
    late.into_iter().try_for_each(|key| add(&socket, place, key, false))?;
    match after {
        Some(Authentication::Md5(password)) => tcp::tcp_md5(&socket, place.0, place.1, password.as_bytes())
            .map_err(|error| io::Error::new(error.kind(), format!("password (TCP-MD5): {error}"))),
        _ => Ok(()),
    }
}

/// Of a socket that is about to connect.
pub fn begin(socket: impl AsFd, to: IpAddr, authentication: &Authentication) -> io::Result<()> {
    let place = host(to);
    match authentication {
        Authentication::Md5(_) => change(socket, place, None, Some(authentication)),
        // It begins with the first, which is to be the current one before others are there.
        Authentication::Ao(keys) => keys.iter().enumerate().try_for_each(|(at, key)| add(&socket, place, key, at == 0)),
    }
}

/// Of a connection: other keys from now on. The other side is asked to send by the first of them, and both sides use it when
/// both have it; where one that is in use is gone, at once. `ranges`: by which he may have been let in.
pub fn roll_over(
    socket: impl AsFd,
    remote: IpAddr,
    ranges: &[Place],
    before: &[AoKey],
    after: &[AoKey],
) -> io::Result<()> {
    let place = host(remote);
    after.iter().filter(|key| !before.contains(key)).try_for_each(|key| add(&socket, place, key, false))?;
    let Some(first) = after.first() else { return Ok(()) };
    if before.first() != Some(first) {
        tcp_ao::ask_for(&socket, first.receive_id)?;
    }
    for key in before.iter().filter(|key| !after.contains(key)) {
        for &(address, length) in std::iter::once(&place).chain(ranges) {
            let unused = tcp_ao::remove(&socket, address, length, ids(key), None);
            unused.or_else(|_| tcp_ao::remove(&socket, address, length, ids(key), Some(ids(first))))?;
        }
    }
    Ok(())
}

fn keys(authentication: Option<&Authentication>) -> &[AoKey] {
    match authentication {
        Some(Authentication::Ao(keys)) => keys,
        _ => &[],
    }
}

fn ids(key: &AoKey) -> (u8, u8) {
    (key.send_id, key.receive_id)
}

fn add(socket: impl AsFd, (address, length): Place, key: &AoKey, first: bool) -> io::Result<()> {
    let algorithm = match key.algorithm {
        bgp::session::config::Algorithm::HmacSha1 => tcp_ao::Algorithm::HmacSha1,
        bgp::session::config::Algorithm::Aes128Cmac => tcp_ao::Algorithm::Aes128Cmac,
    };
    let AoKey { send_id, receive_id, ref secret, .. } = *key;
    let key = tcp_ao::Key { send_id, receive_id, algorithm, secret: secret.as_bytes() };
    tcp_ao::add(socket, address, length, &key, first).map_err(|error| {
        let why = match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::NOPROTOOPT) => "this kernel has no TCP-AO (Linux 6.7, CONFIG_TCP_AO)".to_owned(),
            Some(rustix::io::Errno::NOENT) => "this kernel has not the algorithm of the key".to_owned(),
            _ => error.to_string(),
        };
        io::Error::new(error.kind(), format!("tcp-ao: key {send_id}: {why}"))
    })
}
