//! Admission: what may change or refuse a write beyond the rules of its own kind.
//!
//! ```text
//!   the verb          decodes, fills in defaults, notes who manages which field
//!                       |
//!                       |  the object in the version of the request
//!                       v
//!   Chain::admit      mutating      in the table's order; a refusal ends it
//!                       |    ^
//!                       |    '----- once more, when rules of users (webhooks, policies) changed what others had seen
//!                       v
//!                     allocating    gives out addresses and ports, in the transaction to come
//!                       |
//!                       v
//!   the verb          prepares and checks by the rules of the kind
//!                       |
//!                       |  the object is final
//!                       v
//!   Chain::validate   validating    in the table's order; a refusal ends it
//!                       |
//!                       v
//!   the verb          one transaction: the object, and what plugins put into `Request::extra`. When it loses a race,
//!                     all of this begins anew on the newer state.
//! ```
//!
//! [`ADMISSION`] is the table of plugins, one file each in [`plugins`]. [`Chain`] runs those that are on; the verbs in
//! `registry` call it with a [`Request`], and plugins learn of the rest of the server through [`World`] alone. Nothing
//! here imports the server or a verb.

mod chain;
pub mod configuration;
#[cfg(test)]
mod fake;
mod parts;
mod plugins;
mod request;
mod table;
#[cfg(test)]
mod tests;
mod world;

use async_trait::async_trait;
use meta::Status;

pub use chain::Chain;
pub use parts::Parts;
pub use request::{Asked, By, CallOptions, Extra, Operation, Request};
pub use table::{ADMISSION, CONFIGURED, Row};
pub use world::World;

/// An admission plugin: an object that is made at start by its row's `make` and lives as long as the server. It may have
/// state of its own (buckets, a cache, connections to webhooks), behind locks of its own: one object serves all requests
/// at once. What it does is in [`Mutating`], [`Validating`] or both, and the row says which.
///
/// **Order.** Plugins are asked in the order of the table, mutating ones all before validating ones. A mutating plugin
/// sees what those before it made of the object, and must not rely on anything that comes after it, the kind's own
/// validation above all: at that point the object is as well-formed as its schema and nothing more. A validating plugin
/// sees the object that will be stored.
///
/// **What may be asked.** [`World`], and nothing else of the server. Requests of one client wait for these answers:
/// caches are asked before the store, and whatever goes over a network has a deadline.
///
/// **Purity.** A plugin is asked more often than something is stored: about dry runs, about requests that another plugin
/// refuses, again after each lost race, again on reinvocation. So it changes nothing outside of the request. What is to be
/// stored along with the object goes into [`Request::extra`], and is dropped with the request. Counting for a limit
/// (EventRateLimit) is the exception, and leaves dry runs out.
///
/// **Version.** The object, `old` and the kind are of the version in the request's path, whatever is stored. A plugin that
/// is written for another version (a webhook that names one, a policy that matches an equivalent resource) converts on
/// its own account: object and old to the version it wants, by the `Converter` of `registry::convert` that reads and
/// writes go through, which [`World`] will hand out with the first such plugin (it may fail and may have to wait, as
/// `admit` and `validate` may); back to the request's version after the call; and both only when the version differs.
/// A conversion that fails is that plugin's failure, as a call that fails is, and goes by the failure policy of whoever
/// asked for it. Others never see an object of another version.
///
/// **Errors.** An error is the client's answer as it stands, so it is a whole [`Status`]: [`Request::forbidden`] for what
/// is not allowed (403), `Status::invalid` for a field that is wrong (422), 429 and 503 for what may be tried again.
/// Nobody after the plugin is asked. After an error on a state from the cache the verb may ask once more on the state in
/// the store: a refusal counts on fresh state only.
pub trait Plugin: Send + Sync {
    /// Whether the plugin cares at all, whatever the half. Called for every write and for every connect, so it is cheap
    /// and asks nobody; for a mutating plugin it is asked of the object as it is when its turn comes.
    fn handles(&self, request: &Request<'_>) -> bool;
}

/// A plugin that may change the object.
///
/// **Idempotency.** The chain may be gone through a second time ([`Mutating::reinvocation`]), and a client may send what
/// an earlier answer showed it: on its own result, a plugin changes nothing. LimitRanger fills in a limit where there is
/// none, and finds one there the second time; ServiceAccount looks for the volume that it mounted. Adding to a list
/// without looking whether it is there would add twice.
#[async_trait]
pub trait Mutating: Plugin {
    /// Changes the object, or refuses.
    async fn admit(&self, request: &mut Request<'_>, world: &dyn World) -> Result<(), Status>;

    /// Whether the plugin wants to see what [`Mutating::surprises`] made of an object that it was asked about before. As
    /// in upstream, built-in plugins do: a container that a webhook adds has its limits and its token like any other.
    fn reinvocation(&self) -> Reinvocation {
        Reinvocation::IfNeeded
    }

    /// Whether the plugin does what users tell it to, so that nobody who was asked before could foresee its changes. The
    /// others are in an order in which none touches what an earlier one has decided on, and need no second round.
    fn surprises(&self) -> bool {
        false
    }
}

/// Upstream's `reinvocationPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reinvocation {
    Never,
    IfNeeded,
}

/// A plugin that may refuse the final object. It sees the request unchanged from plugin to plugin: order matters only for
/// which of two refusals the client reads, and for what is counted, so ResourceQuota is last: it reserves nothing for a
/// request that somebody else refuses.
#[async_trait]
pub trait Validating: Plugin {
    /// Refuses, or warns, or adds guards to the transaction.
    async fn validate(&self, request: &Request<'_>, world: &dyn World) -> Result<(), Status>;
}
