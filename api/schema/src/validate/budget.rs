//! What judging one object may cost. Pure; whoever validates makes one for each object and hands it to every check of it.

/// Most errors that one object is answered with.
pub const MAX_ERRORS: usize = 256;
/// Most values that are held against a schema for one object: about a second. An object of 3 MiB has half a million values
/// at most, each of which alternatives (`anyOf` within `anyOf`) may look at many times over.
pub const MAX_STEPS: u64 = 20_000_000;

/// How many errors may still be told, and how many values looked at. What is spent stays spent: checks of one object
/// share it.
#[derive(Debug)]
pub struct Budget {
    pub(super) errors: usize,
    steps: u64,
    spent: bool,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { errors: MAX_ERRORS, steps: MAX_STEPS, spent: false }
    }
}

impl Budget {
    /// Takes one step, if there is one left.
    pub(super) fn step(&mut self) -> bool {
        self.spent = self.steps == 0;
        self.steps = self.steps.saturating_sub(1);
        !self.spent
    }

    /// Nothing more is looked at; what was found is not all.
    pub(super) fn is_spent(&self) -> bool {
        self.spent
    }

    #[cfg(test)]
    pub(super) fn of_steps(steps: u64) -> Budget {
        Budget { steps, ..Budget::default() }
    }
}
