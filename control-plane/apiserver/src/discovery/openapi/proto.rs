//! The protobuf form of an OpenAPI v2 document, as clients of Go's OpenAPI libraries read it. Pure.
//!
//! Field numbers are those of the published `openapi.v2` message set. Extensions travel as YAML texts. Only what our
//! own documents contain is written.

use serde_json::Value;

use super::v2::Document;

/// Appends to a message.
struct Message(Vec<u8>);

impl Message {
    fn new() -> Message {
        Message(Vec::new())
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number as u8 & 0x7f) | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u32, value: &Value) {
        if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn texts(&mut self, field: u32, value: &Value) {
        for text in value.as_array().into_iter().flatten().filter_map(Value::as_str) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn flag(&mut self, field: u32, value: &Value) {
        if value == true {
            self.varint(u64::from(field) << 3);
            self.varint(1);
        }
    }

    fn integer(&mut self, field: u32, value: &Value) {
        if let Some(number) = value.as_i64().filter(|number| *number != 0) {
            self.varint(u64::from(field) << 3);
            self.varint(number as u64);
        }
    }

    fn double(&mut self, field: u32, value: &Value) {
        if let Some(number) = value.as_f64().filter(|number| *number != 0.0) {
            self.varint(u64::from(field) << 3 | 1);
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn message(&mut self, field: u32, make: impl FnOnce(&mut Message)) {
        let mut inner = Message::new();
        make(&mut inner);
        self.bytes(field, &inner.0);
    }

    /// A NamedAny: name 1, value 2 = Any { value 1 = google.protobuf.Any, yaml 2 }.
    fn extensions(&mut self, field: u32, value: &Value) {
        let Some(map) = value.as_object() else { return };
        for (name, extension) in map.iter().filter(|(name, _)| name.starts_with("x-")) {
            self.message(field, |named| {
                named.bytes(1, name.as_bytes());
                named.message(2, |any| any.bytes(2, yaml(extension).as_bytes()));
            });
        }
    }

    fn any(&mut self, field: u32, value: &Value) {
        if !value.is_null() {
            self.message(field, |any| any.bytes(2, yaml(value).as_bytes()));
        }
    }
}

/// JSON is YAML.
fn yaml(value: &Value) -> String {
    format!("{value}\n")
}

/// Document: swagger 1, info 2, paths 8, definitions 9, security 12, security_definitions 13.
pub fn encode(document: &Document<'_>) -> Vec<u8> {
    let mut out = Message::new();
    out.bytes(1, b"2.0");
    out.message(2, |info| {
        info.bytes(1, b"Kubernetes");
        info.bytes(2, meta::version::RELEASE.as_bytes());
    });
    out.message(8, |paths| {
        for (path, item) in document.paths() {
            // Paths: vendor_extension 1, path 2 (NamedPathItem).
            paths.message(2, |named| {
                named.bytes(1, path.as_bytes());
                named.message(2, |out| path_item(out, &item));
            });
        }
    });
    out.message(9, |definitions| {
        for (name, definition) in document.definitions() {
            definitions.message(1, |named| {
                named.bytes(1, name.as_bytes());
                named.message(2, |out| schema(out, &definition));
            });
        }
    });
    out.message(12, |requirement| {
        requirement.message(1, |named| {
            named.bytes(1, b"BearerToken");
            named.message(2, |_| {});
        });
    });
    out.message(13, |definitions| {
        definitions.message(1, |named| {
            named.bytes(1, b"BearerToken");
            // SecurityDefinitionsItem: api_key_security 2 { type 1, name 2, in 3, description 4 }.
            named.message(2, |item| {
                item.message(2, |key| {
                    key.bytes(1, b"apiKey");
                    key.bytes(2, b"authorization");
                    key.bytes(3, b"header");
                    key.bytes(4, b"Bearer Token authentication");
                });
            });
        });
    });
    out.0
}

/// PathItem: get 2, put 3, post 4, delete 5, options 6, head 7, patch 8, parameters 9.
fn path_item(out: &mut Message, item: &Value) {
    let methods = [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("options", 6), ("head", 7), ("patch", 8)];
    for (method, field) in methods {
        if item[method].is_object() {
            out.message(field, |out| operation(out, &item[method]));
        }
    }
    for one in item["parameters"].as_array().into_iter().flatten() {
        out.message(9, |out| parameters_item(out, one));
    }
}

/// Operation: tags 1, summary 2, description 3, external_docs 4, operation_id 5, produces 6, consumes 7,
/// parameters 8, responses 9, schemes 10, deprecated 11, security 12, vendor_extension 13.
fn operation(out: &mut Message, operation: &Value) {
    out.texts(1, &operation["tags"]);
    out.text(5, &operation["operationId"]);
    out.texts(6, &operation["produces"]);
    out.texts(7, &operation["consumes"]);
    for one in operation["parameters"].as_array().into_iter().flatten() {
        out.message(8, |out| parameters_item(out, one));
    }
    out.message(9, |responses| {
        for (code, response) in operation["responses"].as_object().into_iter().flatten() {
            // Responses: response_code 1 (NamedResponseValue); ResponseValue: response 1 { description 1, schema 2 }.
            responses.message(1, |named| {
                named.bytes(1, code.as_bytes());
                named.message(2, |value| {
                    value.message(1, |out| {
                        out.text(1, &response["description"]);
                        if response["schema"].is_object() {
                            // SchemaItem: schema 1.
                            out.message(2, |item| item.message(1, |out| schema(out, &response["schema"])));
                        }
                    });
                });
            });
        }
    });
    out.texts(10, &operation["schemes"]);
    out.extensions(13, operation);
}

/// ParametersItem: parameter 1; Parameter: body_parameter 1, non_body_parameter 2.
fn parameters_item(out: &mut Message, one: &Value) {
    out.message(1, |parameter| match one["in"].as_str() {
        // BodyParameter: description 1, name 2, in 3, required 4, schema 5.
        Some("body") => parameter.message(1, |body| {
            body.text(2, &one["name"]);
            body.text(3, &one["in"]);
            body.flag(4, &one["required"]);
            body.message(5, |out| schema(out, &one["schema"]));
        }),
        // NonBodyParameter: header 1, form_data 2, query 3, path 4.
        // Query: required 1, in 2, description 3, name 4, allow_empty_value 5, type 6, ... unique_items 20.
        Some("query") => parameter.message(2, |non_body| {
            non_body.message(3, |query| {
                query.flag(1, &one["required"]);
                query.text(2, &one["in"]);
                query.text(4, &one["name"]);
                query.text(6, &one["type"]);
                query.flag(20, &one["uniqueItems"]);
            });
        }),
        // Path: required 1, in 2, description 3, name 4, type 5, ... unique_items 19.
        _ => parameter.message(2, |non_body| {
            non_body.message(4, |path| {
                path.flag(1, &one["required"]);
                path.text(2, &one["in"]);
                path.text(4, &one["name"]);
                path.text(5, &one["type"]);
                path.flag(19, &one["uniqueItems"]);
            });
        }),
    });
}

/// Schema: $ref 1, format 2, title 3, description 4, default 5, multiple_of 6, maximum 7, exclusive_maximum 8,
/// minimum 9, exclusive_minimum 10, max_length 11, min_length 12, pattern 13, max_items 14, min_items 15,
/// unique_items 16, max_properties 17, min_properties 18, required 19, enum 20, additional_properties 21, type 22,
/// items 23, all_of 24, properties 25, discriminator 26, read_only 27, xml 28, external_docs 29, example 30,
/// vendor_extension 31.
fn schema(out: &mut Message, value: &Value) {
    out.text(1, &value["$ref"]);
    out.text(2, &value["format"]);
    out.text(3, &value["title"]);
    out.text(4, &value["description"]);
    out.any(5, &value["default"]);
    out.double(6, &value["multipleOf"]);
    out.double(7, &value["maximum"]);
    out.flag(8, &value["exclusiveMaximum"]);
    out.double(9, &value["minimum"]);
    out.flag(10, &value["exclusiveMinimum"]);
    out.integer(11, &value["maxLength"]);
    out.integer(12, &value["minLength"]);
    out.text(13, &value["pattern"]);
    out.integer(14, &value["maxItems"]);
    out.integer(15, &value["minItems"]);
    out.flag(16, &value["uniqueItems"]);
    out.integer(17, &value["maxProperties"]);
    out.integer(18, &value["minProperties"]);
    out.texts(19, &value["required"]);
    for one in value["enum"].as_array().into_iter().flatten() {
        out.any(20, one);
    }
    match &value["additionalProperties"] {
        // AdditionalPropertiesItem: schema 1, boolean 2.
        Value::Object(_) => {
            out.message(21, |item| item.message(1, |out| schema(out, &value["additionalProperties"])));
        }
        Value::Bool(true) => out.message(21, |item| item.flag(2, &Value::Bool(true))),
        _ => {}
    }
    if value["type"].is_string() {
        out.message(22, |item| item.text(1, &value["type"]));
    }
    if value["items"].is_object() {
        out.message(23, |items| items.message(1, |out| schema(out, &value["items"])));
    }
    for one in value["allOf"].as_array().into_iter().flatten() {
        out.message(24, |out| schema(out, one));
    }
    if let Some(properties) = value["properties"].as_object() {
        out.message(25, |all| {
            for (name, property) in properties {
                all.message(1, |named| {
                    named.bytes(1, name.as_bytes());
                    named.message(2, |out| schema(out, property));
                });
            }
        });
    }
    out.extensions(31, value);
}
