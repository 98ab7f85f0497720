//! CustomResourceDefinitions: from a stored definition to a served kind.

pub mod columns;
