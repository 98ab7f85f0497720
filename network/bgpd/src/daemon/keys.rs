//! Who signs with what (RFC 2385, 5925), and whether the kernel has been told so: a key that it did not take protects nobody, so
//! its neighbour is not let in, and every reload tries it again. Pure: the sockets are the caller's. Called by `listen`,
//! and by the loop.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use bgp::session::config::Authentication;

use super::signed::host;
use crate::config::{Config, Neighbor, Peering};

/// An address, or a range of them, by its length.
pub type Place = (IpAddr, u8);
/// Keys, by the addresses that sign with them.
pub type Keys = BTreeMap<Place, Authentication>;

/// Those of a configuration, and of the unnumbered neighbours by where they were `found`.
pub fn keys<'a>(config: &'a Config, found: impl IntoIterator<Item = &'a Neighbor>) -> Keys {
    let key = |peering: &Peering| peering.authentication().cloned();
    let known = config.neighbors.iter().chain(found).filter(|neighbor| neighbor.is_found());
    let named = known.map(|named| (host(named.address), key(&named.peering)));
    let ranges = config.dynamic.iter().map(|range| ((range.prefix.addr, range.prefix.len), key(&range.peering)));
    let mut keys: Keys = ranges.chain(named).filter_map(|(place, key)| Some((place, key?))).collect();
    let all: Vec<Place> = keys.keys().copied().collect();
    for place in all {
        if is_covered(place, &keys) {
            keys.remove(&place);
        }
    }
    keys
}

/// Whether a range around it has the same keys of TCP-AO: they are good for it, and the kernel takes no number twice there.
fn is_covered((address, length): Place, keys: &Keys) -> bool {
    let Some(own) = keys.get(&(address, length)).filter(|key| matches!(key, Authentication::Ao(_))) else {
        return false;
    };
    let around = |(range, len): Place| len < length && meta::Prefix::new(range, len).contains(address);
    keys.iter().any(|(range, key)| key == own && around(*range))
}

/// What came of a change.
#[derive(Debug, Default)]
pub struct Changed {
    /// Something is otherwise than before.
    pub any: bool,
    /// What the kernel did not take.
    pub refused: Vec<(IpAddr, io::Error)>,
}

/// Keys that the kernel has.
#[derive(Debug, Default)]
pub struct Signing(Keys);

impl Signing {
    /// These are to be the keys; `set` tells the kernel what it has of somebody, and what it is to have.
    pub fn follow(
        &mut self,
        keys: Keys,
        mut set: impl FnMut(Place, Option<&Authentication>, Option<&Authentication>) -> io::Result<()>,
    ) -> Changed {
        let mut changed = Changed::default();
        let gone: Vec<Place> = self.0.keys().filter(|place| !keys.contains_key(place)).copied().collect();
        for place in gone {
            changed.any = true;
            match set(place, self.0.get(&place), None) {
                Ok(()) => drop(self.0.remove(&place)),
                // It is tried again; until then who is there has to sign.
                Err(error) => changed.refused.push((place.0, error)),
            }
        }
        for (place, key) in keys {
            if self.0.get(&place) == Some(&key) {
                continue;
            }
            changed.any = true;
            let before = self.0.remove(&place);
            match set(place, before.as_ref(), Some(&key)) {
                Ok(()) => drop(self.0.insert(place, key)),
                Err(error) => {
                    // What some sockets took or still have is not to outlive the neighbour.
                    let _ = (set(place, Some(&key), None), set(place, before.as_ref(), None));
                    changed.refused.push((place.0, error));
                }
            }
        }
        changed
    }

    /// Whether packets from an address are taken only with this key: of several ranges the kernel goes by the longest.
    pub fn demands(&self, address: IpAddr, key: &Authentication) -> bool {
        if let Some(own) = self.0.get(&host(address)) {
            return own == key;
        }
        let covers = |(range, len): &Place| meta::Prefix::new(*range, *len).contains(address);
        let longest = self.0.iter().filter(|(place, _)| covers(place)).max_by_key(|((_, len), _)| *len);
        longest.is_some_and(|(_, known)| known == key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(all: &[(&str, u8, &str)]) -> Keys {
        all.iter().map(|(ip, len, key)| ((ip.parse().expect("one"), *len), md5(key))).collect()
    }

    fn md5(password: &str) -> Authentication {
        Authentication::Md5(password.to_owned())
    }

    #[test]
    fn a_key_that_the_kernel_refused_protects_nobody_and_is_tried_again() {
        let (him, keys) = (IpAddr::from([10, 0, 0, 2]), wanted(&[("10.0.0.2", 32, "secret")]));
        let mut signing = Signing::default();
        let refuse = |_: Place, _: Option<&Authentication>, key: Option<&Authentication>| match key {
            None => Ok(()),
            Some(_) => Err(io::ErrorKind::OutOfMemory.into()),
        };
        assert_eq!(signing.follow(keys.clone(), refuse).refused.len(), 1);
        assert!(!signing.demands(him, &md5("secret")));
        let mut tried = 0;
        let changed = signing.follow(keys.clone(), |_, _, _| {
            tried += 1;
            Ok(())
        });
        assert!(changed.any && changed.refused.is_empty() && tried == 1 && signing.demands(him, &md5("secret")));
        let again = signing.follow(keys, |_, _, _| panic!("the kernel has it"));
        assert!(!again.any);
        // Another key that is refused: the old one is no help either.
        let other = wanted(&[("10.0.0.2", 32, "new")]);
        assert_eq!(signing.follow(other, refuse).refused.len(), 1);
        assert!(!signing.demands(him, &md5("secret")) && !signing.demands(him, &md5("new")));
    }

    /// The kernel refuses a number of a key that it has for addresses around (RFC 5925 3.1).
    #[test]
    fn keys_of_tcp_ao_are_told_once_for_a_range_and_who_is_in_it() {
        let ao = "tcp-ao: [{send-id: 1, receive-id: 1, algorithm: hmac-sha-1-96, key: one}]";
        let text = format!(
            "{{router-id: 10.0.0.1, as: 1, neighbors: [{{address: 10.7.0.2, remote-as: 1, {ao}}}, {{address: 10.8.0.2, \
             remote-as: 1, {ao}}}], dynamic: [{{prefix: 10.7.0.0/16, remote-as: 1, {ao}}}]}}"
        );
        let config = crate::config::parse(&text, crate::config::Kind::Speaker, &|_| Err(String::new())).expect("sound");
        let places: Vec<String> = keys(&config, []).keys().map(|(ip, len)| format!("{ip}/{len}")).collect();
        assert_eq!(places, ["10.7.0.0/16", "10.8.0.2/32"]);
    }

    #[test]
    fn of_a_range_and_an_address_in_it_the_address_counts() {
        let mut signing = Signing::default();
        signing.follow(wanted(&[("10.0.0.0", 8, "all"), ("10.0.0.2", 32, "his")]), |_, _, _| Ok(()));
        let of = |signing: &Signing, host: u8, key: &str| signing.demands(IpAddr::from([10, 0, 0, host]), &md5(key));
        assert!(of(&signing, 2, "his") && !of(&signing, 2, "all") && of(&signing, 3, "all") && !of(&signing, 3, "his"));
        let mut told = Vec::new();
        signing.follow(wanted(&[("10.0.0.0", 8, "all")]), |place, before, after| {
            told.push((place.1, before.cloned(), after.cloned()));
            Ok(())
        });
        assert_eq!(told, [(32, Some(md5("his")), None)]);
        assert!(of(&signing, 2, "all"));
    }
}
