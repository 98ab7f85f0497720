//! Objects, lists and events in the form that the client accepts.
//!
//! The common case, JSON of the stored version, copies stored bytes and parses nothing. Everything else is made from
//! the parsed object. Lists are written piece by piece as the client takes them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::answer::List;
use super::body::{Body, BoxError, Frames};
use super::call::Call;
use super::negotiate::{Accepted, Encoding, View};
use crate::cache::Entry;
use crate::registry::Served;

/// Bytes of a list written per frame: bounds what one LIST holds in memory.
const LIST_CHUNK: usize = 128 << 10;

/// What `includeObject` puts into table rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    pub fn of(call: &Call) -> Include {
        match call.query.text("includeObject") {
            "None" => Include::None,
            "Object" => Include::Object,
            _ => Include::Metadata,
        }
    }
}

const META_V1: &str = "meta.k8s.io/v1";
const META_V1BETA1: &str = "meta.k8s.io/v1beta1";

fn meta_version(beta: bool) -> &'static str {
    if beta { META_V1BETA1 } else { META_V1 }
}

/// Appends one object as clients of `served` see it, in JSON.
pub fn write_whole(served: &Served, entry: &Entry, out: &mut BytesMut) {
    if served.native() {
        entry.write_json(out);
    } else {
        write_value(&served.object(entry), out);
    }
}

/// Appends any value as JSON.
pub fn write_value(value: &Value, out: &mut BytesMut) {
    out.extend_from_slice(&serde_json::to_vec(value).unwrap_or_default());
}

fn write_partial(entry: &Entry, beta: bool, typed: bool, out: &mut BytesMut) {
    if typed {
        out.extend_from_slice(b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"");
        out.extend_from_slice(meta_version(beta).as_bytes());
        out.extend_from_slice(b"\",\"metadata\":");
    } else {
        out.extend_from_slice(b"{\"metadata\":");
    }
    entry.write_metadata(out);
    out.extend_from_slice(b"}");
}

/// Column definitions of a kind's table.
pub fn columns(served: &Served) -> Value {
    let column = |c: &kinds::Column| json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority});
    served.kind.columns.iter().map(column).collect()
}

/// Cells of one row.
pub fn cells(served: &Served, object: &Value, now: Timestamp) -> Vec<Value> {
    if served.custom {
        crate::crd::columns::cells(&served.kind, object, now)
    } else {
        (served.kind.hooks.row)(object, now)
    }
}

fn row(served: &Served, entry: &Entry, include: Include, beta: bool, now: Timestamp) -> Value {
    let object = served.object(entry);
    let cells = cells(served, &object, now);
    let shown = match include {
        Include::None => return json!({"cells": cells}),
        Include::Object => object,
        Include::Metadata => {
            json!({"kind": "PartialObjectMetadata", "apiVersion": meta_version(beta), "metadata": object["metadata"]})
        }
    };
    json!({"cells": cells, "object": shown})
}

/// A table around rows.
pub fn table(beta: bool, metadata: Value, columns: Value, rows: Vec<Value>) -> Value {
    json!({
        "kind": "Table", "apiVersion": meta_version(beta), "metadata": metadata,
        "columnDefinitions": columns, "rows": rows,
    })
}

/// One stored object as JSON in the view asked for.
pub fn entry(served: &Served, entry: &Entry, view: View, call: &Call) -> Bytes {
    let mut out = BytesMut::with_capacity(entry.json_len() + 128);
    match view {
        View::Whole => write_whole(served, entry, &mut out),
        View::Metadata { beta } => write_partial(entry, beta, true, &mut out),
        View::Table { beta } => {
            let rows = vec![row(served, entry, Include::of(call), beta, call.now)];
            let metadata = json!({"resourceVersion": entry.revision.to_string()});
            write_value(&table(beta, metadata, columns(served), rows), &mut out);
        }
    }
    out.freeze()
}

/// An object that is not stored as it is, in the view asked for.
pub fn object(served: &Served, object: &Value, view: View, call: &Call) -> Value {
    match view {
        View::Whole => object.clone(),
        View::Metadata { beta } => {
            json!({"kind": "PartialObjectMetadata", "apiVersion": meta_version(beta), "metadata": object["metadata"]})
        }
        View::Table { beta } => {
            let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
            let shown = match Include::of(call) {
                Include::None => Value::Null,
                Include::Object => object.clone(),
                Include::Metadata => json!({
                    "kind": "PartialObjectMetadata", "apiVersion": meta_version(beta), "metadata": object["metadata"]
                }),
            };
            let row = json!({"cells": cells(served, object, call.now), "object": shown});
            table(beta, metadata, columns(served), vec![row])
        }
    }
}

fn list_metadata(list: &List) -> Value {
    let mut metadata = json!({"resourceVersion": list.revision.to_string()});
    if !list.continue_token.is_empty() {
        metadata["continue"] = list.continue_token.as_str().into();
    }
    if let Some(remaining) = list.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    metadata
}

/// A list as a streamed JSON body.
pub fn list(served: &Arc<Served>, list: List, view: View, call: &Call) -> Body {
    let metadata = list_metadata(&list);
    let head = match view {
        View::Whole => {
            let kind = &served.kind;
            format!(
                "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
                kind.list_kind,
                kind.api_version()
            )
        }
        View::Metadata { beta } => format!(
            "{{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
            meta_version(beta)
        ),
        View::Table { beta } => format!(
            "{{\"kind\":\"Table\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"columnDefinitions\":{},\"rows\":[",
            meta_version(beta),
            columns(served)
        ),
    };
    let tail = "]}";
    let length = (view == View::Whole && served.native()).then(|| {
        let items: usize = list.entries.iter().map(|entry| entry.json_len() + 1).sum();
        (head.len() + tail.len() + items.saturating_sub(1)) as u64
    });
    let body = ListBody {
        served: served.clone(),
        view,
        include: Include::of(call),
        now: call.now,
        entries: list.entries.into_iter(),
        head: Some(head),
        first: true,
        done: false,
    };
    Body::Stream(Box::pin(body), length)
}

struct ListBody {
    served: Arc<Served>,
    view: View,
    include: Include,
    now: Timestamp,
    entries: std::vec::IntoIter<Arc<Entry>>,
    head: Option<String>,
    first: bool,
    done: bool,
}

impl ListBody {
    fn item(&self, entry: &Entry, out: &mut BytesMut) {
        match self.view {
            View::Whole => write_whole(&self.served, entry, out),
            View::Metadata { beta } => write_partial(entry, beta, true, out),
            View::Table { beta } => write_value(&row(&self.served, entry, self.include, beta, self.now), out),
        }
    }
}

impl Frames for ListBody {
    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        let this = &mut *self;
        if this.done {
            return Poll::Ready(None);
        }
        let mut out = BytesMut::with_capacity(LIST_CHUNK + 4096);
        if let Some(head) = this.head.take() {
            out.extend_from_slice(head.as_bytes());
        }
        while out.len() < LIST_CHUNK {
            let Some(entry) = this.entries.next() else {
                out.extend_from_slice(b"]}");
                this.done = true;
                break;
            };
            if !std::mem::replace(&mut this.first, false) {
                out.extend_from_slice(b",");
            }
            this.item(&entry, &mut out);
        }
        Poll::Ready(Some(Ok(out.freeze())))
    }
}

/// Encodes the events of one watch.
pub struct EventEncoder {
    served: Arc<Served>,
    accepted: Accepted,
    include: Include,
    /// Columns go with the first event only.
    columns_sent: std::sync::atomic::AtomicBool,
}

impl EventEncoder {
    pub fn new(served: Arc<Served>, accepted: Accepted, call: &Call) -> EventEncoder {
        EventEncoder { served, accepted, include: Include::of(call), columns_sent: false.into() }
    }

    /// Whether frames are the same for every watcher with the same [`EventEncoder::format`].
    pub fn shared(&self) -> bool {
        !matches!(self.accepted.view, View::Table { .. })
    }

    /// Tells encodings of the same event apart.
    pub fn format(&self) -> u64 {
        let version = if self.served.native() { 0 } else { Arc::as_ptr(&self.served.kind) as u64 };
        let view = match self.accepted.view {
            View::Whole => 0,
            View::Table { beta } => 1 + u64::from(beta),
            View::Metadata { beta } => 3 + u64::from(beta),
        };
        let encoding = u64::from(self.accepted.encoding == Encoding::Protobuf);
        // Addresses of kinds are at least 8-aligned, so the low bits are free after the shift.
        (version << 4) ^ (view << 1) ^ encoding
    }

    /// One event with a stored object.
    pub fn event(&self, word: &str, entry: &Entry) -> Bytes {
        let mut out = BytesMut::with_capacity(entry.json_len() + 64);
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(word.as_bytes());
        out.extend_from_slice(b"\",\"object\":");
        match self.accepted.view {
            View::Whole => write_whole(&self.served, entry, &mut out),
            View::Metadata { beta } => write_partial(entry, beta, true, &mut out),
            View::Table { beta } => {
                let rows = vec![row(&self.served, entry, self.include, beta, Timestamp::now())];
                let metadata = json!({"resourceVersion": entry.revision.to_string()});
                write_value(&table(beta, metadata, self.columns_once(), rows), &mut out);
            }
        }
        out.extend_from_slice(b"}\n");
        out.freeze()
    }

    fn columns_once(&self) -> Value {
        if self.columns_sent.swap(true, std::sync::atomic::Ordering::Relaxed) {
            return Value::Null;
        }
        columns(&self.served)
    }

    /// A bookmark: only a revision, and the annotation that ends initial events.
    pub fn bookmark(&self, revision: i64, annotation: Option<&str>) -> Bytes {
        let kind = &self.served.kind;
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if let Some(annotation) = annotation {
            metadata["annotations"] = json!({annotation: "true"});
        }
        let object = match self.accepted.view {
            View::Whole => json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata}),
            View::Metadata { beta } => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": meta_version(beta), "metadata": metadata})
            }
            View::Table { beta } => {
                let object = json!({
                    "kind": "PartialObjectMetadata", "apiVersion": meta_version(beta), "metadata": metadata,
                });
                let rows = vec![json!({"cells": null, "object": object})];
                table(beta, json!({"resourceVersion": revision.to_string()}), self.columns_once(), rows)
            }
        };
        let mut out = BytesMut::new();
        write_value(&json!({"type": "BOOKMARK", "object": object}), &mut out);
        out.extend_from_slice(b"\n");
        out.freeze()
    }
}
