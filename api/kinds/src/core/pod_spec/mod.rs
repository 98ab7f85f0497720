//! The pod spec, which pods and every template of pods share: what defaults depend on, and what makes it valid.

pub(crate) mod defaults;
