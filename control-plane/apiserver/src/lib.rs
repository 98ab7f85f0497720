//! kube-apiserver: the one component that touches the store.
//!
//! Map: [`storage`] is the contract with etcd; [`cache`] follows it, one watch for all resources; [`http`] speaks with
//! clients; `handler` is the way of a request, stage by stage; `ops` is what an operator sees and sets; [`authn`],
//! `authz` and [`admission`] decide who may do what; [`registry`] holds what is served and does the verbs, for built-in
//! and custom kinds alike: objects are dynamic values plus a schema, and no file here names a kind outside admission
//! plugins. `discovery` tells clients what there is, [`crd`] makes kinds at run time. Entry points: [`daemon::start`]
//! and [`daemon::run`]; [`server::Server::handle`] for components in the same process.

pub mod admission;
pub mod audit;
pub mod authn;
mod authz;
mod bootstrap;
pub mod cache;
pub mod config;
pub mod crd;
pub mod daemon;
mod discovery;
mod error;
mod handler;
pub mod http;
mod notes;
mod ops;
pub mod proxy;
pub mod registry;
pub mod server;
pub mod service;
pub mod storage;

pub use authn::UserInfo;
pub use config::Config;
pub use server::Server;
