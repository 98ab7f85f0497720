//! One object in the watch cache: the stored bytes and the few things about it that lists and watches need.
//!
//! `resourceVersion` is not stored: it is the key's mod revision, known only after the write. It is spliced in right
//! after the opening brace of `metadata`, so the stored bytes are shared by the store, the cache and every reply.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{LazyLock, OnceLock};

use bytes::{Bytes, BytesMut};

use super::scan::{self, Paths};
use super::text::Text;
use crate::storage::KeyValue;

/// What to extract from the objects of one resource.
#[derive(Debug, Clone)]
pub struct HeaderSpec {
    /// `metadata`, `metadata.labels`, `apiVersion`, `kind`, `metadata.deletionTimestamp`, then every path of every selectable field.
    paths: Paths,
    fields: Vec<FieldSpec>,
}

/// One selectable field: the paths that may hold it, best first, and what its absence compares as ("" for strings,
/// "false" for booleans, "0" for numbers). metadata.name and metadata.namespace come from the key and are not listed.
#[derive(Debug, Clone)]
pub struct FieldSpec {
    pub paths: Vec<Vec<String>>,
    pub absent: String,
    /// The cache finds entries by it.
    pub indexed: bool,
}

impl HeaderSpec {
    pub fn new(fields: impl IntoIterator<Item = FieldSpec>) -> HeaderSpec {
        let fields: Vec<FieldSpec> = fields.into_iter().collect();
        let path = |path: &[&str]| path.iter().map(|step| (*step).to_owned()).collect::<Vec<String>>();
        let deleted = path(&["metadata", "deletionTimestamp"]);
        let fixed =
            [path(&["metadata"]), path(&["metadata", "labels"]), path(&["apiVersion"]), path(&["kind"]), deleted];
        let paths = fixed.into_iter().chain(fields.iter().flat_map(|field| field.paths.iter().cloned()));
        HeaderSpec { paths: Paths::new(paths), fields }
    }

    /// The indexed fields, by their place.
    pub fn indexed(&self) -> impl Iterator<Item = usize> {
        self.fields.iter().enumerate().filter(|(_, field)| field.indexed).map(|(at, _)| at)
    }

    /// The place of the field that is first looked for at this dotted path.
    pub fn field(&self, path: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.paths.first().is_some_and(|first| first.join(".") == path))
    }
}

/// See the module's head. Immutable; shared as `Arc<Entry>`.
#[derive(Debug)]
pub struct Entry {
    /// The store key.
    pub key: Bytes,
    /// Offset in `key` where `[namespace/]name` begins.
    tail: usize,
    /// Stored JSON, without resourceVersion.
    pub value: Bytes,
    /// Mod revision (for the last state in a DELETED event: the revision of the deletion).
    pub revision: i64,
    pub create_revision: i64,
    /// What is stored differs from `value`: it was written in another version, or before a default existed.
    pub stale: bool,
    /// Marked as being deleted.
    pub deleting: bool,
    /// Where `metadata` lies in `value`, braces included.
    metadata: (usize, usize),
    /// The members apiVersion and kind with the comma after them, in their order; empty where they cannot be cut out.
    typed: [(u32, u32); 2],
    /// Sorted by key.
    labels: Box<[(Text, Text)]>,
    /// Selectable fields, in the order of the resource's spec.
    fields: Box<[Text]>,
    /// The object in protobuf, made when first asked for.
    pub protobuf: OnceLock<Bytes>,
}

impl Entry {
    /// `None` when the value is no JSON object with metadata: the store holds something that is not an object of ours.
    pub fn new(kv: KeyValue, prefix_len: usize, spec: &HeaderSpec) -> Option<Entry> {
        let found = spec.paths.find(&kv.value)?;
        let metadata = found[0].clone().filter(|r| kv.value[r.start] == b'{')?;
        let labels = match &found[1] {
            Some(range) => labels(&kv.value, range.clone())?,
            None => Box::default(),
        };
        let typed = type_members(&kv.value, &found[2], &found[3]);
        let deleting = found[4].as_ref().is_some_and(|range| kv.value[range.start] == b'"');
        let mut ranges = found[5..].iter();
        let mut fields = Vec::with_capacity(spec.fields.len());
        for field in &spec.fields {
            let texts = ranges.by_ref().take(field.paths.len()).flatten().map(|r| scan::scalar(&kv.value[r.clone()]));
            let texts: Vec<_> = texts.collect();
            let text = texts.iter().find(|text| !text.is_empty()).map_or(field.absent.as_str(), |text| text);
            fields.push(Text::new(&kv.value, text));
        }
        Some(Entry {
            tail: prefix_len,
            key: kv.key,
            revision: kv.mod_revision,
            create_revision: kv.create_revision,
            stale: false,
            metadata: (metadata.start, metadata.end),
            typed,
            deleting,
            labels,
            fields: fields.into(),
            value: kv.value,
            protobuf: OnceLock::new(),
        })
    }

    /// The same object as it was last seen, at the revision of its deletion.
    pub fn at_revision(&self, revision: i64) -> Entry {
        self.with_revisions(revision, self.create_revision)
    }

    /// The same object, its key created at this revision.
    pub fn created_at(&self, revision: i64) -> Entry {
        self.with_revisions(self.revision, revision)
    }

    /// The same state in other words: those of another version. Labels are as they are said there, selectable fields as
    /// they are stored.
    pub fn with_value(&self, value: Bytes) -> Option<Entry> {
        static PLAIN: LazyLock<HeaderSpec> = LazyLock::new(|| HeaderSpec::new([]));
        let (key, revision) = (self.key.clone(), self.revision);
        let kv = KeyValue { key, value, create_revision: self.create_revision, mod_revision: revision, lease: 0 };
        let said = Entry::new(kv, self.tail, &PLAIN)?;
        let fields = self.fields.iter().map(|field| field.detached(&self.value)).collect();
        Some(Entry { fields, ..said })
    }

    fn with_revisions(&self, revision: i64, create_revision: i64) -> Entry {
        Entry {
            key: self.key.clone(),
            tail: self.tail,
            value: self.value.clone(),
            revision,
            create_revision,
            stale: self.stale,
            metadata: self.metadata,
            typed: self.typed,
            deleting: self.deleting,
            labels: self.labels.clone(),
            fields: self.fields.clone(),
            protobuf: OnceLock::new(),
        }
    }

    /// `[namespace/]name`.
    pub fn path(&self) -> &str {
        std::str::from_utf8(&self.key[self.tail..]).unwrap_or_default()
    }

    pub fn name(&self) -> &str {
        let path = self.path();
        path.rsplit_once('/').map_or(path, |(_, name)| name)
    }

    /// Empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        self.path().rsplit_once('/').map_or("", |(namespace, _)| namespace)
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        let at = self.labels.binary_search_by(|(k, _)| k.of(&self.value).cmp(key)).ok()?;
        Some(self.labels[at].1.of(&self.value))
    }

    /// The selectable field with this index in the resource's spec.
    pub fn field(&self, index: usize) -> &str {
        self.fields.get(index).map_or("", |field| field.of(&self.value))
    }

    /// Appends the object as clients see it.
    pub fn write_json(&self, out: &mut BytesMut) {
        let at = self.metadata.0 + 1;
        out.extend_from_slice(&self.value[..at]);
        write_version(out, self.revision, self.metadata.1 - self.metadata.0 > 2);
        out.extend_from_slice(&self.value[at..]);
    }

    /// Appends the object as an item of a list that tells the type of its items.
    pub fn write_item(&self, out: &mut BytesMut) {
        let at = self.metadata.0 + 1;
        let [first, second] = self.typed.map(|(start, end)| (start as usize, end as usize));
        for (from, to) in [(0, first.0), (first.1, second.0), (second.1, self.value.len())] {
            if (from..to).contains(&at) {
                out.extend_from_slice(&self.value[from..at]);
                write_version(out, self.revision, self.metadata.1 - self.metadata.0 > 2);
                out.extend_from_slice(&self.value[at..to]);
            } else {
                out.extend_from_slice(&self.value[from..to]);
            }
        }
    }

    /// Bytes that [`Entry::write_item`] appends.
    pub fn item_len(&self) -> usize {
        self.json_len() - self.typed.iter().map(|(start, end)| (end - start) as usize).sum::<usize>()
    }

    /// Appends only `metadata`, as clients see it.
    pub fn write_metadata(&self, out: &mut BytesMut) {
        out.extend_from_slice(b"{");
        write_version(out, self.revision, self.metadata.1 - self.metadata.0 > 2);
        out.extend_from_slice(&self.value[self.metadata.0 + 1..self.metadata.1]);
    }

    /// Bytes that [`Entry::write_json`] appends.
    pub fn json_len(&self) -> usize {
        let comma = usize::from(self.metadata.1 - self.metadata.0 > 2);
        self.value.len() + r#""resourceVersion":"""#.len() + digits(self.revision) + comma
    }

    /// Whether these are the words in which clients see it, alone or in a list.
    pub fn is_sent_as(&self, text: &[u8]) -> bool {
        let is = |len: usize, write: fn(&Entry, &mut BytesMut)| {
            len == text.len() && {
                let mut out = BytesMut::with_capacity(len);
                write(self, &mut out);
                out == text
            }
        };
        is(self.json_len(), Entry::write_json) || is(self.item_len(), Entry::write_item)
    }

    /// The object as clients see it.
    pub fn json(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.json_len());
        self.write_json(&mut out);
        out.freeze()
    }

    /// The object as a value, with its resourceVersion.
    pub fn object(&self) -> serde_json::Value {
        // Entries are made of what has been decoded once, within the limits of this parser.
        let mut value: serde_json::Value = serde_json::from_slice(&self.value).expect("an entry is an object");
        value["metadata"]["resourceVersion"] = self.revision.to_string().into();
        value
    }
}

/// The same state of the same object.
impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.revision == other.revision && self.create_revision == other.create_revision && self.key == other.key
    }
}

impl meta::labels::Labels for Entry {
    fn label(&self, key: &str) -> Option<&str> {
        Entry::label(self, key)
    }
}

/// The labels of this object, sorted by key; none when it is no object of strings.
fn labels(value: &[u8], range: Range<usize>) -> Option<Box<[(Text, Text)]>> {
    let raw = &value[range];
    let pair = |key: &str, text: &str| (Text::new(value, key), Text::new(value, text));
    // What is written with escapes can't be borrowed.
    if let Ok(map) = serde_json::from_slice::<BTreeMap<&str, &str>>(raw) {
        return Some(map.into_iter().map(|(key, text)| pair(key, text)).collect());
    }
    let map: Option<BTreeMap<String, String>> = serde_json::from_slice(raw).ok()?;
    Some(map.unwrap_or_default().into_iter().map(|(key, text)| pair(&key, &text)).collect())
}

/// Where the members apiVersion and kind lie, given their values: sorted, each with the comma that follows it. Empty
/// ranges when they are written in another way than this server and upstream's write them.
fn type_members(value: &[u8], api_version: &Option<Range<usize>>, kind: &Option<Range<usize>>) -> [(u32, u32); 2] {
    let member = |name: &[u8], range: &Option<Range<usize>>| {
        let range = range.as_ref()?;
        let start = range.start.checked_sub(name.len())?;
        let whole = value[start..].starts_with(name) && value.get(range.end) == Some(&b',');
        whole.then_some((u32::try_from(start).ok()?, u32::try_from(range.end + 1).ok()?))
    };
    match (member(b"\"apiVersion\":", api_version), member(b"\"kind\":", kind)) {
        (Some(a), Some(b)) => [a.min(b), a.max(b)],
        _ => [(0, 0); 2],
    }
}

fn write_version(out: &mut BytesMut, revision: i64, more: bool) {
    out.extend_from_slice(b"\"resourceVersion\":\"");
    out.extend_from_slice(revision.to_string().as_bytes());
    out.extend_from_slice(if more { b"\"," } else { b"\"" });
}

fn digits(number: i64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn entry(json: &str, revision: i64) -> Entry {
        let field = |name: &str, absent: &str| FieldSpec {
            paths: vec![vec!["spec".to_owned(), name.to_owned()]],
            absent: absent.to_owned(),
            indexed: false,
        };
        let spec = HeaderSpec::new([field("nodeName", ""), field("hostNetwork", "false")]);
        let kv = KeyValue {
            key: Bytes::from_static(b"/registry/pods/ns/web"),
            value: Bytes::copy_from_slice(json.as_bytes()),
            create_revision: revision,
            mod_revision: revision,
            lease: 0,
        };
        Entry::new(kv, "/registry/pods/".len(), &spec).expect("an object")
    }

    #[test]
    fn the_revision_is_spliced_into_the_stored_bytes() {
        let e = entry(r#"{"kind":"Pod","metadata":{"name":"web","labels":{"a":"b"}},"spec":{"nodeName":"n1"}}"#, 120);
        let json = String::from_utf8(e.json().to_vec()).expect("utf-8");
        assert_eq!(
            json,
            r#"{"kind":"Pod","metadata":{"resourceVersion":"120","name":"web","labels":{"a":"b"}},"spec":{"nodeName":"n1"}}"#
        );
        assert_eq!(json.len(), e.json_len());
        assert_eq!((e.namespace(), e.name()), ("ns", "web"));
        assert_eq!((e.field(0), e.field(1), e.label("a"), e.label("b")), ("n1", "false", Some("b"), None));
    }

    #[test]
    fn labels_are_read_as_they_are_meant() {
        let text = r#"{"metadata":{"name":"web","labels":{"b":"2","a":"1","c":"3","d":""}},"spec":{}}"#;
        let e = entry(text, 7);
        let labels = ["a", "b", "c", "d", "e"].map(|key| e.label(key));
        assert_eq!(labels, [Some("1"), Some("2"), Some("3"), Some(""), None]);
        let other = e.with_value(Bytes::from_static(br#"{"metadata":{"labels":{"a":"9"}}}"#)).expect("an object");
        assert_eq!((other.label("a"), other.field(1)), (Some("9"), "false"), "fields are those of the stored words");
    }

    #[test]
    fn items_of_lists_leave_their_type_out() {
        for (json, want) in [
            (
                r#"{"apiVersion":"v1","data":{"kind":"x"},"kind":"Pod","metadata":{"name":"web"},"spec":{}}"#,
                r#"{"data":{"kind":"x"},"metadata":{"resourceVersion":"7","name":"web"},"spec":{}}"#,
            ),
            (
                r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web"}}"#,
                r#"{"metadata":{"resourceVersion":"7","name":"web"}}"#,
            ),
            // Nobody writes this, but it can be read.
            (
                r#"{"metadata":{"name":"web"}, "kind" : "Pod"}"#,
                r#"{"metadata":{"resourceVersion":"7","name":"web"}, "kind" : "Pod"}"#,
            ),
        ] {
            let (e, mut out) = (entry(json, 7), BytesMut::new());
            e.write_item(&mut out);
            assert_eq!(String::from_utf8_lossy(&out), want);
            assert_eq!(out.len(), e.item_len());
        }
    }

    #[test]
    fn what_was_sent_is_known_again() {
        let json = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"}}"#;
        let (e, mut item) = (entry(json, 7), BytesMut::new());
        e.write_item(&mut item);
        assert!(e.is_sent_as(&e.json()) && e.is_sent_as(&item));
        let other = entry(json, 8);
        assert!(!other.is_sent_as(&e.json()) && !other.is_sent_as(&item), "another state of it");
    }

    #[test]
    fn empty_metadata_gets_no_comma() {
        let e = entry(r#"{"metadata":{}}"#, 7);
        assert_eq!(&e.json()[..], br#"{"metadata":{"resourceVersion":"7"}}"#);
        assert_eq!(e.json().len(), e.json_len());
    }
}
