//! Names, UIDs, labels, selectors, quantities, time and Status errors: the words that every other crate speaks.
//!
//! Map of the crate: [`gvk`] names types and resources, `status` is the error that every API call can answer, `field`
//! says what is wrong with one field, [`labels`] and [`fields`] are the two selector languages, [`depth`] is the one
//! limit of nesting, `quantity`, [`time`] and [`duration`] are the scalar types with a text form, [`prefix`] is a
//! range of addresses, [`Ranges`] one of each family, [`Span`] one from here to there, [`ip`] judges one, [`names`] checks identifiers, [`uid`] makes
//! them, [`text`] quotes like upstream, [`pem`] is how certificates are written, [`version`] says which Kubernetes
//! this is. Pure: nothing here reads a clock, a file or a socket.

#![warn(missing_docs)]

pub mod depth;
pub mod duration;
mod field;
pub mod fields;
pub mod gvk;
pub mod ip;
pub mod labels;
pub mod names;
pub mod pem;
pub mod prefix;
mod quantity;
mod ranges;
mod span;
mod status;
pub mod text;
pub mod time;
pub mod uid;
pub mod version;

pub use field::{FieldError, FieldErrorKind, Path};
pub use fields::FieldSelector;
pub use gvk::{Gvk, Gvr, Scope, Str};
pub use labels::Selector;
pub use prefix::Prefix;
pub use quantity::Quantity;
pub use ranges::{Ranges, RangesError};
pub use span::{Span, SpanError};
pub use status::{Cause, Details, Reason, Status};
