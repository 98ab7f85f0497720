//! The dynamic object: paths, patches, server-side apply and managed fields. Pure.
