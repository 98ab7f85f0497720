//! VRFs: a device with a table of its own, and the links that are in it. A speaker is of one VRF, or of none: then what is in
//! any is no business of its. [`of`] and [`is_within`] are pure, [`table`] asks the kernel. Called by `ways` and the daemon, and at the
//! start.

use linux::netlink::{Link, LinkKind, Rtnl};

/// Why the table of a VRF is not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Netlink failed.
    #[error(transparent)]
    Netlink(#[from] linux::netlink::Error),
    /// There is no such VRF, and what would be right.
    #[error("vrf: {0} {1}")]
    Missing(String, String),
}

/// The table of a VRF.
///
/// # Errors
/// There is no such VRF, in a sentence that says what is lacking.
pub fn table(rtnl: &mut Rtnl, name: &str) -> Result<u32, Error> {
    let lacking = |why: String| Err(Error::Missing(name.to_owned(), why));
    match rtnl.link(name)?.map(|link| link.kind) {
        Some(Some(LinkKind::Vrf(table))) => Ok(table),
        Some(_) => lacking("is a link of another kind".to_owned()),
        // Whether it could be is only known by making one.
        None => lacking(format!(
            "is not there; `ip link add {name} type vrf table 10` makes it, on a kernel with VRFs (CONFIG_NET_VRF)"
        )),
    }
}

/// The VRF that a link is in, or is itself: `master` is the link that this one is a port of.
pub fn of<'a>(link: &'a Link, master: Option<&'a Link>) -> Option<&'a str> {
    let is_vrf = |link: &&Link| matches!(link.kind, Some(LinkKind::Vrf(_)));
    [Some(link), master].into_iter().flatten().find(is_vrf).map(|vrf| vrf.name.as_str())
}

/// Whether a link is in a VRF, or, without one, in none.
pub fn is_within(link: &Link, master: Option<&Link>, vrf: Option<&str>) -> bool {
    of(link, master) == vrf
}
