//! CustomResourceDefinitions: from a stored definition to a served kind.
//!
//! [`outline`] is what is read of a definition, [`convert`] makes kinds of it and [`source`] their schemas when they are
//! asked for; [`validate`] judges a definition, [`scale`] what an object says to its Scale, [`names`] knows who holds which
//! name, [`versions`] which version is better, [`status`] says what the conditions should be, and [`controller`] keeps the
//! registry in step with what is stored. A change of one definition costs what that definition costs, however many there
//! are.

pub mod controller;
pub mod convert;
pub mod names;
pub mod outline;
pub mod scale;
pub mod source;
pub mod status;
pub mod validate;
pub mod versions;
pub mod warnings;

/// Where definitions are.
pub const GROUP: &str = "apiextensions.k8s.io";
pub const PLURAL: &str = "customresourcedefinitions";
