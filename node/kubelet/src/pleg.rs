//! What the runtime has and what changes in it: its event stream, or a list every second where a runtime has no stream.
//! Does I/O.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use wire::cri;

use crate::cri::{self as runtime, Cri, shown};
use crate::daemon::{Msg, uid_of};
use crate::worker::{Instance, SandboxRecord};

/// Upstream's relist period.
const RELIST: Duration = Duration::from_secs(1);
/// How soon a broken stream is opened again.
const RECONNECT: Duration = Duration::from_millis(200);

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

/// What the loop hears.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
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

impl Message {
    pub fn uid(&self) -> Option<&str> {
        match self {
            Message::Seen { uid, .. } | Message::Vanished { uid, .. } => Some(uid),
            Message::Lost => None,
        }
    }
}

/// What is heard of pods that the loop doesn't know yet: their objects may come from the API long after the runtime was
/// asked what it has of them.
pub fn keep(early: &mut HashMap<String, Observation>, message: Message) {
    match message {
        Message::Seen { uid, observation } => early.entry(uid).or_default().merge(observation),
        Message::Vanished { uid, id } => {
            if let Some(known) = early.get_mut(&uid) {
                known.containers.retain(|c| c.id != id);
            }
        }
        Message::Lost => {}
    }
}

/// Everything the runtime has, by pod UID.
pub async fn list(cri: &Cri) -> Result<HashMap<String, Observation>, Status> {
    let mut out: HashMap<String, Observation> = HashMap::new();
    for sandbox in cri.sandboxes(None).await? {
        let Some(uid) = uid_of(&sandbox.labels).map(str::to_owned) else { continue };
        let status = match cri.sandbox_status(&sandbox.id).await {
            Ok(status) => status,
            Err(e) if runtime::is_not_found(&e) => continue,
            Err(e) => return Err(e),
        };
        let record = runtime::sandbox(&status);
        let entry = out.entry(uid).or_default();
        if entry.sandbox.as_ref().is_none_or(|s| (s.attempt, s.created_at) < (record.attempt, record.created_at)) {
            entry.sandbox = Some(record);
        }
    }
    for container in cri.containers(None).await? {
        let Some(uid) = uid_of(&container.labels).map(str::to_owned) else { continue };
        let status = match cri.container_status(&container.id).await {
            Ok(status) => status,
            Err(e) if runtime::is_not_found(&e) => continue,
            Err(e) => return Err(e),
        };
        let instance = Instance { sandbox: container.pod_sandbox_id, ..runtime::instance(status) };
        out.entry(uid).or_default().containers.push(instance);
    }
    for found in out.values_mut() {
        found.containers.sort_by_key(|c| (c.created_at, c.restarts));
    }
    Ok(out)
}

/// Tells the loop what happens in the runtime until shutdown.
pub async fn run(cri: Cri, to: UnboundedSender<Msg>, shutdown: CancellationToken) {
    let work = async {
        loop {
            match follow(&cri, &to).await {
                Err(status) if status.code() == Code::Unimplemented => return relist(&cri, &to).await,
                Err(status) => tracing::debug!(error = shown(&status), "runtime events broke off"),
                Ok(()) => {}
            }
            let _ = to.send(Msg::Runtime(Message::Lost));
            tokio::time::sleep(RECONNECT).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = work => {}
    }
}

/// One life of the stream. What happened while there was none is found by a list.
async fn follow(cri: &Cri, to: &UnboundedSender<Msg>) -> Result<(), Status> {
    let mut stream = cri.runtime().get_container_events(cri::GetEventsRequest::default()).await?.into_inner();
    for (uid, observation) in list(cri).await? {
        let _ = to.send(Msg::Runtime(Message::Seen { uid, observation }));
    }
    while let Some(event) = stream.message().await? {
        for message in messages(event) {
            if to.send(Msg::Runtime(message)).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn messages(event: cri::ContainerEventResponse) -> Vec<Message> {
    let sandbox = event.pod_sandbox_status.as_ref();
    let labels = sandbox.map(|s| &s.labels).or(event.containers_statuses.first().map(|c| &c.labels));
    let by_metadata = sandbox.and_then(|s| s.metadata.as_ref()).map(|m| m.uid.clone()).filter(|u| !u.is_empty());
    let Some(uid) = labels.and_then(uid_of).map(str::to_owned).or(by_metadata) else { return Vec::new() };
    let sandbox_id = sandbox.map(|s| s.id.clone()).unwrap_or_default();
    let deleted = event.container_event_type == cri::ContainerEventType::ContainerDeletedEvent as i32;
    let statuses = event.containers_statuses.into_iter();
    let observation = Observation {
        sandbox: sandbox.map(runtime::sandbox),
        containers: statuses.map(|s| Instance { sandbox: sandbox_id.clone(), ..runtime::instance(s) }).collect(),
    };
    let mut out = Vec::new();
    if deleted && event.container_id != sandbox_id {
        out.push(Message::Vanished { uid: uid.clone(), id: event.container_id });
    }
    out.push(Message::Seen { uid, observation });
    out
}

/// For a runtime without events: what differs from the last list is told.
async fn relist(cri: &Cri, to: &UnboundedSender<Msg>) {
    let mut known: HashMap<String, Observation> = HashMap::new();
    loop {
        match list(cri).await {
            Ok(found) => {
                for (uid, observation) in &found {
                    let old = known.get(uid);
                    let ids: Vec<&str> = observation.containers.iter().map(|c| c.id.as_str()).collect();
                    for gone in old.iter().flat_map(|o| &o.containers).filter(|c| !ids.contains(&c.id.as_str())) {
                        let message = Message::Vanished { uid: uid.clone(), id: gone.id.clone() };
                        let _ = to.send(Msg::Runtime(message));
                    }
                    if old != Some(observation) {
                        let message = Message::Seen { uid: uid.clone(), observation: observation.clone() };
                        let _ = to.send(Msg::Runtime(message));
                    }
                }
                known = found;
            }
            Err(_) => drop(to.send(Msg::Runtime(Message::Lost))),
        }
        tokio::time::sleep(RELIST).await;
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::worker::RunState;

    fn instance(id: &str, restarts: u32, state: RunState) -> Instance {
        let status = cri::ContainerStatus { id: id.into(), created_at: 1 + i64::from(restarts), ..Default::default() };
        Instance { restarts, state, ..runtime::instance(status) }
    }

    fn seen(containers: Vec<Instance>, ready: bool) -> Message {
        let sandbox =
            SandboxRecord { id: "s0".into(), attempt: 0, ready, ips: vec![], created_at: Timestamp::UNIX_EPOCH };
        Message::Seen { uid: "u".into(), observation: Observation { sandbox: Some(sandbox), containers } }
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
        keep(&mut early, Message::Vanished { uid: "u".into(), id: "a".into() });
        assert_eq!(early["u"].containers.len(), 1);
    }
}
