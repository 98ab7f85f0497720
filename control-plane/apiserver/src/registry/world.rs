//! What admission plugins may ask of the server, answered by the verbs: [`World`] over the watch caches, the store and the
//! authorisers.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kinds::KindRef;
use meta::{Gvr, Status};

use super::objects::store_status;
use super::verbs::Verbs;
use crate::admission::World;
use crate::authn::UserInfo;
use crate::authz::rules::Rule;
use crate::authz::{Attributes, Decision};
use crate::cache::Entry;

#[async_trait]
impl World for Verbs {
    async fn find(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Result<Option<Arc<Entry>>, Status> {
        self.objects.find(group, plural, namespace, name).await
    }

    fn cached(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        self.objects.lookup(group, plural, namespace, name)
    }

    fn entries(&self, group: &str, plural: &str, namespace: &str) -> Vec<Arc<Entry>> {
        self.objects.entries(group, plural, namespace)
    }

    fn key(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Bytes> {
        Some(self.objects.registry.load().cache(group, plural)?.key(namespace, name))
    }

    fn kind(&self, group: &str, version: &str, kind: &str) -> Option<KindRef> {
        self.objects.registry.load().by_kind(group, version, kind).map(|served| served.kind.clone())
    }

    fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        self.authorizers.decide(attributes)
    }

    fn rules_of(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        self.rbac.rules_of(user, namespace)
    }

    async fn read_own_writes(&self, gvr: &Gvr) -> Result<(), Status> {
        self.objects.hub.wait_for(self.objects.last_commit()).await.map_err(|error| store_status(error, gvr, "write"))
    }
}
