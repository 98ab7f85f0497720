//! Quantities: amounts of CPU, memory and the like, exact to a billionth, in upstream's canonical text form.
//!
//! A quantity remembers the family of its suffix (binary, decimal, exponent), because the canonical form keeps it.
//! Held as billionths in 128 bits: that is exact for every amount upstream holds exactly; larger ones saturate.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

const NANO: i128 = 1_000_000_000;

/// Binary amounts above this are cut to it, as are those that do not fit at all.
const LARGEST: i128 = (i64::MAX as i128) * NANO;

/// Longest number text that is looked at: far more digits than can matter.
const MAX_TEXT: usize = 256;

/// The family of suffixes that a quantity is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `Ki`, `Mi`, `Gi`, ...
    Binary,
    /// `m`, none, `k`, `M`, ...
    #[default]
    Decimal,
    /// `e3`, `e6`, ...
    Exponent,
}

/// An exact amount. Compares by value; the format only matters for the text form.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is no quantity, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// No number with a suffix at all.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The part before the suffix is no number, or has more digits than are kept.
    #[error("unable to parse numeric part of quantity")]
    Number,
    /// The part after the number is no suffix: `5mb`.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// A whole number, decimal.
    pub fn new(value: i64) -> Quantity {
        Quantity { nanos: i128::from(value) * NANO, format: Format::Decimal }
    }

    /// Thousandths, decimal: `from_milli(1500)` is `1500m`.
    pub fn from_milli(value: i64) -> Quantity {
        Quantity { nanos: i128::from(value) * (NANO / 1_000), format: Format::Decimal }
    }

    /// A whole number written with binary suffixes.
    pub fn binary(value: i64) -> Quantity {
        Quantity { nanos: i128::from(value) * NANO, format: Format::Binary }
    }

    /// The amount in whole units, rounded away from zero; what does not fit is cut.
    pub fn value(self) -> i64 {
        clamp(round_up(self.nanos, NANO))
    }

    /// The amount in thousandths, rounded away from zero; what does not fit is cut.
    pub fn milli(self) -> i64 {
        clamp(round_up(self.nanos, NANO / 1_000))
    }

    /// The amount in billionths.
    pub fn nanos(self) -> i128 {
        self.nanos
    }

    /// Which suffixes the text form takes.
    pub fn format(self) -> Format {
        self.format
    }

    /// Whether there is nothing of it, however it is written.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// -1, 0 or 1.
    pub fn sign(self) -> i32 {
        self.nanos.signum() as i32
    }

    /// Whether the amount is a whole number.
    pub fn is_whole(self) -> bool {
        self.nanos % NANO == 0
    }

    /// The amount as a float, near enough for ratios.
    pub fn as_f64(self) -> f64 {
        self.nanos as f64 / NANO as f64
    }

    /// The sum; it keeps this format, or takes the other's when this is zero.
    pub fn plus(self, other: Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { nanos: self.nanos.saturating_add(other.nanos), format }
    }

    /// The difference; it keeps this format, or takes the other's when this is zero.
    pub fn minus(self, other: Quantity) -> Quantity {
        self.plus(Quantity { nanos: -other.nanos, format: other.format })
    }

    /// The same amount in whole thousandths, rounded away from zero: what resource lists are defaulted to.
    pub fn rounded_to_milli(self) -> Quantity {
        let unit = NANO / 1_000;
        Quantity { nanos: round_up(self.nanos, unit) * unit, format: self.format }
    }

    /// The text that an object keeps for this text: `1000m` becomes `1`.
    ///
    /// Texts whose number and suffix are canonical already stay as written (`+5`, `1e+3`), as upstream keeps them.
    pub fn canonical(text: &str) -> Result<Cow<'_, str>, QuantityError> {
        Quantity::text_of(text, |q| q)
    }

    /// [`Quantity::canonical`] with the amount rounded to thousandths, as in resource lists.
    pub fn canonical_milli(text: &str) -> Result<Cow<'_, str>, QuantityError> {
        Quantity::text_of(text, Quantity::rounded_to_milli)
    }

    fn text_of(text: &str, change: impl FnOnce(Quantity) -> Quantity) -> Result<Cow<'_, str>, QuantityError> {
        let parts = split(text)?;
        let quantity = parts.amount()?;
        let changed = change(quantity);
        let cut = quantity.format == Format::Binary && quantity.nanos.abs() == LARGEST;
        if changed == quantity && !cut && !quantity.is_zero() && parts.is_canonical()? {
            return Ok(Cow::Borrowed(text));
        }
        Ok(Cow::Owned(changed.to_string()))
    }
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// Division that rounds away from zero: whoever asks for a little gets something.
fn round_up(value: i128, unit: i128) -> i128 {
    let (quotient, rest) = (value / unit, value % unit);
    if rest == 0 { quotient } else { quotient + value.signum() }
}

/// The parts of a quantity's text.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

fn split(text: &str) -> Result<Parts<'_>, QuantityError> {
    if text.is_empty() || text.len() > MAX_TEXT {
        return Err(QuantityError::Format);
    }
    let (negative, rest) = match text.as_bytes()[0] {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let digits = |s: &str| s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
    let (whole, mut rest) = rest.split_at(digits(rest));
    let mut fraction = "";
    if let Some(after) = rest.strip_prefix('.') {
        (fraction, rest) = after.split_at(digits(after));
    }
    let suffix = rest;
    let letters = suffix.find(|c: char| !"eEinumkKMGTP".contains(c)).unwrap_or(suffix.len());
    let exponent = &suffix[letters..];
    let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    if digits(exponent) != exponent.len() {
        return Err(QuantityError::Format);
    }
    Ok(Parts { negative, whole, fraction, suffix })
}

/// Base and exponent of a suffix: `Mi` is 2^20, `m` is 10^-3.
fn suffix(text: &str) -> Result<(i128, i32, Format), QuantityError> {
    const DECIMAL: [(&str, i32); 10] =
        [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
    const BINARY: [(&str, i32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
    if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == text) {
        return Ok((10, *exponent, Format::Decimal));
    }
    if let Some((_, exponent)) = BINARY.iter().find(|(name, _)| *name == text) {
        return Ok((2, *exponent, Format::Binary));
    }
    let digits = text.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
    let exponent = digits.parse::<i32>().map_err(|_| QuantityError::Suffix)?;
    Ok((10, exponent, Format::Exponent))
}

/// `mantissa * 10^scale * 2^binary` in billionths, rounded away from zero, or nothing when it does not fit.
fn to_nanos(mantissa: i128, scale: i32, binary: u32) -> Option<i128> {
    let shifted = mantissa.checked_mul(1i128.checked_shl(binary)?)?;
    let power = scale.saturating_add(9);
    if power >= 0 {
        return shifted.checked_mul(10i128.checked_pow(power.unsigned_abs())?);
    }
    match 10i128.checked_pow(power.unsigned_abs()) {
        Some(unit) => Some(round_up(shifted, unit)),
        // Smaller than any unit: still something.
        None => Some(shifted.signum()),
    }
}

impl Parts<'_> {
    fn amount(&self) -> Result<Quantity, QuantityError> {
        let (base, exponent, format) = suffix(self.suffix)?;
        let fraction = self.fraction.trim_end_matches('0');
        let digits: String = [self.whole.trim_start_matches('0'), fraction].concat();
        // Digits past the 36th are below every unit that counts, unless the number is too large anyway.
        let kept = digits.len().min(36);
        let mantissa = if kept == 0 { 0 } else { digits[..kept].parse::<i128>().map_err(|_| QuantityError::Number)? };
        let scale = (digits.len() - kept) as i32 - fraction.len() as i32;
        let (scale, binary) =
            if base == 2 { (scale, exponent.unsigned_abs()) } else { (scale.saturating_add(exponent), 0) };
        let nanos = match to_nanos(mantissa, scale, binary) {
            Some(nanos) if base == 10 || nanos <= LARGEST => nanos,
            Some(_) => LARGEST,
            None if mantissa == 0 => 0,
            None if scale < 0 => LARGEST.min(to_nanos_lossy(mantissa, scale, binary)),
            None => LARGEST,
        };
        Ok(Quantity { nanos: if self.negative { -nanos } else { nanos }, format })
    }

    /// Whether number and suffix are those of the canonical form; sign and leading zeros do not matter.
    fn is_canonical(&self) -> Result<bool, QuantityError> {
        const MANY: usize = 18;
        let whole = self.whole.trim_start_matches('0');
        if !self.fraction.is_empty() || whole.is_empty() || whole.len() > MANY {
            return Ok(false);
        }
        let number = whole.parse::<i128>().map_err(|_| QuantityError::Number)?;
        let (base, exponent, _) = suffix(self.suffix)?;
        Ok(match base {
            2 => number % 1024 != 0 && (number << exponent) % 1000 != 0,
            _ => exponent % 3 == 0 && number % 1000 != 0,
        })
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Quantity, QuantityError> {
        split(text)?.amount()
    }
}

/// For long fractions with binary suffixes, whose product overflows: drops digits that cannot matter.
fn to_nanos_lossy(mantissa: i128, scale: i32, binary: u32) -> i128 {
    let (mut mantissa, mut scale) = (mantissa, scale);
    while scale < 0 {
        mantissa = round_up(mantissa, 10);
        scale += 1;
        if let Some(nanos) = to_nanos(mantissa, scale, binary) {
            return nanos;
        }
    }
    LARGEST
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANO;
        if self.format == Format::Binary && !small && self.is_whole() {
            return write_binary(f, self.nanos / NANO);
        }
        write_decimal(f, self.nanos, self.format == Format::Exponent)
    }
}

fn write_binary(f: &mut fmt::Formatter<'_>, mut value: i128) -> fmt::Result {
    const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let mut power = 0;
    while value % 1024 == 0 && power + 1 < SUFFIXES.len() {
        value /= 1024;
        power += 1;
    }
    write!(f, "{value}{}", SUFFIXES[power])
}

fn write_decimal(f: &mut fmt::Formatter<'_>, mut value: i128, exponent_form: bool) -> fmt::Result {
    const SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
    let mut power = 0;
    while value % 1000 == 0 && (exponent_form || power + 1 < SUFFIXES.len()) {
        value /= 1000;
        power += 1;
    }
    match (exponent_form, power) {
        (true, 3) => write!(f, "{value}"),
        (true, _) => write!(f, "{value}e{}", power as i32 * 3 - 9),
        (false, _) => write!(f, "{value}{}", SUFFIXES[power]),
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl std::ops::Add for Quantity {
    type Output = Quantity;

    fn add(self, other: Quantity) -> Quantity {
        self.plus(other)
    }
}

impl std::ops::Sub for Quantity {
    type Output = Quantity;

    fn sub(self, other: Quantity) -> Quantity {
        self.minus(other)
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Quantity>>(iter: I) -> Quantity {
        iter.fold(Quantity::default(), Quantity::plus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms() {
        for (text, want) in [
            ("0", "0"),
            ("0Mi", "0"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("0.5", "500m"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("1023", "1023"),
            ("1000Ki", "1000Ki"),
            ("512", "512"),
            ("1000", "1k"),
            ("1e3", "1e3"),
            ("12E6", "12E6"),
            ("1000e3", "1e6"),
            ("1e0", "1e0"),
            ("1e1", "10"),
            ("1e19", "10e18"),
            ("1e-10", "1e-9"),
            ("+1000Ki", "1000Ki"),
            ("05Mi", "05Mi"),
            ("-0", "0"),
            ("Mi", "0"),
            ("8Ei", "9223372036854775807"),
            ("999999999999999999E", "999999999999999999E"),
            ("100M", "100M"),
            ("0.1Ki", "102400m"),
            ("-5", "-5"),
            ("+5", "+5"),
            ("1.0000000001", "1000000001n"),
            ("0.00000000001", "1n"),
            (".5", "500m"),
            ("9223372036854775807", "9223372036854775807"),
            ("99999999999999999999", "99999999999999999999"),
            ("5Ei", "5Ei"),
            ("010", "010"),
        ] {
            assert_eq!(Quantity::canonical(text).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn bad_texts() {
        for (text, want) in [
            ("", QuantityError::Format),
            ("1 Gi", QuantityError::Format),
            ("1K", QuantityError::Suffix),
            ("1mi", QuantityError::Suffix),
            ("1G1", QuantityError::Suffix),
            ("x", QuantityError::Format),
        ] {
            assert_eq!(Quantity::canonical(text), Err(want), "{text}");
        }
    }

    #[test]
    fn rounding_goes_away_from_zero() {
        let q: Quantity = "1001m".parse().expect("quantity");
        assert_eq!((q.value(), q.milli()), (2, 1001));
        let tiny: Quantity = "1n".parse().expect("quantity");
        assert_eq!((tiny.value(), tiny.milli()), (1, 1));
    }

    #[test]
    fn sums_keep_the_first_format() {
        let a: Quantity = "1Gi".parse().expect("quantity");
        let b: Quantity = "1024M".parse().expect("quantity");
        assert_eq!((a + b).to_string(), "2048576Ki");
        assert_eq!((Quantity::default() + a).to_string(), "1Gi");
        assert!(a > b);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]

        #[test]
        fn arithmetic_is_exact(a in -10_000_000i64..10_000_000, b in -10_000_000i64..10_000_000) {
            let (x, y) = (Quantity::from_milli(a), Quantity::from_milli(b));
            proptest::prop_assert_eq!((x + y).milli(), a + b);
            proptest::prop_assert_eq!((x - y).milli(), a - b);
            proptest::prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        }

        #[test]
        fn canonical_text_is_stable(whole in 0u64..1_000_000_000, part in 0u32..1_000_000_000,
            suffix in proptest::sample::select(vec!["", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e3", "u", "n"])) {
            let text = format!("{whole}.{part:09}{suffix}");
            let quantity: Quantity = text.parse().expect("quantity");
            let canonical = quantity.to_string();
            proptest::prop_assert_eq!(canonical.parse::<Quantity>().expect("canonical"), quantity);
            proptest::prop_assert_eq!(Quantity::canonical(&canonical).expect("canonical"), canonical.as_str());
        }
    }
}
