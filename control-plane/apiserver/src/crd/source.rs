//! The schema of one version of a definition, as text until somebody looks into it. What objects are judged by is made
//! for the first of them and kept, without the words for people; what documents publish is made for each and let go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use schema::{Schema, SchemaRef, parse};
use serde_json::Value;

/// How much was done about definitions since the start: tests hold it against the number of definitions.
#[derive(Debug, Default)]
pub struct Work {
    /// Definitions looked at, one for each event.
    pub outlines: AtomicU64,
    /// Definitions made into kinds.
    pub served: AtomicU64,
    /// Schemas made to judge objects by.
    pub compiled: AtomicU64,
    /// Schemas read to publish them.
    pub published: AtomicU64,
}

/// See the module's head.
pub struct Source {
    /// A part of the stored bytes of the definition.
    text: Mutex<Bytes>,
    work: Arc<Work>,
}

impl Source {
    pub fn new(text: Bytes, work: &Arc<Work>) -> Arc<Source> {
        Arc::new(Source { text: Mutex::new(text), work: work.clone() })
    }

    /// The same text in newer bytes, so that the older ones can go.
    pub fn move_to(&self, text: Bytes) {
        *self.text.lock() = text;
    }

    /// What objects are judged by.
    pub fn schema(self: &Arc<Source>) -> SchemaRef {
        let source = self.clone();
        SchemaRef::lazy(move || {
            source.work.compiled.fetch_add(1, Ordering::Relaxed);
            source.read(parse::custom_resource_without_prose)
        })
    }

    /// What documents say of it.
    pub fn published(&self) -> Schema {
        self.work.published.fetch_add(1, Ordering::Relaxed);
        self.read(parse::custom_resource)
    }

    fn read(&self, parse: fn(&Value, &SchemaRef) -> Schema) -> Schema {
        let text = self.text.lock().clone();
        // Text of no schema at all is what a version without one has.
        let source: Value = serde_json::from_slice(&text).unwrap_or_default();
        match kinds::definitions::by_name("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta") {
            Some(metadata) => parse(&source, &metadata),
            None => Schema::ANYTHING,
        }
    }
}
