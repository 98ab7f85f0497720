//! What the runtime has of a pod, as it is seen: one look beside another, in whatever order they come. Pure; `pleg` looks,
//! the loop keeps what is seen of pods whose objects are still to come.

use std::collections::HashMap;

use super::event::SandboxRecord;
use super::slot::Instance;

/// A pod in the runtime: its newest sandbox and all its containers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observation {
    pub sandbox: Option<SandboxRecord>,
    pub containers: Vec<Instance>,
}

impl Observation {
    /// Takes in what was seen beside this, before or after it: nothing goes back to an earlier state.
    pub fn merge(&mut self, seen: Observation) {
        if let Some(new) = seen.sandbox {
            let age = |s: &SandboxRecord| (s.attempt, s.created_at);
            match &mut self.sandbox {
                Some(known) if known.id == new.id => known.ready &= new.ready,
                Some(known) if age(known) > age(&new) => {}
                known => *known = Some(new),
            }
        }
        for new in seen.containers {
            match self.containers.iter_mut().find(|known| known.id == new.id) {
                Some(known) if new.state > known.state => *known = new,
                Some(_) => {}
                None => self.containers.push(new),
            }
        }
        self.containers.sort_by_key(|c| (c.created_at, c.restarts));
    }
}

/// What happened in the runtime: upstream's pod lifecycle events, with what there is of the pod now.
#[derive(Debug, Clone, PartialEq)]
pub enum LifecycleEvent {
    Seen {
        uid: String,
        observation: Observation,
    },
    Vanished {
        uid: String,
        id: String,
    },
    /// The runtime does not answer.
    Lost,
}

impl LifecycleEvent {
    pub fn uid(&self) -> Option<&str> {
        match self {
            LifecycleEvent::Seen { uid, .. } | LifecycleEvent::Vanished { uid, .. } => Some(uid),
            LifecycleEvent::Lost => None,
        }
    }
}

/// What is heard of pods that the loop doesn't know yet: their objects may come from the API long after the runtime was
/// asked what it has of them.
pub fn keep(early: &mut HashMap<String, Observation>, message: LifecycleEvent) {
    match message {
        LifecycleEvent::Seen { uid, observation } => early.entry(uid).or_default().merge(observation),
        LifecycleEvent::Vanished { uid, id } => {
            if let Some(known) = early.get_mut(&uid) {
                known.containers.retain(|c| c.id != id);
            }
        }
        LifecycleEvent::Lost => {}
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use wire::cri;

    use super::*;
    use crate::io::cri as runtime;
    use crate::worker::RunState;

    fn instance(id: &str, restarts: u32, state: RunState) -> Instance {
        let status = cri::ContainerStatus { id: id.into(), created_at: 1 + i64::from(restarts), ..Default::default() };
        Instance { restarts, state, ..runtime::instance(status) }
    }

    fn seen(containers: Vec<Instance>, ready: bool) -> LifecycleEvent {
        let sandbox =
            SandboxRecord { id: "s0".into(), attempt: 0, ready, ips: vec![], created_at: Timestamp::UNIX_EPOCH };
        LifecycleEvent::Seen { uid: "u".into(), observation: Observation { sandbox: Some(sandbox), containers } }
    }

    #[test]
    fn what_ended_before_its_pod_came_from_the_api_has_ended() {
        let mut early = HashMap::new();
        let old = || seen(vec![instance("a", 0, RunState::Running)], true);
        keep(&mut early, old());
        keep(&mut early, seen(vec![instance("a", 0, RunState::Exited), instance("b", 1, RunState::Running)], false));
        keep(&mut early, old());
        let found = &early["u"];
        let states: Vec<_> = found.containers.iter().map(|c| (c.id.as_str(), c.state)).collect();
        assert_eq!(states, [("a", RunState::Exited), ("b", RunState::Running)]);
        assert!(!found.sandbox.as_ref().unwrap().ready, "a sandbox that died does not come back");
        keep(&mut early, LifecycleEvent::Vanished { uid: "u".into(), id: "a".into() });
        assert_eq!(early["u"].containers.len(), 1);
    }
}
