//! One state of one object as caches hold it: of a large kind its text, with the typed view beside it while it is warm;
//! of a small one the view alone, which takes no more. Called by `informer` and `cache`.
//!
//! ```text
//!   controller-manager's cache ──┐                       ┌──> text: the API server's own bytes in one process
//!                                ├──> Arc<Held<Pod>> ────┤
//!   scheduler's cache ───────────┘    (`shared`: one)    └──> view: Arc<Pod>, read when asked, kept by `warm`
//! ```
//!
//! A view has no `managedFields`: nobody decides by them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use kube::Resource;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use crate::head;
use crate::item::{Item, Unreadable};
use crate::stored::Stored;
use crate::warm::{self, Warm};

/// Kinds whose structs alone are larger than this are held as text: those with a pod's specification in them, which has
/// room for every kind of volume in each of its volumes. A pod of three volumes takes 25 KiB as a view and 4 as text.
const LARGE: usize = 2 << 10;

/// See the module's head.
pub struct Held<K> {
    /// As its metadata say, if they do.
    pub uid: Option<Box<str>>,
    /// The same of the resource version, which is not in the server's own bytes.
    pub version: Option<Box<str>>,
    form: Form<K>,
}

enum Form<K> {
    View(Arc<K>),
    Text { text: Bytes, view: Mutex<Option<Arc<K>>> },
}

impl<K> Held<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Send + Sync + 'static,
{
    /// Reads an object: the same for everybody, or what is known of one that can't be read.
    pub fn read(item: &Item<K>, stored: Option<&Stored>) -> Result<Held<K>, Box<Unreadable>> {
        let meta = item.meta();
        let (uid, version) = (meta.uid.as_deref().map(Box::from), meta.resource_version.as_deref().map(Box::from));
        if size_of::<K>() <= LARGE {
            return Ok(Held { uid, form: Form::View(Arc::new(trimmed(item.read()?, version.as_deref()))), version });
        }
        let own = stored.and_then(|stored| stored.bytes_of::<K>(meta, item.text()));
        let own = own.and_then(|text| Some((serde_json::from_slice(&text).ok()?, text)));
        let (object, text) = match own {
            Some(read) => read,
            None => (item.read()?, Bytes::copy_from_slice(item.text().as_bytes())),
        };
        let view = Mutex::new(Some(Arc::new(trimmed(object, version.as_deref()))));
        Ok(Held { uid, version, form: Form::Text { text, view } })
    }

    /// The typed view, the same for all who ask while it is warm.
    pub fn view(self: &Arc<Self>) -> Arc<K> {
        let (text, view) = match &self.form {
            Form::View(view) => return view.clone(),
            Form::Text { text, view } => (text, view),
        };
        let mut view = view.lock();
        if let Some(view) = &*view {
            return view.clone();
        }
        let object: K = serde_json::from_slice(text).expect("it was read from these bytes before");
        let read = Arc::new(trimmed(object, self.version.as_deref()));
        *view = Some(read.clone());
        drop(view);
        self.warm();
        read
    }

    /// Lets the view stay for a while.
    pub fn warm(self: &Arc<Self>) {
        if let Form::Text { text, .. } = &self.form {
            let this: Arc<dyn Warm> = self.clone();
            warm::keep(Arc::downgrade(&this), text.len());
        }
    }

    /// Whether the labels are as wanted; known without the view.
    pub fn has_labels(&self, wanted: impl Fn(&Option<BTreeMap<String, String>>) -> bool) -> bool {
        let text = match &self.form {
            Form::View(view) => return wanted(&view.meta().labels),
            Form::Text { text, view } => match &*view.lock() {
                Some(view) => return wanted(&view.meta().labels),
                None => text,
            },
        };
        let text = std::str::from_utf8(text).unwrap_or_default();
        wanted(&head::metadata::<head::Labels>(text).labels)
    }
}

impl<K: Send + Sync> Warm for Held<K> {
    fn cool(&self) {
        if let Form::Text { view, .. } = &self.form {
            let cooled = view.lock().take();
            // What is large is freed when nobody waits for it.
            drop(cooled);
        }
    }
}

/// An object as views show it.
pub fn trimmed<K: Resource>(mut object: K, version: Option<&str>) -> K {
    let meta = object.meta_mut();
    meta.managed_fields = None;
    meta.resource_version = version.map(str::to_owned);
    object
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Pod};

    use super::*;

    const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"resourceVersion":"7","labels":{"app":"web"},"managedFields":[],"name":"web","uid":"u"},"spec":{"containers":[]}}"#;

    fn item<K>(text: &str) -> Item<K> {
        serde_json::from_str(text).expect("an object")
    }

    #[test]
    fn a_large_object_shares_the_bytes_of_its_server() {
        let bytes = Bytes::from(POD.replace(r#""resourceVersion":"7","#, ""));
        let server = bytes.clone();
        let stored = Stored::new(move |sent| (sent.plural == "pods" && sent.text == POD).then(|| server.clone()));
        let held = Arc::new(Held::<Pod>::read(&item(POD), Some(&stored)).expect("readable"));
        let Form::Text { text, .. } = &held.form else { panic!("not as text") };
        assert_eq!(text.as_ptr(), bytes.as_ptr(), "no copy");
        for _ in 0..2 {
            assert_eq!(held.view().metadata.resource_version.as_deref(), Some("7"), "which is not in these bytes");
            assert!(held.view().metadata.managed_fields.is_none());
            held.cool();
        }
    }

    #[test]
    fn what_the_server_has_in_another_version_is_copied() {
        let stored = Stored::new(|_| Some(Bytes::from_static(br#"{"apiVersion":"v9","kind":"Pod","metadata":{}}"#)));
        let held = Arc::new(Held::<Pod>::read(&item(POD), Some(&stored)).expect("readable"));
        held.cool();
        assert_eq!(held.view().metadata.name.as_deref(), Some("web"));
    }

    #[test]
    fn a_view_is_read_once_while_it_is_warm_and_again_when_it_is_cold() {
        let held = Arc::new(Held::<Pod>::read(&item(POD), None).expect("readable"));
        let first = held.view();
        assert!(Arc::ptr_eq(&first, &held.view()));
        held.cool();
        let wanted = |labels: &Option<BTreeMap<String, String>>| labels.as_ref().is_some_and(|l| l["app"] == "web");
        assert!(held.has_labels(wanted));
        let Form::Text { view, .. } = &held.form else { panic!("not as text") };
        assert!(view.lock().is_none(), "labels are known without it");
        let again = held.view();
        assert!(!Arc::ptr_eq(&first, &again) && *first == *again);
        assert!(Arc::ptr_eq(&again, &held.view()));
        assert!(held.has_labels(wanted));
    }

    #[test]
    fn a_small_object_is_its_view() {
        let map = r#"{"metadata":{"resourceVersion":"7","name":"a","labels":{"app":"web"}},"data":{}}"#;
        let held = Arc::new(Held::<ConfigMap>::read(&item(map), None).expect("readable"));
        let first = held.view();
        held.cool();
        assert!(Arc::ptr_eq(&first, &held.view()));
        assert!(held.has_labels(|labels| labels.is_some()));
    }
}
