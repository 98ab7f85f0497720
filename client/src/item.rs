//! One object of a list or watch: its names, and its text for whoever wants it read. Decoded alone, so that neither
//! its depth nor a field of a wrong type costs a component the rest of the list, and no error carries a body; and not
//! at all where somebody else has read the same already. Informers and whoever else watches ask for these instead of
//! the kind itself. In an event the type comes before the object, as API servers write it: what comes first is kept by
//! serde, and then is no raw text any more.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DynamicResourceScope;
use kube::{Api, Resource};
use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde_json::value::RawValue;

use crate::head;

/// An object of a list or watch.
#[derive(Clone)]
pub struct Item<K> {
    /// Name, namespace, uid and resource version, as far as these can be read.
    meta: ObjectMeta,
    text: Box<RawValue>,
    kind: PhantomData<fn() -> K>,
}

/// What is known of an object that can't be read: it is there, and neither that it is empty nor that it is gone.
#[derive(Debug, Clone)]
pub struct Unreadable {
    /// Name, namespace, uid and resource version, as far as these can be read.
    pub meta: ObjectMeta,
    /// Where decoding stopped. The decoder's own words may quote the object.
    pub place: String,
}

impl Unreadable {
    /// Tells the log that this object of a kind is passed over.
    pub fn tell(&self, kind: &str) {
        let ObjectMeta { name, namespace, resource_version, .. } = &self.meta;
        tracing::error!(
            kind,
            ?namespace,
            ?name,
            ?resource_version,
            place = self.place,
            "an object can't be read and is passed over"
        );
    }
}

impl<K> Item<K> {
    /// As it came.
    pub(crate) fn text(&self) -> &str {
        self.text.get()
    }
}

impl<K: DeserializeOwned> Item<K> {
    /// The object, or what is known of one that can't be read.
    pub fn read(&self) -> Result<K, Box<Unreadable>> {
        serde_json::from_str(self.text()).map_err(|error| {
            let place = format!("{:?} at line {} column {}", error.classify(), error.line(), error.column());
            Box::new(Unreadable { meta: self.meta.clone(), place })
        })
    }
}

impl<K> fmt::Debug for Item<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
}

impl<'de, K> Deserialize<'de> for Item<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Item<K>, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let head::Names { name, namespace, uid, resource_version } = head::metadata(text.get());
        let meta = ObjectMeta { name, namespace, uid, resource_version, ..ObjectMeta::default() };
        Ok(Item { meta, text, kind: PhantomData })
    }
}

impl<K: Resource> Resource for Item<K> {
    type DynamicType = K::DynamicType;
    type Scope = DynamicResourceScope;

    fn kind(dt: &K::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &K::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &K::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &K::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn metadata_api() -> bool {
        K::metadata_api()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

/// The same part of the API, object by object, through `client`.
pub(crate) fn api<K: Resource<DynamicType = ()>>(of: &Api<K>, client: kube::Client) -> Api<Item<K>> {
    match of.namespace() {
        Some(namespace) => Api::namespaced_with(client, namespace, &()),
        None => Api::all_with(client, &()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::ControllerRevision;
    use kube::core::{ObjectList, WatchEvent};

    fn revision(name: &str, data: &str) -> String {
        format!(r#"{{"metadata":{{"name":"{name}","namespace":"ns"}},"revision":1,"data":{data}}}"#)
    }

    #[test]
    fn a_deep_or_broken_object_costs_only_itself() {
        // 126 levels: more than the decoder follows with a list around them.
        let deep = format!("{}1{}", "[".repeat(125), "]".repeat(125));
        let bottomless = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
        let items =
            [revision("a", "{}"), revision("b", &deep), revision("c", &bottomless), r#"{"metadata":7}"#.to_owned()];
        let list = format!(r#"{{"kind":"List","apiVersion":"v1","metadata":{{}},"items":[{}]}}"#, items.join(","));
        let list: ObjectList<Item<ControllerRevision>> = serde_json::from_str(&list).unwrap();
        let read: Vec<bool> = list.items.iter().map(|item| item.read().is_ok()).collect();
        assert_eq!(read, [true, true, false, false]);
        assert_eq!(list.items[2].meta().name.as_deref(), Some("c"));
        let event = format!(r#"{{"type":"ADDED","object":{}}}"#, revision("c", &bottomless));
        let WatchEvent::Added(item) = serde_json::from_str::<WatchEvent<Item<ControllerRevision>>>(&event).unwrap()
        else {
            panic!("another event")
        };
        assert_eq!(item.meta().namespace.as_deref(), Some("ns"));
    }

    #[test]
    fn no_error_quotes_the_object() {
        let secret = r#"{"metadata":{"name":"s"},"data":{"password":["c2VjcmV0"]}}"#;
        let item: Item<k8s_openapi::api::core::v1::Secret> = serde_json::from_str(secret).unwrap();
        let unreadable = item.read().unwrap_err();
        assert_eq!(unreadable.place, "Data at line 1 column 44");
    }
}
