//! A container as the kernel sees it: what to build (`spec`), building it from inside the new process (`init`, `files`),
//! and putting another process into it (`exec`); `launch` forks for both.
//!
//! Everything here runs in a single-threaded process that was forked for one container; nothing is shared with the
//! daemon but the specification. The order of steps in `init` and `program` is what keeps a container in.

pub mod exec;
mod files;
pub mod init;
mod launch;
mod program;
pub mod spec;

pub use exec::Exec;
pub use spec::{Bind, BindSource, DeviceNode, Namespaces, PidNamespace, Program, Rlimit, Rootfs, Spec, Text};
