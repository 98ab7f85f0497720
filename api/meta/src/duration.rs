//! Durations in Go's notation (`1h30m0s`, `250ms`), which flags, configuration files and some API fields use.

/// Nanoseconds in each unit.
const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Parses Go's notation into nanoseconds. The error is Go's text.
pub fn parse_nanos(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", crate::text::quote(text));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (amount, unit, tail) = next_part(rest).ok_or_else(invalid)?;
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {}", crate::text::quote(text)));
        }
        let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!(
                "time: unknown unit {} in duration {}",
                crate::text::quote(unit),
                crate::text::quote(text)
            ));
        };
        total = amount.scaled(*scale).and_then(|part| total.checked_add(part)).ok_or_else(invalid)?;
        rest = tail;
    }
    let signed = if negative { -total } else { total };
    i64::try_from(signed).map_err(|_| invalid())
}

/// A decimal number: digits before and after the point.
struct Amount<'a> {
    whole: &'a str,
    fraction: &'a str,
}

impl Amount<'_> {
    fn scaled(&self, scale: i128) -> Option<i128> {
        let whole = if self.whole.is_empty() { 0 } else { self.whole.parse::<i128>().ok()? };
        let mut total = whole.checked_mul(scale)?;
        let mut unit = scale;
        // Below a nanosecond nothing counts, so the loop ends after at most 13 digits.
        for digit in self.fraction.bytes() {
            unit /= 10;
            total += i128::from(digit - b'0') * unit;
        }
        Some(total)
    }
}

fn next_part(text: &str) -> Option<(Amount<'_>, &str, &str)> {
    let whole_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (whole, mut rest) = text.split_at(whole_end);
    let mut fraction = "";
    if let Some(after) = rest.strip_prefix('.') {
        let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        (fraction, rest) = after.split_at(end);
    }
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let unit_end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, tail) = rest.split_at(unit_end);
    Some((Amount { whole, fraction }, unit, tail))
}

/// Formats nanoseconds in Go's notation: `1h30m0s`, `1.5s`, `250ms`, `0s`.
pub fn format_nanos(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let n = nanos.unsigned_abs();
    if n == 0 {
        return "0s".to_owned();
    }
    for (unit, scale) in [("ns", 1u64), ("\u{b5}s", 1_000), ("ms", 1_000_000)] {
        if n < scale * 1_000 {
            return format!("{sign}{}{unit}", decimal(n, scale));
        }
    }
    let seconds = n / 1_000_000_000;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let rest = decimal(n % 60_000_000_000, 1_000_000_000);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{rest}s"),
        (0, m) => format!("{sign}{m}m{rest}s"),
        (h, m) => format!("{sign}{h}h{m}m{rest}s"),
    }
}

fn decimal(n: u64, scale: u64) -> String {
    let (whole, fraction) = (n / scale, n % scale);
    if fraction == 0 {
        return whole.to_string();
    }
    let width = scale.ilog10() as usize;
    let digits = format!("{fraction:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

/// Parses a duration that may not be negative.
pub fn parse(text: &str) -> Result<std::time::Duration, String> {
    let nanos = parse_nanos(text)?;
    u64::try_from(nanos)
        .map(std::time::Duration::from_nanos)
        .map_err(|_| format!("time: invalid duration {}", crate::text::quote(text)))
}

/// Formats a duration in Go's notation; what does not fit 292 years is cut to that.
pub fn format(duration: std::time::Duration) -> String {
    format_nanos(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

/// The short age that tables show: `45s`, `3m12s`, `5h`, `3d4h`, `2y13d`.
pub fn human(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let pair = |big: i64, b: &str, small: i64, s: &str| {
        if small == 0 { format!("{big}{b}") } else { format!("{big}{b}{small}{s}") }
    };
    match seconds {
        i64::MIN..-1 => "<invalid>".to_owned(),
        -1..=0 => "0s".to_owned(),
        1..120 => format!("{seconds}s"),
        120..600 => pair(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(hours / 24, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{}d", hours / 24),
        63_072_000..252_288_000 => pair(hours / 24 / 365, "y", hours / 24 % 365, "d"),
        _ => format!("{}y", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_go_notation() {
        for (text, nanos) in [
            ("0s", 0),
            ("1h30m0s", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            ("250ms", 250_000_000),
            ("-2m0s", -120_000_000_000),
            ("1.5\u{b5}s", 1_500),
            ("1h0m0.1s", 3_600_100_000_000),
        ] {
            assert_eq!(parse_nanos(text), Ok(nanos));
            assert_eq!(format_nanos(nanos), text);
        }
        assert_eq!(parse_nanos("1h5"), Err("time: missing unit in duration \"1h5\"".into()));
        assert_eq!(parse_nanos("5x"), Err("time: unknown unit \"x\" in duration \"5x\"".into()));
        assert_eq!(parse_nanos(""), Err("time: invalid duration \"\"".into()));
        assert_eq!(parse_nanos(".5h"), Ok(1_800_000_000_000));
    }

    #[test]
    fn ages_are_short() {
        for (seconds, want) in [
            (0, "0s"),
            (119, "119s"),
            (125, "2m5s"),
            (601, "10m"),
            (3 * 3600 + 120, "3h2m"),
            (9 * 3600, "9h"),
            (50 * 3600, "2d2h"),
            (10 * 86400, "10d"),
            (3 * 365 * 86400, "3y"),
        ] {
            assert_eq!(human(seconds), want);
        }
    }
}
