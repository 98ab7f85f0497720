//! The API server as its clients see it: over TLS, with certificates and tokens of their own.
#![allow(clippy::unwrap_used)]

mod admission;
mod advertised;
mod audit;
mod authorised;
mod callers;
mod conversion;
mod corrupt;
mod custom_openapi;
mod definitions;
mod depth;
mod families;
mod granting;
mod impersonation;
mod limits;
mod nodes;
mod plugins;
mod proxies;
mod recorded;
mod repair;
mod websocket;
mod world;
