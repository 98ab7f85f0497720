//! PUT, and the core that every change of an existing object goes through: read, change, check, write if unchanged.

use std::sync::Arc;

use bytes::Bytes;
use kinds::Subresource;
use meta::{FieldError, Status};
use object::{has_finalizers, meta_text, metadata};
use serde_json::Value;

use super::decode;
use super::object_meta::{self, settle_namespace};
use super::objects::{Committed, check_depth};
use super::options::WriteOptions;
use super::retry::{Attempt, Tries};
use super::verbs::Verbs;
use super::{Served, admit, managed};
use crate::admission::{Asked, Extra, Operation, Request};
use crate::cache::Entry;
use crate::http::answer::Answer;
use crate::http::call::Call;

/// Which part of an object a change is about.
#[derive(Clone, Copy)]
pub enum Part<'a> {
    /// The main resource.
    Main,
    /// A subresource that shows the object and writes a part of it.
    Sub(&'a Subresource),
    /// A change of the server's own making, which touches nothing that it should not; whoever makes it has asked
    /// admission about the request that it comes from.
    Own,
}

/// A change of an existing object.
pub struct Change<'a> {
    pub part: Part<'a>,
    pub subresource: &'a str,
    pub name: &'a str,
    pub options: &'a WriteOptions,
    /// A client that sends no resourceVersion takes what comes; patches compute on what they read and always retry.
    pub retry: bool,
    pub origin: Origin,
}

/// Where the new state of a change comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Sent whole, or the server's own.
    Whole,
    /// Computed by a patch from what is there.
    Patched,
    /// Computed by apply, managed fields included.
    Applied,
}

impl Verbs {
    /// Replaces from a request body.
    pub async fn update(
        &self,
        call: &Call,
        served: &Arc<Served>,
        part: Part<'_>,
        body: &Bytes,
    ) -> Result<Answer, Status> {
        let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
        let mut object = decode::decode(call, served, body, options.field_validation)?;
        let name = call.info.name.as_str();
        object_meta::check_name(&object, name, false)?;
        settle_namespace(served, &call.info.namespace, &mut object)?;
        let unconditional = meta_text(&object, "resourceVersion").is_empty();
        let change = Change {
            part,
            subresource: &call.info.subresource,
            name,
            options: &options,
            retry: unconditional,
            origin: Origin::Whole,
        };
        let creates = served.kind.create_on_update && matches!(part, Part::Main);
        let outcome = self.change(call, served, &change, |_| Ok(object.clone())).await;
        match outcome {
            Err(error) if creates && error.code == 404 && error.reason == meta::Reason::NotFound => {
                metadata(&mut object).remove("resourceVersion");
                match self.create_object(call, served, name, object, &options, false).await? {
                    Some(answer) => Ok(answer),
                    None => Err(Status::server_timeout(&served.gvr(), "update", 1)),
                }
            }
            other => other,
        }
    }

    /// Applies `change` to the newest state until the write wins or the change itself fails on fresh state.
    pub async fn change(
        &self,
        call: &Call,
        served: &Arc<Served>,
        change: &Change<'_>,
        mut make: impl FnMut(&Value) -> Result<Value, Status> + Send,
    ) -> Result<Answer, Status> {
        let key = self.objects.key_of(call, served, change.name)?;
        let mut tries = Tries::begin(&self.objects, served, change.name, key, !change.retry).await?;
        loop {
            let entry = tries.next()?;
            let outcome = self.attempt(call, served, change, &entry, &mut make).await;
            if let Some(answer) = tries.settle(outcome).await? {
                return Ok(answer);
            }
        }
    }

    async fn attempt(
        &self,
        call: &Call,
        served: &Arc<Served>,
        change: &Change<'_>,
        entry: &Arc<Entry>,
        make: &mut (impl FnMut(&Value) -> Result<Value, Status> + Send),
    ) -> Result<Attempt, Status> {
        let old = served.object(entry).await?;
        let mut new = make(&old)?;
        check_identity(served, change, &old, &new)?;
        self.settle(call, served, change, &old, &mut new)?;
        let extra = self.admit_changed(call, served, change, &old, &mut new).await?;
        metadata(&mut new).insert("resourceVersion".to_owned(), entry.revision.to_string().into());
        if change.options.dry_run {
            let new = served.through_storage(new).await?;
            check_depth(served, &new)?;
            return Ok(Attempt::Done(Ok(Answer::object(200, served, new))));
        }
        if ends(served, &old, &new) {
            return match self.objects.erase(served, entry, extra).await? {
                Committed::Stored(_) => Ok(Attempt::Done(Ok(Answer::object(200, served, new)))),
                Committed::Conflict(now) => Ok(Attempt::Lost(now)),
                Committed::Taken => self.taken(served, entry).await,
            };
        }
        if !entry.stale
            && stores_the_same(served, entry, &old, &new).await?
            && !self.objects.is_stale(served, entry).await?
        {
            return Ok(Attempt::Done(Ok(Answer::entry(200, served, served.shown_one(entry).await?))));
        }
        match self.objects.commit(served, &entry.key, entry.revision, new, extra).await? {
            Committed::Stored(stored) => {
                let shown = served.shown_one(&stored).await;
                Ok(Attempt::Done(shown.map(|shown| Answer::entry(200, served, shown))))
            }
            Committed::Conflict(now) => Ok(Attempt::Lost(now)),
            Committed::Taken => self.taken(served, entry).await,
        }
    }

    /// What was allocated went to somebody else: try again with their write in view.
    pub(super) async fn taken(&self, served: &Served, entry: &Arc<Entry>) -> Result<Attempt, Status> {
        self.objects.catch_up(served).await?;
        Ok(Attempt::Lost(Some(entry.clone())))
    }

    /// Brings what the client sent into normal form, with defaults, and notes who wrote what.
    fn settle(
        &self,
        call: &Call,
        served: &Served,
        change: &Change<'_>,
        old: &Value,
        new: &mut Value,
    ) -> Result<(), Status> {
        keep_system_fields(old, new);
        served.normalise(new);
        served.fill_defaults(new)?;
        if change.origin != Origin::Applied {
            managed::on_write(call, served, Some(old), new, &change.options.field_manager, change.subresource)?;
        }
        Ok(())
    }

    async fn admit_changed(
        &self,
        call: &Call,
        served: &Arc<Served>,
        change: &Change<'_>,
        old: &Value,
        new: &mut Value,
    ) -> Result<Extra, Status> {
        if matches!(change.part, Part::Own) {
            return Ok(Extra::default());
        }
        let asked = Asked {
            operation: Operation::Update,
            kind: &served.kind,
            subresource: change.subresource,
            namespace: &call.info.namespace,
            name: change.name,
            options: Some(change.options),
        };
        let mut request = Request::new(admit::by(call), asked, new, Some(old));
        self.admission.admit(&mut request, self).await?;
        let context = call.context();
        let errors = match change.part {
            Part::Main => {
                served.prepare_update(request.object, old, &context);
                served.check_update(request.object, old)
            }
            Part::Sub(sub) => {
                served.prepare_subresource(sub, request.object, old, &context);
                served.check_subresource(sub, request.object, old)
            }
            Part::Own => Vec::new(),
        };
        if !errors.is_empty() {
            return Err(Status::invalid(&served.kind.gvk(), change.name, &errors));
        }
        if matches!(change.part, Part::Main) {
            for warning in (served.kind.hooks.warnings)(request.object, Some(old)) {
                call.warn(warning);
            }
            for warning in kinds::unenforced::warnings(&served.kind, request.object) {
                call.warn(warning);
            }
        }
        self.admission.validate(&request, self).await?;
        Ok(request.into_extra())
    }
}

/// Whether the store would keep what it has. An object of another version may hold less than what is stored.
async fn stores_the_same(served: &Served, entry: &Entry, old: &Value, new: &Value) -> Result<bool, Status> {
    if new != old || !served.custom || served.native() {
        return Ok(new == old);
    }
    Ok(served.to_storage(new.clone()).await? == entry.object())
}

fn check_identity(served: &Served, change: &Change<'_>, old: &Value, new: &Value) -> Result<(), Status> {
    let version = meta_text(new, "resourceVersion");
    if version.is_empty() {
        if !change.retry || !served.kind.unconditional_update {
            let detail = "must be specified for an update";
            let error = FieldError::invalid("metadata.resourceVersion", 0, detail);
            // Upstream names the resource here, not the kind.
            let gvk = meta::Gvk { kind: served.kind.plural.clone(), ..served.kind.gvk() };
            return Err(Status::invalid(&gvk, change.name, &[error]));
        }
    } else if version != meta_text(old, "resourceVersion") {
        return Err(Status::modified(&served.gvr(), change.name));
    }
    let uid = meta_text(new, "uid");
    // What a patch does to the uid is left to validation.
    if change.origin == Origin::Whole && !uid.is_empty() && uid != meta_text(old, "uid") {
        let old = meta_text(old, "uid");
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {old}");
        return Err(Status::conflict(&served.gvr(), change.name, why));
    }
    Ok(())
}

/// What a client may leave out of an update, and the generation, which it may not set.
fn keep_system_fields(old: &Value, new: &mut Value) {
    let fresh = metadata(new);
    // An update without a resourceVersion is one of what is there.
    const KEPT: [&str; 5] =
        ["uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"];
    for field in KEPT {
        if fresh.get(field).is_none_or(|value| value.is_null() || value == "") {
            match old["metadata"].get(field) {
                Some(value) => fresh.insert(field.to_owned(), value.clone()),
                None => fresh.remove(field),
            };
        }
    }
    fresh.remove("selfLink");
    match old["metadata"].get("generation") {
        Some(generation) => fresh.insert("generation".to_owned(), generation.clone()),
        None => fresh.remove("generation"),
    };
}

/// Whether this update takes the last hold off an object that is being deleted.
fn ends(served: &Served, old: &Value, new: &Value) -> bool {
    let deleting = old["metadata"]["deletionTimestamp"].is_string();
    let grace = old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    let held = has_finalizers(new) || served.has_spec_finalizers(new);
    deleting && grace == 0 && !held
}
