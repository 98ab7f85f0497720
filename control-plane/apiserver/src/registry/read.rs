//! GET: one object, or a list with limits, continuation and every meaning of resourceVersion.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::{DecodeError, Engine as _};
use bytes::Bytes;
use meta::Status;
use serde::{Deserialize, Serialize};

use super::objects::store_error;
use super::options::{ListOptions, Match};
use super::selection::Selection;
use super::verbs::Verbs;
use super::{Served, Stored};
use crate::cache::{Entry, Snapshot, WindowError};
use crate::http::answer::{Answer, List};
use crate::http::call::Call;
use crate::storage::{RangeRequest, StoreError, keys};

/// What a continue token holds: upstream's form, so that either server goes on with the other's.
#[derive(Serialize, Deserialize)]
pub struct Token {
    #[serde(default)]
    v: String,
    /// Revision of the list; -1 continues in the newest state.
    #[serde(default)]
    pub rv: i64,
    /// First key of the rest, without the list's prefix.
    #[serde(default)]
    pub start: String,
}

/// Text of the 410 that a client gets whose list was compacted away.
const EXPIRED_LIST: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";
const EXPIRED_EXACT: &str = "The resourceVersion for the provided list is too old.";

/// Most names of unreadable objects in the warning of a list.
const CORRUPT_SHOWN: usize = 3;

pub fn encode_token(rv: i64, start: &str) -> String {
    let token = Token { v: "meta.k8s.io/v1".to_owned(), rv, start: start.to_owned() };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
}

pub fn decode_token(text: &str) -> Result<Token, Status> {
    let bad = |why: &str| Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
    let raw = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|error| {
        let at = match error {
            DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
            _ => text.len(),
        };
        bad(&format!("illegal base64 data at input byte {at}"))
    })?;
    codec::json::syntax::check(&raw).map_err(|why| bad(&why))?;
    let token: Token = serde_json::from_slice(&raw).map_err(|error| bad(&error.to_string()))?;
    if token.v != "meta.k8s.io/v1" {
        return Err(bad(&format!("server does not recognize this encoded version {}", token.v)));
    }
    if token.rv == 0 {
        return Err(bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
    }
    if token.start.is_empty() || token.start.contains("..") {
        return Err(bad("encoded start key empty (version meta.k8s.io/v1)"));
    }
    Ok(token)
}

impl Verbs {
    /// One object; from the cache when the client takes any state, from the store otherwise.
    pub async fn get(&self, call: &Call, served: &Arc<Served>) -> Result<Answer, Status> {
        let key = self.objects.key_of(call, served, &call.info.name)?;
        let entry = match call.query.text("resourceVersion") {
            "" => self.objects.live(served, &key).await?,
            text => {
                let revision = ListOptions::parse(&call.query, false)?.revision()?.unwrap_or(0);
                tracing::trace!(text, "get from cache");
                self.objects.reach(served, revision).await?;
                self.objects.stored(served)?.cache.get(&key)
            }
        };
        match entry {
            Some(entry) => Ok(Answer::entry(200, served, served.shown_one(&entry).await?)),
            None => Err(Status::not_found(&served.gvr(), &call.info.name)),
        }
    }

    /// A list, whole or a page of it.
    pub async fn list(&self, call: &Call, served: &Arc<Served>) -> Result<Answer, Status> {
        let mut list = self.stored_list(call, served).await?;
        list.entries = served.shown(list.entries).await?;
        Ok(Answer::List(served.clone(), list))
    }

    async fn stored_list(&self, call: &Call, served: &Arc<Served>) -> Result<List, Status> {
        let options = ListOptions::parse(&call.query, false)?;
        let namespace = if served.namespaced() { call.info.namespace.as_str() } else { "" };
        let fields = options.fields_for(&call.info.name)?;
        let selection = Selection::new(served, namespace, &options.labels, &fields)?;
        let store = self.objects.stored(served)?;
        // The token speaks of the path's own prefix, whatever selectors narrow further.
        let base = store.cache.namespace_prefix(namespace);
        warn_of_corrupt(call, served, store, &base);
        let page = Page { store, selection: &selection, base: &base, limit: options.limit };
        if !options.continue_token.is_empty() {
            let token = decode_token(&options.continue_token)?;
            if !matches!(options.resource_version.as_str(), "" | "0") {
                return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
            }
            return self.list_rest(served, &page, token).await;
        }
        let revision = options
            .revision()
            .map_err(|error| Status::bad_request(format!("invalid resource version: {}", error.message)))?;
        let any = options.matching != Match::Exact && revision == Some(0);
        let exact = options.matching == Match::Exact
            || (options.limit > 0 && options.matching == Match::Unset && revision.is_some_and(|r| r > 0));
        if let Some(revision) = revision.filter(|_| exact) {
            return self.list_at(served, &page, revision, Bytes::new(), EXPIRED_EXACT).await;
        }
        match revision {
            None => drop(self.objects.catch_up(served).await?),
            Some(revision) => self.objects.reach(served, revision).await?,
        }
        let page = if any { Page { limit: 0, ..page } } else { page };
        if let Some((entries, revision)) = selection.indexed(&store.cache) {
            return Ok(page.cut(entries.iter(), revision));
        }
        let snapshot = store.cache.snapshot();
        Ok(page.take(served, &snapshot, Bytes::new()))
    }

    async fn list_rest(&self, served: &Arc<Served>, page: &Page<'_>, token: Token) -> Result<List, Status> {
        let mut start = page.base.to_vec();
        start.extend_from_slice(token.start.as_bytes());
        let start = Bytes::from(start);
        if token.rv > 0 {
            let outcome = self.list_at(served, page, token.rv, start, EXPIRED_LIST).await;
            return outcome.map_err(|mut error| {
                if error.reason == meta::Reason::Expired {
                    error.continue_token = Some(encode_token(-1, &token.start).into());
                }
                error
            });
        }
        self.objects.catch_up(served).await?;
        Ok(page.take(served, &page.store.cache.snapshot(), start))
    }

    /// The state at a revision: from the cache's window, or else from the store's history.
    async fn list_at(
        &self,
        served: &Arc<Served>,
        page: &Page<'_>,
        revision: i64,
        start: Bytes,
        expired: &str,
    ) -> Result<List, Status> {
        self.objects.reach(served, revision).await?;
        // The window may reach further back than the store; clients are told by the store's rule, as upstream's are.
        if revision < self.objects.compacted.load(Ordering::Acquire) {
            return Err(Status::expired(expired));
        }
        match page.store.cache.snapshot_at(revision) {
            Ok(snapshot) => Ok(page.take(served, &snapshot, start)),
            Err(WindowError::TooNew { current }) => {
                Err(Status::too_large_resource_version(revision.max(0) as u64, current.max(0) as u64, 1))
            }
            Err(WindowError::TooOld { .. }) => match self.history(served, page, revision, &start).await {
                Ok(entries) => Ok(page.cut(entries.iter(), revision)),
                Err(StoreError::Compacted { .. }) => Err(Status::expired(expired)),
                Err(error) => Err(store_error(error, served)),
            },
        }
    }

    async fn history(
        &self,
        served: &Served,
        page: &Page<'_>,
        revision: i64,
        start: &Bytes,
    ) -> Result<Vec<Arc<Entry>>, StoreError> {
        let _measured = self.objects.metrics.store("list", served);
        let key = if start.is_empty() { page.base.clone() } else { start.clone() };
        let end = keys::prefix_end(page.base);
        let request = RangeRequest { key, end, revision, ..RangeRequest::default() };
        let kvs = self.objects.store.range(request).await?.kvs;
        Ok(kvs.into_iter().filter_map(|kv| page.store.cache.entry(kv).ok()).map(Arc::new).collect())
    }
}

/// Says what a list leaves out because it can't be read.
fn warn_of_corrupt(call: &Call, served: &Served, store: &Stored, prefix: &Bytes) {
    let corrupt = store.cache.corrupt_below(prefix);
    if corrupt.is_empty() {
        return;
    }
    let shown = corrupt.iter().take(CORRUPT_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if corrupt.len() > CORRUPT_SHOWN { ", ..." } else { "" };
    call.warn(format!(
        "{} stored {} can't be read and are left out: {shown}{more}",
        corrupt.len(),
        served.gvr().group_resource()
    ));
}

struct Page<'a> {
    store: &'a Stored,
    selection: &'a Selection,
    /// Prefix of the list's path.
    base: &'a Bytes,
    /// 0 for everything.
    limit: usize,
}

impl Page<'_> {
    fn take(&self, served: &Arc<Served>, snapshot: &Snapshot, start: Bytes) -> List {
        let cache = &self.store.cache;
        if let Some(name) = self.selection.single()
            && (!served.namespaced() || !self.selection.namespace().is_empty())
        {
            let key = cache.key(self.selection.namespace(), name);
            let one = snapshot.get(&key).filter(|entry| entry.key >= start);
            return self.cut(one.into_iter(), snapshot.revision);
        }
        self.cut(snapshot.range(&self.selection.prefix(cache), &start), snapshot.revision)
    }

    fn cut<'e>(&self, entries: impl Iterator<Item = &'e Arc<Entry>>, revision: i64) -> List {
        let mut entries = entries;
        let plain = self.selection.is_plain();
        let mut items: Vec<Arc<Entry>> = Vec::new();
        let mut list = List { revision, ..List::default() };
        for entry in entries.by_ref() {
            if !plain && !self.selection.matches(entry) {
                continue;
            }
            if self.limit > 0 && items.len() == self.limit {
                let last = items.last().map(|last: &Arc<Entry>| last.key.clone()).unwrap_or_default();
                let tail = String::from_utf8_lossy(last.get(self.base.len()..).unwrap_or_default()).into_owned();
                list.continue_token = encode_token(revision, &format!("{tail}\0"));
                list.remaining = plain.then(|| entries.count() as i64 + 1);
                break;
            }
            items.push(entry.clone());
        }
        list.entries = items;
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_upstreams() {
        let text = encode_token(42, "ns/a\0");
        let raw = URL_SAFE_NO_PAD.decode(&text).expect("base64");
        assert_eq!(raw, br#"{"v":"meta.k8s.io/v1","rv":42,"start":"ns/a\u0000"}"#);
        assert_eq!(decode_token(&text).map(|t| (t.rv, t.start)).ok(), Some((42, "ns/a\0".to_owned())));
        for bad in ["", "%%%", &URL_SAFE_NO_PAD.encode("{}"), &encode_token(1, "../x")] {
            assert_eq!(decode_token(bad).map(|t| t.rv).expect_err("refused").code, 400, "{bad}");
        }
    }
}
