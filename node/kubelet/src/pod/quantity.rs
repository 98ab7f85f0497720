//! Amounts of resources as numbers. Pure.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

pub use facts::resources::{milli, whole as value};

/// What is no quantity counts as nothing: the API has checked it.
fn parse(quantity: &Quantity) -> meta::Quantity {
    quantity.0.parse().unwrap_or_default()
}

/// `ceil(quantity / divisor)`, as downward-API files and variables show it. A zero divisor counts as 1.
pub fn divided(quantity: &Quantity, divisor: Option<&Quantity>) -> i64 {
    let by = divisor.map(|d| parse(d).nanos()).filter(|d| *d > 0).unwrap_or(1_000_000_000);
    let nanos = parse(quantity).nanos();
    let up = nanos.div_euclid(by) + i128::from(nanos.rem_euclid(by) != 0);
    up.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

pub fn of_milli(milli: i64) -> Quantity {
    Quantity(if milli % 1000 == 0 { (milli / 1000).to_string() } else { format!("{milli}m") })
}

/// Bytes as the node shows its memory.
pub fn of_kib(bytes: u64) -> Quantity {
    Quantity(format!("{}Ki", bytes / 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suffix_counts() {
        let q = |t: &str| Quantity(t.to_owned());
        for (text, milli_, value_) in [
            ("100m", 100, 1),
            ("1.5", 1500, 2),
            ("1e3", 1_000_000, 1000),
            ("2Ki", 2_048_000, 2048),
            ("0.5Gi", 536_870_912_000, 536_870_912),
            ("5M", 5_000_000_000, 5_000_000),
            ("0", 0, 0),
        ] {
            assert_eq!((milli(&q(text)), value(&q(text))), (milli_, value_), "{text}");
        }
        assert_eq!(divided(&q("1500m"), Some(&q("1m"))), 1500);
        assert_eq!(divided(&q("1500m"), Some(&q("0"))), 2);
        assert_eq!(divided(&q("33Mi"), Some(&q("32Mi"))), 2);
    }
}
