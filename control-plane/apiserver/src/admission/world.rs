//! What plugins may ask of the server. They know it by this trait alone: the server implements it over its caches, a test
//! over a handful of objects (`fake::Fake`).

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kinds::KindRef;
use meta::{Gvr, Status};
use serde_json::Value;

use crate::authn::UserInfo;
use crate::authz::rules::Rule;
use crate::authz::{Attributes, Decision};
use crate::cache::Entry;

/// The server as plugins see it. Resources are named by group and plural: which version is stored is nobody's business
/// here, and objects come as they are stored. A namespace that is empty means none, or all of them where many are asked
/// for.
///
/// Caches lag behind the store by the time that a watch event takes. Reading from them is right where upstream's plugins
/// read informers: a default that changed a moment ago may not be seen yet. Where a request must not be let through on an
/// old state there are three ways, best first: put a guard on the revision that was read into
/// [`Request::extra`](super::Request::extra), so that the transaction fails when it was old; [`World::find`], which asks
/// the store before it says that something is absent; [`World::read_own_writes`].
#[async_trait]
pub trait World: Send + Sync {
    /// One object: from the cache, or from the store when the cache has not heard of it.
    async fn find(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Result<Option<Arc<Entry>>, Status>;

    /// One object, as the cache has it.
    fn cached(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Arc<Entry>>;

    /// All objects of a namespace, as the cache has them; their bytes are shared.
    fn entries(&self, group: &str, plural: &str, namespace: &str) -> Vec<Arc<Entry>>;

    /// The same, parsed.
    fn objects(&self, group: &str, plural: &str, namespace: &str) -> Vec<Value> {
        self.entries(group, plural, namespace).iter().map(|entry| entry.object()).collect()
    }

    /// Where an object of this name is stored, or would be; `None` for what is not served.
    fn key(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Bytes>;

    /// The kind that is served under this name.
    fn kind(&self, group: &str, version: &str, kind: &str) -> Option<KindRef>;

    /// Asks the authorisers.
    fn decide(&self, attributes: &Attributes<'_>) -> Decision;

    /// Whether the authorisers allow it.
    fn allows(&self, attributes: &Attributes<'_>) -> bool {
        matches!(self.decide(attributes), Decision::Allow(_))
    }

    /// The rules that roles give to a user in a namespace, whether or not RBAC is an authoriser.
    fn rules_of(&self, user: &UserInfo, namespace: &str) -> Vec<Rule>;

    /// Waits until the caches show all that this server has written so far. `gvr` is named when the store does not answer.
    async fn read_own_writes(&self, gvr: &Gvr) -> Result<(), Status>;
}
