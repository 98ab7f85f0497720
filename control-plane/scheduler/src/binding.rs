//! From "chosen" to "bound": what is done for a pod after the decision, and what is undone when one of it fails. Pure:
//! plans go out to the daemon, how they went comes in.
//!
//! ```text
//!   decision ──► assumed ──reserve──► reserved ──pre_bind──► writing ──done──► binding ──done──► bound
//!                            │           └──── nothing to write ──────────────────▲ │
//!                          refused                              │                   │
//!                            │                                failed              failed
//!                            └──────────────┬───────────────────┴───────────────────┘
//!                          unreserve by all plugins, last one first; the pod leaves the node again
//! ```
//!
//! While a pod is anywhere between, it stands on its node in the snapshot and other decisions count with it. Plans run
//! beside the loop, one at a time for each pod; plugins write in the order of the table. Informers may be faster than
//! the answer: a pod that they show bound or gone is forgotten here, and the answer that comes later means nothing.

use std::sync::Arc;

use client::Plan;
use rustc_hash::FxHashMap;

use crate::framework::{Profile, Reservation};
use crate::plan;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// A pod that is on its way to its node.
struct Chosen {
    pod: Arc<PodInfo>,
    node: String,
    /// What plugins have yet to write, the next one last. With none left the binding itself is under way.
    writes: Vec<Plan>,
    binding: bool,
}

/// A plugin can't give the pod what it needs on this node after all.
#[derive(Debug, PartialEq)]
pub struct Refused {
    pub plugin: &'static str,
    pub why: String,
}

/// What follows from how a plan went.
#[derive(Debug)]
pub enum Next {
    Run(Plan),
    /// All was undone: the pod may try again.
    GaveBack,
    /// It is bound, or was forgotten meanwhile.
    Nothing,
}

/// All pods between the decision and the binding.
pub struct Bindings {
    profile: Profile,
    chosen: FxHashMap<String, Chosen>,
}

impl Bindings {
    pub fn new(profile: Profile) -> Bindings {
        Bindings { profile, chosen: FxHashMap::default() }
    }

    fn reservations(&self) -> impl DoubleEndedIterator<Item = (&'static str, &'static Reservation)> {
        self.profile.iter().filter_map(|plugin| Some((plugin.name, plugin.reservation.as_ref()?)))
    }

    /// Puts the pod on the node that was chosen for it and gives the first plan to carry out. When a plugin refuses, all
    /// is as it was.
    pub fn begin(&mut self, snapshot: &mut Snapshot, pod: &Arc<PodInfo>, node: &str) -> Result<Plan, Refused> {
        snapshot.place(pod.clone(), node);
        for (plugin, reservation) in self.reservations() {
            if let Err(why) = (reservation.reserve)(snapshot, pod, node) {
                self.unreserve(snapshot, pod, node);
                snapshot.displace(&pod.uid);
                return Err(Refused { plugin, why });
            }
        }
        let writes = self.reservations().map(|(_, reservation)| (reservation.pre_bind)(snapshot, pod, node));
        let mut writes: Vec<Plan> = writes.filter(|plan| !plan.is_empty()).collect();
        writes.reverse();
        let mut chosen = Chosen { pod: pod.clone(), node: node.to_owned(), writes, binding: false };
        let first = chosen.next();
        self.chosen.insert(pod.uid.clone(), chosen);
        Ok(first)
    }

    /// A plan of this pod was carried out, or not.
    pub fn carried_out(&mut self, snapshot: &mut Snapshot, uid: &str, well: bool) -> Next {
        let Some(chosen) = self.chosen.get_mut(uid) else { return Next::Nothing };
        if well && !chosen.binding {
            return Next::Run(chosen.next());
        }
        let Some(chosen) = self.chosen.remove(uid) else { return Next::Nothing };
        if well {
            return Next::Nothing;
        }
        self.unreserve(snapshot, &chosen.pod, &chosen.node);
        snapshot.displace(uid);
        Next::GaveBack
    }

    /// Informers show the pod bound: what was reserved is used, unless somebody bound it elsewhere.
    pub fn bound(&mut self, snapshot: &mut Snapshot, uid: &str, node: &str) {
        if let Some(chosen) = self.chosen.remove(uid).filter(|chosen| chosen.node != node) {
            self.unreserve(snapshot, &chosen.pod, &chosen.node);
        }
    }

    /// Informers show the pod gone.
    pub fn gone(&mut self, snapshot: &mut Snapshot, uid: &str) {
        if let Some(chosen) = self.chosen.remove(uid) {
            self.unreserve(snapshot, &chosen.pod, &chosen.node);
        }
    }

    fn unreserve(&self, snapshot: &mut Snapshot, pod: &PodInfo, node: &str) {
        for (_, reservation) in self.reservations().rev() {
            (reservation.unreserve)(snapshot, pod, node);
        }
    }
}

impl Chosen {
    fn next(&mut self) -> Plan {
        self.writes.pop().unwrap_or_else(|| {
            self.binding = true;
            plan::bind(&self.pod, &self.node)
        })
    }
}
