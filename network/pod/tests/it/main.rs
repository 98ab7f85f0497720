//! Pod networks on a real kernel, in namespaces of their own. Needs root.

mod bridge;
