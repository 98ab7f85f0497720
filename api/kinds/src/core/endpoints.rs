//! `endpoints`.

use jiff::Timestamp;
use meta::{FieldError, Path, names};
use serde_json::Value;

use crate::check::{Errors, follows, one_of};
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, name};
use crate::value::{at, int, items, same, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "Endpoints", "endpoints")
        .deprecated("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        .short(&["ep"])
        .stored_at("/registry/services/endpoints")
        .columns(vec![Column::name(), Column::text("Endpoints"), Column::text("Age")])
        .created_by_update()
        .hooks(Hooks { row, validate, validate_update, ..Hooks::NONE })
}

/// Addresses shown before the rest is counted.
const SHOWN: usize = 3;

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), addresses(object).into(), age(object, now)]
}

/// `10.0.0.1:80,10.0.0.2:80 + 3 more...`; addresses of a subset without ports stand alone.
fn addresses(object: &Value) -> String {
    let subsets = items(object, "subsets");
    if subsets.is_empty() {
        return "<none>".to_owned();
    }
    let mut all = Vec::new();
    for subset in subsets {
        let ports = items(subset, "ports");
        let ips = || items(subset, "addresses").iter().map(|a| text(a, "ip"));
        if ports.is_empty() {
            all.extend(ips().map(str::to_owned));
        }
        for port in ports {
            let port = int(port, "port").unwrap_or(0);
            all.extend(
                ips().map(|ip| if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }),
            );
        }
    }
    let shown = all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(",");
    if all.len() > SHOWN { format!("{shown} + {} more...", all.len() - SHOWN) } else { shown }
}

fn validate(endpoints: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("subsets");
    for (i, subset) in items(endpoints, "subsets").iter().enumerate() {
        let path = path.index(i);
        if items(subset, "addresses").is_empty() && items(subset, "notReadyAddresses").is_empty() {
            errors.push(FieldError::required(path, "must specify `addresses` or `notReadyAddresses`"));
        }
        for list in ["addresses", "notReadyAddresses"] {
            let list_path = path.child(list);
            for (j, address) in items(subset, list).iter().enumerate() {
                address_valid(&mut errors, list_path.index(j), address);
            }
        }
        let ports = items(subset, "ports");
        let list_path = path.child("ports");
        for (j, port) in ports.iter().enumerate() {
            port_valid(&mut errors, list_path.index(j), port, ports.len() > 1);
        }
    }
    errors
}

fn address_valid(errors: &mut Errors, path: Path, address: &Value) {
    let ip = text(address, "ip");
    follows(errors, path.child("ip"), ip, names::ip);
    crate::check::named_if_set(errors, &path, address, "hostname", names::dns1123_label);
    crate::check::named_if_set(errors, &path, address, "nodeName", names::dns1123_subdomain);
    endpoint_ip(errors, path.child("ip"), ip);
}

/// Addresses that traffic can be sent to.
pub(crate) fn endpoint_ip(errors: &mut Errors, path: Path, text: &str) {
    use std::net::IpAddr;
    let Some(ip) = meta::ip::parse(text) else {
        errors.push(FieldError::invalid(path, text, "must be a valid IP address"));
        return;
    };
    let multicast = match ip {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    };
    let wrong = [
        (ip.is_unspecified(), format!("may not be unspecified ({text})")),
        (ip.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned()),
        (meta::ip::is_link_local(ip), "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()),
        (multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned()),
    ];
    errors.extend(wrong.into_iter().filter(|(is, _)| *is).map(|(_, message)| FieldError::invalid(path, text, message)));
}

fn port_valid(errors: &mut Errors, path: Path, port: &Value, needs_name: bool) {
    if needs_name || !text(port, "name").is_empty() {
        crate::check::named(errors, &path, port, "name", names::dns1123_label);
    }
    let number = int(port, "port").unwrap_or(0);
    errors.extend(names::port_number(number).into_iter().map(|m| FieldError::invalid(path.child("port"), number, m)));
    one_of(errors, &path, port, "protocol", &["SCTP", "TCP", "UDP"]);
    crate::check::named_if_set(errors, &path, port, "appProtocol", names::qualified_name);
}

/// What was stored stays valid.
fn validate_update(endpoints: &Value, old: &Value) -> Vec<FieldError> {
    if same(at(endpoints, "subsets"), at(old, "subsets")) { Vec::new() } else { validate(endpoints) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(address: &str) -> Vec<String> {
        let mut errors = Vec::new();
        endpoint_ip(&mut errors, Path::root("ip"), address);
        errors.into_iter().map(|error| error.detail.to_string()).collect()
    }

    #[test]
    fn no_spelling_of_an_address_of_the_host_is_an_endpoint() {
        for good in ["10.0.0.1", "fd00::1", "::ffff:10.0.0.1", "192.168.1.1"] {
            assert_eq!(wrong(good), [""; 0], "{good}");
        }
        for (bad, why) in [
            ("127.0.0.1", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::FFFF:7f00:0001", "loopback"),
            ("0:0:0:0:0:ffff:127.0.0.2", "loopback"),
            ("::1", "loopback"),
            ("0.0.0.0", "unspecified"),
            ("::ffff:0.0.0.0", "unspecified"),
            ("169.254.169.254", "link-local range"),
            ("::ffff:169.254.169.254", "link-local range"),
            ("fe80::1", "link-local range"),
            ("::ffff:224.0.0.1", "link-local multicast"),
            ("0x7f.1", "valid IP address"),
            ("2130706433", "valid IP address"),
            ("127.000.000.001", "valid IP address"),
        ] {
            assert!(wrong(bad).first().is_some_and(|said| said.contains(why)), "{bad}: {:?}", wrong(bad));
        }
    }
}
