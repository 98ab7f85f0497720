//! Volumes of pods, as upstream's volume manager keeps them: what is desired beside what is there, and the difference done.
//!
//! ```text
//!  executor: mount, tear_down       ┌──────────────── manager (I/O) ───────────────┐
//!  loop: changed, updated ────────► │ desired   a: {e, s}, revision 2    b: nothing │
//!                                   │ actual    a: {e ready, s ready 1}  b: {e}     │ ◄── disk::scan after a crash
//!                                   └───────┬──────────────────────────────▲───────┘
//!                                           ▼ plan (pure)                  │ done, failed
//!                            a: Refresh(s)          b: TearDown(e), RemoveDir
//!                                           │                              │
//!                                           ▼ a row of plugins             │
//!                         set_up ─ payload ─ atomic          disk::remove ─┘
//! ```
//!
//! The life of a Secret's volume `s` in the pod of UID `a`:
//!
//! 1. The worker asks for the pod's volumes: `mount`. Its row in [`plugins::PLUGINS`] says that it lies in
//!    `pods/a/volumes/kubernetes.io~secret/s` and that its files are ours. Desired has it, actual has nothing: SetUp.
//! 2. The Secret is read once for all volumes of the pod; `payload` makes files of it (pure); `set_up` mounts a tmpfs, for
//!    what is secret never reaches the disk; `atomic` writes the files behind `..data`. Now it is ready, of revision 1.
//! 3. The Secret changes: `changed` makes it revision 2, the plan is Refresh, `..data` is turned by one rename.
//! 4. A container mounts a subpath of it: `subpath` binds a part of it below `pods/a/volume-subpaths`, looked up by the
//!    kernel with the volume as its root, so that no link in it leads out.
//! 5. The kubelet is killed. The next one finds directories and can't see whether they are whole: uncertain. When the pod's
//!    object has come, they are set up again under the pod that runs, which changes nothing where nothing is missing.
//! 6. The pod has ended: `tear_down`. Desired is nothing: Unbind the subpaths, TearDown the volume, RemoveDir. What fails or
//!    is cut off is read from the disk again and goes with the next try.

mod atomic;
mod disk;
mod manager;
mod payload;
mod plan;
mod plugins;
mod set_up;
mod subpath;
mod tokens;
mod trust;

pub use manager::Volumes;
pub use plugins::{EMPTY_DIR, all};
pub use subpath::container_mounts;

/// The pod's own /etc/hosts, in its directory.
pub const HOSTS_FILE: &str = "etc-hosts";
/// Where the termination messages of a pod's containers lie, in its directory.
pub const TERMINATION_FILES: &str = "containers";
