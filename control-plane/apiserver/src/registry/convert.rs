//! From the version in which an object is stored to the one that a request is about, and back: the one seam between
//! both, for every read, write and watch. It may fail and it may wait, for a webhook of a definition can do both.
//!
//! Verbs work on what [`Served::shown`] gives, which is an [`Entry`] as the version of the request has it, so that whoever
//! encodes, audits or patches an object meets one version only:
//!
//! ```text
//!            etcd, watch cache: apps.example.com/v1               a request for v1beta1
//!
//!   GET, LIST, watch      Entry ──┬─ is v1beta1 (or all is): as it is ─────────────┬─► bytes of the answer
//!                                 └─ known ─► Conversions ─ else ─► Converter ─────┘   (one call for a page)
//!   PUT, PATCH, apply     Entry ───────────► the same ──► old ─► new ─► to_storage ──► one guarded transaction
//! ```
//!
//! * All or nothing: a list of which one object can't be converted is an error, and a watch ends with one.
//! * Nobody holds a lock of the cache, the hub or the registry while a converter works.
//! * What is of the version already costs a look at a pointer: no allocation, no future on the heap.
//!
//! I/O: yields to tokio, and waits for a converter, which may ask anybody.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use kinds::KindRef;
use meta::{Status, Str};
use object::metadata;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::{Served, reading};
use crate::cache::Entry;

/// Most objects of one call: the page of client-go's lists. A list of more is converted in several calls.
pub const BATCH: usize = 500;
/// Most bytes of converted objects that are kept, for all kinds together: ten thousand of ordinary size. Each counts as it
/// is stored.
const KEPT_BYTES: usize = 16 << 20;
/// What keeping one takes beside its bytes.
const KEPT_OVERHEAD: usize = 512;

/// What a converter gives when it is done.
pub type Converting<'a> = Pin<Box<dyn Future<Output = Result<Vec<Value>, Status>> + Send + 'a>>;

/// Knows how to say an object in another version of its kind.
pub trait Converter: Send + Sync {
    /// Says objects as `to`, which is the kind in one of its versions: as many, in their order, with `apiVersion` set. They
    /// may come in several other versions, or in this one; each has its `metadata.resourceVersion`, if it is stored.
    ///
    /// An error is the answer to the client: nothing of what was asked for is answered or written then, though a write
    /// whose answer can't be converted has happened. The future may be dropped at any time, and the same objects may be
    /// asked for by others at the same time.
    fn convert<'a>(&'a self, objects: Vec<Value>, to: &'a KindRef) -> Converting<'a>;
}

/// Built-in kinds: the hooks of the kind that is not stored.
pub struct Builtin {
    pub kind: KindRef,
    pub stored: KindRef,
}

impl Builtin {
    /// Says an object of this version as it is stored.
    pub fn to_storage(&self, object: &mut Value) {
        (self.kind.hooks.to_storage)(object);
        named(object, &self.stored);
    }

    /// Says a stored object in this version.
    pub fn from_storage(&self, object: &mut Value) {
        (self.kind.hooks.from_storage)(object);
        named(object, &self.kind);
    }
}

fn named(object: &mut Value, kind: &KindRef) {
    object["apiVersion"] = kind.api_version().into();
    object["kind"] = kind.kind.as_ref().into();
}

impl Converter for Builtin {
    fn convert<'a>(&'a self, mut objects: Vec<Value>, to: &'a KindRef) -> Converting<'a> {
        let say = if Arc::ptr_eq(to, &self.stored) { Builtin::to_storage } else { Builtin::from_storage };
        objects.iter_mut().for_each(|object| say(self, object));
        Box::pin(std::future::ready(Ok(objects)))
    }
}

/// The strategy `None` of definitions: fields stay what they are, but for those that the new version does not know.
pub struct Nop;

impl Converter for Nop {
    fn convert<'a>(&'a self, mut objects: Vec<Value>, to: &'a KindRef) -> Converting<'a> {
        let version = to.api_version();
        for object in objects.iter_mut().filter(|object| object["apiVersion"] != version.as_str()) {
            object["apiVersion"] = version.as_str().into();
            schema::drop_nulls(object, &to.schema);
            schema::prune(object, &to.schema);
        }
        Box::pin(std::future::ready(Ok(objects)))
    }
}

/// How one resource is converted, and what of it was.
#[derive(Clone)]
pub struct Conversion {
    converter: Arc<dyn Converter>,
    known: Option<Arc<Conversions>>,
}

impl Conversion {
    /// By a converter that may take long: what it gave is kept among `known`.
    pub fn new(converter: Arc<dyn Converter>, known: &Arc<Conversions>) -> Conversion {
        Conversion { converter, known: Some(known.clone()) }
    }

    /// By hooks of our own: to run them again costs less than to keep what they gave.
    pub fn builtin(kind: &KindRef, stored: KindRef) -> Conversion {
        Conversion { converter: Arc::new(Builtin { kind: kind.clone(), stored }), known: None }
    }

    fn slot(&self, served: &Served, entry: &Entry) -> Slot {
        let Some(known) = &self.known else { return Slot::default() };
        let version = served.kind.api_version().into();
        known.slot((entry.key.clone(), entry.revision, version, served.generation), entry.value.len())
    }

    async fn values(&self, objects: Vec<Value>, to: &KindRef) -> Result<Vec<Value>, Status> {
        let asked = objects.len();
        let converted = self.converter.convert(objects, to).await?;
        if converted.len() != asked {
            let (gvk, got) = (to.gvk(), converted.len());
            return Err(Status::internal(format_args!("conversion to {gvk} gave {got} objects for {asked}")));
        }
        Ok(converted)
    }

    async fn one(&self, served: &Served, entry: &Arc<Entry>) -> Result<Arc<Entry>, Status> {
        let slot = self.slot(served, entry);
        let convert = || async {
            let object = self.values(vec![entry.object()], &served.kind).await?.pop().unwrap_or_default();
            said(entry, object)
        };
        // Those who come meanwhile, as all watchers of an event do, wait for the first.
        slot.get_or_try_init(convert).await.cloned()
    }

    /// Converts what is not of the version yet, and not known; answers whether the converter was asked.
    async fn batch(&self, served: &Served, entries: &mut [Arc<Entry>]) -> Result<bool, Status> {
        let mut missing = Vec::new();
        for (place, entry) in entries.iter_mut().enumerate().filter(|(_, entry)| !served.shows(entry)) {
            let slot = self.slot(served, entry);
            match slot.get() {
                Some(known) => *entry = known.clone(),
                None => missing.push((place, slot)),
            }
        }
        if missing.is_empty() {
            return Ok(false);
        }
        let objects = missing.iter().map(|(place, _)| entries[*place].object()).collect();
        let converted = self.values(objects, &served.kind).await?;
        for ((place, slot), object) in missing.into_iter().zip(converted) {
            let entry = said(&entries[place], object)?;
            // Whoever was faster said the same.
            let _ = slot.set(entry.clone());
            entries[place] = entry;
        }
        Ok(true)
    }
}

/// An entry with its object said in another version.
fn said(entry: &Entry, mut object: Value) -> Result<Arc<Entry>, Status> {
    metadata(&mut object).remove("resourceVersion");
    // What is an entry can be parsed again, whoever converted it.
    reading::fits(&object).map_err(|why| Status::internal(format_args!("conversion gave {why}")))?;
    let bytes = Bytes::from(serde_json::to_vec(&object).map_err(Status::internal)?);
    let said = entry.with_value(bytes).ok_or_else(|| Status::internal("conversion gave no object"))?;
    Ok(Arc::new(said))
}

impl Served {
    /// Whether an entry is as this version has it. The bytes of a custom resource may be of a version that was stored once.
    pub fn shows(&self, entry: &Entry) -> bool {
        self.native() && !(self.custom && entry.stale && entry.api_version() != self.kind.api_version())
    }

    /// Entries as this version has them.
    pub async fn shown(&self, mut entries: Vec<Arc<Entry>>) -> Result<Vec<Arc<Entry>>, Status> {
        let Some(conversion) = &self.conversion else { return Ok(entries) };
        for batch in entries.chunks_mut(BATCH) {
            if conversion.batch(self, batch).await? {
                // Between the pages of a long list others get their turn, whatever the converter does.
                tokio::task::yield_now().await;
            }
        }
        Ok(entries)
    }

    /// An entry as this version has it.
    pub async fn shown_one(&self, entry: &Arc<Entry>) -> Result<Arc<Entry>, Status> {
        match &self.conversion {
            Some(conversion) if !self.shows(entry) => conversion.one(self, entry).await,
            _ => Ok(entry.clone()),
        }
    }

    /// The object of an entry in this version.
    pub async fn object(&self, entry: &Arc<Entry>) -> Result<Value, Status> {
        Ok(self.shown_one(entry).await?.object())
    }

    /// An object of this version as it is stored.
    pub async fn to_storage(&self, object: Value) -> Result<Value, Status> {
        match (&self.conversion, &self.store) {
            (Some(conversion), Some(store)) if !self.native() => {
                Ok(conversion.values(vec![object], &store.kind).await?.pop().unwrap_or_default())
            }
            _ => Ok(object),
        }
    }

    /// An object of this version as it is read once it is stored: what the stored version does not know is gone, and its
    /// defaults are in.
    pub async fn through_storage(&self, object: Value) -> Result<Value, Status> {
        let (Some(conversion), Some(store)) = (&self.conversion, &self.store) else { return Ok(object) };
        if !self.custom || self.native() {
            return Ok(object);
        }
        let mut stored = self.to_storage(object).await?;
        super::fill(&mut stored, &store.kind.schema)?;
        Ok(conversion.values(vec![stored], &self.kind).await?.pop().unwrap_or_default())
    }
}

/// What is converted: a store key at a revision is one state of one object, in a version by a definition that may change.
type Key = (Bytes, i64, Str, u64);
/// Empty until the first who wants it has it converted.
type Slot = Arc<OnceCell<Arc<Entry>>>;

/// What was converted lately, by any resource. When the younger half is full, the older one goes.
#[derive(Default)]
pub struct Conversions(Mutex<Halves>);

#[derive(Default)]
struct Halves {
    young: HashMap<Key, Slot>,
    old: HashMap<Key, Slot>,
    /// Of the younger half.
    bytes: usize,
}

impl Conversions {
    /// The place of what is so many bytes as it is stored.
    fn slot(&self, key: Key, bytes: usize) -> Slot {
        let mut halves = self.0.lock();
        if let Some(slot) = halves.young.get(&key) {
            return slot.clone();
        }
        let slot = halves.old.remove(&key).unwrap_or_default();
        let weight = bytes + KEPT_OVERHEAD;
        if halves.bytes + weight > KEPT_BYTES / 2 {
            halves.old = std::mem::take(&mut halves.young);
            halves.bytes = 0;
        }
        halves.bytes += weight;
        halves.young.insert(key, slot.clone());
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_has_a_bound_and_what_is_wanted_stays() {
        const MANY: i64 = 100;
        let known = Conversions::default();
        let slot = |n: i64| known.slot((Bytes::from_static(b"/k"), n, "example.com/v1".into(), 0), 1 << 20);
        let wanted = slot(0);
        for n in 1..MANY {
            slot(n);
            assert!(Arc::ptr_eq(&wanted, &slot(0)), "asked for all the time");
        }
        let halves = known.0.lock();
        assert!(halves.young.len() + halves.old.len() <= KEPT_BYTES >> 20, "no more than its bytes");
        assert!(halves.young.contains_key(&(Bytes::from_static(b"/k"), MANY - 1, "example.com/v1".into(), 0)));
    }
}
