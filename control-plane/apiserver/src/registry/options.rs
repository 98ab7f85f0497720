//! Options of calls, from the query and (for deletes) the body, checked as upstream checks them. Pure.

use meta::{FieldError, FieldSelector, Gvk, Selector, Status};
use serde_json::Value;

use crate::http::request::Query;

/// How strictly bodies are read: `fieldValidation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// Options of create, update and patch.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_manager: String,
    pub field_validation: FieldValidation,
    /// Only for apply.
    pub force: Option<bool>,
}

/// Longest field manager name.
const MAX_MANAGER: usize = 128;

fn dry_run_error(values: &[&str]) -> Option<FieldError> {
    let bad = values.iter().any(|value| *value != "All");
    bad.then(|| FieldError::not_supported("dryRun", serde_json::json!(values), ["All"]))
}

fn dry_run(values: &[&str], gvk: &Gvk) -> Result<bool, Status> {
    match dry_run_error(values) {
        Some(error) => Err(Status::invalid(gvk, "", &[error])),
        None => Ok(!values.is_empty()),
    }
}

impl WriteOptions {
    /// `what` is the kind named in errors: CreateOptions, UpdateOptions or PatchOptions.
    pub fn parse(query: &Query, what: &'static str) -> Result<WriteOptions, Status> {
        let gvk = Gvk::new("meta.k8s.io", "v1", what);
        let dry: Vec<&str> = query.all("dryRun").collect();
        let manager = query.text("fieldManager");
        let mut errors = Vec::new();
        if manager.chars().count() > MAX_MANAGER {
            errors.push(FieldError::too_long("fieldManager", MAX_MANAGER as i64));
        }
        if let Some(at) = manager.chars().position(|c| c.is_control()) {
            let code = manager.chars().nth(at).map_or(0, u32::from);
            let detail = format!("invalid character U+{code:04X} (at position {at})");
            errors.push(FieldError::invalid("fieldManager", manager, detail));
        }
        errors.extend(dry_run_error(&dry));
        let field_validation = match query.text("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                errors.push(FieldError::not_supported("fieldValidation", other, ["", "Ignore", "Strict", "Warn"]));
                FieldValidation::Warn
            }
        };
        if !errors.is_empty() {
            return Err(Status::invalid(&gvk, "", &errors));
        }
        Ok(WriteOptions {
            dry_run: !dry.is_empty(),
            field_manager: manager.to_owned(),
            field_validation,
            force: query.tristate("force"),
        })
    }
}

/// What a list or watch asks of revisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    Unset,
    NotOlderThan,
    Exact,
}

/// Options of list, watch and deletecollection.
#[derive(Debug, Clone)]
pub struct ListOptions {
    pub labels: Selector,
    pub fields: FieldSelector,
    /// As sent; empty when unset.
    pub resource_version: String,
    pub matching: Match,
    pub limit: usize,
    pub continue_token: String,
    pub timeout_seconds: Option<u64>,
    pub bookmarks: bool,
    pub send_initial_events: Option<bool>,
}

impl ListOptions {
    pub fn parse(query: &Query, watch: bool) -> Result<ListOptions, Status> {
        let labels = Selector::parse(query.text("labelSelector")).map_err(Status::bad_request)?;
        let fields = FieldSelector::parse(query.text("fieldSelector"))
            .map_err(|error| Status::bad_request(error.to_string()))?;
        let gvk = Gvk::new("meta.k8s.io", "v1", "ListOptions");
        let matching = match query.text("resourceVersionMatch") {
            "" => Match::Unset,
            "NotOlderThan" => Match::NotOlderThan,
            "Exact" => Match::Exact,
            other => {
                let error = FieldError::not_supported("resourceVersionMatch", other, ["Exact", "NotOlderThan", ""]);
                return Err(Status::invalid(&gvk, "", &[error]));
            }
        };
        let limit = query.integer("limit")?.unwrap_or(0);
        let timeout = query.integer("timeoutSeconds")?;
        let options = ListOptions {
            labels,
            fields,
            resource_version: query.text("resourceVersion").to_owned(),
            matching,
            limit: usize::try_from(limit).unwrap_or(0),
            continue_token: query.text("continue").to_owned(),
            timeout_seconds: timeout.and_then(|t| u64::try_from(t).ok()).filter(|t| *t > 0),
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: query.tristate("sendInitialEvents"),
        };
        let errors = if watch { options.check_watch() } else { options.check_list() };
        if errors.is_empty() { Ok(options) } else { Err(Status::invalid(&gvk, "", &errors)) }
    }

    /// The field selector, narrowed to the one object that the request was authorised for when it names one: in an old
    /// watch path, or in the selector itself.
    pub fn fields_for(&self, name: &str) -> Result<FieldSelector, Status> {
        let mut fields = self.fields.clone();
        if name.is_empty() {
            return Ok(fields);
        }
        if fields.is_empty() {
            let field = "metadata.name".to_owned();
            fields.terms.push(meta::fields::FieldTerm { field, equal: true, value: name.to_owned() });
        } else if fields.exact("metadata.name") != Some(name) {
            return Err(Status::bad_request("fieldSelector metadata.name doesn't match requested name"));
        }
        Ok(fields)
    }

    fn check_list(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if self.matching != Match::Unset {
            if self.resource_version.is_empty() {
                errors.push(FieldError::forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                ));
            }
            if !self.continue_token.is_empty() {
                errors.push(FieldError::forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden when continue is provided",
                ));
            }
            if self.matching == Match::Exact && self.resource_version == "0" {
                errors.push(FieldError::forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                ));
            }
        }
        if self.send_initial_events.is_some() {
            errors.push(FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
        }
        errors
    }

    fn check_watch(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        match (self.send_initial_events, self.matching) {
            (Some(_), Match::NotOlderThan) => {}
            (Some(_), _) => errors.push(FieldError::forbidden(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            )),
            (None, Match::Unset) => {}
            (None, _) => errors.push(FieldError::forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            )),
        }
        if self.matching == Match::Exact {
            errors.push(FieldError::not_supported("resourceVersionMatch", "Exact", ["NotOlderThan"]));
        }
        if !self.continue_token.is_empty() {
            errors.push(FieldError::forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden when continue is provided",
            ));
        }
        errors
    }

    /// The revision asked for: `None` when unset, 0 for "any".
    pub fn revision(&self) -> Result<Option<i64>, Status> {
        match self.resource_version.as_str() {
            "" => Ok(None),
            text => match text.parse::<i64>() {
                Ok(revision) if revision >= 0 => Ok(Some(revision)),
                _ => {
                    let detail = format!("strconv.ParseUint: parsing {}: invalid syntax", meta::text::quote(text));
                    let error = FieldError::invalid("resourceVersion", text, detail);
                    Err(Status::failure(500, meta::Reason::Unknown, error.to_string()))
                }
            },
        }
    }
}

/// What becomes of dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// Options of delete and deletecollection.
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    pub grace_period: Option<i64>,
    pub propagation: Option<Propagation>,
    /// The old form of orphan and background.
    pub orphan_dependents: Option<bool>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub dry_run: bool,
    /// Remove the object although it can't be read.
    pub ignore_read_error: bool,
}

/// The option to remove what can't be read.
pub const IGNORE_READ_ERROR: &str = "ignoreStoreReadErrorWithClusterBreakingPotential";

impl DeleteOptions {
    /// From the query, when there is no body.
    pub fn from_query(query: &Query) -> Result<DeleteOptions, Status> {
        let dry: Vec<&str> = query.all("dryRun").collect();
        let mut options = DeleteOptions {
            grace_period: query.integer("gracePeriodSeconds")?,
            orphan_dependents: query.tristate("orphanDependents"),
            dry_run: dry_run(&dry, &Gvk::new("meta.k8s.io", "v1", "DeleteOptions"))?,
            ignore_read_error: query.flag(IGNORE_READ_ERROR),
            ..DeleteOptions::default()
        };
        options.propagation = propagation(query.text("propagationPolicy"))?;
        options.check()
    }

    /// From a decoded body, with the query's dryRun.
    pub fn from_body(body: &Value, query: &Query) -> Result<DeleteOptions, Status> {
        let mut dry: Vec<&str> = query.all("dryRun").collect();
        dry.extend(body["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str));
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let options = DeleteOptions {
            grace_period: body["gracePeriodSeconds"].as_i64(),
            propagation: propagation(body["propagationPolicy"].as_str().unwrap_or_default())?,
            orphan_dependents: body["orphanDependents"].as_bool(),
            uid: text(&body["preconditions"]["uid"]),
            resource_version: text(&body["preconditions"]["resourceVersion"]),
            dry_run: dry_run(&dry, &Gvk::new("meta.k8s.io", "v1", "DeleteOptions"))?,
            ignore_read_error: body[IGNORE_READ_ERROR] == true,
        };
        options.check()
    }

    fn check(self) -> Result<DeleteOptions, Status> {
        if self.propagation.is_some() && self.orphan_dependents.is_some() {
            let detail = "orphanDependents and deletionPropagation cannot be both set";
            let error =
                FieldError::invalid("propagationPolicy", self.propagation.map_or("", Propagation::word), detail);
            return Err(Status::invalid(&Gvk::new("meta.k8s.io", "v1", "DeleteOptions"), "", &[error]));
        }
        let others = self.beside_ignoring();
        if !others.is_empty() {
            return Err(Status::invalid(&Gvk::new("meta.k8s.io", "v1", "DeleteOptions"), "", &others));
        }
        Ok(self)
    }

    /// What can't be asked for along with the removal of what can't be read.
    fn beside_ignoring(&self) -> Vec<FieldError> {
        let others = [
            ("dryRun", self.dry_run),
            ("propagationPolicy", self.propagation.is_some()),
            ("orphanDependents", self.orphan_dependents.is_some()),
            ("gracePeriodSeconds", self.grace_period.is_some()),
            ("preconditions", self.uid.is_some() || self.resource_version.is_some()),
        ];
        let set = others.iter().filter(|(_, set)| *set && self.ignore_read_error);
        set.map(|(name, _)| {
            FieldError::invalid(IGNORE_READ_ERROR, true, format!("cannot be set together with .{name}"))
        })
        .collect()
    }
}

impl Propagation {
    pub fn word(self) -> &'static str {
        match self {
            Propagation::Orphan => "Orphan",
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
        }
    }
}

fn propagation(text: &str) -> Result<Option<Propagation>, Status> {
    match text {
        "" => Ok(None),
        "Orphan" => Ok(Some(Propagation::Orphan)),
        "Background" => Ok(Some(Propagation::Background)),
        "Foreground" => Ok(Some(Propagation::Foreground)),
        other => {
            let known = ["Foreground", "Background", "Orphan", "nil"];
            let error = FieldError::not_supported("propagationPolicy", other, known);
            Err(Status::invalid(&Gvk::new("meta.k8s.io", "v1", "DeleteOptions"), "", &[error]))
        }
    }
}
