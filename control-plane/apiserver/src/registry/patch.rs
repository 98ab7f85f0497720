//! PATCH: JSON patch, merge patch, strategic merge patch and server-side apply on the newest state, tried again when
//! another write wins.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use meta::{Gvk, Reason, Status};
use object::{meta_text, metadata};
use serde_json::Value;

use super::decode;
use super::object_meta::{self, OTHER_NAMESPACE};
use super::options::{FieldValidation, WriteOptions};
use super::retry::MAX_RETRIES;
use super::update::{Change, Origin, Part};
use super::verbs::Verbs;
use super::{Served, managed};
use crate::http::answer::Answer;
use crate::http::call::Call;
use crate::http::negotiate::media_type;
use crate::http::unreadable::{self, Trouble};

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// The schema that a strategic patch reads merge keys from.
pub enum SchemaOf<'a> {
    Served(&'a Served),
    Type(Gvk),
}

/// A decoded patch, and the fields that it names twice.
pub struct Patch {
    pub body: PatchBody,
    pub duplicates: Vec<String>,
}

/// A patch as it came in: how it changes an object.
pub enum PatchBody {
    Json(Value),
    Merge(Value),
    Strategic(Value),
    /// Server-side apply: the body is the intent.
    Apply(Bytes),
}

impl Patch {
    pub fn parse(call: &Call, body: &Bytes) -> Result<Patch, Status> {
        let json = |make: fn(Value) -> PatchBody| {
            let decoded = codec::json::decode(body, codec::Form::Any);
            let decoded = decoded.map_err(|_| Status::bad_request("invalid JSON patch"))?;
            Ok(Patch { body: make(decoded.object), duplicates: decoded.strict })
        };
        match media_type(call.header(CONTENT_TYPE)) {
            JSON => json(PatchBody::Json).map(|patch| Patch { duplicates: Vec::new(), ..patch }),
            MERGE => json(PatchBody::Merge),
            STRATEGIC => json(PatchBody::Strategic),
            APPLY => Ok(Patch { body: PatchBody::Apply(body.clone()), duplicates: Vec::new() }),
            _ => Err(unsupported()),
        }
    }

    /// The patched object.
    pub fn apply(&self, old: &Value, schema: &SchemaOf<'_>) -> Result<Value, Status> {
        let mut new = old.clone();
        match &self.body {
            // No operations at all.
            PatchBody::Json(Value::Null) => {}
            PatchBody::Json(operations) => object::json_patch::apply(&mut new, operations)?,
            PatchBody::Merge(patch) => object::merge_patch::apply(&mut new, patch.clone())?,
            PatchBody::Strategic(patch) => {
                match schema {
                    SchemaOf::Served(served) if served.custom => {
                        return Err(Status::unsupported_media_type(&[JSON, MERGE, APPLY]));
                    }
                    SchemaOf::Served(served) => object::strategic::apply(&mut new, patch.clone(), &served.kind.schema)?,
                    SchemaOf::Type(gvk) => {
                        let schema = kinds::definitions::message_of(gvk).map(kinds::definitions::schema);
                        let schema = schema.ok_or_else(|| Status::internal(format!("no schema for {gvk}")))?;
                        object::strategic::apply(&mut new, patch.clone(), &schema)?
                    }
                }
                // It patches a typed object, whose type is no field of it.
                for field in ["apiVersion", "kind"] {
                    new[field] = old[field].clone();
                }
            }
            PatchBody::Apply(_) => return Err(unsupported()),
        }
        Ok(new)
    }

    /// The error for a patched object that is no longer of its type.
    ///
    /// It shows the patch and never the object: whoever may patch need not be one who may read.
    pub fn misfit(&self, trouble: Trouble) -> Status {
        if let Trouble::OtherKind(status) = trouble {
            return *status;
        }
        let why = trouble.why();
        let (shown, why) = match &self.body {
            PatchBody::Strategic(patch) => (super::go::print(patch), super::go::restored(&why)),
            PatchBody::Json(patch) | PatchBody::Merge(patch) => (patch.to_string(), why),
            PatchBody::Apply(_) => (String::new(), why),
        };
        let error = meta::FieldError::invalid("patch", unreadable::cut(&shown), why);
        Status::invalid(&Gvk::new("", "", ""), "", &[error])
    }

    /// Whether the patch names the version it is for: then nothing is tried again.
    fn pinned(&self) -> bool {
        match &self.body {
            PatchBody::Merge(patch) | PatchBody::Strategic(patch) => patch["metadata"]["resourceVersion"].is_string(),
            _ => false,
        }
    }
}

/// Apply has to say who applies.
pub fn require_manager(options: &WriteOptions) -> Result<(), Status> {
    if !options.field_manager.is_empty() {
        return Ok(());
    }
    let gvk = Gvk::new("meta.k8s.io", "v1", "PatchOptions");
    let error = meta::FieldError::required("fieldManager", "is required for apply patch");
    Err(Status::invalid(&gvk, "", &[error]))
}

/// 415 without a list: upstream answers so to every content type that is no patch.
fn unsupported() -> Status {
    let mut status = Status::failure(415, Reason::UnsupportedMediaType, "415: Unsupported Media Type");
    status.details = Some(Box::default());
    status
}

impl Verbs {
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
        if options.force.is_some() && !matches!(patch.body, PatchBody::Apply(_)) {
            let gvk = Gvk::new("meta.k8s.io", "v1", "PatchOptions");
            let error = meta::FieldError::forbidden("force", "may not be specified for non-apply patch");
            return Err(Status::invalid(&gvk, "", &[error]));
        }
        if let PatchBody::Apply(body) = &patch.body {
            return self.apply(call, served, part, body, &options).await;
        }
        let change = Change {
            part,
            subresource: &call.info.subresource,
            name: &call.info.name,
            options: &options,
            retry: !patch.pinned(),
            origin: Origin::Patched,
        };
        let schema = SchemaOf::Served(served);
        self.change(call, served, &change, |old| {
            let new = patch.apply(old, &schema)?;
            let checked = decode::redecode(call, served, &new, &patch.duplicates, options.field_validation);
            let checked = checked.map_err(|trouble| patch.misfit(trouble))?;
            object_meta::check_name(&checked, &call.info.name, false)?;
            if served.namespaced() && meta_text(&checked, "namespace") != meta_text(old, "namespace") {
                return Err(Status::bad_request(OTHER_NAMESPACE));
            }
            Ok(checked)
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
        require_manager(options)?;
        let config = decode::decode_intent(call, served, body, options.field_validation)?;
        let name = call.info.name.as_str();
        let pinned = !meta_text(&config, "resourceVersion").is_empty();
        let force = options.force.unwrap_or(false);
        let change = Change {
            part,
            subresource: &call.info.subresource,
            name,
            options,
            retry: !pinned,
            origin: Origin::Applied,
        };
        for _ in 0..MAX_RETRIES {
            let outcome = self
                .change(call, served, &change, |old| {
                    let new = managed::apply(call, served, Some(old), &config, &options.field_manager, force)?;
                    redecoded(call, served, &new)
                })
                .await;
            match outcome {
                Err(error) if error.reason == Reason::NotFound && matches!(part, Part::Main) => {}
                other => return other,
            }
            if let Some(uid) = config["metadata"]["uid"].as_str().filter(|uid| !uid.is_empty()) {
                let why =
                    format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
                return Err(Status::conflict(&served.gvr(), name, why));
            }
            let new = managed::apply(call, served, None, &config, &options.field_manager, force)?;
            let mut new = redecoded(call, served, &new)?;
            // The version of something that is not there does not hold anybody up.
            metadata(&mut new).remove("resourceVersion");
            object_meta::check_name(&new, name, false)?;
            match self.create_object(call, served, name, new, options, true).await {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => self.objects.catch_up(served).await.map(drop)?,
                // Somebody else created it meanwhile: apply to theirs.
                Err(error) if error.reason == Reason::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(Status::server_timeout(&served.gvr(), "patch", 1))
    }
}

/// What apply made, in the form that decoding gives.
fn redecoded(call: &Call, served: &Served, object: &Value) -> Result<Value, Status> {
    let outcome = decode::redecode(call, served, object, &[], FieldValidation::Ignore);
    outcome.map_err(|trouble| trouble.of_body(&served.kind.gvk(), &[]))
}
