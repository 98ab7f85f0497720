//! Objects, lists and events in the form that the client accepts.
//!
//! Entries come here as the version that is served has them (`registry::convert`). The common case, JSON, copies their
//! bytes and parses nothing. Everything else is made from the parsed object. Lists are written piece by piece as the client
//! takes them. I/O: ages in tables are by the clock.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use codec::table::{Include, columns};
use jiff::Timestamp;
use meta::Status;
use serde_json::{Value, json};

use super::answer::List;
use super::body::{Body, BoxError, Frames};
use super::call::Call;
use super::negotiate::{Accepted, Encoding, View};
use crate::cache::Entry;
use crate::registry::Served;

/// Bytes of a list written per frame: bounds what one LIST holds in memory.
const LIST_CHUNK: usize = 128 << 10;

/// What `includeObject` puts into table rows; an unknown word counts as the default.
fn include(call: &Call) -> Include {
    Include::parse(call.query.text("includeObject")).unwrap_or_default()
}

const META_V1: &str = "meta.k8s.io/v1";
const META_V1BETA1: &str = "meta.k8s.io/v1beta1";

fn meta_version(beta: bool) -> &'static str {
    if beta { META_V1BETA1 } else { META_V1 }
}

/// Appends one object as an item of a list.
fn write_item(served: &Served, entry: &Entry, out: &mut BytesMut) {
    if served.custom { entry.write_json(out) } else { entry.write_item(out) }
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

fn row(served: &Served, entry: &Entry, include: Include, beta: bool, now: Timestamp) -> Value {
    versioned(codec::table::row(&served.kind, &entry.object(), include, now), beta)
}

/// Rows carry partial objects of v1; clients of v1beta1 want them in theirs.
fn versioned(mut row: Value, beta: bool) -> Value {
    if beta && row["object"]["kind"] == "PartialObjectMetadata" {
        row["object"]["apiVersion"] = META_V1BETA1.into();
    }
    row
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
        View::Whole => entry.write_json(&mut out),
        View::Metadata { beta } => write_partial(entry, beta, true, &mut out),
        View::Table { beta } => {
            let rows = vec![row(served, entry, include(call), beta, call.now)];
            let metadata = json!({"resourceVersion": entry.revision.to_string()});
            write_value(&table(beta, metadata, columns(&served.kind), rows), &mut out);
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
            let row = versioned(codec::table::row(&served.kind, object, include(call), call.now), beta);
            table(beta, metadata, columns(&served.kind), vec![row])
        }
    }
}

/// A list of objects that are not stored, in the view asked for.
pub fn objects(served: &Served, objects: Vec<Value>, view: View, call: &Call) -> Value {
    let metadata = json!({});
    match view {
        View::Whole => {
            let kind = &served.kind;
            let items: Vec<Value> = objects.into_iter().map(|object| untyped(served, object)).collect();
            json!({"kind": kind.list_kind, "apiVersion": kind.api_version(), "metadata": metadata, "items": items})
        }
        View::Metadata { beta } => {
            let partial = |item: &Value| json!({"metadata": item["metadata"]});
            let items: Vec<Value> = objects.iter().map(partial).collect();
            let version = meta_version(beta);
            json!({"kind": "PartialObjectMetadataList", "apiVersion": version, "metadata": metadata, "items": items})
        }
        View::Table { beta } => {
            let row = |item| versioned(codec::table::row(&served.kind, item, include(call), call.now), beta);
            table(beta, metadata, columns(&served.kind), objects.iter().map(row).collect())
        }
    }
}

/// Items of lists of built-in kinds don't repeat what the list says of them.
fn untyped(served: &Served, mut object: Value) -> Value {
    if let Some(map) = object.as_object_mut().filter(|_| !served.custom) {
        map.remove("apiVersion");
        map.remove("kind");
    }
    object
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

/// One stored object as a protobuf message, without envelope; made once per entry.
pub fn message(served: &Served, entry: &Entry) -> Result<Bytes, Status> {
    let Some(id) = served.message else { return Err(Status::not_acceptable(&super::negotiate::CUSTOM_TYPES)) };
    let encode = |json: &[u8]| codec::proto::encode_bytes(json, id).map(Bytes::from).map_err(Status::internal);
    if let Some(message) = entry.protobuf.get() {
        return Ok(message.clone());
    }
    let message = encode(&entry.json())?;
    Ok(entry.protobuf.get_or_init(|| message).clone())
}

/// One stored object in protobuf with its envelope.
pub fn entry_protobuf(served: &Served, entry: &Entry, view: View) -> Result<Bytes, Status> {
    match view {
        View::Whole => {
            let message = message(served, entry)?;
            Ok(codec::proto::wrap(&served.kind.api_version(), &served.kind.kind, &message).into())
        }
        View::Metadata { beta } => {
            let mut out = BytesMut::new();
            write_partial(entry, beta, true, &mut out);
            protobuf(&serde_json::from_slice(&out).map_err(Status::internal)?)
        }
        View::Table { .. } => Err(Status::not_acceptable(&[super::negotiate::JSON])),
    }
}

/// Any value of a built-in type in protobuf with its envelope.
pub fn protobuf(value: &Value) -> Result<Bytes, Status> {
    codec::proto::encode_object(value).map(Bytes::from).map_err(Status::internal)
}

/// A list in protobuf: one message, so it is made as a whole.
pub fn list_protobuf(served: &Arc<Served>, list: &List, view: View) -> Result<Bytes, Status> {
    let Some(id) = kinds::types::find("meta.v1.ListMeta") else { return Err(Status::internal("no ListMeta")) };
    let metadata = codec::proto::encode_value(&list_metadata(list), id).map_err(Status::internal)?;
    let (api_version, kind, items) = match view {
        View::Whole => {
            let items: Result<Vec<Bytes>, Status> = list.entries.iter().map(|e| message(served, e)).collect();
            (served.kind.api_version(), served.kind.list_kind.to_string(), items?)
        }
        View::Metadata { beta } => {
            let id = kinds::types::find("meta.v1.PartialObjectMetadata")
                .ok_or_else(|| Status::internal("no PartialObjectMetadata"))?;
            let mut items = Vec::with_capacity(list.entries.len());
            for entry in &list.entries {
                let mut out = BytesMut::new();
                write_partial(entry, beta, false, &mut out);
                items.push(codec::proto::encode_bytes(&out, id).map(Bytes::from).map_err(Status::internal)?);
            }
            (meta_version(beta).to_owned(), "PartialObjectMetadataList".to_owned(), items)
        }
        View::Table { .. } => return Err(Status::not_acceptable(&[super::negotiate::JSON])),
    };
    Ok(codec::proto::list(&api_version, &kind, &metadata, items.iter().map(|item| item.as_ref())).into())
}

/// A list as one value: YAML, and JSON for people.
pub fn list_value(served: &Arc<Served>, list: &List, view: View, call: &Call) -> Value {
    let metadata = list_metadata(list);
    let entries = list.entries.iter();
    match view {
        View::Whole => {
            let items: Vec<Value> = entries.map(|entry| untyped(served, entry.object())).collect();
            let kind = &served.kind;
            json!({"kind": kind.list_kind, "apiVersion": kind.api_version(), "metadata": metadata, "items": items})
        }
        View::Metadata { beta } => {
            let partial = |entry: &Arc<Entry>| {
                let mut item = codec::partial::from_value(&entry.object());
                item["apiVersion"] = meta_version(beta).into();
                item
            };
            let mut value = codec::partial::list(metadata, entries.map(partial));
            value["apiVersion"] = meta_version(beta).into();
            value
        }
        View::Table { beta } => {
            let rows = entries.map(|entry| row(served, entry, include(call), beta, call.now)).collect();
            table(beta, metadata, columns(&served.kind), rows)
        }
    }
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
            columns(&served.kind)
        ),
    };
    let tail = "]}";
    let length = (view == View::Whole).then(|| {
        let size = |entry: &Entry| if served.custom { entry.json_len() } else { entry.item_len() };
        let items: usize = list.entries.iter().map(|entry| size(entry) + 1).sum();
        (head.len() + tail.len() + items.saturating_sub(1)) as u64
    });
    let body = ListBody {
        served: served.clone(),
        view,
        include: include(call),
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
            View::Whole => write_item(&self.served, entry, out),
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
        EventEncoder { served, accepted, include: include(call), columns_sent: false.into() }
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
        if self.accepted.encoding == Encoding::Protobuf {
            return match entry_protobuf(&self.served, entry, self.accepted.view) {
                Ok(object) => codec::proto::watch_frame(word, &object).into(),
                Err(status) => self.error(&status),
            };
        }
        let mut out = BytesMut::with_capacity(entry.json_len() + 64);
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(word.as_bytes());
        out.extend_from_slice(b"\",\"object\":");
        match self.accepted.view {
            View::Whole => entry.write_json(&mut out),
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
        columns(&self.served.kind)
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
        self.frame("BOOKMARK", &object)
    }

    /// An error event: the last of its watch.
    pub fn error(&self, status: &Status) -> Bytes {
        self.frame("ERROR", &status.to_value())
    }

    fn frame(&self, word: &str, object: &Value) -> Bytes {
        if self.accepted.encoding == Encoding::Protobuf {
            return codec::proto::watch_frame(word, &protobuf(object).unwrap_or_default()).into();
        }
        let mut out = BytesMut::new();
        write_value(&json!({"type": word, "object": object}), &mut out);
        out.extend_from_slice(b"\n");
        out.freeze()
    }
}
