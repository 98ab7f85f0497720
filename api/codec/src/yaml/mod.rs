//! YAML in and out. Reading follows what users of upstream's YAML library expect: booleans and octals of YAML 1.1, one
//! document, keys made strings; aliases and sizes are bounded. Writing gives block style with sorted keys.

mod repeated;

use serde_json::Value;

use crate::error::DecodeError;
use crate::json::{Decoded, Form, decode_with};

/// Events replayed through aliases: far above any real manifest, far below what a bomb needs.
const MAX_ALIAS_EVENTS: usize = 100_000;

/// Nesting of lists and maps that the parser follows: one more than an object may have, so that it is the walk over the
/// object that says what is wrong, in the same words as for JSON.
const MAX_NESTING: usize = meta::depth::MAX_DEPTH + 1;

/// Decodes a YAML body, which may be JSON. Keys that are there twice come first among the strict errors, with their
/// lines.
pub fn decode(body: &[u8], form: Form) -> Result<Decoded, DecodeError> {
    let text = std::str::from_utf8(body)
        .map_err(|_| DecodeError::Syntax("error converting YAML to JSON: yaml: invalid UTF-8".to_owned()))?;
    let mut decoded = decode_with(text, form, |walk, text| {
        let run = |de: serde_saphyr::Deserializer<'_, '_>| -> Result<Result<Value, String>, serde_saphyr::Error> {
            Ok(walk.run(de))
        };
        let result = serde_saphyr::with_deserializer_from_str_with_options(text, options(), run);
        let problem = |message: String| format!("error converting YAML to JSON: yaml: {message}");
        match result {
            Ok(inner) => inner.map_err(|message| problem(first_words(&message))),
            Err(error) => Err(problem(first_words(&error.to_string()))),
        }
    })?;
    let paths = decoded.strict.len();
    decoded.strict.retain(|problem| !problem.starts_with("duplicate field "));
    if decoded.strict.len() < paths {
        decoded.strict.splice(..0, repeated::keys(text, options()));
    }
    Ok(decoded)
}

/// What is wrong, without the places and pictures that the parser adds for people at a terminal.
fn first_words(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    line.split(" at line ").next().unwrap_or_default().to_owned()
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: MAX_NESTING, max_documents: 1 },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_ALIAS_EVENTS },
        legacy_octal_numbers: true,
        emit_comments: false,
    }
}

/// Writes a value as YAML.
pub fn encode(object: &Value) -> String {
    serde_saphyr::to_string(object).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn any(text: &str) -> Result<Value, DecodeError> {
        decode(text.as_bytes(), Form::Any).map(|d| d.object)
    }

    #[test]
    fn scalars_are_those_of_yaml_1_1() {
        let text = "a: yes\nb: \"yes\"\nc: 0755\nd: 1.5\ne: ~\nf: off\n80: x\n";
        let want = json!({"a": true, "b": "yes", "c": 493, "d": 1.5, "e": null, "f": false, "80": "x"});
        assert_eq!(any(text).unwrap(), want);
    }

    #[test]
    fn unknown_and_duplicate_fields_are_collected() {
        let text = "kind: Pod\nspec:\n  foo: 1\n  hostNetwork: true\n  hostNetwork: true\n";
        let decoded = decode(text.as_bytes(), Form::Typed(kinds::types::find("core.v1.Pod").unwrap())).unwrap();
        assert_eq!(decoded.strict, [r#"line 5: key "hostNetwork" already set in map"#, r#"unknown field "spec.foo""#]);
        let error = decoded.into_strict().unwrap_err().to_string();
        let said =
            "yaml: unmarshal errors:\n  line 5: key \"hostNetwork\" already set in map, unknown field \"spec.foo\"";
        assert_eq!(error, format!("strict decoding error: {said}"));
        let twice = decode(b"a: {b: 1, b: 2}\n80: x\n80: y\na: 1\n", Form::Any).unwrap().strict;
        let keys = [(1, "b"), (3, "80"), (4, "a")];
        assert_eq!(twice, keys.map(|(line, key)| format!("line {line}: key \"{key}\" already set in map")));
    }

    #[test]
    fn two_documents_and_bombs_are_refused() {
        assert!(any("a: 1\n---\nb: 2\n").is_err());
        let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for (name, of) in ["b", "c", "d", "e", "f", "g", "h"].iter().zip(["a", "b", "c", "d", "e", "f", "g"]) {
            bomb.push_str(&format!("{name}: &{name} [{}]\n", vec![format!("*{of}"); 10].join(",")));
        }
        assert!(any(&bomb).is_err());
        assert!(any(&"[".repeat(10_000)).is_err());
    }

    #[test]
    fn what_is_written_reads_back() {
        let object = json!({"a": "yes", "b": ["1", 1, true, null, {}], "c": {"d": "x\ny\n", "e": "0755", "f": "a: b"}});
        assert_eq!(any(&encode(&object)).unwrap(), object);
    }
}
