//! The kubelet's ways out, none of which decides anything. I/O, all of it.
//!
//! - the runtime: `cri` (calls), `pleg` (what happens in it)
//! - the API: `objects` (ConfigMaps, Secrets and bundles that pods refer to)
//! - the host: `files` (inotify), `logs` (of containers), `static_pods`

pub(crate) mod cri;
pub mod files;
pub mod logs;
pub(crate) mod objects;
pub(crate) mod pleg;
pub mod static_pods;
