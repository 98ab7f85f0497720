//! Structural schemas: default, prune, validate, OpenAPI out. Pure.
//!
//! One tree type ([`Schema`]) describes built-in kinds (made by `kinds` from its table) and custom resources (parsed
//! from `openAPIV3Schema`), so the server, the codec, patches and server-side apply treat both alike.

mod node;

pub use node::{
    Declared, Docs, Field, ListType, MapType, Patch, PatchStrategy, Pattern, Properties, Proto, Rule, Schema,
    SchemaRef, Type, Validation, Wire,
};
