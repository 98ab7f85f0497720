//! What was acknowledged, and what may have happened besides: the account against which a list is held. Pure.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

/// An object's content and revision; none: it is not there.
pub type State = Option<(String, u64)>;

/// What is known of one object.
#[derive(Debug, Clone, Default)]
struct Known {
    /// The last acknowledged state.
    acknowledged: State,
    /// Requests without an answer: the content that each would have led to, none for a deletion.
    unanswered: Vec<Option<String>>,
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct Ledger {
    objects: BTreeMap<String, Known>,
    /// The highest revision that anybody was told.
    pub highest: u64,
    pub acknowledged: u64,
}

impl Ledger {
    /// A request leaves.
    pub fn asked(&mut self, name: &str, content: Option<String>) {
        self.objects.entry(name.to_owned()).or_default().unanswered.push(content);
    }

    /// Its answer: it was done.
    pub fn done(&mut self, name: &str, state: State) {
        let known = self.objects.entry(name.to_owned()).or_default();
        if let Some((_, revision)) = &state {
            self.highest = self.highest.max(*revision);
        }
        self.acknowledged += 1;
        *known = Known { acknowledged: state, unanswered: Vec::new() };
    }

    /// Its answer: nothing was done.
    pub fn refused(&mut self, name: &str) {
        if let Some(known) = self.objects.get_mut(name) {
            known.unanswered.pop();
        }
    }

    /// Whether anything was ever asked of it.
    pub fn has(&self, name: &str) -> bool {
        self.objects.contains_key(name)
    }

    /// What was acknowledged last, unless something is unanswered since.
    pub fn certain(&self, name: &str) -> Option<&State> {
        self.objects.get(name).filter(|k| k.unanswered.is_empty()).map(|k| &k.acknowledged)
    }

    /// Holds a list (its revision and objects) against the account, and goes on from there.
    pub fn check(&mut self, revision: u64, mut there: BTreeMap<String, (String, u64)>) -> Result<()> {
        ensure!(revision >= self.highest, "revision {revision} after {} was told", self.highest);
        self.highest = revision;
        for (name, known) in &mut self.objects {
            let found = there.remove(name);
            let same = found == known.acknowledged;
            let late = known.unanswered.iter().any(|content| *content == found.as_ref().map(|(c, _)| c.clone()));
            ensure!(same || late, "{name} is {found:?}, but {known:?}");
            *known = Known { acknowledged: found, unanswered: Vec::new() };
        }
        ensure!(there.is_empty(), "nobody made {:?}", there.keys());
        Ok(())
    }
}
