//! The node itself. `heartbeat`, a task beside the loop, tells the API that it is there and what it is (`object`, made of
//! `machine` and `addresses`). What it is short of (`eviction`) and what pods keep of it (`storage_limits`, `qos`) is asked
//! by `daemon::housekeeping`. `kernel` is asked once, before anything starts; `shutdown` at the end of the machine.
//!
//! Pure: `object`, `eviction`, `shutdown`, and `storage_limits` but for its measuring. The others do I/O.

pub mod addresses;
pub(crate) mod eviction;
pub(crate) mod heartbeat;
pub(crate) mod kernel;
pub(crate) mod machine;
pub(crate) mod object;
pub(crate) mod qos;
pub mod shutdown;
pub(crate) mod storage_limits;
