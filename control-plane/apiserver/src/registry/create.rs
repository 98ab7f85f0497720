//! POST: a new object.

use std::sync::Arc;

use bytes::Bytes;
use meta::Status;
use object::{meta_text, metadata};
use serde_json::Value;

use super::decode;
use super::object_meta::settle_namespace;
use super::objects::{Committed, check_depth};
use super::options::WriteOptions;
use super::retry::MAX_RETRIES;
use super::verbs::Verbs;
use super::{Served, admit, managed};
use crate::admission::{Asked, Extra, Operation, Request};
use crate::http::answer::Answer;
use crate::http::call::Call;

/// Tries to find a free name for `generateName`, as many as upstream makes.
const NAME_TRIES: usize = 8;

/// Fills what only the server decides about a new object.
pub fn stamp(call: &Call, object: &mut Value) {
    let meta = metadata(object);
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
        meta.remove(field);
    }
    meta.insert("uid".to_owned(), meta::uid::new_uid().into());
    meta.insert("creationTimestamp".to_owned(), meta::time::format(call.now).into());
}

impl Verbs {
    /// Creates from a request body.
    pub async fn create(&self, call: &Call, served: &Arc<Served>, body: &Bytes) -> Result<Answer, Status> {
        let options = WriteOptions::parse(&call.query, "CreateOptions")?;
        for _ in 0..MAX_RETRIES {
            let object = decode::decode(call, served, body, options.field_validation)?;
            if let Some(answer) = self.create_object(call, served, "", object, &options, false).await? {
                return Ok(answer);
            }
            // Somebody took what was allocated: look again with what they wrote in view.
            self.objects.catch_up(served).await?;
        }
        Err(Status::server_timeout(&served.gvr(), "create", 1))
    }

    /// Creates a decoded object; `None` when an allocation made for it was lost to another request. `name` is the
    /// path's, for creation by PUT or apply; `applied` objects carry the managed fields that apply computed.
    pub async fn create_object(
        &self,
        call: &Call,
        served: &Arc<Served>,
        name: &str,
        mut object: Value,
        options: &WriteOptions,
        applied: bool,
    ) -> Result<Option<Answer>, Status> {
        if !meta_text(&object, "resourceVersion").is_empty() && meta_text(&object, "resourceVersion") != "0" {
            let message = "resourceVersion should not be set on objects to be created";
            return Err(Status::failure(500, meta::Reason::Unknown, message));
        }
        if served.terminating {
            let action = "create not allowed while custom resource definition is terminating";
            return Err(Status::method_not_supported(&served.gvr(), action));
        }
        settle_namespace(served, &call.info.namespace, &mut object)?;
        let generated = name.is_empty() && meta_text(&object, "name").is_empty();
        let base = meta_text(&object, "generateName").to_owned();
        let generated = generated && !base.is_empty();
        stamp(call, &mut object);
        if generated {
            metadata(&mut object).insert("name".to_owned(), meta::uid::random_name(&base).into());
        }
        self.prepare_new(call, served, &mut object, options, applied)?;
        let final_name = meta_text(&object, "name").to_owned();
        let shown_name = if generated { "" } else { final_name.as_str() };
        let extra = self.admit_new(call, served, shown_name, &mut object, options).await?;
        self.store_new(call, served, object, options, extra, generated.then_some(base)).await
    }

    fn prepare_new(
        &self,
        call: &Call,
        served: &Served,
        object: &mut Value,
        options: &WriteOptions,
        applied: bool,
    ) -> Result<(), Status> {
        served.fill_defaults(object)?;
        if !applied {
            managed::on_write(call, served, None, object, &options.field_manager, "")?;
        }
        Ok(())
    }

    async fn admit_new(
        &self,
        call: &Call,
        served: &Arc<Served>,
        name: &str,
        object: &mut Value,
        options: &WriteOptions,
    ) -> Result<Extra, Status> {
        let asked = Asked {
            operation: Operation::Create,
            kind: &served.kind,
            subresource: "",
            namespace: &call.info.namespace,
            name,
            options: Some(options),
        };
        let mut request = Request::new(admit::by(call), asked, object, None);
        self.admission.admit(&mut request, self).await?;
        served.prepare_create(request.object, &call.context());
        let errors = served.check(request.object);
        if !errors.is_empty() {
            return Err(Status::invalid(&served.kind.gvk(), meta_text(request.object, "name"), &errors));
        }
        for warning in (served.kind.hooks.warnings)(request.object, None) {
            call.warn(warning);
        }
        for warning in kinds::unenforced::warnings(&served.kind, request.object) {
            call.warn(warning);
        }
        // PUT and apply come here for what is missing: that is a creation, whatever the request's own verb is.
        self.require(call, served, "create")?;
        self.admission.validate(&request, self).await?;
        Ok(request.into_extra())
    }

    async fn store_new(
        &self,
        call: &Call,
        served: &Arc<Served>,
        mut object: Value,
        options: &WriteOptions,
        extra: Extra,
        base: Option<String>,
    ) -> Result<Option<Answer>, Status> {
        let store = self.objects.stored(served)?;
        let namespace = if served.namespaced() { call.info.namespace.as_str() } else { "" };
        if options.dry_run {
            let object = served.through_storage(object).await?;
            check_depth(served, &object)?;
            let key = store.cache.key(namespace, meta_text(&object, "name"));
            if self.objects.live(served, &key).await?.is_some() {
                return Err(Status::already_exists(&served.gvr(), meta_text(&object, "name")));
            }
            return Ok(Some(Answer::object(201, served, object)));
        }
        let tries = if base.is_some() { NAME_TRIES } else { 1 };
        let mut extra = Some(extra);
        for attempt in 1..=tries {
            let name = meta_text(&object, "name").to_owned();
            let key = store.cache.key(namespace, &name);
            let last = attempt == tries;
            let writes = extra.take().unwrap_or_default();
            let again = (!last && writes.is_empty()).then(|| object.clone());
            match self.objects.commit(served, &key, 0, std::mem::take(&mut object), writes).await? {
                Committed::Stored(entry) => {
                    return Ok(Some(Answer::entry(201, served, served.shown_one(&entry).await?)));
                }
                Committed::Taken => return Ok(None),
                Committed::Conflict(_) => match (again, &base) {
                    (Some(mut again), Some(base)) => {
                        metadata(&mut again).insert("name".to_owned(), meta::uid::random_name(base).into());
                        object = again;
                    }
                    (None, Some(_)) if !last => return Ok(None),
                    (_, Some(_)) => return Err(Status::generate_name_conflict(&served.gvr(), &name, 1)),
                    _ => return Err(Status::already_exists(&served.gvr(), &name)),
                },
            }
        }
        Ok(None)
    }
}
