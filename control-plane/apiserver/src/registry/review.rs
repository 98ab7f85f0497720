//! Questions that are answered and never stored: who am I, who is this token's holder, may they do this. Which one a
//! kind asks is the action in its row.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use kinds::{Action, Asked};
use meta::Status;
use serde_json::{Value, json};

use super::Served;
use super::options::WriteOptions;
use crate::authn::{self, Credentials, UserInfo};
use crate::authz::{Attributes, Decision};
use crate::http::answer::Answer;
use crate::http::call::Call;
use crate::http::content;
use crate::server::Core;

impl Core {
    /// Answers a review.
    pub(super) async fn review(
        &self,
        call: &Call,
        served: &Arc<Served>,
        action: &Action,
        body: &Bytes,
    ) -> Result<Answer, Status> {
        let options = WriteOptions::parse(&call.query, "CreateOptions")?;
        let mut review = content::decode(call, served, body, options.field_validation)?;
        let spec = &review["spec"];
        let status = match action {
            Action::WhoAmI => json!({"userInfo": user_value(&call.user)}),
            Action::TokenReview => self.token_review(&review).await?,
            Action::AccessReview(Asked::Caller) => self.access(spec, &call.user),
            Action::AccessReview(asked) => {
                let namespace = &spec["resourceAttributes"]["namespace"];
                if *asked == Asked::SubjectHere && namespace != &json!(call.info.namespace) {
                    let why = "spec.resourceAttributes.namespace must match metadata.namespace";
                    return Err(Status::bad_request(why));
                }
                self.access(spec, &subject(spec)?)
            }
            Action::RulesReview => self.rules(spec, &call.user),
            _ => return Err(Status::method_not_allowed()),
        };
        review["status"] = status;
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
        let (allowed, denied, reason) = match self.decide(&attributes) {
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
        for authorizer in &self.authorizers {
            let rules = authorizer.rules(user, namespace);
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
        let audiences = if asked.is_empty() { self.config.audiences() } else { asked.clone() };
        let mut headers = HeaderMap::new();
        if let Ok(value) = format!("Bearer {token}").parse() {
            headers.insert(http::header::AUTHORIZATION, value);
        }
        let credentials = Credentials { headers: &headers, certificates: &[], audiences: &audiences };
        match authn::authenticate(&self.authenticators, &credentials, false).await {
            Ok(caller) => {
                let kept = if asked.is_empty() { self.config.audiences() } else { caller.audiences.clone() };
                Ok(json!({"authenticated": true, "user": user_value(&caller.user), "audiences": kept}))
            }
            Err(_) => Ok(json!({"user": {}, "error": "[invalid bearer token]"})),
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

fn subject(spec: &Value) -> Result<UserInfo, Status> {
    let list = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let user = UserInfo {
        name: spec["user"].as_str().unwrap_or_default().to_owned(),
        uid: spec["uid"].as_str().unwrap_or_default().to_owned(),
        groups: list(&spec["groups"]),
        extra: spec["extra"].as_object().into_iter().flatten().map(|(k, v)| (k.clone(), list(v))).collect(),
    };
    if user.name.is_empty() && user.groups.is_empty() {
        return Err(Status::bad_request("at least one of user or group must be specified"));
    }
    Ok(user)
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
