//! Each state of an object once for all informers of the process. Components that run side by side watch the same pods
//! and nodes, each as itself; what they get is the same, and who comes second neither reads nor holds it again.
//!
//! ```text
//!   controller-manager's cache ──┐
//!                                ├──> Arc<Held<Pod>> of uid u, resourceVersion 7
//!   scheduler's cache ───────────┘         ^
//!   known: (Pod, u) ──> 7, weak ───────────┘
//! ```
//!
//! An object is known by type, UID and resource version; so what is shared is never wrong, only missing: then there are
//! two for a while. Called by `informer`.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Weak};

use kube::Resource;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use crate::held::Held;
use crate::item::{Item, Unreadable};
use crate::stored::Stored;

/// What is gone is looked for after half as many changes as there are objects, but no sooner than after these.
const FEWEST_CHANGES: usize = 1_024;

static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Known {
    objects: HashMap<Identity, State>,
    /// Since the last look for those that are gone.
    changes: usize,
}

#[derive(PartialEq, Eq, Hash)]
struct Identity {
    kind: TypeId,
    uid: Box<str>,
}

struct State {
    version: Box<str>,
    held: Weak<dyn Any + Send + Sync>,
}

/// What somebody holds of this very state of the object, or what is held from now on.
pub fn one<K>(item: &Item<K>, stored: Option<&Stored>) -> Result<Arc<Held<K>>, Box<Unreadable>>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Send + Sync + 'static,
{
    let meta = item.meta();
    let (Some(uid), Some(version)) = (&meta.uid, &meta.resource_version) else {
        return Held::read(item, stored).map(Arc::new);
    };
    let identity = Identity { kind: TypeId::of::<K>(), uid: uid.as_str().into() };
    if let Some(held) = KNOWN.lock().find(&identity, version) {
        return Ok(held);
    }
    let held = Arc::new(Held::read(item, stored)?);
    held.warm();
    let mut known = KNOWN.lock();
    known.changed();
    // Somebody else may have read it meanwhile.
    if let Some(held) = known.find(&identity, version) {
        return Ok(held);
    }
    let weak: Arc<dyn Any + Send + Sync> = held.clone();
    known.objects.insert(identity, State { version: version.as_str().into(), held: Arc::downgrade(&weak) });
    Ok(held)
}

/// An informer has let go of an object and taken no other for it.
pub fn released() {
    KNOWN.lock().changed();
}

impl Known {
    fn find<K: Send + Sync + 'static>(&self, identity: &Identity, version: &str) -> Option<Arc<Held<K>>> {
        let state = self.objects.get(identity).filter(|state| *state.version == *version)?;
        state.held.upgrade()?.downcast().ok()
    }

    /// Counts a change, and now and then forgets what nobody holds: even an empty place takes memory.
    fn changed(&mut self) {
        self.changes += 1;
        if self.changes >= FEWEST_CHANGES.max(self.objects.len() / 2) {
            self.objects.retain(|_, state| state.held.strong_count() > 0);
            self.objects.shrink_to_fit();
            self.changes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};

    use super::*;

    fn item<K>(uid: &str, version: &str) -> Item<K> {
        let text = format!(r#"{{"metadata":{{"name":"a","uid":"{uid}","resourceVersion":"{version}"}}}}"#);
        serde_json::from_str(&text).expect("an object")
    }

    fn held<K>(uid: &str, version: &str) -> Arc<Held<K>>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Send + Sync + 'static,
    {
        one(&item(uid, version), None).unwrap_or_else(|_| panic!("unreadable"))
    }

    #[test]
    fn the_same_state_is_held_once_and_only_that() {
        let first = held::<Pod>("shared-1", "7");
        assert!(Arc::ptr_eq(&first, &held("shared-1", "7")));
        assert!(!Arc::ptr_eq(&first, &held("shared-1", "8")), "another state");
        let other = held::<Secret>("shared-1", "7");
        assert_eq!(other.view().metadata.uid.as_deref(), Some("shared-1"), "another kind");
        let nameless: Item<ConfigMap> = serde_json::from_str(r#"{"metadata":{"name":"a"}}"#).expect("an object");
        let [one, two] = [(); 2].map(|()| one(&nameless, None).unwrap_or_else(|_| panic!("unreadable")));
        assert!(!Arc::ptr_eq(&one, &two), "without an identity nothing is shared");
    }

    #[test]
    fn what_is_let_go_takes_its_bytes_along() {
        let text = r#"{"metadata":{"name":"a","uid":"shared-2","resourceVersion":"7"}}"#;
        let bytes = bytes::Bytes::copy_from_slice(text.as_bytes());
        let server = bytes.clone();
        let stored = Stored::new(move |_| Some(server.slice(..)));
        let item: Item<Pod> = serde_json::from_str(text).expect("an object");
        let held = one(&item, Some(&stored)).unwrap_or_else(|_| panic!("unreadable"));
        drop(stored);
        assert!(!bytes.is_unique(), "held");
        drop(held);
        assert!(bytes.is_unique(), "neither the table nor the line of warm views holds anything");
    }

    #[test]
    fn what_nobody_holds_is_forgotten() {
        let mut known = Known::default();
        for n in 0..FEWEST_CHANGES * 3 {
            let object: Arc<dyn Any + Send + Sync> = Arc::new(n);
            let identity = Identity { kind: TypeId::of::<usize>(), uid: n.to_string().into() };
            known.objects.insert(identity, State { version: "1".into(), held: Arc::downgrade(&object) });
            known.changed();
        }
        assert!(known.objects.len() <= FEWEST_CHANGES, "{}", known.objects.len());
    }
}
