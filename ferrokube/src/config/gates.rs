//! Upstream's feature gates by name, so that a mistyped one is told. Pure. Nothing here is behind a gate: what is done is
//! always on.

/// One a line, as the documentation lists them.
const NAMES: &str = include_str!("gates.txt");

/// Whether there is a gate of this name; otherwise a sentence with the nearest one.
pub fn check(name: &str) -> Result<(), String> {
    if NAMES.lines().any(|known| known == name) {
        return Ok(());
    }
    let lower = name.to_ascii_lowercase();
    let near = NAMES.lines().min_by_key(|known| distance(&lower, &known.to_ascii_lowercase())).unwrap_or_default();
    Err(format!("there is no such gate; did you mean {near}?"))
}

/// Letters to add, leave out or replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<u8> = b.bytes().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let best = (corner + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            corner = std::mem::replace(&mut row[j + 1], best);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_gate_is_told_the_nearest() {
        assert_eq!(check("AllAlpha"), Ok(()));
        assert_eq!(distance("kitten", "sitting"), 3);
        assert!(check("InPlacePodVerticalScalling").expect_err("unknown").contains("InPlacePodVerticalScaling?"));
    }

    #[test]
    fn the_list_is_sorted() {
        let names: Vec<_> = NAMES.lines().collect();
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "each once, in order");
    }
}
