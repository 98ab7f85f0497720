//! What is wrong with one field: kind, path, value and detail, rendered with upstream's exact text.
//!
//! Validation returns lists of [`FieldError`]; `Status::invalid` turns a list into the 422 answer. [`Path`] is a chain
//! of borrowed segments: walking a valid object allocates nothing, only an error renders its path.

use crate::text;
use serde_json::Value;
use std::fmt;

/// Kinds of field errors with upstream's words and cause reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldErrorKind {
    /// What the field refers to doesn't exist: a volume that no `spec.volumes` names.
    NotFound,
    /// A field that must be there is absent or empty.
    Required,
    /// A list that is a set, or a map by key, has this twice.
    Duplicate,
    /// The value has the right type and breaks a rule of the field: format, range, another field.
    Invalid,
    /// The value is none of a closed list; the detail shows the list.
    NotSupported,
    /// The field may not be set, or not be changed, as things are.
    Forbidden,
    /// A text with too many bytes; the detail has the limit.
    TooLong,
    /// A list with too many items; the detail has the limit.
    TooMany,
    /// The server could not judge the value: its fault, not the client's.
    InternalError,
    /// The value has another JSON type than the schema's.
    TypeInvalid,
}

impl FieldErrorKind {
    /// The words at the start of the message.
    pub fn text(self) -> &'static str {
        match self {
            FieldErrorKind::NotFound => "Not found",
            FieldErrorKind::Required => "Required value",
            FieldErrorKind::Duplicate => "Duplicate value",
            FieldErrorKind::Invalid | FieldErrorKind::TypeInvalid => "Invalid value",
            FieldErrorKind::NotSupported => "Unsupported value",
            FieldErrorKind::Forbidden => "Forbidden",
            FieldErrorKind::TooLong => "Too long",
            FieldErrorKind::TooMany => "Too many",
            FieldErrorKind::InternalError => "Internal error",
        }
    }

    /// The reason in `details.causes[]`.
    pub fn cause(self) -> &'static str {
        match self {
            FieldErrorKind::NotFound => "FieldValueNotFound",
            FieldErrorKind::Required => "FieldValueRequired",
            FieldErrorKind::Duplicate => "FieldValueDuplicate",
            FieldErrorKind::Invalid => "FieldValueInvalid",
            FieldErrorKind::NotSupported => "FieldValueNotSupported",
            FieldErrorKind::Forbidden => "FieldValueForbidden",
            FieldErrorKind::TooLong => "FieldValueTooLong",
            FieldErrorKind::TooMany => "FieldValueTooMany",
            FieldErrorKind::InternalError => "InternalError",
            FieldErrorKind::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn shows_value(self) -> bool {
        use FieldErrorKind::{Forbidden, InternalError, Required, TooLong};
        !matches!(self, Required | Forbidden | TooLong | InternalError)
    }
}

/// One thing wrong with one field. `value` is `None` where upstream leaves the value out of the text.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// Which sort of fault: it decides the words and the cause's reason.
    pub kind: FieldErrorKind,
    /// From the root of the object, as upstream writes it: `spec.containers[0].ports[1].protocol`.
    pub path: String,
    /// What was found there.
    pub value: Option<Value>,
    /// What would be right, or why this is wrong; may be empty.
    pub detail: String,
}

impl FieldError {
    fn new(
        kind: FieldErrorKind,
        path: impl fmt::Display,
        value: Option<Value>,
        detail: impl Into<String>,
    ) -> FieldError {
        FieldError { kind, path: path.to_string(), value, detail: detail.into() }
    }

    /// The field must be set. `detail` may be empty.
    pub fn required(path: impl fmt::Display, detail: impl Into<String>) -> FieldError {
        FieldError::new(FieldErrorKind::Required, path, None, detail)
    }

    /// The value breaks a rule that `detail` states.
    pub fn invalid(path: impl fmt::Display, value: impl Into<Value>, detail: impl Into<String>) -> FieldError {
        FieldError::new(FieldErrorKind::Invalid, path, Some(value.into()), detail)
    }

    /// The value has the wrong JSON type.
    pub fn type_invalid(path: impl fmt::Display, value: impl Into<Value>, detail: impl Into<String>) -> FieldError {
        FieldError::new(FieldErrorKind::TypeInvalid, path, Some(value.into()), detail)
    }

    /// The value occurs twice where it must be unique.
    pub fn duplicate(path: impl fmt::Display, value: impl Into<Value>) -> FieldError {
        FieldError::new(FieldErrorKind::Duplicate, path, Some(value.into()), "")
    }

    /// The value names something that does not exist.
    pub fn not_found(path: impl fmt::Display, value: impl Into<Value>) -> FieldError {
        FieldError::new(FieldErrorKind::NotFound, path, Some(value.into()), "")
    }

    /// The value is none of the allowed ones. `supported` keeps its order in the text.
    pub fn not_supported<S: AsRef<str>>(
        path: impl fmt::Display,
        value: impl Into<Value>,
        supported: impl IntoIterator<Item = S>,
    ) -> FieldError {
        let list = text::quoted_list(supported);
        let detail = if list.is_empty() { list } else { format!("supported values: {list}") };
        FieldError::new(FieldErrorKind::NotSupported, path, Some(value.into()), detail)
    }

    /// The field may not be set here, or not be changed.
    pub fn forbidden(path: impl fmt::Display, detail: impl Into<String>) -> FieldError {
        FieldError::new(FieldErrorKind::Forbidden, path, None, detail)
    }

    /// The string has more than `max` bytes; a negative `max` leaves the number out.
    pub fn too_long(path: impl fmt::Display, max: i64) -> FieldError {
        let unit = if max == 1 { "byte" } else { "bytes" };
        let detail =
            if max >= 0 { format!("may not be more than {max} {unit}") } else { "value is too long".to_owned() };
        FieldError::new(FieldErrorKind::TooLong, path, None, detail)
    }

    /// The list or map has `actual` entries and may have at most `max`; a negative number leaves that part out.
    pub fn too_many(path: impl fmt::Display, actual: i64, max: i64) -> FieldError {
        let unit = if max == 1 { "item" } else { "items" };
        let detail = if max >= 0 { format!("must have at most {max} {unit}") } else { "has too many items".to_owned() };
        let value = (actual >= 0).then(|| Value::from(actual));
        FieldError::new(FieldErrorKind::TooMany, path, value, detail)
    }

    /// The check itself failed.
    pub fn internal(path: impl fmt::Display, error: impl fmt::Display) -> FieldError {
        FieldError::new(FieldErrorKind::InternalError, path, None, error.to_string())
    }

    /// The text after the path, which is also the cause's message.
    pub fn body(&self) -> String {
        let mut out = self.kind.text().to_owned();
        if self.kind.shows_value()
            && let Some(value) = &self.value
        {
            out.push_str(": ");
            out.push_str(&value_text(value));
        }
        if !self.detail.is_empty() {
            out.push_str(": ");
            out.push_str(&self.detail);
        }
        out
    }
}

/// A value inside a message: strings quoted, null as the quoted word, floats as Go prints them, the rest as JSON.
pub(crate) fn value_text(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::String(s) => text::quote(s),
        Value::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (None, None, Some(f)) => text::float(f),
            _ => n.to_string(),
        },
        other => other.to_string(),
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

impl std::error::Error for FieldError {}

/// The path of a field while walking an object: `spec.containers[0].name`, `metadata.labels[a/b]`.
///
/// Bind each step that is used again: `let spec = Path::root("spec"); let ports = spec.child("ports");`.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    segment: Segment<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Segment<'a> {
    Name(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// A path that starts at `name`; an empty name is the object itself.
    pub fn root(name: &'a str) -> Path<'a> {
        Path { parent: None, segment: Segment::Name(name) }
    }

    /// The field `name` below this one.
    pub fn child(&'a self, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), segment: Segment::Name(name) }
    }

    /// Element `index` of this list.
    pub fn index(&'a self, index: usize) -> Path<'a> {
        Path { parent: Some(self), segment: Segment::Index(index) }
    }

    /// Entry `key` of this map.
    pub fn key(&'a self, key: &'a str) -> Path<'a> {
        Path { parent: Some(self), segment: Segment::Key(key) }
    }

    /// Whether this is the object itself.
    pub fn is_root(&self) -> bool {
        self.parent.is_none() && matches!(self.segment, Segment::Name(""))
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut at_start = true;
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
            at_start = parent.is_root();
        }
        match self.segment {
            Segment::Name(name) if at_start => f.write_str(name),
            Segment::Name(name) => write!(f, ".{name}"),
            Segment::Index(index) => write!(f, "[{index}]"),
            Segment::Key(key) => write!(f, "[{key}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_read_like_upstreams() {
        let root = Path::root("");
        let spec = root.child("spec");
        let containers = spec.child("containers");
        let first = containers.index(0);
        assert_eq!(first.child("name").to_string(), "spec.containers[0].name");
        let labels = Path::root("metadata");
        assert_eq!(labels.child("labels").key("a/b").to_string(), "metadata.labels[a/b]");
        assert_eq!(root.index(1).child("x").to_string(), "[1].x");
    }

    #[test]
    fn errors_read_like_upstreams() {
        let cases = [
            (FieldError::required("spec.a", ""), "spec.a: Required value"),
            (FieldError::required("spec.a", "must be set"), "spec.a: Required value: must be set"),
            (FieldError::invalid("spec.a", "x", "bad"), "spec.a: Invalid value: \"x\": bad"),
            (FieldError::invalid("spec.a", 5, "bad"), "spec.a: Invalid value: 5: bad"),
            (FieldError::invalid("spec.a", json!({"b": [1]}), "bad"), "spec.a: Invalid value: {\"b\":[1]}: bad"),
            (FieldError::duplicate("a[1]", "x"), "a[1]: Duplicate value: \"x\""),
            (FieldError::not_found("a", "x"), "a: Not found: \"x\""),
            (
                FieldError::not_supported("a", "x", ["A", "B"]),
                "a: Unsupported value: \"x\": supported values: \"A\", \"B\"",
            ),
            (FieldError::forbidden("a", "no"), "a: Forbidden: no"),
            (FieldError::too_long("a", 63), "a: Too long: may not be more than 63 bytes"),
            (FieldError::too_many("a", 5, 3), "a: Too many: 5: must have at most 3 items"),
            (FieldError::internal("a", "boom"), "a: Internal error: boom"),
        ];
        for (error, want) in cases {
            assert_eq!(error.to_string(), want);
        }
    }
}
