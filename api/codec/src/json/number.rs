//! Numbers that do not fit, as they were written: Go's messages show the digits of the body, which the parser has lost by
//! then. Looked up only after decoding failed.

use crate::error::DecodeError;

/// Longest number that a message shows.
const SHOWN: usize = 128;

/// The error with the number of the body that it is about; `stopped` is where the parser did, in its own words.
pub(super) fn as_written(error: DecodeError, body: &[u8], stopped: &str) -> DecodeError {
    const FOUND: &str = "json: cannot unmarshal number ";
    let number = || literal(body, position(body, stopped)?);
    match &error {
        DecodeError::Type(message) => {
            let digits =
                message.strip_prefix(FOUND).filter(|rest| rest.starts_with(|c: char| c == '-' || c.is_ascii_digit()));
            let into = digits.and_then(|rest| rest.split_once(" into "));
            match into.zip(number()) {
                Some(((_, place), number)) => DecodeError::Type(format!("{FOUND}{number} into {place}")),
                None => error,
            }
        }
        DecodeError::Syntax(message) if message.starts_with("number out of range") => match number() {
            Some(number) => DecodeError::Type(format!("{FOUND}{number} into Go value of type float64")),
            None => error,
        },
        _ => error,
    }
}

/// Bytes of the body before the place that `... at line 3 column 7` names.
fn position(body: &[u8], stopped: &str) -> Option<usize> {
    let (_, place) = stopped.rsplit_once(" at line ")?;
    let (line, column) = place.split_once(" column ")?;
    let (line, column): (usize, usize) = (line.parse().ok()?, column.parse().ok()?);
    let before = body.split(|byte| *byte == b'\n').take(line.checked_sub(1)?).map(|line| line.len() + 1).sum::<usize>();
    Some((before + column).min(body.len()))
}

/// The number that ends at or around a place.
fn literal(body: &[u8], at: usize) -> Option<&str> {
    let part = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
    // The parser may have looked one byte ahead.
    let inside = [at, at.checked_sub(1)?, at.saturating_sub(2)].into_iter().find(|i| body.get(*i).is_some_and(part))?;
    let start = body[..inside].iter().rposition(|byte| !part(byte)).map_or(0, |i| i + 1);
    let length = body[start..].iter().position(|byte| !part(byte)).unwrap_or(body.len() - start);
    std::str::from_utf8(&body[start..start + length.min(SHOWN)]).ok()
}
