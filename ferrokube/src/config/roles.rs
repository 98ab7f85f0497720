//! What a host does for its cluster. Pure. Called where something is started, checked or made for one of the roles.

use std::ops::BitOr;

/// A set of roles.
///
/// ```text
///                 CONTROL_PLANE                        NODE
///   etcd, kube-apiserver, controllers,    container runtime, kubelet,
///   scheduler; the keys of the CAs        kube-proxy, DNS; certificates of its own
/// ```
///
/// `up` has both on one host; `--disable-node` leaves the first, `agent` the second. A row of `COMPONENTS` names the role
/// whose part it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    pub const CONTROL_PLANE: Roles = Roles(1);
    pub const NODE: Roles = Roles(1 << 1);

    /// Whether one of these roles is among them.
    pub fn has(self, role: Roles) -> bool {
        self.0 & role.0 != 0
    }
}

impl BitOr for Roles {
    type Output = Roles;

    fn bitor(self, other: Roles) -> Roles {
        Roles(self.0 | other.0)
    }
}
