//! What the runtime has and what changes in it: its event stream, or a list every second where a runtime has no stream.
//! Does I/O.

use std::collections::HashMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use wire::cri;

use crate::io::cri::{self as runtime, Cri, shown};
use crate::messages::{Mailbox, Message};
use crate::names::uid_of;
use crate::worker::Instance;
use crate::worker::observation::{LifecycleEvent, Observation};

/// Upstream's relist period.
const RELIST: Duration = Duration::from_secs(1);
/// How soon a broken stream is opened again.
const RECONNECT: Duration = Duration::from_millis(200);

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
pub async fn run(cri: Cri, to: Mailbox, shutdown: CancellationToken) {
    let work = async {
        loop {
            match follow(&cri, &to).await {
                Err(status) if status.code() == Code::Unimplemented => return relist(&cri, &to).await,
                Err(status) => tracing::debug!(error = shown(&status), "runtime events broke off"),
                Ok(()) => {}
            }
            to.send(Message::Runtime(LifecycleEvent::Lost));
            tokio::time::sleep(RECONNECT).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = work => {}
    }
}

/// One life of the stream. What happened while there was none is found by a list.
async fn follow(cri: &Cri, to: &Mailbox) -> Result<(), Status> {
    let mut stream = cri.runtime().get_container_events(cri::GetEventsRequest::default()).await?.into_inner();
    for (uid, observation) in list(cri).await? {
        to.send(Message::Runtime(LifecycleEvent::Seen { uid, observation }));
    }
    while let Some(event) = stream.message().await? {
        for event in lifecycle(event) {
            if !to.send(Message::Runtime(event)) {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn lifecycle(event: cri::ContainerEventResponse) -> Vec<LifecycleEvent> {
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
        out.push(LifecycleEvent::Vanished { uid: uid.clone(), id: event.container_id });
    }
    out.push(LifecycleEvent::Seen { uid, observation });
    out
}

/// For a runtime without events: what differs from the last list is told.
async fn relist(cri: &Cri, to: &Mailbox) {
    let mut known: HashMap<String, Observation> = HashMap::new();
    loop {
        match list(cri).await {
            Ok(found) => {
                for (uid, observation) in &found {
                    let old = known.get(uid);
                    let ids: Vec<&str> = observation.containers.iter().map(|c| c.id.as_str()).collect();
                    for gone in old.iter().flat_map(|o| &o.containers).filter(|c| !ids.contains(&c.id.as_str())) {
                        let event = LifecycleEvent::Vanished { uid: uid.clone(), id: gone.id.clone() };
                        to.send(Message::Runtime(event));
                    }
                    if old != Some(observation) {
                        let event = LifecycleEvent::Seen { uid: uid.clone(), observation: observation.clone() };
                        to.send(Message::Runtime(event));
                    }
                }
                known = found;
            }
            Err(_) => drop(to.send(Message::Runtime(LifecycleEvent::Lost))),
        }
        tokio::time::sleep(RELIST).await;
    }
}
