//! Whether the kernel can ask each neighbour for the password that was written (TCP-MD5) or the keys (TCP-AO): it has those
//! of an address, whatever the link, and asks everybody in a range for the range's. Pure. Called when a configuration is made.

use bgp::session::config::Authentication;

use super::node::Fault;
use super::peering::{Neighbor, Range, is_of_link};

/// What a listening socket would ask of somebody that he does not have, or take of him though it is another's.
pub fn sound(neighbors: &[Neighbor], dynamic: &[Range]) -> Result<(), Fault> {
    let mut known = std::collections::HashMap::new();
    for (at, neighbor) in neighbors.iter().enumerate() {
        let key = neighbor.peering.authentication();
        let fault = |of, problem| Err(Fault::at(format!("neighbors[{at}].{}", field(of)), problem));
        let within = |range: &&Range| match neighbor.peering.unnumbered {
            true => is_of_link(range.prefix.addr),
            false => range.prefix.contains(neighbor.address),
        };
        for range in dynamic.iter().filter(within) {
            if let Err(problem) = fits(key, range) {
                return fault(key_of(range), problem);
            }
        }
        // Two of these may turn out to have one address: whose key is not the kernel's connects, and is not let in.
        if !neighbor.peering.unnumbered
            && let Some((first, other)) = known.insert(neighbor.address, (at, key))
            && other != key
        {
            let problem = format!(
                "is another than that of neighbors[{first}], and the kernel has one for {} on all links",
                neighbor.address
            );
            return fault(key.or(other), problem);
        }
    }
    for inner in dynamic {
        let around = |outer: &&Range| outer.prefix != inner.prefix && outer.prefix.covers(&inner.prefix);
        for outer in dynamic.iter().filter(around) {
            let told = fits(key_of(inner), outer);
            told.map_err(|why| Fault::at("dynamic", format!("{}: {} {why}", inner.prefix, field(key_of(outer)))))?;
        }
    }
    Ok(())
}

/// Whether who is in a range has what the kernel asks of everybody there. Of passwords it goes by that of the smallest range
/// or the address; keys of TCP-AO it takes by their numbers, from wherever they are.
fn fits(key: Option<&Authentication>, range: &Range) -> Result<(), String> {
    let Some(of_range) = key_of(range) else { return Ok(()) };
    let what = match of_range {
        Authentication::Ao(_) => "the keys of its tcp-ao",
        Authentication::Md5(_) => "a password",
    };
    match (key, of_range) {
        (None, _) => Err(format!(
            "is missing: the kernel asks everybody of the dynamic {} for {what}, so he could not connect",
            range.prefix
        )),
        (Some(Authentication::Md5(_)), Authentication::Md5(_)) => Ok(()),
        (Some(key), of_range) if key == of_range => Ok(()),
        _ => {
            Err(format!("is another than that of the dynamic {} around it, and the kernel goes by both", range.prefix))
        }
    }
}

fn field(key: Option<&Authentication>) -> &'static str {
    match key {
        Some(Authentication::Ao(_)) => "tcp-ao",
        _ => "password",
    }
}

fn key_of(range: &Range) -> Option<&Authentication> {
    range.peering.authentication()
}
