//! The pod spec, which pods and every template of pods share: what defaults depend on, and what makes it valid.

pub(crate) mod affinity;
mod container;
pub(crate) mod defaults;
mod env;
mod probe;
pub(crate) mod resources;
mod security;
mod spec;
pub(crate) mod volume;
pub(crate) mod warnings;

pub(crate) use container::image_space as container_image_space;
pub(crate) use spec::{EFFECTS, Subject, template, tolerations, validate};
