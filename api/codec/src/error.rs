//! Why a body could not be read or an object not be written.

/// The client sent something that is no object of the expected type. The text is upstream's base error, which the
/// server wraps into a 400 (`Pod in version "v1" cannot be handled as a Pod: …`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "fields are what the messages show")]
pub enum DecodeError {
    /// Not JSON, YAML or protobuf at all.
    #[error("{0}")]
    Syntax(String),
    /// A value of the wrong type, or a text that is no quantity, time or base64.
    #[error("{0}")]
    Type(String),
    /// Unknown or duplicate fields under `fieldValidation=Strict`.
    #[error("strict decoding error: {}", strict_words(.0))]
    Strict(Vec<String>),
    /// Protobuf for a type that has none.
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\" in scheme")]
    UnknownKind { api_version: String, kind: String },
}

/// The object cannot be written in the asked form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "fields are what the messages show")]
pub enum EncodeError {
    /// A value that does not fit its type; the server's fault, since objects are checked when they come in.
    #[error("{path}: {why}")]
    Value { path: String, why: &'static str },
    /// Custom resources and tables have no protobuf form.
    #[error(
        "object {kind} does not implement the protobuf marshalling interface and cannot be encoded to a protobuf message"
    )]
    NotMarshalable { kind: String },
}

/// Strict errors as one text. Keys that a YAML body has twice come first, a line each.
pub fn strict_words(problems: &[String]) -> String {
    let lines = problems.iter().take_while(|problem| problem.starts_with("line ")).count();
    let (lines, others) = problems.split_at(lines);
    let repeated = (!lines.is_empty()).then(|| format!("yaml: unmarshal errors:\n  {}", lines.join("\n  ")));
    repeated.into_iter().chain(others.iter().cloned()).collect::<Vec<_>>().join(", ")
}
