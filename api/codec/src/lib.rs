//! Wire forms of API objects over the tables of `kinds`: JSON, YAML and protobuf in and out, Table and
//! PartialObjectMetadata. Inside the server an object is always the same JSON value.
//!
//! Map: [`json`] decodes a body once, along its type, and collects unknown and duplicate fields; [`yaml`] does the same
//! for YAML and writes it; [`proto`] transcodes to and from Kubernetes protobuf, envelope and watch frames included;
//! [`normal`] brings a changed object into the form that upstream's typed round trip gives it; [`table`] and [`partial`]
//! make the two views that clients ask for with `;as=`. Pure: no I/O, no clock.

#![warn(missing_docs)]

mod error;
pub mod json;
pub mod partial;
pub mod proto;
pub mod table;
pub mod yaml;

pub use error::{DecodeError, EncodeError, strict_words};
pub use json::{Decoded, Form};
pub use kinds::normal;
