//! What the verbs tell admission of a call: who makes it, where it is told, and with which options. Pure.

use serde_json::{Value, json};

use super::options::{DeleteOptions, FieldValidation, Propagation, WriteOptions};
use crate::admission::{By, CallOptions, Operation};
use crate::http::call::Call;

/// Who makes a call, and where admission tells of it.
pub fn by(call: &Call) -> By<'_> {
    By {
        user: &call.user,
        warnings: &call.warnings,
        annotations: call.trail.as_deref().map(|trail| &trail.annotations),
    }
}

impl CallOptions for WriteOptions {
    fn dry_run(&self) -> bool {
        self.dry_run
    }

    fn object(&self, operation: Operation) -> Value {
        let kind = if operation == Operation::Create { "CreateOptions" } else { "UpdateOptions" };
        let mut object = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
        match self.field_validation {
            FieldValidation::Ignore => object["fieldValidation"] = "Ignore".into(),
            FieldValidation::Strict => object["fieldValidation"] = "Strict".into(),
            // What goes without saying.
            FieldValidation::Warn => {}
        }
        if self.dry_run {
            object["dryRun"] = json!(["All"]);
        }
        if !self.field_manager.is_empty() {
            object["fieldManager"] = self.field_manager.as_str().into();
        }
        object
    }
}

impl CallOptions for DeleteOptions {
    fn dry_run(&self) -> bool {
        self.dry_run
    }

    fn object(&self, _operation: Operation) -> Value {
        let mut object = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
        let mut put = |field: &str, value: Option<Value>| {
            if let Some(value) = value {
                object[field] = value;
            }
        };
        put("gracePeriodSeconds", self.grace_period.map(Value::from));
        put("orphanDependents", self.orphan_dependents.map(Value::from));
        put("propagationPolicy", self.propagation.map(Propagation::word).map(Value::from));
        put("dryRun", self.dry_run.then(|| json!(["All"])));
        let preconditions = [("uid", &self.uid), ("resourceVersion", &self.resource_version)];
        let preconditions = preconditions.into_iter().filter_map(|(field, text)| Some((field, text.as_ref()?)));
        let preconditions: serde_json::Map<_, _> =
            preconditions.map(|(field, text)| (field.to_owned(), text.as_str().into())).collect();
        put("preconditions", (!preconditions.is_empty()).then(|| preconditions.into()));
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_shown_as_upstream_shows_them() {
        let write = WriteOptions {
            dry_run: true,
            field_manager: "kubectl".to_owned(),
            field_validation: FieldValidation::Strict,
            force: Some(true),
        };
        let wanted = |kind: &str| {
            json!({"kind": kind, "apiVersion": "meta.k8s.io/v1", "dryRun": ["All"],
            "fieldManager": "kubectl", "fieldValidation": "Strict"})
        };
        assert_eq!(write.object(Operation::Create), wanted("CreateOptions"));
        assert_eq!(write.object(Operation::Update), wanted("UpdateOptions"));
        let delete = DeleteOptions {
            grace_period: Some(0),
            propagation: Some(Propagation::Foreground),
            uid: Some("u".to_owned()),
            ..DeleteOptions::default()
        };
        let wanted = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1", "gracePeriodSeconds": 0,
            "propagationPolicy": "Foreground", "preconditions": {"uid": "u"}});
        assert_eq!(delete.object(Operation::Delete), wanted);
        assert_eq!(
            DeleteOptions::default().object(Operation::Delete),
            json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"})
        );
    }
}
