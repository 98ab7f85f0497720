//! Whether a caller may do what a request asks: a chain of authorisers, the first opinion counts.

pub mod chain;
pub mod escalation;
pub mod node;
pub mod rbac;
pub mod references;
pub mod rules;

use meta::{Gvr, Status};

use crate::authn::{MASTERS, UserInfo};
use crate::http::request::RequestInfo;

/// What is to be authorised. For requests that are no resource only `user`, `verb` and `path` matter.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    pub user: &'a UserInfo,
    pub verb: &'a str,
    pub resource_request: bool,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub path: &'a str,
    /// As written in the request; the node authoriser narrows lists by them. Empty for none.
    pub field_selector: &'a str,
    pub label_selector: &'a str,
}

impl<'a> Attributes<'a> {
    pub fn of(info: &'a RequestInfo, user: &'a UserInfo) -> Attributes<'a> {
        Attributes {
            user,
            verb: info.verb,
            resource_request: info.resource_request,
            group: &info.group,
            version: &info.version,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: &info.path,
            field_selector: "",
            label_selector: "",
        }
    }
}

/// An authoriser's opinion. Reasons are for the audit log and reviews; the client sees them after a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Allow(String),
    Deny(String),
    NoOpinion(String),
}

/// One authoriser. Decides from caches, without I/O.
pub trait Authorizer: Send + Sync {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision;

    /// Rules that this authoriser would allow in a namespace, for SelfSubjectRulesReview: resource rules and
    /// non-resource rules as the review's status holds them, and whether the list is complete.
    fn rules(&self, _user: &UserInfo, _namespace: &str) -> Rules {
        Rules::default()
    }
}

/// Rules of one caller in one namespace.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    pub resource: Vec<serde_json::Value>,
    pub non_resource: Vec<serde_json::Value>,
    pub incomplete: bool,
    pub error: String,
}

/// Lets members of system:masters do everything. Their rules are listed by RBAC, which binds them to cluster-admin.
pub struct Masters;

impl Authorizer for Masters {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.groups.iter().any(|group| group == MASTERS) {
            return Decision::Allow(String::new());
        }
        Decision::NoOpinion(String::new())
    }
}

/// Lets everybody do everything (`--authorization-mode=AlwaysAllow`).
pub struct AlwaysAllow;

impl Authorizer for AlwaysAllow {
    fn authorize(&self, _attributes: &Attributes<'_>) -> Decision {
        Decision::Allow(String::new())
    }

    fn rules(&self, _user: &UserInfo, _namespace: &str) -> Rules {
        Rules {
            resource: vec![serde_json::json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})],
            non_resource: vec![serde_json::json!({"verbs": ["*"], "nonResourceURLs": ["*"]})],
            ..Rules::default()
        }
    }
}

/// The 403 for a refused request, in upstream's words.
pub fn forbidden(attributes: &Attributes<'_>, reason: &str) -> Status {
    let user = meta::text::quote(&attributes.user.name);
    let mut why = if attributes.resource_request {
        let mut resource = attributes.resource.to_owned();
        if !attributes.subresource.is_empty() {
            resource = format!("{resource}/{}", attributes.subresource);
        }
        let scope = match attributes.namespace {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {}", meta::text::quote(namespace)),
        };
        format!(
            "User {user} cannot {} resource {} in API group {} {scope}",
            attributes.verb,
            meta::text::quote(&resource),
            meta::text::quote(attributes.group)
        )
    } else {
        format!("User {user} cannot {} path {}", attributes.verb, meta::text::quote(attributes.path))
    };
    if !reason.is_empty() {
        why = format!("{why}: {reason}");
    }
    let gvr = Gvr {
        group: attributes.group.to_owned().into(),
        version: attributes.version.to_owned().into(),
        resource: attributes.resource.to_owned().into(),
    };
    Status::forbidden(&gvr, attributes.name, why)
}
