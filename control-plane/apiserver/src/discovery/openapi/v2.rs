//! OpenAPI v2: one document of everything. Pure.

use schema::openapi::Version;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::members::Members;
use super::paths::{self, Body, CUSTOM_TYPES, Consumes, Operation, Parameter, PathItem};
use super::schemas::Definitions;
use crate::discovery::catalogue::Catalogue;
use crate::registry::Served;

const TYPES: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const STREAMS: [&str; 2] = ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];

/// The document, written part by part.
pub struct Document<'a> {
    items: Vec<PathItem>,
    definitions: Definitions<'a>,
}

/// The document of everything served.
pub fn document(catalogue: &Catalogue) -> Document<'_> {
    let resources: Vec<&Served> = catalogue.resources().collect();
    let mut items = paths::of(resources.iter().copied());
    items.extend(paths::of_discovery(catalogue));
    let definitions = Definitions::of(&resources, &items, Version::V2);
    Document { items, definitions }
}

impl Document<'_> {
    pub fn paths(&self) -> impl Iterator<Item = (&str, Value)> {
        self.items.iter().map(|item| (item.path.as_str(), path_item(item)))
    }

    pub fn definitions(&self) -> impl Iterator<Item = (&str, Value)> {
        self.definitions.iter()
    }
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("swagger", "2.0")?;
        map.serialize_entry("info", &json!({"title": "Kubernetes", "version": meta::version::RELEASE}))?;
        map.serialize_entry("paths", &Members(|| self.paths()))?;
        map.serialize_entry("definitions", &Members(|| self.definitions()))?;
        let token = json!({
            "description": "Bearer Token authentication", "type": "apiKey", "name": "authorization", "in": "header",
        });
        map.serialize_entry("securityDefinitions", &json!({"BearerToken": token}))?;
        map.serialize_entry("security", &json!([{"BearerToken": []}]))?;
        map.end()
    }
}

fn parameter(parameter: &Parameter) -> Value {
    let mut out = json!({
        "name": parameter.name, "in": parameter.place, "type": parameter.kind, "uniqueItems": true,
    });
    if parameter.place == "path" {
        out["required"] = true.into();
    }
    out
}

fn path_item(item: &PathItem) -> Value {
    let mut out = Map::new();
    if !item.parameters.is_empty() {
        out.insert("parameters".to_owned(), item.parameters.iter().map(parameter).collect());
    }
    for one in &item.operations {
        out.insert(one.method.to_owned(), operation(one, item));
    }
    out.into()
}

/// Media types of patches.
pub fn patches(strategic: bool) -> Vec<&'static str> {
    let mut all = vec!["application/json-patch+json", "application/merge-patch+json"];
    if strategic {
        all.push("application/strategic-merge-patch+json");
    }
    all.push("application/apply-patch+yaml");
    all
}

fn operation(one: &Operation, item: &PathItem) -> Value {
    let mut parameters = Vec::new();
    if let Body::Definition(name) = &one.body {
        let mut body = json!({"in": "body", "name": "body", "schema": {"$ref": format!("#/definitions/{name}")}});
        if one.body_required {
            body["required"] = true.into();
        }
        parameters.push(body);
    }
    parameters.extend(one.parameters.iter().map(parameter));
    let schema = match &one.answer {
        Body::Definition(name) => json!({"$ref": format!("#/definitions/{name}")}),
        _ => json!({"type": "string"}),
    };
    let mut responses = Map::new();
    for code in one.codes {
        let word = match *code {
            "201" => "Created",
            "202" => "Accepted",
            _ => "OK",
        };
        responses.insert((*code).to_owned(), json!({"description": word, "schema": schema}));
    }
    responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
    let connect = one.action == "connect";
    let mut produces: Vec<&str> = match connect {
        true => vec!["*/*"],
        false if item.only.is_some() => item.only.into_iter().collect(),
        false if one.answer == Body::Text => [&["text/plain"], &TYPES[..]].concat(),
        false => TYPES[..if item.protobuf { 3 } else { 2 }].to_vec(),
    };
    if one.streams && item.protobuf {
        produces.extend(STREAMS);
    }
    let consumes = match one.consumes {
        // Paths of discovery.
        Consumes::Any if one.action.is_empty() => item.only.map_or(TYPES.to_vec(), |only| vec![only]),
        Consumes::Any => vec!["*/*"],
        Consumes::Custom => CUSTOM_TYPES.to_vec(),
        Consumes::Patches { strategic } => patches(strategic),
    };
    let mut out = json!({
        "operationId": one.id, "produces": produces, "responses": responses,
        "schemes": ["https"], "tags": [item.tag],
    });
    if one.answer != Body::Text || item.only.is_none() {
        out["consumes"] = json!(consumes);
    }
    if !one.action.is_empty() {
        out["x-kubernetes-action"] = one.action.into();
    }
    if !parameters.is_empty() {
        out["parameters"] = parameters.into();
    }
    if let Some(gvk) = &one.gvk {
        let value = json!({"group": gvk.group, "kind": gvk.kind, "version": gvk.version});
        out["x-kubernetes-group-version-kind"] = value;
    }
    out
}
