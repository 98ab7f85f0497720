//! Points in time as the API writes them: RFC 3339 in UTC, whole seconds (`Time`) or microseconds (`MicroTime`).
//!
//! Nothing here reads a clock: the caller passes `jiff::Timestamp::now()` or a test's own time.

use jiff::Timestamp;

/// `2026-01-02T03:04:05Z`.
pub fn format(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2026-01-02T03:04:05.000006Z`.
pub fn format_micro(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Parses RFC 3339 with any offset and any fraction, as both `Time` and `MicroTime` fields accept it.
pub fn parse(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    // jiff accepts more than RFC 3339 does (spaces, no seconds): the shape is checked first.
    let shaped = bytes.len() >= 20
        && bytes[4] == b'-'
        && bytes[7] == b'-'
        && bytes[10] == b'T'
        && bytes[13] == b':'
        && bytes[16] == b':'
        && matches!(bytes[19], b'Z' | b'.' | b'+' | b'-');
    if !shaped {
        return None;
    }
    text.parse().ok()
}

/// The canonical text of a `Time` field: UTC, whole seconds.
pub fn canonical(text: &str) -> Option<String> {
    parse(text).map(format)
}

/// The canonical text of a `MicroTime` field: UTC, six digits.
pub fn canonical_micro(text: &str) -> Option<String> {
    parse(text).map(format_micro)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc() {
        assert_eq!(canonical("2026-01-02T03:04:05Z").as_deref(), Some("2026-01-02T03:04:05Z"));
        assert_eq!(canonical("2026-01-02T03:04:05.999+02:00").as_deref(), Some("2026-01-02T01:04:05Z"));
        assert_eq!(canonical_micro("2026-01-02T03:04:05.5Z").as_deref(), Some("2026-01-02T03:04:05.500000Z"));
        for bad in ["", "2026-01-02", "2026-01-02 03:04:05Z", "2026-13-02T03:04:05Z", "yesterday"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
