//! YAML that people write, as a value: a mistake is told in one line.

use serde_json::Value;

/// Parses one document.
pub fn parse(text: &str) -> Result<Value, String> {
    serde_saphyr::from_str(text).map_err(|error| first_words(&error.to_string()))
}

/// The first line of what the parser says, without advice on how to call it.
fn first_words(error: &str) -> String {
    let line = error.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    line.split(", set ").next().unwrap_or_default().to_owned()
}
