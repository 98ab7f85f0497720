//! CustomResourceDefinitions: from a stored definition to a served kind.
//!
//! [`convert`] makes kinds of a definition, [`validate`] judges a definition, [`status`] says what its conditions
//! should be, and [`controller`] keeps the registry in step with what is stored.

pub mod controller;
pub mod convert;
pub mod status;
pub mod validate;
pub mod warnings;

/// Where definitions are.
pub const GROUP: &str = "apiextensions.k8s.io";
pub const PLURAL: &str = "customresourcedefinitions";
