//! A container as the kernel sees it: what to build (`spec`), building it from inside the new process (`init`, `files`),
//! and putting another process into it (`exec`); `launch` forks for both.
//!
//! ```text
//! monitor                                    child
//!    │ Prepared::new: opens host paths,
//!    │ /proc, namespaces as descriptors
//!    ├─ clone3(new mounts, new PIDs) ───────> its cgroups, then the pod's other namespaces
//!    │                                        root file system, mounts from the descriptors, devices
//!    │                                        pivot_root: nothing of the host is reachable from here on
//!    │                                        standard streams, limits, capabilities, user, seccomp
//!    │<── failure's words, or silence ──────── exec of the program
//!    │ waits for it, writes its log
//! ```
//!
//! Whatever comes from the container's own tree (its /etc, the target of a mount) is reached by descriptor and never
//! through a link, for the image chose it. Privileges go last and in this order, because each step needs those that the
//! next one takes away. A process that joins enters every namespace first and is forked into the PID namespace last of
//! all, by one that has no foreign descriptors: what is seen inside can be traced from inside.
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
