//! Whether the kernel can ask each neighbour for the password that was written (TCP-MD5): it has one key for an address,
//! whatever the link, and asks everybody in a range for the range's. Pure. Called when a configuration is made.

use super::node::Fault;
use super::peering::{Neighbor, Peering, Range, is_of_link};

/// What a listening socket would ask of somebody that he does not have.
pub fn sound(neighbors: &[Neighbor], dynamic: &[Range]) -> Result<(), Fault> {
    let mut known = std::collections::HashMap::new();
    for (at, neighbor) in neighbors.iter().enumerate() {
        let key = key(&neighbor.peering);
        let field = format!("neighbors[{at}].password");
        // Two of these may turn out to have one address: whose key is not the kernel's connects, and is not let in.
        if neighbor.peering.unnumbered {
            let asked = |range: &&Range| key_of(range).is_some() && is_of_link(range.prefix.addr);
            match dynamic.iter().find(asked).filter(|_| key.is_none()) {
                Some(range) => return Err(Fault::at(field, missing(range))),
                None => continue,
            }
        }
        if let Some((first, other)) = known.insert(neighbor.address, (at, key))
            && other != key
        {
            let problem = format!(
                "is another than that of neighbors[{first}], and the kernel has one for {} on all links",
                neighbor.address
            );
            return Err(Fault::at(field, problem));
        }
        let asked = |range: &&Range| key_of(range).is_some() && range.prefix.contains(neighbor.address);
        if let Some(range) = dynamic.iter().find(asked).filter(|_| key.is_none()) {
            return Err(Fault::at(field, missing(range)));
        }
    }
    for inner in dynamic.iter().filter(|range| key_of(range).is_none()) {
        let outer = dynamic.iter().find(|outer| key_of(outer).is_some() && outer.prefix.covers(&inner.prefix));
        if let Some(outer) = outer {
            return Err(Fault::at("dynamic", format!("{}: password {}", inner.prefix, missing(outer))));
        }
    }
    Ok(())
}

fn missing(range: &Range) -> String {
    format!(
        "is missing: the kernel asks everybody of the dynamic {} for a password, so he could not connect",
        range.prefix
    )
}

fn key_of(range: &Range) -> Option<&str> {
    key(&range.peering)
}

fn key(peering: &Peering) -> Option<&str> {
    peering.session.transport.password.as_deref()
}
