//! How deep an object may nest: the one limit for everything that is written, whatever way it comes in, and for
//! everything that is read back.
//!
//! Every reader of an object walks it by recursion somewhere: serde's, clients', our own walkers. So depth is bounded
//! where objects are made, with room for what wraps them on their way, and whoever reads stays above that bound:
//!
//! | what | levels |
//! |---|---|
//! | an object as it is stored, managed fields included | [`MAX_DEPTH`] |
//! | around it: a list, a table, a watch event of a table, an admission review | up to 4 |
//! | what serde_json (and so the `kube` client) reads | 127 |
//!
//! Threads that walk objects have [`STACK_BYTES`], and the tests of the walkers run at the limit on such threads.
//!
//! Decoders, patches and the API server's last step before the store call this. Pure.

use serde_json::Value;

/// Most lists and maps inside one another in an object as it is stored, itself and all that the server adds included
/// (managed fields nest five levels deeper than the field they name). The difference to serde_json's 127 is room for
/// what wraps objects on the wire.
pub const MAX_DEPTH: usize = 120;

/// Stack of every thread that takes what others wrote. What takes most of it is a YAML body at [`MAX_DEPTH`], 1.5 MiB
/// without the optimiser; the rest is room for what lies around a decoder. Only pages that are touched cost memory.
pub const STACK_BYTES: usize = 8 * 1024 * 1024;

/// What Go's decoder says of a document that nests too deep.
pub const TOO_DEEP: &str = "exceeded max depth";

/// Lists and maps inside one another: 0 for a scalar, 1 for `{}`. Walked without recursion, since what is asked about may
/// be of any depth.
pub fn of(value: &Value) -> usize {
    let mut deepest = 0;
    let mut open: Vec<(&Value, usize)> = vec![(value, 0)];
    while let Some((value, above)) = open.pop() {
        match value {
            Value::Array(list) => {
                deepest = deepest.max(above + 1);
                open.extend(list.iter().filter(|item| nests(item)).map(|item| (item, above + 1)));
            }
            Value::Object(map) => {
                deepest = deepest.max(above + 1);
                open.extend(map.values().filter(|item| nests(item)).map(|item| (item, above + 1)));
            }
            _ => {}
        }
    }
    deepest
}

/// Whether a value may be stored as an object.
pub fn fits(value: &Value) -> bool {
    of(value) <= MAX_DEPTH
}

/// Whether a JSON text nests at most [`MAX_DEPTH`] levels. The text is not checked otherwise: brackets are counted, and
/// those inside strings are not.
pub fn text_fits(json: &[u8]) -> bool {
    let (mut depth, mut at) = (0usize, 0);
    while let Some(&byte) = json.get(at) {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return false;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => at = string_end(json, at + 1),
            _ => {}
        }
        at += 1;
    }
    true
}

/// Where the string that begins at `at` ends: the place of its closing quote, or the end of the text.
fn string_end(json: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = json.get(at) {
        match byte {
            b'"' => return at,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

fn nests(value: &Value) -> bool {
    matches!(value, Value::Array(_) | Value::Object(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// `{"a": {"a": … "x"}}`, this many maps.
    fn nested(levels: usize) -> Value {
        (0..levels).fold(json!("x"), |inner, _| json!({ "a": inner }))
    }

    #[test]
    fn depth_counts_lists_and_maps() {
        for (value, want) in [
            (json!(1), 0),
            (json!({}), 1),
            (json!([[], [[1]]]), 3),
            (json!({"a": [{"b": {}}], "c": "[[[["}), 4),
            (nested(MAX_DEPTH), MAX_DEPTH),
        ] {
            assert_eq!(of(&value), want, "{value}");
            assert!(fits(&value) && text_fits(value.to_string().as_bytes()));
        }
        let over = nested(MAX_DEPTH + 1);
        assert!(!fits(&over) && !text_fits(over.to_string().as_bytes()));
        assert!(text_fits(br#"{"a":"[[\"[["#), "an open string ends with the text");
        assert!(text_fits(format!("[\"{}\"]", "[".repeat(1000)).as_bytes()));
        assert!(!text_fits("[".repeat(MAX_DEPTH + 1).as_bytes()));
    }

    #[test]
    fn what_wraps_an_object_leaves_it_readable() {
        let mut text = nested(MAX_DEPTH).to_string();
        for _ in 0..4 {
            text = format!("[{text}]");
        }
        assert!(serde_json::from_str::<Value>(&text).is_ok());
    }
}
