//! What is said of a request beside its answer: [`Warnings`] to the client, [`Annotations`] to the audit log. Whoever the
//! request meets on its way adds to them; neither changes its outcome. Pure. A [`Call`](crate::http::call::Call) and a
//! [`Trail`](crate::audit::Trail) own them, admission is handed both.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Warnings of one request: headers hold fewer, and each is looked for among the others.
const MAX_WARNINGS: usize = 1_000;

/// Texts of `Warning` headers, each once: a request that is tried again after a lost race says the same again.
#[derive(Debug, Default)]
pub struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    pub fn add(&self, text: impl Into<String>) {
        let text = text.into();
        let mut texts = self.0.lock();
        if texts.len() < MAX_WARNINGS && !texts.contains(&text) {
            texts.push(text);
        }
    }

    /// As they came.
    pub fn texts(&self) -> Vec<String> {
        self.0.lock().clone()
    }
}

/// The `annotations` of an audit event. The first value of a key stands, as upstream has it.
#[derive(Debug, Default)]
pub struct Annotations(Mutex<BTreeMap<String, String>>);

impl Annotations {
    pub fn add(&self, key: &str, value: impl Into<String>) {
        self.0.lock().entry(key.to_owned()).or_insert_with(|| value.into());
    }

    pub fn all(&self) -> BTreeMap<String, String> {
        self.0.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_given_once_and_the_first_annotation_stands() {
        let warnings = Warnings::default();
        ["a", "b", "a"].into_iter().for_each(|text| warnings.add(text));
        assert_eq!(warnings.texts(), ["a", "b"]);
        (0..2 * MAX_WARNINGS).for_each(|n| warnings.add(n.to_string()));
        assert_eq!(warnings.texts().len(), MAX_WARNINGS);
        let annotations = Annotations::default();
        annotations.add("k", "first");
        annotations.add("k", "second");
        assert_eq!(annotations.all(), BTreeMap::from([("k".to_owned(), "first".to_owned())]));
    }
}
