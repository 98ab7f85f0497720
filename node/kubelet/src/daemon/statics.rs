//! Pods that files name, and their mirrors in the API: what the loop does when either changes. Pure, but for what the
//! executor does.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::sync_loop::Loop;
use crate::names::annotation;
use crate::pod::pods;
use crate::worker::Event;

impl Loop {
    pub(super) fn take_static(&mut self, found: Vec<Pod>) {
        let found: BTreeMap<String, Arc<Pod>> =
            found.into_iter().map(|p| (pods::uid(&p).to_owned(), Arc::new(p))).collect();
        let gone: Vec<String> = self.statics.keys().filter(|u| !found.contains_key(*u)).cloned().collect();
        for uid in gone {
            if let Some(pod) = self.statics.remove(&uid) {
                self.executor.delete_mirror(&pod);
            }
            self.feed(&uid, Event::Gone);
        }
        for (uid, pod) in found {
            if self.statics.insert(uid.clone(), pod.clone()).is_none() {
                self.begin(pod.clone());
                self.executor.create_mirror(&pod);
            }
        }
        if self.synced {
            self.remove_orphans();
        }
    }

    /// The API shows a static pod: its status is written there.
    pub(super) fn mirror(&mut self, mirror: Arc<Pod>) {
        let hash = pods::annotation(&mirror, annotation::CONFIG_MIRROR).unwrap_or("").to_owned();
        if !self.statics.contains_key(&hash) {
            // Of a file that is gone or was changed.
            return self.executor.delete_mirror(&mirror);
        }
        if mirror.metadata.deletion_timestamp.is_some() {
            return self.executor.delete_mirror(&mirror);
        }
        self.executor.found.mirrors.lock().insert(hash.clone(), pods::uid(&mirror).to_owned());
        let Some(own) = self.statics.get(&hash) else { return };
        let mut pod = Pod::clone(own);
        pod.status = mirror.status.clone();
        pod.metadata.resource_version = mirror.metadata.resource_version.clone();
        self.feed(&hash, Event::Spec(Arc::new(pod)));
    }

    pub(super) fn mirror_gone(&mut self, mirror: &Arc<Pod>) {
        let hash = pods::annotation(mirror, annotation::CONFIG_MIRROR).unwrap_or("").to_owned();
        if let Some(pod) = self.statics.get(&hash).cloned() {
            self.executor.found.mirrors.lock().remove(&hash);
            self.executor.create_mirror(&pod);
        }
    }
}
