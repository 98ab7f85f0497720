//! Structural schemas: default, prune, validate, OpenAPI out. Pure.
//!
//! One tree type ([`Schema`]) describes built-in kinds (made by `kinds` from its table) and custom resources (parsed
//! from `openAPIV3Schema`), so the server, the codec, patches and server-side apply treat both alike.
//!
//! Entry points: [`structural::check`] judges a CRD's schema, [`parse::custom_resource`] reads it; [`prune`],
//! [`drop_nulls`], [`apply_defaults`] shape a decoded object, in this order, and [`validate`] judges it;
//! [`unknown_fields`] lists what strict field validation complains of. [`openapi`] publishes schemas of every kind.

#![warn(missing_docs)]

mod default;
pub mod formats;
mod node;
pub mod openapi;
pub mod parse;
mod pattern;
mod prune;
pub mod structural;
mod validate;

pub use default::{MAX_DEFAULTED, TooMuch, apply_defaults, drop_nulls};
pub use prune::{MAX_REPORTED, prune, unknown_fields};
pub use validate::{Budget, MAX_ERRORS, MAX_STEPS, validate, validate_status};

pub use pattern::Pattern;

pub use node::{
    ANYTHING, Declared, Docs, Field, ListType, MapType, Patch, PatchStrategy, Properties, Rule, Schema, SchemaRef,
    Type, Validation,
};
