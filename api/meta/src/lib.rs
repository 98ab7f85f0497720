//! Names, UIDs, labels, selectors, quantities, time and Status errors: the words that every other crate speaks.
