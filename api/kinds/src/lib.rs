//! The built-in kinds: what upstream spreads over API types, defaults, registry strategies, validation and printers.
//!
//! Map: [`ALL`] is the table, one row a kind; a row is a [`Kind`] ([`kind`]) with [`Hooks`] ([`hooks`]) and lives in
//! `<group>/<kind>.rs` beside its defaults, strategy, validation, columns and tests. [`types`] holds the fields of every
//! type, [`definitions`] the schemas made of them, [`groups`] the order of groups and versions, [`bootstrap`] what a new
//! cluster holds, [`bootstrap_token`] what a joining machine proves itself with. [`metadata`] checks object metadata for every kind, custom ones included; [`normal`] is the form objects are
//! stored in; [`strategy`] holds the steps of a write that all kinds share; [`quota`] what objects count for. Pure.

pub mod bootstrap;
pub mod bootstrap_token;
mod build;
mod check;
mod conditions;
mod defaults;
pub mod definitions;
pub mod deletion;
pub mod groups;
pub mod hooks;
pub mod kind;
pub mod metadata;
pub mod normal;
pub mod print;
pub mod quota;
mod strategy;
mod table;
pub mod types;
pub mod unenforced;
pub mod value;

mod admissionregistration;
mod apiextensions;
mod apiregistration;
mod apps;
mod authentication;
mod authorization;
mod autoscaling;
mod batch;
mod certificates;
mod coordination;
mod core;
mod discovery;
mod events;
mod flowcontrol;
mod networking;
mod node;
mod policy;
mod rbac;
mod resource;
mod scheduling;
mod storage;
mod storagemigration;

pub use bootstrap::bootstrap;
pub use build::storage_version_hash;
pub use hooks::{Context, Hooks, User};
pub use kind::{
    Action, Asked, Column, Kind, KindRef, NameRule, ScalePaths, Selectable, StatusMetadata, Storage, Subresource,
    Verbs, Writes,
};
pub use table::{ALL, by_kind, by_resource};
