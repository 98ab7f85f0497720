//! YAML that people write, as a value: a mistake is told in one line.

use serde_json::Value;

/// Parses one document.
pub fn parse(text: &str) -> Result<Value, String> {
    serde_saphyr::from_str_with_options(text, bounded()).map_err(|error| first_words(&error.to_string()))
}

/// Parses every document.
pub fn parse_all(text: &str) -> Result<Vec<Value>, String> {
    serde_saphyr::from_multiple_with_options(text, bounded()).map_err(|error| first_words(&error.to_string()))
}

/// How files are read: they nest no deeper than what the server takes, for the parser goes down by recursion.
pub fn bounded() -> serde_saphyr::Options {
    serde_saphyr::options! { budget: serde_saphyr::budget! { max_depth: meta::depth::MAX_DEPTH } }
}

/// The first line of what the parser says, without advice on how to call it.
fn first_words(error: &str) -> String {
    let line = error.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    line.split(", set ").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_a_thousand_levels_is_refused() {
        assert!(parse("a: [b, {c: d}]").is_ok());
        let refused = || {
            for text in ["- ".repeat(1_000), "[".repeat(1_000), "{a: ".repeat(1_000)] {
                assert!(parse(&text).is_err());
            }
        };
        std::thread::Builder::new().stack_size(meta::depth::STACK_BYTES / 2).spawn(refused).unwrap().join().unwrap();
    }
}
