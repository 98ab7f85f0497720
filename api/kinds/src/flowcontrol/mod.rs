//! Kinds of the `flowcontrol` group.

pub(crate) mod flow_schema;
pub(crate) mod priority_level_configuration;
