//! PATCH: JSON patch, merge patch, strategic merge patch and server-side apply on the newest state, tried again when
//! another write wins.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use meta::{Gvk, Reason, Status};
use serde_json::Value;

use super::options::{FieldValidation, WriteOptions};
use super::update::{Change, Part};
use super::write::{MAX_RETRIES, meta_text};
use super::{Served, managed};
use crate::http::answer::Answer;
use crate::http::call::Call;
use crate::http::content;
use crate::http::negotiate::media_type;
use crate::server::Core;

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// The schema that a strategic patch reads merge keys from.
pub enum SchemaOf<'a> {
    Served(&'a Served),
    Type(Gvk),
}

/// A decoded patch.
pub enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
    /// Server-side apply: the body is the intent.
    Apply(Bytes),
}

impl Patch {
    pub fn parse(call: &Call, body: &Bytes) -> Result<Patch, Status> {
        let json = || {
            serde_json::from_slice::<Value>(body)
                .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))
        };
        match media_type(call.header(CONTENT_TYPE)) {
            JSON => json().map(Patch::Json),
            MERGE => json().map(Patch::Merge),
            STRATEGIC => json().map(Patch::Strategic),
            APPLY => Ok(Patch::Apply(body.clone())),
            _ => Err(Status::unsupported_media_type(&[JSON, MERGE, STRATEGIC, APPLY])),
        }
    }

    /// The patched object.
    pub fn apply(&self, old: &Value, schema: &SchemaOf<'_>) -> Result<Value, Status> {
        let mut new = old.clone();
        match self {
            Patch::Json(operations) => object::json_patch::apply(&mut new, operations)?,
            Patch::Merge(patch) => object::merge_patch::apply(&mut new, patch.clone())?,
            Patch::Strategic(patch) => match schema {
                SchemaOf::Served(served) if served.custom => {
                    return Err(Status::unsupported_media_type(&[JSON, MERGE, APPLY]));
                }
                SchemaOf::Served(served) => object::strategic::apply(&mut new, patch.clone(), &served.kind.schema)?,
                SchemaOf::Type(gvk) => {
                    let schema = kinds::definitions::message_of(gvk).map(kinds::definitions::schema);
                    let schema = schema.ok_or_else(|| Status::internal(format!("no schema for {gvk}")))?;
                    object::strategic::apply(&mut new, patch.clone(), &schema)?
                }
            },
            Patch::Apply(_) => return Err(Status::unsupported_media_type(&[JSON, MERGE, STRATEGIC])),
        }
        Ok(new)
    }

    /// Whether the patch names the version it is for: then nothing is tried again.
    fn pinned(&self) -> bool {
        match self {
            Patch::Merge(patch) | Patch::Strategic(patch) => patch["metadata"]["resourceVersion"].is_string(),
            _ => false,
        }
    }
}

impl Core {
    /// Patches the object that the path names.
    pub async fn patch(
        &self,
        call: &Call,
        served: &Arc<Served>,
        part: Part<'_>,
        body: &Bytes,
    ) -> Result<Answer, Status> {
        let options = WriteOptions::parse(&call.query, "PatchOptions")?;
        let patch = Patch::parse(call, body)?;
        if options.force.is_some() && !matches!(patch, Patch::Apply(_)) {
            let gvk = Gvk::new("meta.k8s.io", "v1", "PatchOptions");
            let error = meta::FieldError::forbidden("force", "may not be specified for non-apply patch");
            return Err(Status::invalid(&gvk, "", &[error]));
        }
        if let Patch::Apply(body) = &patch {
            return self.apply(call, served, part, body, &options).await;
        }
        let change = Change {
            part,
            subresource: &call.info.subresource,
            name: &call.info.name,
            options: &options,
            retry: !patch.pinned(),
            apply: false,
        };
        let schema = SchemaOf::Served(served);
        self.change(call, served, &change, |old| {
            let new = patch.apply(old, &schema)?;
            content::redecode(call, served, &new, options.field_validation)
        })
        .await
    }

    /// Server-side apply: the body says what its manager wants of the object, which is created when it is missing.
    async fn apply(
        &self,
        call: &Call,
        served: &Arc<Served>,
        part: Part<'_>,
        body: &Bytes,
        options: &WriteOptions,
    ) -> Result<Answer, Status> {
        if options.field_manager.is_empty() {
            let gvk = Gvk::new("meta.k8s.io", "v1", "PatchOptions");
            let error = meta::FieldError::required("fieldManager", "is required for apply patch");
            return Err(Status::invalid(&gvk, "", &[error]));
        }
        let config = content::decode_intent(call, served, body, options.field_validation)?;
        let name = call.info.name.as_str();
        let pinned = !meta_text(&config, "resourceVersion").is_empty();
        let force = options.force.unwrap_or(false);
        let change = Change { part, subresource: &call.info.subresource, name, options, retry: !pinned, apply: true };
        for _ in 0..MAX_RETRIES {
            let outcome = self
                .change(call, served, &change, |old| {
                    let new = managed::apply(call, served, Some(old), &config, &options.field_manager, force)?;
                    content::redecode(call, served, &new, FieldValidation::Ignore)
                })
                .await;
            match outcome {
                Err(error) if error.reason == Reason::NotFound && matches!(part, Part::Main) => {}
                other => return other,
            }
            let new = managed::apply(call, served, None, &config, &options.field_manager, force)?;
            let new = content::redecode(call, served, &new, FieldValidation::Ignore)?;
            match self.create_object(call, served, name, new, options, true).await {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => self.hub.catch_up().await.map(drop).map_err(|e| self.store_error(e, served))?,
                // Somebody else created it meanwhile: apply to theirs.
                Err(error) if error.reason == Reason::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(Status::server_timeout(&served.gvr(), "patch", 1))
    }
}
