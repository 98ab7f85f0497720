//! What is said of a body that is not what its path serves: no JSON, another type, fields that do not fit. The words are
//! upstream's, which name Go's types. Pure; [`super::content`] and patches call it.

use codec::DecodeError;
use meta::{FieldError, Gvk, Status};
use serde_json::Value;

use super::negotiate::Encoding;

/// Most bytes of a body that are shown of it.
const SHOWN: usize = 30;

/// Most bytes of what a client sent that an error shows of it, where upstream shows all.
const SHOWN_WHOLE: usize = 1024;

/// A text cut to what an error may show.
pub fn cut(text: &str) -> std::borrow::Cow<'_, str> {
    if text.len() <= SHOWN_WHOLE {
        return text.into();
    }
    format!("{} ...", &text[..text.floor_char_boundary(SHOWN_WHOLE)]).into()
}

/// Why a body could not be read. What a client is told depends on where the body came from.
#[derive(Debug)]
pub enum Trouble {
    /// Not even its type could be read.
    Unrecognized(String),
    /// It says that it is something else, or it does not fit its type. `given` is the kind that it says it is.
    Undecodable { given: Option<(String, String)>, why: String },
    /// A custom resource of another kind.
    OtherKind(Box<Status>),
    /// Its version is known, but it is not the path's.
    OtherVersion(String),
}

impl Trouble {
    pub fn decoding(encoding: Encoding, body: &[u8], error: &DecodeError) -> Trouble {
        if encoding == Encoding::Json
            && let Some(why) = codec::json::syntax::head_error(body)
        {
            return Trouble::Unrecognized(format!("couldn't get version/kind; json parse error: {why}"));
        }
        let why = error.to_string();
        match (encoding, error) {
            (Encoding::Yaml, DecodeError::Syntax(_)) => {
                let why = why.strip_prefix("error converting YAML to JSON: ").unwrap_or(&why);
                Trouble::Unrecognized(why.to_owned())
            }
            _ => Trouble::Undecodable { given: None, why },
        }
    }

    pub fn strict(given: Option<&str>, problems: &[String]) -> Trouble {
        let given = given.map(|kind| (kind.to_owned(), String::new()));
        Trouble::Undecodable { given, why: format!("strict decoding error: {}", codec::strict_words(problems)) }
    }

    /// The answer when the body was to be an object of this kind.
    pub fn of_body(self, gvk: &Gvk, body: &[u8]) -> Status {
        let (kind, version) = (&gvk.kind, &gvk.version);
        Status::bad_request(match self {
            Trouble::Unrecognized(why) => {
                format!("the object provided is unrecognized (must be of type {kind}): {why} ({})", shown(body))
            }
            Trouble::Undecodable { given, why } => {
                let (given, of) = given.unwrap_or_default();
                let given = if given.is_empty() { kind.as_ref() } else { given.as_str() };
                let of = if of.is_empty() { version.as_ref() } else { of.as_str() };
                format!("{given} in version \"{of}\" cannot be handled as a {kind}: {why}")
            }
            Trouble::OtherKind(status) => return *status,
            Trouble::OtherVersion(why) => why,
        })
    }

    /// The answer when the body was to be options of a call.
    pub fn of_options(self) -> Status {
        Status::bad_request(self.why())
    }

    /// The cause alone, for bodies that a patch made.
    pub fn why(self) -> String {
        match self {
            Trouble::Unrecognized(why) | Trouble::Undecodable { why, .. } | Trouble::OtherVersion(why) => why,
            Trouble::OtherKind(status) => status.message,
        }
    }
}

/// The beginning of a body: its text when it may be JSON, its bytes otherwise.
fn shown(body: &[u8]) -> String {
    let start = &body[..body.len().min(SHOWN)];
    let more = if body.len() > SHOWN { " ..." } else { "" };
    match start.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(start)),
        Some(_) => start.iter().map(|byte| format!("{byte:02x}")).chain([more.to_owned()]).collect(),
    }
}

/// The word for a value that is no object.
pub fn not_an_object(value: &Value) -> Option<&'static str> {
    match value {
        Value::Object(_) => None,
        Value::Array(_) => Some("array"),
        Value::String(_) => Some("string"),
        Value::Number(_) => Some("number"),
        Value::Bool(_) => Some("bool"),
        Value::Null => Some("null"),
    }
}

/// A type that no server of this release knows.
pub fn not_registered(kind: &str, api_version: &str) -> String {
    format!("no kind \"{kind}\" is registered for version \"{api_version}\" in scheme \"pkg/runtime/scheme.go:111\"")
}

/// The body must say the type of the path; a body that says nothing is taken to be of it.
pub fn check_type(gvk: &Gvk, object: &mut Value) -> Result<(), Trouble> {
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let kind = object["kind"].as_str().unwrap_or_default();
    let expected = gvk.api_version();
    if (api_version.is_empty() || api_version == expected) && (kind.is_empty() || kind == gvk.kind) {
        object["apiVersion"] = expected.into();
        object["kind"] = gvk.kind.as_ref().into();
        return Ok(());
    }
    if api_version.matches('/').count() > 1 {
        return Err(Trouble::Unrecognized(format!("unexpected GroupVersion string: {api_version}")));
    }
    let api_version = if api_version.is_empty() { expected.as_str() } else { api_version };
    let kind = if kind.is_empty() { gvk.kind.as_ref() } else { kind };
    if kind != gvk.kind && kinds::definitions::message_of(gvk).is_none() {
        let given = Gvk { kind: kind.to_owned().into(), ..gvk.clone() };
        let error = FieldError::invalid("kind", kind, format!("must be {}", gvk.kind));
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        return Err(Trouble::OtherKind(Box::new(Status::invalid(&given, name, &[error]))));
    }
    Err(other_type(gvk, api_version, kind))
}

/// A custom resource has to say its type.
pub fn must_be_typed(object: &Value, body: &[u8]) -> Result<(), Trouble> {
    for (field, shown) in [("kind", "Kind"), ("apiVersion", "apiVersion")] {
        if object[field].as_str().unwrap_or_default().is_empty() {
            let body = String::from_utf8_lossy(body);
            return Err(Trouble::Unrecognized(format!("Object '{shown}' is missing in '{}'", cut(&body))));
        }
    }
    Ok(())
}

fn other_type(gvk: &Gvk, api_version: &str, kind: &str) -> Trouble {
    let (group, version) = meta::gvk::split_api_version(api_version);
    let expected = gvk.api_version();
    let known = kinds::by_kind(group, version, kind).is_some();
    let custom = kinds::definitions::message_of(gvk).is_none();
    // Earlier versions of the same kind are known and converted, but not served here.
    let earlier =
        (group == gvk.group || group == "extensions") && (version.contains("alpha") || version.contains("beta"));
    if kind == gvk.kind && (known || earlier || custom) {
        return Trouble::OtherVersion(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({expected})"
        ));
    }
    let why = if known {
        let package = |group: &str| group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core").to_owned();
        format!("converting ({version}.{kind}) to ({}.{}): unknown conversion", package(&gvk.group), gvk.kind)
    } else {
        not_registered(kind, api_version)
    };
    Trouble::Undecodable { given: Some((kind.to_owned(), version.to_owned())), why }
}
