//! Eviction: deletes a pod if the disruption budgets that cover it allow that.

use std::sync::Arc;

use bytes::Bytes;
use kinds::Subresource;
use meta::{Gvk, Selector, Status};
use object::meta_text;
use serde_json::{Value, json};

use super::binding::set_condition;
use crate::admission::Operation;
use crate::cache::Entry;
use crate::http::answer::Answer;
use crate::http::call::Call;
use crate::registry::Served;
use crate::registry::decode;
use crate::registry::objects::Committed;
use crate::registry::options::{DeleteOptions, FieldValidation, WriteOptions};
use crate::registry::retry::MAX_RETRIES;
use crate::registry::update::{Change, Origin, Part};
use crate::registry::verbs::Verbs;

/// Evictions that a budget's controller has not seen yet; more than this and the controller is not keeping up.
const MAX_DISRUPTED: usize = 2000;
/// Seconds after which a refused client is told to come back.
const RETRY_AFTER: u32 = 10;

impl Verbs {
    /// Evicts the object that the path names.
    pub async fn evict(
        &self,
        call: &Call,
        served: &Arc<Served>,
        sub: &Subresource,
        body: &Bytes,
    ) -> Result<Answer, Status> {
        let options = WriteOptions::parse(&call.query, "CreateOptions")?;
        let mut eviction = self.decode_eviction(call, sub, body)?;
        let given = meta_text(&eviction, "name");
        if given != call.info.name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let mut delete = DeleteOptions::from_body(&eviction["deleteOptions"], &call.query)?;
        delete.dry_run |= options.dry_run;
        let posted = WriteOptions { dry_run: delete.dry_run, ..options.clone() };
        let what = (Operation::Create, sub.name.as_ref());
        self.admit_posted(call, served, what, &call.info.name, &mut eviction, Some(&posted)).await?;
        let key = self.objects.key_of(call, served, &call.info.name)?;
        for _ in 0..MAX_RETRIES {
            let Some(entry) = self.objects.live(served, &key).await? else {
                return Err(Status::not_found(&served.gvr(), &call.info.name));
            };
            let object = served.object(&entry).await?;
            let free = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"))
                || object["metadata"]["deletionTimestamp"].is_string();
            if !free && !self.spend_budget(call, &entry, &object, delete.dry_run).await? {
                continue;
            }
            self.mark_disruption(call, served, &options).await?;
            self.delete_named(call, served, &call.info.name, &delete).await?;
            return Ok(Answer::status(Status { success: true, code: 201, ..Status::default() }));
        }
        Err(Status::server_timeout(&served.gvr(), "evict", 1))
    }

    fn decode_eviction(&self, call: &Call, sub: &Subresource, body: &Bytes) -> Result<Value, Status> {
        let first = decode::decode_as(call, &sub.kind, body, FieldValidation::Ignore);
        // Older clients send the same object under another version.
        first.or_else(|error| {
            let mut others = sub.accepts.iter().filter(|kind| **kind != sub.kind);
            others.find_map(|kind: &Gvk| decode::decode_as(call, kind, body, FieldValidation::Ignore).ok()).ok_or(error)
        })
    }

    /// Takes one disruption from the budget that covers the pod; false when the budget changed meanwhile.
    async fn spend_budget(&self, call: &Call, pod: &Entry, object: &Value, dry_run: bool) -> Result<bool, Status> {
        let budgets: Vec<Arc<Entry>> = self
            .objects
            .entries("policy", "poddisruptionbudgets", pod.namespace())
            .into_iter()
            .filter(|budget| {
                let selector = Selector::from_object(budget.object()["spec"].get("selector"));
                selector.is_ok_and(|selector| !selector.is_nothing() && selector.matches(pod))
            })
            .collect();
        let budget = match budgets.as_slice() {
            [] => return Ok(true),
            [one] => one,
            _ => {
                let why =
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                return Err(Status::failure(500, meta::Reason::InternalError, why));
            }
        };
        let mut new = budget.object();
        let ready = object["status"]["conditions"].as_array().into_iter().flatten();
        let ready = ready.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
        if !ready && unhealthy_may_go(&new) {
            return Ok(true);
        }
        check_budget(&new)?;
        if dry_run {
            return Ok(true);
        }
        let allowed = new["status"]["disruptionsAllowed"].as_i64().unwrap_or(0) - 1;
        new["status"]["disruptionsAllowed"] = allowed.into();
        if !new["status"]["disruptedPods"].is_object() {
            new["status"]["disruptedPods"] = json!({});
        }
        new["status"]["disruptedPods"][pod.name()] = meta::time::format(call.now).into();
        let registry = self.objects.registry.load_full();
        let Some(served) = registry.any("policy", "poddisruptionbudgets") else { return Ok(true) };
        let committed = self.objects.commit(served, &budget.key, budget.revision, new, Default::default()).await?;
        match committed {
            Committed::Stored(entry) => {
                let _ = self.objects.hub.wait_for(entry.revision).await;
                Ok(true)
            }
            Committed::Conflict(Some(now)) => {
                let _ = self.objects.hub.wait_for(now.revision).await;
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    async fn mark_disruption(&self, call: &Call, served: &Arc<Served>, options: &WriteOptions) -> Result<(), Status> {
        if options.dry_run {
            return Ok(());
        }
        let change = Change {
            part: Part::Own,
            subresource: "eviction",
            name: &call.info.name,
            options,
            retry: true,
            origin: Origin::Whole,
        };
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastProbeTime": null,
            "lastTransitionTime": meta::time::format(call.now),
        });
        let make = |old: &Value| {
            let mut new = old.clone();
            set_condition(&mut new, condition.clone());
            Ok(new)
        };
        self.change(call, served, &change, make).await.map(drop)
    }
}

fn unhealthy_may_go(budget: &Value) -> bool {
    let status = &budget["status"];
    if budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" {
        return true;
    }
    let (healthy, desired) =
        (status["currentHealthy"].as_i64().unwrap_or(0), status["desiredHealthy"].as_i64().unwrap_or(0));
    healthy >= desired && desired > 0
}

fn check_budget(budget: &Value) -> Result<(), Status> {
    let name = meta_text(budget, "name");
    let status = &budget["status"];
    let refuse = |retry: u32, message: String| {
        let text = "Cannot evict pod as it would violate the pod's disruption budget.";
        Err(Status::too_many_requests(text, retry).with_cause("DisruptionBudget", message, ""))
    };
    if status["observedGeneration"].as_i64().unwrap_or(0) < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
        return refuse(RETRY_AFTER, format!("The disruption budget {name} is still being processed by the server."));
    }
    let allowed = status["disruptionsAllowed"].as_i64().unwrap_or(0);
    if allowed < 0 {
        let gvr = meta::Gvr::new("policy", "v1", "poddisruptionbudgets");
        return Err(Status::forbidden(&gvr, name, "pdb disruptions allowed is negative"));
    }
    if status["disruptedPods"].as_object().is_some_and(|pods| pods.len() > MAX_DISRUPTED) {
        let gvr = meta::Gvr::new("policy", "v1", "poddisruptionbudgets");
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden(&gvr, name, why));
    }
    if allowed == 0 {
        let desired = status["desiredHealthy"].as_i64().unwrap_or(0);
        let current = status["currentHealthy"].as_i64().unwrap_or(0);
        return refuse(
            0,
            format!("The disruption budget {name} needs {desired} healthy pods and has {current} currently"),
        );
    }
    Ok(())
}
