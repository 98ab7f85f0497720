//! Whose numbers routes in the kernel's tables have: which names a file may say, and which numbers a speaker may not take for
//! its own. Pure. Used by the configuration's `kernel`.

/// Names of protocols, as `/etc/iproute2/rt_protos` has them. Those that the kernel itself makes are not learned.
pub const NAMES: [(&str, u8); 11] = [
    ("boot", 3),
    ("static", 4),
    ("ra", 9),
    ("zebra", 11),
    ("bird", 12),
    ("dhcp", 16),
    ("bgp", 186),
    ("isis", 187),
    ("ospf", 188),
    ("rip", 189),
    ("eigrp", 192),
];

/// The number of a name.
pub fn named(text: &str) -> Option<u8> {
    NAMES.iter().find(|(name, _)| *name == text).map(|(_, number)| *number)
}

/// Whose a number is already, by linux/rtnetlink.h and what FRR and Calico add to it; none where it is free. A speaker takes
/// every route with its number for its own, and removes those that it does not want.
pub fn owner(number: u8) -> Option<&'static str> {
    Some(match number {
        0 => "routes of which nobody said whose they are",
        1..=2 => "the kernel itself",
        3..=4 => "an administrator",
        8 => "GateD",
        9 => "router advertisements",
        10 => "MRT",
        11 => "FRR's zebra",
        12 => "BIRD",
        13 => "DNROUTED",
        14 => "XORP",
        15 => "Netsukuku",
        16 => "DHCP",
        17 => "multicast routing",
        18 => "keepalived",
        42 => "Babel",
        linux::netlink::PROTOCOL => "the network of pods",
        80 => "Calico",
        84 => "OVN",
        99 => "Open/R",
        186..=189 | 191..=198 => "FRR",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_of_a_number_that_is_taken_and_ours_is_free() {
        for (name, number) in NAMES {
            assert!(owner(number).is_some(), "{name}");
            assert_eq!(named(name), Some(number));
        }
        assert_eq!((owner(crate::kernel::PROTOCOL), named("ours")), (None, None));
    }
}
