//! Kubernetes protobuf: the messages of the built-in types, transcoded from and to JSON by the table of types, and the
//! envelopes around them. Field numbers are upstream's; no generated code, one walk for every type.
//!
//! [`encode`] reads JSON bytes or a value and writes a message; [`decode`] reads a message into a value in normal form;
//! [`envelope`] knows the `k8s\0` wrapper, lists made of encoded items, and watch frames.

mod decode;
mod encode;
pub mod envelope;
mod wire;

pub use decode::{MAX_DEPTH, decode_message};
pub use encode::{encode_bytes, encode_value};
pub use envelope::{Envelope, MAGIC, decode_object, encode_object, list, open, watch_frame, wrap};
