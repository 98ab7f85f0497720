//! What an API server in this process has of the objects that it sends: an informer that gets a large one keeps the
//! server's own bytes instead of a copy. The transport in the process says so with each answer; over TLS nobody does, and
//! nothing but memory depends on it.

use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;

/// An object as its informer got it.
#[derive(Debug, Clone, Copy)]
pub struct Sent<'a> {
    /// Empty for the core group.
    pub group: &'a str,
    /// The resource.
    pub plural: &'a str,
    /// Empty for cluster-scoped kinds.
    pub namespace: &'a str,
    /// The object's.
    pub name: &'a str,
    /// All of it.
    pub text: &'a str,
}

type Lookup = dyn Fn(&Sent<'_>) -> Option<Bytes> + Send + Sync;

/// An extension of answers: the server's side of it. See the module's head.
#[derive(Clone)]
pub struct Stored(Arc<Lookup>);

impl Stored {
    /// `lookup` gives what is stored of an object whose state was sent in these words, but for its resource version and
    /// type; none of another state of it.
    pub fn new(lookup: impl Fn(&Sent<'_>) -> Option<Bytes> + Send + Sync + 'static) -> Stored {
        Stored(Arc::new(lookup))
    }

    /// What is stored of this.
    pub fn find(&self, sent: &Sent<'_>) -> Option<Bytes> {
        (self.0)(sent)
    }

    pub(crate) fn bytes_of<K: Resource<DynamicType = ()>>(&self, meta: &ObjectMeta, text: &str) -> Option<Bytes> {
        self.find(&Sent {
            group: &K::group(&()),
            plural: &K::plural(&()),
            namespace: meta.namespace.as_deref().unwrap_or_default(),
            name: meta.name.as_deref()?,
            text,
        })
    }
}
