//! One typed view of each object for all informers of the process. Components that run side by side watch the same pods
//! and nodes, each as itself; what they decode is the same, and an object that several of them hold is held once.
//!
//! ```text
//!   controller-manager's cache ──┐
//!                                ├──> Arc<Pod> of uid u, resourceVersion 7
//!   scheduler's cache ───────────┘         ^
//!   views: (Pod, u) ──> 7, weak ───────────┘
//! ```
//!
//! An object is known by type, UID and resource version; so a view is never wrong, only missing: then there are two for a
//! while. Called by `informer`.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Weak};

use kube::Resource;
use parking_lot::Mutex;

/// Views that are gone are looked for after half as many changes as there are views, but no sooner than after these.
const FEWEST_CHANGES: usize = 1_024;

static VIEWS: LazyLock<Mutex<Views>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Views {
    known: HashMap<Identity, View>,
    /// Since the last look for those that are gone.
    changes: usize,
}

#[derive(PartialEq, Eq, Hash)]
struct Identity {
    kind: TypeId,
    uid: Box<str>,
}

struct View {
    version: Box<str>,
    object: Weak<dyn Any + Send + Sync>,
}

/// The view that somebody holds of this very state of the object, or this one as such.
pub fn one<K>(object: K) -> Arc<K>
where
    K: Resource + Send + Sync + 'static,
{
    let meta = object.meta();
    let (Some(uid), Some(version)) = (&meta.uid, &meta.resource_version) else { return Arc::new(object) };
    let identity = Identity { kind: TypeId::of::<K>(), uid: uid.as_str().into() };
    let version = version.as_str().into();
    let mut views = VIEWS.lock();
    views.changed();
    if let Some(view) = views.known.get(&identity).filter(|view| view.version == version)
        && let Some(held) = view.object.upgrade().and_then(|held| held.downcast().ok())
    {
        return held;
    }
    let object = Arc::new(object);
    let held: Arc<dyn Any + Send + Sync> = object.clone();
    views.known.insert(identity, View { version, object: Arc::downgrade(&held) });
    object
}

/// An informer has let go of an object and taken no other for it.
pub fn released() {
    VIEWS.lock().changed();
}

impl Views {
    /// Counts a change, and now and then forgets views that nobody holds: even an empty one keeps its place in memory.
    fn changed(&mut self) {
        self.changes += 1;
        if self.changes >= FEWEST_CHANGES.max(self.known.len() / 2) {
            self.known.retain(|_, view| view.object.strong_count() > 0);
            self.known.shrink_to_fit();
            self.changes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Secret};
    use kube::core::ObjectMeta;

    use super::*;

    fn meta(uid: &str, version: &str) -> ObjectMeta {
        ObjectMeta { uid: Some(uid.into()), resource_version: Some(version.into()), ..ObjectMeta::default() }
    }

    fn map(uid: &str, version: &str) -> ConfigMap {
        ConfigMap { metadata: meta(uid, version), ..ConfigMap::default() }
    }

    #[test]
    fn the_same_state_is_held_once_and_only_that() {
        let first = one(map("shared-1", "7"));
        assert!(Arc::ptr_eq(&first, &one(map("shared-1", "7"))));
        assert!(!Arc::ptr_eq(&first, &one(map("shared-1", "8"))), "another state");
        let other = one(Secret { metadata: meta("shared-1", "7"), ..Secret::default() });
        assert_eq!(other.metadata.uid.as_deref(), Some("shared-1"), "another kind");
        let nameless = [one(ConfigMap::default()), one(ConfigMap::default())];
        assert!(!Arc::ptr_eq(&nameless[0], &nameless[1]), "without an identity nothing is shared");
    }

    #[test]
    fn what_nobody_holds_is_forgotten() {
        let mut views = Views::default();
        for n in 0..FEWEST_CHANGES * 3 {
            let object: Arc<dyn Any + Send + Sync> = Arc::new(n);
            let identity = Identity { kind: TypeId::of::<usize>(), uid: n.to_string().into() };
            views.known.insert(identity, View { version: "1".into(), object: Arc::downgrade(&object) });
            views.changed();
        }
        assert!(views.known.len() <= FEWEST_CHANGES, "{}", views.known.len());
    }
}
