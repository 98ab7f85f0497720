//! Which objects a list or watch is about: namespace, name, labels and fields, compiled once per request. Pure.

use std::sync::Arc;

use bytes::Bytes;
use meta::{FieldSelector, Selector, Status};

use super::Served;
use crate::cache::{Cache, Entry, Scope};

/// A compiled filter over cache entries.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Empty for all namespaces.
    namespace: String,
    labels: Option<Selector>,
    terms: Vec<Term>,
}

#[derive(Debug, Clone)]
struct Term {
    what: What,
    value: String,
    equal: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Name,
    Namespace,
    Field(usize),
}

impl Selection {
    /// Refuses fields that the kind does not know.
    pub fn new(
        served: &Served,
        namespace: &str,
        labels: &Selector,
        fields: &FieldSelector,
    ) -> Result<Selection, Status> {
        let mut terms = Vec::new();
        for term in &fields.terms {
            let what = match term.field.as_str() {
                "metadata.name" => What::Name,
                "metadata.namespace" => What::Namespace,
                field => match served.selects(field) {
                    Some(index) => What::Field(index),
                    None => {
                        return Err(Status::bad_request(served.kind.unknown_selector(field)));
                    }
                },
            };
            terms.push(Term { what, value: term.value.clone(), equal: term.equal });
        }
        let labels = (!labels.is_everything()).then(|| labels.clone());
        Ok(Selection { namespace: namespace.to_owned(), labels, terms })
    }

    /// Everything in a namespace, or everywhere.
    pub fn all(namespace: &str) -> Selection {
        Selection { namespace: namespace.to_owned(), labels: None, terms: Vec::new() }
    }

    /// Whether only the namespace narrows.
    pub fn is_plain(&self) -> bool {
        self.labels.is_none() && self.terms.is_empty()
    }

    pub fn matches(&self, entry: &Entry) -> bool {
        if !self.namespace.is_empty() && entry.namespace() != self.namespace {
            return false;
        }
        let fields = self.terms.iter().all(|term| {
            let value = match term.what {
                What::Name => entry.name(),
                What::Namespace => entry.namespace(),
                What::Field(index) => entry.field(index),
            };
            (value == term.value) == term.equal
        });
        fields && self.labels.as_ref().is_none_or(|labels| labels.matches(entry))
    }

    /// The only object that can match, when its name is given.
    pub fn single(&self) -> Option<&str> {
        self.terms.iter().find(|t| t.what == What::Name && t.equal).map(|t| t.value.as_str())
    }

    fn exact(&self, what: What) -> Option<&str> {
        self.terms.iter().find(|t| t.what == what && t.equal).map(|t| t.value.as_str())
    }

    /// The namespace that all matches are in, empty when there is none.
    pub fn namespace(&self) -> &str {
        if self.namespace.is_empty() { self.exact(What::Namespace).unwrap_or_default() } else { &self.namespace }
    }

    /// Store prefix or, for a named object, key that narrows the walk.
    pub fn prefix(&self, cache: &Cache) -> Bytes {
        cache.namespace_prefix(self.namespace())
    }

    /// What an index of the cache gives for one of the terms, and the revision that it is of; [`Selection::matches`]
    /// has still to be asked.
    pub fn indexed(&self, cache: &Cache) -> Option<(Vec<Arc<Entry>>, i64)> {
        self.terms.iter().filter(|term| term.equal && !term.value.is_empty()).find_map(|term| match term.what {
            What::Field(field) => cache.indexed(field, &term.value),
            _ => None,
        })
    }

    /// The narrowest index for a watch.
    pub fn scope(&self, cache: &Cache, namespaced: bool) -> Scope {
        let namespace = self.namespace();
        if let Some(name) = self.single().filter(|_| !namespaced || !namespace.is_empty()) {
            return Scope::Object(cache.key(namespace, name));
        }
        let field = self.terms.iter().find_map(|term| match term.what {
            What::Field(index) if term.equal && !term.value.is_empty() => Some((index, term.value.clone())),
            _ => None,
        });
        match field {
            Some((index, value)) => Scope::Field(index, value),
            None if namespace.is_empty() => Scope::All,
            None => Scope::Namespace(namespace.to_owned()),
        }
    }
}
