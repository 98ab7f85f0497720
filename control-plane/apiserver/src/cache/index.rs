//! Entries by the value of a selectable field that its kind marks as indexed: which pods are on a node, without a walk
//! over all pods. Pure; the cache keeps it in step with its map.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::entry::{Entry, HeaderSpec};

/// The entries of one cache by one field. Entries without a value are left out.
pub(super) struct FieldIndex {
    field: usize,
    by_value: FxHashMap<Box<str>, BTreeMap<Bytes, Arc<Entry>>>,
}

impl FieldIndex {
    /// Empty indexes for the fields that are marked.
    pub(super) fn of(header: &HeaderSpec) -> Vec<FieldIndex> {
        header.indexed().map(|field| FieldIndex { field, by_value: FxHashMap::default() }).collect()
    }

    pub(super) fn field(&self) -> usize {
        self.field
    }

    pub(super) fn insert(&mut self, entry: &Arc<Entry>) {
        let value = entry.field(self.field);
        if !value.is_empty() {
            self.by_value.entry(value.into()).or_default().insert(entry.key.clone(), entry.clone());
        }
    }

    pub(super) fn remove(&mut self, entry: &Entry) {
        let value = entry.field(self.field);
        if let Some(entries) = self.by_value.get_mut(value) {
            entries.remove(&entry.key);
            if entries.is_empty() {
                self.by_value.remove(value);
            }
        }
    }

    /// In key order.
    pub(super) fn get(&self, value: &str) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_value.get(value).into_iter().flat_map(BTreeMap::values)
    }
}
