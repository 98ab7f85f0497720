//! Where a probe or a hook dials: the port that it names, the address as one text, and Go's words for why nobody answered
//! there, which users read in Events. Pure; `prober`, `http_get` and `grpc_health` dial.

use std::io;

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// A number, or the name of a port of the container.
pub fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => match container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name)) {
            Some(found) => found.container_port,
            None => name.parse().map_err(|_| format!("invalid port: couldn't find port by name \"{name}\""))?,
        },
    };
    u16::try_from(number).ok().filter(|p| *p > 0).ok_or(format!("invalid port number: {number}"))
}

/// `host:port`, IPv6 in brackets.
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The words Go uses for a failed connect.
pub fn connect_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".into(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".into(),
        io::ErrorKind::ConnectionReset => "read: connection reset by peer".into(),
        _ => format!("connect: {error}"),
    }
}
