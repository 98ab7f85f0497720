//! The network's configuration (net-conf), as upstream writes it into etcd or a file: ranges, the size of a host's subnet,
//! the backend. Defaults and checks are upstream's; each refusal names the field. Pure. Callers: the subnet managers, who
//! read it, and the backends, who find their own fields in `Backend`.
//!
//! ```text
//! {"Network": "10.5.0.0/16", "SubnetLen": 24, "SubnetMin": "10.5.1.0", "SubnetMax": "10.5.255.0",
//!  "EnableIPv6": true, "IPv6Network": "fd00:5::/48", "IPv6SubnetLen": 64,
//!  "Backend": {"Type": "vxlan", "VNI": 1}}
//! ```
//!
//! Names of fields match whatever their case, as Go's decoder has it, and unknown ones are passed over. Without `Backend`
//! the backend is udp, whatever upstream's documentation says.

use std::fmt;
use std::net::IpAddr;

use meta::Prefix;
use serde_json::{Map, Value};

use crate::lease::Subnets;

/// The largest configuration that is read: a hundred times the longest that says anything.
pub const MAX_BYTES: usize = 64 << 10;
/// The backend of a configuration without one.
const DEFAULT_BACKEND: &str = "udp";
/// A subnet has room for the host's own address, a bridge and two pods.
const LONGEST_SUBNET: u8 = 30;
const LONGEST_SUBNET6: u8 = 126;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("flannel's network configuration: {field}: {problem}")]
pub struct ConfigError {
    pub field: String,
    pub problem: String,
}

impl ConfigError {
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>) -> ConfigError {
        ConfigError { field: field.into(), problem: problem.into() }
    }
}

/// A network of one family: its range, and the subnets that hosts may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub network: Prefix,
    /// Bits of each host's subnet.
    pub len: u8,
    /// The first subnet.
    pub min: IpAddr,
    /// The last.
    pub max: IpAddr,
}

/// The whole of it.
#[derive(Clone, Debug, PartialEq)]
pub struct NetConf {
    pub v4: Option<Range>,
    pub v6: Option<Range>,
    pub backend_type: String,
    /// The fields of `Backend`.
    pub backend: Fields,
}

/// See [`NetConf::turn`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    Same,
    /// Packets go another way; addresses stay.
    Backend,
    /// There is another family besides what there is, and all of that stays.
    Family,
    /// Pods keep what they have, and so does their host: what would be other, in a sentence.
    Refused(String),
}

/// A JSON object whose names match whatever their case. What stands in it may be a secret.
#[derive(Clone, Default, PartialEq)]
pub struct Fields {
    /// What the names are put behind in errors.
    path: &'static str,
    map: Map<String, Value>,
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.map.keys()).finish()
    }
}

impl Fields {
    fn value(&self, name: &str) -> Option<&Value> {
        let folded = || self.map.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        self.map.get(name).or_else(folded).filter(|value| !value.is_null())
    }

    pub fn wrong(&self, name: &str, problem: impl Into<String>) -> ConfigError {
        ConfigError::new(format!("{}{name}", self.path), problem)
    }

    pub fn flag(&self, name: &str, default: bool) -> Result<bool, ConfigError> {
        let Some(value) = self.value(name) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.wrong(name, format!("{value} is not true or false")))
    }

    /// A number up to `most`.
    pub fn number(&self, name: &str, default: u32, most: u32) -> Result<u32, ConfigError> {
        let Some(value) = self.value(name) else { return Ok(default) };
        let number = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n <= most);
        number.ok_or_else(|| self.wrong(name, format!("{value} is not a number from 0 to {most}")))
    }

    pub fn text(&self, name: &str) -> Result<Option<&str>, ConfigError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(name, format!("{value} is not a text")))
    }

    fn prefix(&self, name: &str, v6: bool) -> Result<Option<Prefix>, ConfigError> {
        let Some(text) = self.text(name)?.filter(|text| !text.is_empty()) else { return Ok(None) };
        let range: Prefix = text.parse().map_err(|_| self.wrong(name, format!("{text:?} is not {}", example(v6))))?;
        if range.is_ipv6() != v6 {
            return Err(self.wrong(name, format!("{text:?} is not {}", example(v6))));
        }
        Ok(Some(range.network()))
    }

    fn address(&self, name: &str, v6: bool) -> Result<Option<IpAddr>, ConfigError> {
        let Some(text) = self.text(name)?.filter(|text| !text.is_empty()) else { return Ok(None) };
        let address: Option<IpAddr> = text.parse().ok().filter(|ip: &IpAddr| ip.is_ipv6() == v6);
        let family = if v6 { "IPv6" } else { "IPv4" };
        address.map(Some).ok_or_else(|| self.wrong(name, format!("{text:?} is not an {family} address")))
    }
}

fn example(v6: bool) -> &'static str {
    if v6 { "an IPv6 range such as fd00:10::/48" } else { "an IPv4 range such as 10.5.0.0/16" }
}

/// Names of the fields of a family.
struct Names {
    v6: bool,
    network: &'static str,
    len: &'static str,
    min: &'static str,
    max: &'static str,
    longest: u8,
    /// The usual size of a subnet.
    usual: u8,
}

const V4: Names = Names {
    v6: false,
    network: "Network",
    len: "SubnetLen",
    min: "SubnetMin",
    max: "SubnetMax",
    longest: LONGEST_SUBNET,
    usual: 24,
};
const V6: Names = Names {
    v6: true,
    network: "IPv6Network",
    len: "IPv6SubnetLen",
    min: "IPv6SubnetMin",
    max: "IPv6SubnetMax",
    longest: LONGEST_SUBNET6,
    usual: 64,
};

impl NetConf {
    /// Reads and checks it.
    pub fn parse(text: &[u8]) -> Result<NetConf, ConfigError> {
        let whole = |problem: String| ConfigError::new("the document", problem);
        if text.len() > MAX_BYTES {
            return Err(whole(format!("it is longer than {MAX_BYTES} bytes")));
        }
        let value: Value = serde_json::from_slice(text).map_err(|error| whole(format!("it is not JSON: {error}")))?;
        let Value::Object(map) = value else { return Err(whole("it is not an object".to_owned())) };
        let fields = Fields { path: "", map };
        let v4 = if fields.flag("EnableIPv4", true)? { Some(range(&fields, &V4)?) } else { None };
        let v6 = if fields.flag("EnableIPv6", false)? { Some(range(&fields, &V6)?) } else { None };
        if v4.is_none() && v6.is_none() {
            return Err(ConfigError::new("EnableIPv4", "without EnableIPv6 there is no network"));
        }
        let backend = match fields.value("Backend") {
            None => Fields::default(),
            Some(Value::Object(map)) => Fields { path: "Backend.", map: map.clone() },
            Some(other) => return Err(ConfigError::new("Backend", format!("{other} is not an object"))),
        };
        let backend_type = match fields.value("Backend") {
            None => DEFAULT_BACKEND.to_owned(),
            Some(_) => backend.text("Type")?.unwrap_or_default().to_owned(),
        };
        Ok(NetConf { v4, v6, backend_type, backend })
    }

    /// What a host does whose network has another configuration from now on.
    pub fn turn(&self, next: &NetConf) -> Turn {
        if self == next {
            return Turn::Same;
        }
        let ranges = |conf: &NetConf| {
            let all = [conf.v4, conf.v6].into_iter().flatten().map(|range| range.network.to_string());
            all.collect::<Vec<_>>().join(" and ")
        };
        if (self.v4, self.v6) == (next.v4, next.v6) {
            return Turn::Backend;
        }
        if self.gains(next) {
            let same = (&self.backend_type, &self.backend) == (&next.backend_type, &next.backend);
            return if same { Turn::Family } else { Turn::Backend };
        }
        let (now, then) = (ranges(next), ranges(self));
        if now == then {
            return Turn::Refused(format!("hosts have other subnets of {now} now: pods here keep their addresses"));
        }
        Turn::Refused(format!("the network is {now} now, not {then}: pods here keep their addresses"))
    }

    /// Whether the next one has another family besides, and what there is of this one as it is.
    pub fn gains(&self, next: &NetConf) -> bool {
        let stays = |now: Option<Range>, then: Option<Range>| now.is_none() || now == then;
        stays(self.v4, next.v4) && stays(self.v6, next.v6) && (self.v4, self.v6) != (next.v4, next.v6)
    }

    /// The same network in the families that these subnets are of: a host that lacks a range of the other has that family
    /// once it is given one. All of it where they are of none.
    pub fn only(&self, subnets: &Subnets) -> NetConf {
        let (v4, v6) = (self.v4.filter(|_| subnets.v4.is_some()), self.v6.filter(|_| subnets.v6.is_some()));
        match (v4, v6) {
            (None, None) => self.clone(),
            _ => NetConf { v4, v6, ..self.clone() },
        }
    }

    /// What a host that has `now` may follow of this network: the families that its node was given subnets of. One of which
    /// nothing is known, as of one whose Node is not there, is given no further family by that.
    pub fn followed(&self, now: &NetConf, subnets: &Subnets) -> NetConf {
        if *subnets != Subnets::default() {
            return self.only(subnets);
        }
        let (v4, v6) = (self.v4.filter(|_| now.v4.is_some()), self.v6.filter(|_| now.v6.is_some()));
        match (v4, v6) {
            (None, None) => self.clone(),
            _ => NetConf { v4, v6, ..self.clone() },
        }
    }

    /// Whether a host may have these subnets.
    pub fn fits(&self, subnets: &Subnets) -> bool {
        let fits = |range: Option<Range>, subnet: Option<Prefix>| match (range, subnet) {
            (None, None) => true,
            (Some(range), Some(subnet)) => range.has(&subnet),
            _ => false,
        };
        fits(self.v4, subnets.v4) && fits(self.v6, subnets.v6)
    }

    /// Whether these subnets lie in the network: what other hosts have may be of another size.
    pub fn covers(&self, subnets: &Subnets) -> bool {
        let inside = |range: Option<Range>, subnet: Option<Prefix>| {
            subnet.is_none_or(|subnet| range.is_none_or(|range| range.network.covers(&subnet)))
        };
        inside(self.v4, subnets.v4) && inside(self.v6, subnets.v6)
    }
}

impl Range {
    /// Whether a subnet is one that a host may have.
    pub fn has(&self, subnet: &Prefix) -> bool {
        subnet.len == self.len && self.min <= subnet.addr && subnet.addr <= self.max && subnet.network() == *subnet
    }

    /// The subnets that hosts may have, in order.
    pub fn subnets(&self) -> impl Iterator<Item = Prefix> + use<> {
        let (min, max) = (self.min, self.max);
        // From the first one on, so that a large range is not walked to get there.
        let skip = self.network.offset(min).unwrap_or(0) >> (self.network.width() - self.len);
        let network = self.network;
        let step = 1u128.checked_shl(u32::from(self.network.width() - self.len)).unwrap_or(0);
        let len = self.len;
        (skip..)
            .map_while(move |n| network.nth(n.checked_mul(step)?))
            .map(move |addr| Prefix { addr, len })
            .take_while(move |subnet| subnet.addr <= max)
    }
}

fn range(fields: &Fields, names: &Names) -> Result<Range, ConfigError> {
    let needed = || fields.wrong(names.network, format!("it is missing: write {}", example(names.v6)));
    let network = fields.prefix(names.network, names.v6)?.ok_or_else(needed)?;
    let longest_network = names.longest - 2;
    let asked = fields.number(names.len, 0, u32::from(network.width()))? as u8;
    let len = match asked {
        // Four subnets at least: the first is not used.
        0 if network.len > longest_network => {
            let problem = format!("{network} is too small: /{longest_network} is the smallest network that can be");
            return Err(fields.wrong(names.network, problem));
        }
        0 if network.len <= names.usual - 2 => names.usual,
        0 => network.len + 2,
        asked if asked > names.longest => {
            return Err(fields.wrong(names.len, format!("{asked} is more than {}", names.longest)));
        }
        asked if asked < network.len + 2 => {
            let problem =
                format!("{network} has no room for four subnets of /{asked}: say {} or more", network.len + 2);
            return Err(fields.wrong(names.len, problem));
        }
        asked => asked,
    };
    let size = 1u128 << (network.width() - len);
    let inside = |name: &str, address: IpAddr| {
        if !network.contains(address) {
            return Err(fields.wrong(name, format!("{address} is not in {network}")));
        }
        let boundary = Prefix { addr: address, len }.network().addr;
        if boundary != address {
            return Err(fields.wrong(name, format!("{address} is not the first address of a /{len}: {boundary} is")));
        }
        Ok(address)
    };
    let min = match fields.address(names.min, names.v6)? {
        Some(address) => inside(names.min, address)?,
        // The first subnet's address is the network's own.
        None => network.nth(size).unwrap_or(network.addr),
    };
    let max = match fields.address(names.max, names.v6)? {
        Some(address) => inside(names.max, address)?,
        None => Prefix { addr: network.last(), len }.network().addr,
    };
    if min > max {
        return Err(fields.wrong(names.min, format!("{min} is after {}, which is {max}", names.max)));
    }
    Ok(Range { network, len, min, max })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> NetConf {
        NetConf::parse(text.as_bytes()).unwrap()
    }

    fn refusal(text: &str) -> String {
        let said = NetConf::parse(text.as_bytes()).unwrap_err().to_string();
        said.strip_prefix("flannel's network configuration: ").unwrap().to_owned()
    }

    fn shape(range: Option<Range>) -> String {
        range.map_or("none".into(), |r| format!("{} /{} {}..{}", r.network, r.len, r.min, r.max))
    }

    #[test]
    fn what_is_not_said_is_as_upstream_has_it() {
        let rows = [
            (r#"{"Network": "10.5.0.0/16"}"#, "10.5.0.0/16 /24 10.5.1.0..10.5.255.0"),
            (r#"{"Network": "10.5.7.9/16"}"#, "10.5.0.0/16 /24 10.5.1.0..10.5.255.0"),
            (r#"{"network": "10.5.0.0/22"}"#, "10.5.0.0/22 /24 10.5.1.0..10.5.3.0"),
            (r#"{"Network": "10.5.0.0/23"}"#, "10.5.0.0/23 /25 10.5.0.128..10.5.1.128"),
            (r#"{"Network": "10.5.0.0/28"}"#, "10.5.0.0/28 /30 10.5.0.4..10.5.0.12"),
            (
                r#"{"NETWORK": "10.5.0.0/16", "subnetlen": 28, "SubnetMin": "10.5.2.16", "SubnetMax": "10.5.3.0"}"#,
                "10.5.0.0/16 /28 10.5.2.16..10.5.3.0",
            ),
        ];
        for (text, expected) in rows {
            let conf = conf(text);
            assert_eq!((shape(conf.v4), shape(conf.v6)), (expected.to_owned(), "none".to_owned()), "{text}");
            assert_eq!(conf.backend_type, "udp", "the trap: the documentation says vxlan");
        }
        let dual = conf(r#"{"Network": "10.5.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:5::/48"}"#);
        assert_eq!(shape(dual.v6), "fd00:5::/48 /64 fd00:5:0:1::..fd00:5:0:ffff::");
        let six = conf(r#"{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00:5::/63", "Unknown": 1}"#);
        assert_eq!(
            (shape(six.v4), shape(six.v6)),
            ("none".into(), "fd00:5::/63 /65 fd00:5:0:0:8000::..fd00:5:0:1:8000::".into())
        );
    }

    #[test]
    fn what_is_wrong_is_told_by_the_name_of_the_field() {
        let rows = [
            ("[]", "the document: it is not an object"),
            ("{}", "Network: it is missing: write an IPv4 range such as 10.5.0.0/16"),
            (r#"{"Network": "fd00::/48"}"#, "Network: \"fd00::/48\" is not an IPv4 range such as 10.5.0.0/16"),
            (
                r#"{"Network": "10.5.0.0/29"}"#,
                "Network: 10.5.0.0/29 is too small: /28 is the smallest network that can be",
            ),
            (r#"{"Network": "10.5.0.0/16", "SubnetLen": 31}"#, "SubnetLen: 31 is more than 30"),
            (
                r#"{"Network": "10.5.0.0/16", "SubnetLen": 17}"#,
                "SubnetLen: 10.5.0.0/16 has no room for four subnets of /17: say 18 or more",
            ),
            (r#"{"Network": "10.5.0.0/16", "SubnetMin": "10.6.0.0"}"#, "SubnetMin: 10.6.0.0 is not in 10.5.0.0/16"),
            (
                r#"{"Network": "10.5.0.0/16", "SubnetMax": "10.5.3.1"}"#,
                "SubnetMax: 10.5.3.1 is not the first address of a /24: 10.5.3.0 is",
            ),
            (
                r#"{"Network": "10.5.0.0/16", "SubnetMin": "10.5.9.0", "SubnetMax": "10.5.3.0"}"#,
                "SubnetMin: 10.5.9.0 is after SubnetMax, which is 10.5.3.0",
            ),
            (r#"{"EnableIPv4": false}"#, "EnableIPv4: without EnableIPv6 there is no network"),
            (
                r#"{"Network": "10.5.0.0/16", "EnableIPv6": true}"#,
                "IPv6Network: it is missing: write an IPv6 range such as fd00:10::/48",
            ),
            (r#"{"Network": "10.5.0.0/16", "Backend": "vxlan"}"#, "Backend: \"vxlan\" is not an object"),
            (r#"{"Network": "10.5.0.0/16", "Backend": {"Type": 7}}"#, "Backend.Type: 7 is not a text"),
        ];
        for (text, said) in rows {
            assert_eq!(refusal(text), said, "{text}");
        }
        assert!(refusal("{").starts_with("the document: it is not JSON"));
    }

    #[test]
    fn another_backend_is_followed_and_other_addresses_are_not() {
        let now = conf(r#"{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}"#);
        let turn = |text: &str| now.turn(&conf(text));
        assert_eq!(turn(r#"{"Backend": {"Type": "vxlan"}, "SubnetLen": 24, "Network": "10.5.0.0/16"}"#), Turn::Same);
        assert_eq!(turn(r#"{"Network": "10.5.0.0/16", "Backend": {"Type": "host-gw"}}"#), Turn::Backend);
        assert_eq!(turn(r#"{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan", "VNI": 2}}"#), Turn::Backend);
        let said = |text: &str| if let Turn::Refused(why) = turn(text) { why } else { panic!("{text}") };
        let keep = "pods here keep their addresses";
        assert_eq!(
            said(r#"{"Network": "10.6.0.0/16"}"#),
            format!("the network is 10.6.0.0/16 now, not 10.5.0.0/16: {keep}")
        );
        let smaller = r#"{"Network": "10.5.0.0/16", "SubnetLen": 26}"#;
        assert_eq!(said(smaller), format!("hosts have other subnets of 10.5.0.0/16 now: {keep}"));
    }

    #[test]
    fn a_second_family_is_followed_and_what_was_there_stays() {
        let text = |ranges: &str, backend: &str| conf(&format!(r#"{{{ranges}, "Backend": {{"Type": "{backend}"}}}}"#));
        let four = text(r#""Network": "10.5.0.0/16""#, "vxlan");
        let both = r#""Network": "10.5.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:5::/48""#;
        let six = text(r#""EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00:5::/48""#, "vxlan");
        let two = text(both, "vxlan");
        assert_eq!((four.turn(&two), six.turn(&two), two.turn(&two)), (Turn::Family, Turn::Family, Turn::Same));
        assert_eq!(four.turn(&text(both, "host-gw")), Turn::Backend, "both at once");
        let refused = |turn: Turn| matches!(turn, Turn::Refused(why) if why.contains("pods here keep their addresses"));
        assert!(refused(two.turn(&four)) && refused(four.turn(&six)), "none is taken away");
        let moved = both.replace("10.5.0.0", "10.6.0.0");
        assert!(refused(four.turn(&text(&moved, "vxlan"))));
        let (v4, v6) = ("10.5.1.0/24".parse().unwrap(), "fd00:5:0:1::/64".parse().unwrap());
        let of = |v4, v6| two.only(&Subnets { v4, v6 });
        assert_eq!((of(Some(v4), None), of(None, Some(v6))), (four.clone(), six.clone()));
        assert_eq!((of(Some(v4), Some(v6)), of(None, None)), (two.clone(), two.clone()));
        assert_eq!(four.only(&Subnets { v4: None, v6: Some(v6) }), four, "it waits for one of its own");
        // Its Node may be gone for a moment, and then says nothing.
        let unknown = Subnets::default();
        assert_eq!((two.followed(&four, &unknown), two.followed(&six, &unknown)), (four.clone(), of(None, Some(v6))));
        assert_eq!(two.followed(&four, &Subnets { v4: Some(v4), v6: Some(v6) }), two);
        assert!(refused(four.turn(&of(None, Some(v6)).followed(&four, &unknown))), "another network is told");
    }

    #[test]
    fn a_document_without_end_is_refused_unread() {
        let long = format!("{{\"Network\": \"10.5.0.0/16\", \"x\": \"{}\"}}", "y".repeat(MAX_BYTES));
        assert_eq!(refusal(&long), format!("the document: it is longer than {MAX_BYTES} bytes"));
        let deep = "[".repeat(10_000);
        assert!(refusal(&deep).contains("not JSON"));
    }

    #[test]
    fn subnets_are_counted_from_the_first_to_the_last() {
        let range = |text: &str| conf(text).v4.unwrap();
        let usual = range(r#"{"Network": "10.5.0.0/16"}"#);
        assert_eq!(usual.subnets().count(), 255);
        let some = range(r#"{"Network": "10.5.0.0/16", "SubnetMin": "10.5.9.0", "SubnetMax": "10.5.10.0"}"#);
        let all: Vec<String> = some.subnets().map(|s| s.to_string()).collect();
        assert_eq!(all, ["10.5.9.0/24", "10.5.10.0/24"]);
        assert!(some.subnets().all(|s| some.has(&s)));
        assert!(!some.has(&"10.5.9.0/25".parse().unwrap()) && !some.has(&"10.5.8.0/24".parse().unwrap()));
        let wide = conf(r#"{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00::/8"}"#).v6.unwrap();
        assert_eq!(wide.subnets().next().unwrap().to_string(), "fd00:0:0:1::/64");
    }
}
