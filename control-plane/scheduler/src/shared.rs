//! The map that snapshots are made of: its clone is the same map until one of the two changes, and then they share what
//! did not. Pure; used by the snapshot and the groups in it.

use imbl::GenericHashMap;
use imbl::shared_ptr::DefaultSharedPtr;
use rustc_hash::FxBuildHasher;

pub type Shared<K, V> = GenericHashMap<K, V, FxBuildHasher, DefaultSharedPtr>;
