//! Pod networks on a real kernel, in namespaces of their own. Needs root.

#![allow(clippy::unwrap_used)]

mod bridge;
