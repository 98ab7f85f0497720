//! What a person types: kubectl's commands against the real cluster, one file a theme. Texts are upstream's.

pub mod access;
pub mod apply;
pub mod certificates;
pub mod change;
pub mod create;
pub mod debug;
pub mod delete;
pub mod forward;
pub mod nodes;
pub mod read;
pub mod rollout;
pub mod streams;
pub mod watch;
