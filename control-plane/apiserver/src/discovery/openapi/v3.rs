//! OpenAPI v3: one document per group and version, and per page of discovery. Pure.

use schema::openapi::Version;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::members::Members;
use super::paths::{self, Body, CUSTOM_TYPES, Consumes, Operation, Parameter, PathItem};
use super::schemas::Definitions;
use super::v2::patches;
use crate::discovery::catalogue::Catalogue;
use crate::registry::Served;

/// The document, written part by part.
pub struct Document<'a> {
    items: Vec<PathItem>,
    definitions: Definitions<'a>,
}

/// The document at a path below `/openapi/v3/`.
pub fn document<'a>(catalogue: &'a Catalogue, path: &str) -> Document<'a> {
    let resources = resources(catalogue, path);
    let mut items = paths::of(resources.iter().copied());
    items.extend(paths::of_discovery(catalogue).into_iter().filter(|item| item.path.trim_matches('/') == path));
    let definitions = Definitions::of(&resources, &items, Version::V3);
    Document { items, definitions }
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("openapi", "3.0.0")?;
        map.serialize_entry("info", &json!({"title": "Kubernetes", "version": meta::version::RELEASE}))?;
        map.serialize_entry("paths", &Members(|| self.items.iter().map(|item| (&item.path, path_item(item)))))?;
        map.serialize_entry("components", &Components(&self.definitions))?;
        map.end()
    }
}

struct Components<'a>(&'a Definitions<'a>);

impl Serialize for Components<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("schemas", &Members(|| self.0.iter()))?;
        let token = json!({
            "type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header",
        });
        map.serialize_entry("securitySchemes", &json!({"BearerToken": token}))?;
        map.end()
    }
}

fn parameter(parameter: &Parameter) -> Value {
    let mut out = json!({
        "name": parameter.name, "in": parameter.place,
        "schema": {"type": parameter.kind, "uniqueItems": true},
    });
    if parameter.place == "path" {
        out["required"] = true.into();
    }
    out
}

fn path_item(item: &PathItem) -> Value {
    let mut out = Map::new();
    for one in &item.operations {
        out.insert(one.method.to_owned(), operation(one, item));
    }
    if !item.parameters.is_empty() {
        out.insert("parameters".to_owned(), item.parameters.iter().map(parameter).collect());
    }
    out.into()
}

fn content(types: &[&str], schema: &Value) -> Value {
    types.iter().map(|media| ((*media).to_owned(), json!({"schema": schema}))).collect::<Map<_, _>>().into()
}

fn operation(one: &Operation, item: &PathItem) -> Value {
    let reference = |body: &Body| match body {
        Body::Definition(name) => json!({"$ref": format!("#/components/schemas/{name}")}),
        _ => json!({"type": "string"}),
    };
    let mut types = vec!["application/json", "application/yaml"];
    if item.protobuf {
        types.insert(1, "application/vnd.kubernetes.protobuf");
    }
    if one.streams && item.protobuf {
        types.extend(["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"]);
    }
    if one.action == "connect" {
        types = vec!["*/*"];
    }
    if let Some(only) = item.only {
        types = vec![only];
    }
    let mut responses = Map::new();
    for code in one.codes {
        let word = match *code {
            "201" => "Created",
            "202" => "Accepted",
            _ => "OK",
        };
        let answer = json!({"description": word, "content": content(&types, &reference(&one.answer))});
        responses.insert((*code).to_owned(), answer);
    }
    responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
    let mut out = json!({
        "tags": [item.tag], "operationId": one.id, "responses": responses,
    });
    if !one.action.is_empty() {
        out["x-kubernetes-action"] = one.action.into();
    }
    if !one.parameters.is_empty() {
        out["parameters"] = one.parameters.iter().map(parameter).collect();
    }
    if one.body != Body::None {
        let types = match one.consumes {
            Consumes::Any => vec!["*/*"],
            Consumes::Custom => CUSTOM_TYPES.to_vec(),
            Consumes::Patches { strategic } => patches(strategic),
        };
        out["requestBody"] = json!({"content": content(&types, &reference(&one.body))});
        if one.body_required {
            out["requestBody"]["required"] = true.into();
        }
    }
    if let Some(gvk) = &one.gvk {
        let value = json!({"group": gvk.group, "kind": gvk.kind, "version": gvk.version});
        out["x-kubernetes-group-version-kind"] = value;
    }
    out
}

/// The resources of the group and version that a document is about; none for other pages.
pub fn resources<'a>(catalogue: &'a Catalogue, document: &str) -> Vec<&'a Served> {
    let (group, version) = match document.split('/').collect::<Vec<_>>().as_slice() {
        ["api", version] => ("", *version),
        ["apis", group, version] => (*group, *version),
        _ => return Vec::new(),
    };
    catalogue.version(group, version).unwrap_or_default()
}
