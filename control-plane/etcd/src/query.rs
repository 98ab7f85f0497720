//! Range reads: which keys, in which order, how many, and which values must still be fetched. Pure.
//! A read is collected in steps, so that a long one does not keep the writer out; values that lie on disk are loaded
//! by the caller between [`Query::step`] and [`Query::finish`], outside any lock.

use bytes::Bytes;
use wire::etcd::range_request::{SortOrder, SortTarget};
use wire::etcd::{KeyValue, RangeRequest, RangeResponse, ResponseHeader};

use crate::error::Error;
use crate::mvcc::{Place, Store, Values};
use crate::span::Span;

/// A found key; `missing` says where its value lies when it is wanted and not in memory.
#[derive(Debug)]
pub struct Item {
    pub kv: KeyValue,
    pub missing: Option<(Place, u32)>,
    /// For the caller: which of its sources the missing value is read from.
    pub source: usize,
}

/// A range read on its way.
#[derive(Debug)]
pub struct Query {
    span: Span,
    request: RangeRequest,
    /// Revision that is read.
    at: i64,
    after: Option<Bytes>,
    pub items: Vec<Item>,
    count: i64,
}

/// Whether the request is one that can be answered at all.
pub fn check(request: &RangeRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    let known = SortOrder::try_from(request.sort_order).is_ok() && SortTarget::try_from(request.sort_target).is_ok();
    if known { Ok(()) } else { Err(Error::InvalidSort) }
}

impl Query {
    pub fn new(request: RangeRequest, at: i64) -> Query {
        let span = Span::new(request.key.clone(), request.range_end.clone());
        Query { span, request, at, after: None, items: Vec::new(), count: 0 }
    }

    /// Whether compaction has not overtaken the read.
    pub fn still_readable(&self, store: &Store) -> Result<(), Error> {
        if self.at < store.compacted() {
            return Err(Error::Compacted { compact_revision: store.compacted() });
        }
        Ok(())
    }

    /// Looks at up to `limit` more keys; says whether the range is exhausted.
    pub fn step(&mut self, store: &Store, limit: usize) -> bool {
        if self.span.is_single() {
            if let Some(version) = store.history(&self.span.start).and_then(|h| h.at(self.at)).copied() {
                let key = self.span.start.clone();
                self.take(store, &key, &version);
            }
            return true;
        }
        let after = self.after.take();
        let span = self.span.clone();
        let mut last = None;
        for (key, version) in store.scan(&span, after.as_deref(), self.at).take(limit) {
            self.take(store, key, version);
            last = Some(key);
            self.after = None;
        }
        let stepped = last.cloned();
        let seen_all = stepped.is_none();
        self.after = stepped;
        seen_all
    }

    fn take(&mut self, store: &Store, key: &Bytes, version: &crate::mvcc::Version) {
        self.count += 1;
        let full = self.in_key_order() && self.request.limit > 0 && self.items.len() as i64 >= self.request.limit;
        if self.request.count_only || full || !self.passes(version.modified, version.created) {
            return;
        }
        let mut item = Item { kv: version.without_value(key.clone()), missing: None, source: 0 };
        let wanted = !self.request.keys_only || self.target() == SortTarget::Value;
        if wanted && version.len > 0 {
            match store.recent.value(version) {
                Some(value) => item.kv.value = value,
                None => item.missing = Some((version.place, version.len)),
            }
        }
        self.items.push(item);
    }

    fn passes(&self, modified: i64, created: i64) -> bool {
        let r = &self.request;
        let within = |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
        within(modified, r.min_mod_revision, r.max_mod_revision)
            && within(created, r.min_create_revision, r.max_create_revision)
    }

    fn target(&self) -> SortTarget {
        SortTarget::try_from(self.request.sort_target).unwrap_or(SortTarget::Key)
    }

    /// The order wanted: a target other than the key sorts upwards when no order is named.
    fn order(&self) -> SortOrder {
        match SortOrder::try_from(self.request.sort_order) {
            Ok(SortOrder::None) | Err(_) if self.target() != SortTarget::Key => SortOrder::Ascend,
            Ok(order) => order,
            Err(_) => SortOrder::None,
        }
    }

    /// Whether keys come out as they are found, so that the limit can stop collecting.
    fn in_key_order(&self) -> bool {
        let r = &self.request;
        let filtered = [r.min_mod_revision, r.max_mod_revision, r.min_create_revision, r.max_create_revision];
        let sorted = self.target() == SortTarget::Key && self.order() != SortOrder::Descend;
        sorted && filtered.iter().all(|f| *f == 0)
    }

    /// Sorts and cuts to the limit as far as values are not needed for it: what is cut needs no value loaded.
    pub fn narrow(&mut self) {
        if self.target() != SortTarget::Value {
            self.arrange();
        }
    }

    fn arrange(&mut self) {
        match self.target() {
            SortTarget::Key => {}
            SortTarget::Version => self.items.sort_by_key(|i| i.kv.version),
            SortTarget::Create => self.items.sort_by_key(|i| i.kv.create_revision),
            SortTarget::Mod => self.items.sort_by_key(|i| i.kv.mod_revision),
            SortTarget::Value => self.items.sort_by(|a, b| a.kv.value.cmp(&b.kv.value)),
        }
        if self.order() == SortOrder::Descend {
            self.items.reverse();
        }
        if self.request.limit > 0 {
            let matched = self.items.len() as i64;
            let more = if self.in_key_order() { self.count > self.request.limit } else { matched > self.request.limit };
            self.items.truncate(self.request.limit as usize);
            self.request.limit = if more { -1 } else { 0 };
        }
    }

    /// The answer; `revision` goes to its header. Every `missing` value has been filled in.
    pub fn finish(mut self, revision: i64) -> RangeResponse {
        if self.target() == SortTarget::Value {
            self.arrange();
        }
        let keys_only = self.request.keys_only;
        let kvs = self.items.into_iter().map(|item| match keys_only {
            true => KeyValue { value: Bytes::new(), ..item.kv },
            false => item.kv,
        });
        RangeResponse {
            header: Some(ResponseHeader { revision, ..ResponseHeader::default() }),
            kvs: kvs.collect(),
            more: self.request.limit < 0,
            count: self.count,
        }
    }
}

/// A range read in one go, inside a transaction. `newest` is the newest revision that it may see.
pub fn run(store: &Store, request: &RangeRequest, newest: i64, values: &dyn Values) -> Result<RangeResponse, Error> {
    let at = store.readable(request.revision, newest)?;
    let mut query = Query::new(request.clone(), at);
    while !query.step(store, usize::MAX) {}
    query.narrow();
    for item in &mut query.items {
        if let Some((place, len)) = item.missing.take() {
            item.kv.value = values.load(place, len)?;
        }
    }
    Ok(query.finish(newest))
}
