//! Kinds of the `apiextensions` group.

pub(crate) mod custom_resource_definition;
