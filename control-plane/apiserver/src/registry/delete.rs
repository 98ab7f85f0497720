//! DELETE of one object or of a collection: grace periods, finalizers, preconditions.

use std::sync::Arc;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use meta::{Details, FieldError, Gvk, Gvr, Status};
use object::{has_finalizers, meta_text, metadata};
use serde_json::Value;

use super::decode;
use super::objects::{Committed, store_error};
use super::options::{DeleteOptions, IGNORE_READ_ERROR, ListOptions, Propagation};
use super::retry::{Attempt, MAX_RETRIES, Tries};
use super::selection::Selection;
use super::verbs::Verbs;
use super::{Served, admit};
use crate::admission::{Asked, Extra, Operation, Request};
use crate::authz::{Attributes, Decision};
use crate::cache::Entry;
use crate::http::answer::Answer;
use crate::http::call::Call;
use crate::storage::{Txn, TxnOutcome};

/// Finalizers that ask the garbage collector to settle dependents first.
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

impl Verbs {
    /// Deletes the object that the path names.
    pub async fn delete(&self, call: &Call, served: &Arc<Served>, body: &Bytes) -> Result<Answer, Status> {
        let options = self.delete_options(call, body)?;
        let name = call.info.name.clone();
        if options.ignore_read_error {
            return self.delete_corrupt(call, served, &name).await;
        }
        self.delete_named(call, served, &name, &options).await
    }

    /// Options from the body, or from the query when there is none.
    pub fn delete_options(&self, call: &Call, body: &Bytes) -> Result<DeleteOptions, Status> {
        if body.is_empty() {
            return DeleteOptions::from_query(&call.query);
        }
        DeleteOptions::from_body(&decode::decode_options(call, body, "DeleteOptions")?, &call.query)
    }

    /// Deletes one object of the request's namespace.
    pub async fn delete_named(
        &self,
        call: &Call,
        served: &Arc<Served>,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Answer, Status> {
        let key = self.objects.key_of(call, served, name)?;
        let mut tries = Tries::begin(&self.objects, served, name, key, false).await?;
        loop {
            let entry = tries.next()?;
            let outcome = self.delete_attempt(call, served, name, options, &entry).await;
            if let Some(answer) = tries.settle(outcome).await? {
                return Ok(answer);
            }
        }
    }

    async fn delete_attempt(
        &self,
        call: &Call,
        served: &Arc<Served>,
        name: &str,
        options: &DeleteOptions,
        entry: &Arc<Entry>,
    ) -> Result<Attempt, Status> {
        let shown = served.shown_one(entry).await?;
        let old = shown.object();
        preconditions(served, name, options, &old)?;
        let asked = Asked {
            operation: Operation::Delete,
            kind: &served.kind,
            subresource: "",
            namespace: &call.info.namespace,
            name,
            options: Some(options),
        };
        let mut nothing = Value::Null;
        let mut request = Request::new(admit::by(call), asked, &mut nothing, Some(&old));
        self.admission.admit(&mut request, self).await?;
        self.admission.validate(&request, self).await?;
        let extra = request.into_extra();
        let (outcome, marked) = match plan(served, options, &old, &call.context()) {
            Plan::Pending => return Ok(Attempt::Done(Ok(Answer::entry(200, served, shown)))),
            Plan::Mark(new) if options.dry_run => return Ok(Attempt::Done(Ok(Answer::object(200, served, new)))),
            // What was allocated goes with the object, not before.
            Plan::Mark(new) => {
                (self.objects.commit(served, &entry.key, entry.revision, new, Extra::default()).await?, true)
            }
            Plan::Erase if options.dry_run => return Ok(Attempt::Done(Ok(deleted(call, served, &old, &shown)))),
            Plan::Erase => (self.objects.erase(served, entry, extra).await?, false),
        };
        match outcome {
            Committed::Stored(stored) if marked => {
                let shown = served.shown_one(&stored).await;
                Ok(Attempt::Done(shown.map(|shown| Answer::entry(200, served, shown))))
            }
            Committed::Stored(last) => {
                let last = if served.shows(&last) { last } else { Arc::new(shown.at_revision(last.revision)) };
                Ok(Attempt::Done(Ok(deleted(call, served, &old, &last))))
            }
            Committed::Conflict(now) => Ok(Attempt::Lost(now)),
            Committed::Taken => self.taken(served, entry).await,
        }
    }

    /// Removes a stored object that can't be read: no preconditions, finalizers or admission, for all of these are about
    /// what it says. Asks for a right of its own beside `delete`.
    async fn delete_corrupt(&self, call: &Call, served: &Arc<Served>, name: &str) -> Result<Answer, Status> {
        const VERB: &str = "unsafe-delete-ignore-read-errors";
        let attributes = Attributes { verb: VERB, ..Attributes::of(&call.info, &call.user) };
        if let Decision::Deny(reason) | Decision::NoOpinion(reason) = self.authorizers.decide(&attributes) {
            let why = format!("not permitted to do {}, reason: {reason}", meta::text::quote(VERB));
            return Err(Status::forbidden(&served.gvr(), name, why));
        }
        let key = self.objects.key_of(call, served, name)?;
        let store = self.objects.stored(served)?;
        for _ in 0..MAX_RETRIES {
            let (_, kv) = self.objects.store.get(key.clone()).await.map_err(|e| store_error(e, served))?;
            let Some(kv) = kv else { return Err(Status::not_found(&served.gvr(), name)) };
            let revision = kv.mod_revision;
            if store.cache.entry(kv).is_ok() {
                let detail = "is exclusively used to delete corrupt object(s), try again by removing this option";
                let error = FieldError::invalid(IGNORE_READ_ERROR, true, detail);
                let gvk = Gvk { kind: served.kind.plural.clone(), ..served.kind.gvk() };
                return Err(Status::invalid(&gvk, name, &[error]));
            }
            let outcome = self.objects.store.txn(Txn::delete(key.clone(), revision)).await;
            if let TxnOutcome::Committed { revision } = outcome.map_err(|e| store_error(e, served))? {
                self.objects.has_committed(revision);
                tracing::warn!(key = %String::from_utf8_lossy(&key), user = call.user.name, "removed a stored object that could not be read");
                let details = Details { kind: served.kind.kind.to_string(), ..Details::default() };
                return Ok(Answer::status(Status::success(details)));
            }
        }
        Err(Status::modified(&served.gvr(), name))
    }

    /// Deletes everything that the list options select; answers with the list of what they were.
    pub async fn delete_collection(&self, call: &Call, served: &Arc<Served>, body: &Bytes) -> Result<Answer, Status> {
        let options = self.delete_options(call, body)?;
        if options.ignore_read_error {
            let detail = "is not allowed with DELETECOLLECTION, try again after removing the option";
            let error = FieldError::invalid(IGNORE_READ_ERROR, true, detail);
            return Err(Status::invalid(&Gvk::new("meta.k8s.io", "v1", "DeleteOptions"), "", &[error]));
        }
        let list = ListOptions::parse(&call.query, false)?;
        let namespace = if served.namespaced() { call.info.namespace.as_str() } else { "" };
        let selection = Selection::new(served, namespace, &list.labels, &list.fields)?;
        let store = self.objects.stored(served)?;
        let revision = self.objects.catch_up(served).await?;
        let snapshot = store.cache.snapshot();
        let prefix = selection.prefix(&store.cache);
        let entries: Vec<Arc<Entry>> =
            snapshot.range(&prefix, &Bytes::new()).filter(|e| selection.matches(e)).cloned().collect();
        // Before the first goes: what can't be answered with is not deleted.
        let shown = served.shown(entries).await?;
        for entry in &shown {
            match self.delete_named(call, served, entry.name(), &options).await {
                Ok(_) => {}
                Err(error) if error.reason == meta::Reason::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Answer::list(served, shown, revision.max(snapshot.revision)))
    }
}

fn preconditions(served: &Served, name: &str, options: &DeleteOptions, old: &Value) -> Result<(), Status> {
    const DELETED: &str = "The object might have been deleted and then recreated";
    const MODIFIED: &str = "The object might have been modified";
    let checks = [
        ("UID", &options.uid, "uid", DELETED),
        ("ResourceVersion", &options.resource_version, "resourceVersion", MODIFIED),
    ];
    // Upstream names the kind here, not the resource.
    let gvr = Gvr { resource: served.kind.kind.clone(), ..served.gvr() };
    for (what, wanted, field, guess) in checks {
        let Some(wanted) = wanted else { continue };
        let have = meta_text(old, field);
        if wanted != have {
            let why = format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({have}). {guess}"
            );
            return Err(Status::conflict(&gvr, name, why));
        }
    }
    Ok(())
}

/// What a delete does to an object in a given state.
enum Plan {
    /// It is being deleted already and this request changes nothing.
    Pending,
    /// It stays for now, marked as being deleted.
    Mark(Value),
    /// It goes.
    Erase,
}

fn plan(served: &Served, options: &DeleteOptions, old: &Value, context: &kinds::Context) -> Plan {
    let now = context.now;
    let mut new = old.clone();
    if !old["metadata"]["deletionTimestamp"].is_string() {
        (served.kind.hooks.prepare_delete)(&mut new, context);
    }
    let finalizers_changed = settle_finalizers(served, options, &mut new);
    let held = has_finalizers(&new) || served.has_spec_finalizers(&new);
    let deleting = old["metadata"]["deletionTimestamp"].is_string();
    let grace = match graceful(served, options, old, &mut new, now) {
        Grace::Pending if !finalizers_changed => return Plan::Pending,
        Grace::Pending => return Plan::Mark(new),
        Grace::Wait => true,
        Grace::None => false,
    };
    if grace {
        return Plan::Mark(new);
    }
    if !held {
        return Plan::Erase;
    }
    if !deleting || old["metadata"]["deletionGracePeriodSeconds"].as_i64() != Some(0) {
        let generation = old["metadata"]["generation"].as_i64().filter(|g| *g > 0 && !deleting);
        let spec_held = served.has_spec_finalizers(&new);
        let meta = metadata(&mut new);
        if !deleting {
            meta.insert("deletionTimestamp".to_owned(), meta::time::format(now).into());
        }
        meta.insert("deletionGracePeriodSeconds".to_owned(), 0.into());
        if let Some(generation) = generation {
            meta.insert("generation".to_owned(), (generation + 1).into());
        }
        if spec_held {
            meta.remove("deletionGracePeriodSeconds");
        }
        return Plan::Mark(new);
    }
    if finalizers_changed { Plan::Mark(new) } else { Plan::Pending }
}

enum Grace {
    /// A graceful deletion is under way and stays as it is.
    Pending,
    /// Somebody (the kubelet) gets time to wind the object down.
    Wait,
    None,
}

fn graceful(served: &Served, options: &DeleteOptions, old: &Value, new: &mut Value, now: Timestamp) -> Grace {
    if !served.kind.graceful_deletion {
        return Grace::None;
    }
    let asked = options.grace_period.map(|period| if period < 0 { 1 } else { period });
    if let Some(since) = old["metadata"]["deletionTimestamp"].as_str() {
        let Some(before) = old["metadata"]["deletionGracePeriodSeconds"].as_i64() else { return Grace::None };
        return match asked {
            Some(0) => Grace::None,
            Some(period) if period < before => {
                let at = meta::time::parse(since).unwrap_or(now) + SignedDuration::from_secs(period - before);
                let meta = metadata(new);
                meta.insert("deletionTimestamp".to_owned(), meta::time::format(at).into());
                meta.insert("deletionGracePeriodSeconds".to_owned(), period.into());
                Grace::Wait
            }
            _ if before == 0 => Grace::None,
            _ => Grace::Pending,
        };
    }
    let unplaced = old["spec"]["nodeName"].as_str().unwrap_or_default().is_empty();
    let finished = matches!(old["status"]["phase"].as_str(), Some("Failed" | "Succeeded"));
    let default = old["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(0);
    let period = if unplaced || finished { 0 } else { asked.unwrap_or(default).max(0) };
    if period == 0 {
        return Grace::None;
    }
    let generation = old["metadata"]["generation"].as_i64().filter(|g| *g > 0);
    let meta = metadata(new);
    let at = now + SignedDuration::from_secs(period);
    meta.insert("deletionTimestamp".to_owned(), meta::time::format(at).into());
    meta.insert("deletionGracePeriodSeconds".to_owned(), period.into());
    if let Some(generation) = generation {
        meta.insert("generation".to_owned(), (generation + 1).into());
    }
    Grace::Wait
}

/// Sets the garbage collector's finalizers as the propagation policy asks; whether that changed anything.
fn settle_finalizers(served: &Served, options: &DeleteOptions, new: &mut Value) -> bool {
    let list = |object: &Value| -> Vec<String> {
        let all = object["metadata"]["finalizers"].as_array().into_iter().flatten();
        all.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let before = list(new);
    let has = |name: &str| before.iter().any(|f| f == name);
    let policy = match (options.orphan_dependents, options.propagation) {
        (Some(true), _) => Propagation::Orphan,
        (Some(false), _) => Propagation::Background,
        (None, Some(policy)) => policy,
        (None, None) if has(ORPHAN) => Propagation::Orphan,
        (None, None) if has(FOREGROUND) => Propagation::Foreground,
        (None, None) if served.orphans_by_default() => Propagation::Orphan,
        (None, None) => Propagation::Background,
    };
    let mut after: Vec<String> = before.iter().filter(|f| *f != ORPHAN && *f != FOREGROUND).cloned().collect();
    match policy {
        Propagation::Orphan => after.push(ORPHAN.to_owned()),
        Propagation::Foreground => after.push(FOREGROUND.to_owned()),
        Propagation::Background => {}
    }
    let mut sorted = (before, after.clone());
    sorted.0.sort();
    sorted.1.sort();
    if sorted.0 == sorted.1 {
        return false;
    }
    if after.is_empty() {
        metadata(new).remove("finalizers");
    } else {
        metadata(new).insert("finalizers".to_owned(), after.into());
    }
    true
}

/// The answer when an object is gone; `last` is how it was.
fn deleted(call: &Call, served: &Arc<Served>, old: &Value, last: &Arc<Entry>) -> Answer {
    if served.kind.graceful_deletion && !old["metadata"]["deletionTimestamp"].is_string() {
        // It was given no time, and the answer says so.
        let mut shown = last.object();
        let generation = old["metadata"]["generation"].as_i64().filter(|generation| *generation > 0);
        let meta = metadata(&mut shown);
        meta.insert("deletionTimestamp".to_owned(), meta::time::format(call.now).into());
        meta.insert("deletionGracePeriodSeconds".to_owned(), 0.into());
        if let Some(generation) = generation {
            meta.insert("generation".to_owned(), (generation + 1).into());
        }
        return Answer::object(200, served, shown);
    }
    if served.answers_deleted_object() {
        return Answer::entry(200, served, last.clone());
    }
    Answer::status(Status::success(Details {
        name: last.name().to_owned(),
        group: served.kind.group.to_string(),
        kind: served.kind.plural.to_string(),
        uid: meta_text(old, "uid").to_owned(),
        ..Details::default()
    }))
}
