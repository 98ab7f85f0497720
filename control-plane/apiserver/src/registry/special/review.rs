//! Questions that are answered and never stored: who am I, who is this token's holder, may they do this. Which one a
//! kind asks is the action in its row.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use kinds::{Action, Asked};
use meta::{FieldError, Gvk, Status};
use serde_json::{Value, json};

use crate::authn::chain::Authenticators;
use crate::authn::{Credentials, UserInfo};
use crate::authz::chain::Authorizers;
use crate::authz::{Attributes, Decision};
use crate::http::answer::Answer;
use crate::http::call::Call;
use crate::registry::Served;
use crate::registry::decode;
use crate::registry::options::WriteOptions;

/// Answers reviews: asks who decides, and stores nothing.
pub struct Reviews {
    pub authenticators: Arc<Authenticators>,
    pub authorizers: Arc<Authorizers>,
}

impl Reviews {
    /// Answers a review.
    pub async fn answer(
        &self,
        call: &Call,
        served: &Arc<Served>,
        action: &Action,
        body: &Bytes,
    ) -> Result<Answer, Status> {
        let options = WriteOptions::parse(&call.query, "CreateOptions")?;
        let mut review = decode::decode(call, served, body, options.field_validation)?;
        let spec = &review["spec"];
        let errors = checks(action, &review, &call.info.namespace);
        if !errors.is_empty() {
            // Upstream leaves the kind out.
            let gvk = Gvk { kind: "".into(), ..served.kind.gvk() };
            return Err(Status::invalid(&gvk, "", &errors));
        }
        let status = match action {
            Action::WhoAmI => json!({"userInfo": user_value(&call.user)}),
            Action::TokenReview => self.token_review(&review).await?,
            Action::AccessReview(Asked::Caller) => self.access(spec, &call.user),
            Action::AccessReview(asked) => {
                debug_assert!(*asked != Asked::Caller);
                self.access(spec, &subject(spec))
            }
            Action::RulesReview if spec["namespace"].as_str().unwrap_or_default().is_empty() => {
                return Err(Status::bad_request("no namespace on request"));
            }
            Action::RulesReview => {
                let rules = self.rules(spec, &call.user);
                // The answer does not repeat the question.
                review["spec"] = json!({});
                rules
            }
            _ => return Err(Status::method_not_allowed()),
        };
        review["status"] = status;
        if *action == Action::WhoAmI {
            review["metadata"]["creationTimestamp"] = json!(meta::time::format(call.now));
        }
        if !call.info.namespace.is_empty() {
            review["metadata"]["namespace"] = json!(call.info.namespace);
        }
        Ok(Answer::object(201, served, review))
    }

    fn access(&self, spec: &Value, user: &UserInfo) -> Value {
        let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
        let of = if resource.is_object() { resource } else { path };
        let fields = ["verb", "group", "version", "resource", "subresource", "namespace", "name", "path"];
        let [verb, group, version, kind, sub, namespace, name, path] = fields.map(|f| text(of, f));
        let selector = selector_text(&resource["fieldSelector"]);
        let attributes = Attributes {
            user,
            verb: &verb,
            resource_request: resource.is_object(),
            group: &group,
            version: &version,
            resource: &kind,
            subresource: &sub,
            namespace: &namespace,
            name: &name,
            path: &path,
            field_selector: &selector,
            label_selector: "",
        };
        let (allowed, denied, reason) = match self.authorizers.decide(&attributes) {
            Decision::Allow(reason) => (true, false, reason),
            Decision::Deny(reason) => (false, true, reason),
            Decision::NoOpinion(reason) => (false, false, reason),
        };
        let mut status = json!({"allowed": allowed});
        if denied {
            status["denied"] = json!(true);
        }
        if !reason.is_empty() {
            status["reason"] = json!(reason);
        }
        status
    }

    fn rules(&self, spec: &Value, user: &UserInfo) -> Value {
        let namespace = spec["namespace"].as_str().unwrap_or_default();
        let (mut resource, mut non_resource, mut incomplete) = (Vec::new(), Vec::new(), false);
        for rules in self.authorizers.rules(user, namespace) {
            resource.extend(rules.resource);
            non_resource.extend(rules.non_resource);
            incomplete |= rules.incomplete;
        }
        json!({"resourceRules": resource, "nonResourceRules": non_resource, "incomplete": incomplete})
    }

    async fn token_review(&self, review: &Value) -> Result<Value, Status> {
        let token = review["spec"]["token"].as_str().unwrap_or_default();
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let asked: Vec<String> = review["spec"]["audiences"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        let audiences = if asked.is_empty() { &self.authenticators.audiences } else { &asked };
        let mut headers = HeaderMap::new();
        if let Ok(value) = format!("Bearer {token}").parse() {
            headers.insert(http::header::AUTHORIZATION, value);
        }
        let credentials = Credentials { headers: &headers, certificates: &[], audiences };
        match self.authenticators.prove(&credentials).await {
            Ok(Some(caller)) => {
                let kept = if asked.is_empty() { audiences } else { &caller.audiences };
                Ok(json!({"authenticated": true, "user": user_value(&caller.user), "audiences": kept}))
            }
            _ => Ok(json!({"user": {}, "error": "invalid bearer token"})),
        }
    }
}

/// Everything wrong with a question.
fn checks(action: &Action, review: &Value, namespace: &str) -> Vec<FieldError> {
    let Action::AccessReview(asked) = action else { return Vec::new() };
    let spec = &review["spec"];
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let mut errors = Vec::new();
    if resource.is_object() == path.is_object() {
        let shown = if path.is_object() { path.clone() } else { Value::Null };
        let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.push(FieldError::invalid("spec", shown, detail));
    }
    let nobody = |field: &str| match &spec[field] {
        Value::String(name) => name.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => true,
    };
    if *asked != Asked::Caller && nobody("user") && nobody("groups") {
        errors.push(FieldError::invalid("spec.user", "", "at least one of user or group must be specified"));
    }
    for (field, what) in [("fieldSelector", true), ("labelSelector", false)] {
        check_selector(&mut errors, &format!("spec.resourceAttributes.{field}"), &resource[field], what);
    }
    let mut metadata = review["metadata"].clone();
    if let Some(map) = metadata.as_object_mut() {
        // The namespace is the path's.
        map.remove("namespace");
        map.remove("creationTimestamp");
    }
    if metadata.as_object().is_some_and(|map| !map.is_empty()) {
        errors.push(FieldError::invalid("metadata", metadata, "must be empty"));
    }
    if *asked == Asked::SubjectHere {
        let given = resource["namespace"].as_str().unwrap_or_default();
        if resource.is_object() && given != namespace {
            let detail = "must match metadata.namespace";
            errors.push(FieldError::invalid("spec.resourceAttributes.namespace", given, detail));
        }
        if path.is_object() {
            let detail = "disallowed on this kind of request";
            errors.push(FieldError::invalid("spec.nonResourceAttributes", path.clone(), detail));
        }
    }
    errors
}

fn check_selector(errors: &mut Vec<FieldError>, path: &str, selector: &Value, by_field: bool) {
    if !selector.is_object() {
        return;
    }
    let raw = selector["rawSelector"].as_str().unwrap_or_default();
    let requirements = selector["requirements"].as_array().map(Vec::as_slice).unwrap_or_default();
    if raw.is_empty() && requirements.is_empty() {
        let detail = format!("when {path} is specified, requirements or rawSelector is required");
        errors.push(FieldError::required(format!("{path}.requirements"), detail));
    }
    if !raw.is_empty() && !requirements.is_empty() {
        let detail = "may not specified at the same time as requirements";
        errors.push(FieldError::invalid(format!("{path}.rawSelector"), raw, detail));
    }
    for (index, requirement) in requirements.iter().enumerate() {
        let path = format!("{path}.requirements[{index}]");
        let key = requirement["key"].as_str().unwrap_or_default();
        if by_field && key.is_empty() {
            errors.push(FieldError::required(format!("{path}.key"), "must be specified"));
        } else if !by_field {
            let problems = meta::names::qualified_name(key);
            if !problems.is_empty() {
                errors.extend(problems.into_iter().map(|why| FieldError::invalid(format!("{path}.key"), key, why)));
                continue;
            }
        }
        if !matches!(requirement["operator"].as_str(), Some("In" | "NotIn" | "Exists" | "DoesNotExist")) {
            let operator = requirement["operator"].as_str().unwrap_or_default();
            let detail = "not a valid selector operator";
            errors.push(FieldError::invalid(format!("{path}.operator"), operator, detail));
        }
    }
}

/// `spec.nodeName=n1`, from either form of a review's selector.
fn selector_text(selector: &Value) -> String {
    if let Some(raw) = selector["rawSelector"].as_str() {
        return raw.to_owned();
    }
    let requirements = selector["requirements"].as_array();
    let equal = requirements.into_iter().flatten().filter(|r| r["operator"] == "In");
    let terms = equal.filter_map(|r| Some(format!("{}={}", r["key"].as_str()?, r["values"][0].as_str()?)));
    terms.collect::<Vec<_>>().join(",")
}

fn subject(spec: &Value) -> UserInfo {
    let list = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    UserInfo {
        name: spec["user"].as_str().unwrap_or_default().to_owned(),
        uid: spec["uid"].as_str().unwrap_or_default().to_owned(),
        groups: list(&spec["groups"]),
        extra: spec["extra"].as_object().into_iter().flatten().map(|(k, v)| (k.clone(), list(v))).collect(),
    }
}

fn user_value(user: &UserInfo) -> Value {
    let mut value = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        value["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        value["extra"] =
            user.extra.iter().map(|(k, v)| (k.clone(), json!(v))).collect::<serde_json::Map<_, _>>().into();
    }
    value
}
