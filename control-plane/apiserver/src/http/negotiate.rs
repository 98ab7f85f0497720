//! Content negotiation: which encoding and which view of an object a client accepts, and what its body is. Pure.

use meta::Status;

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

pub const JSON: &str = "application/json";
pub const YAML: &str = "application/yaml";
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Media types offered for built-in kinds, in the order of upstream's messages.
pub const ALL_TYPES: [&str; 3] = [JSON, YAML, PROTOBUF];
/// Custom resources have no protobuf schema.
pub const CUSTOM_TYPES: [&str; 2] = [JSON, YAML];

impl Encoding {
    pub fn media_type(self) -> &'static str {
        match self {
            Encoding::Json => JSON,
            Encoding::Yaml => YAML,
            Encoding::Protobuf => PROTOBUF,
        }
    }

    /// Content-Type of a watch in this encoding.
    pub fn stream_type(self) -> &'static str {
        match self {
            Encoding::Json | Encoding::Yaml => JSON,
            Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        }
    }
}

/// What is shown of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum View {
    /// The object itself.
    Whole,
    /// `meta.k8s.io` Table; true for v1beta1.
    Table { beta: bool },
    /// `PartialObjectMetadata` or its list; true for v1beta1.
    Metadata { beta: bool },
}

/// The outcome of negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    pub encoding: Encoding,
    pub view: View,
}

impl Accepted {
    pub const JSON: Accepted = Accepted { encoding: Encoding::Json, view: View::Whole };
}

/// One clause of an Accept header.
#[derive(Debug)]
pub struct Clause<'a> {
    pub media_type: &'a str,
    pub parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl Clause<'_> {
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }
}

/// The clauses of an Accept header, best first.
pub fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut all: Vec<Clause<'_>> = accept
        .split(',')
        .map(str::trim)
        .filter(|clause| !clause.is_empty())
        .map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default();
            let parameters: Vec<(&str, &str)> =
                parts.filter_map(|part| part.split_once('=')).map(|(k, v)| (k.trim(), v.trim())).collect();
            let quality = parameters.iter().find(|(k, _)| *k == "q").and_then(|(_, v)| v.parse().ok()).unwrap_or(1.0);
            Clause { media_type, parameters, quality }
        })
        .filter(|clause| clause.quality > 0.0)
        .collect();
    all.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    all
}

/// What the answer to a request can be written as.
#[derive(Debug, Clone, Copy, Default)]
pub struct Offer {
    /// Custom kinds have no protobuf.
    pub custom: bool,
    /// Tables can be made.
    pub table: bool,
    /// A collection, which can also be watched.
    pub collection: bool,
    /// The request is to watch it.
    pub watch: bool,
}

/// Media types of watches, as upstream's messages name them.
const STREAMS: [&str; 2] = ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];

impl Offer {
    fn types(self) -> &'static [&'static str] {
        if self.custom { &CUSTOM_TYPES } else { &ALL_TYPES }
    }

    /// The client names types that exist, but not in the form that it wants them.
    fn no_such_form(self) -> Status {
        let streams = if self.custom { &STREAMS[..1] } else { &STREAMS[..] };
        let types = if self.watch { streams } else { self.types() };
        let message = format!("only the following media types are accepted: {}", types.join(", "));
        Status::failure(406, meta::Reason::NotAcceptable, message)
    }

    fn no_such_type(self) -> Status {
        let mut types = self.types().to_vec();
        if self.collection {
            types.extend(if self.custom { &STREAMS[..1] } else { &STREAMS[..] });
        }
        Status::not_acceptable(&types)
    }
}

/// Chooses for an object, list or watch.
pub fn accept(header: &str, offer: Offer) -> Result<Accepted, Status> {
    let Offer { custom, table, .. } = offer;
    let mut known_type = false;
    if header.trim().is_empty() {
        return Ok(Accepted::JSON);
    }
    for clause in clauses(header) {
        let encoding = match clause.media_type {
            JSON | "*/*" | "application/*" => Encoding::Json,
            YAML => Encoding::Yaml,
            PROTOBUF => Encoding::Protobuf,
            _ => continue,
        };
        known_type = true;
        if offer.watch && encoding == Encoding::Yaml {
            continue;
        }
        let group = clause.parameter("g").unwrap_or("meta.k8s.io");
        let beta = clause.parameter("v") == Some("v1beta1");
        let known = group == "meta.k8s.io" && matches!(clause.parameter("v"), None | Some("v1" | "v1beta1"));
        let view = match clause.parameter("as") {
            None => View::Whole,
            Some("Table") if known && table && encoding != Encoding::Protobuf => View::Table { beta },
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") if known => View::Metadata { beta },
            Some(_) => continue,
        };
        if custom && encoding == Encoding::Protobuf && view == View::Whole {
            continue;
        }
        return Ok(Accepted { encoding, view });
    }
    Err(if known_type { offer.no_such_form() } else { offer.no_such_type() })
}

/// The media type of a Content-Type header, without parameters.
pub fn media_type(header: &str) -> &str {
    header.split(';').next().unwrap_or_default().trim()
}

/// The encoding of a request body; an absent header means JSON, as upstream has it.
pub fn body_encoding(header: &str, custom: bool) -> Result<Encoding, Status> {
    match media_type(header) {
        "" | JSON => Ok(Encoding::Json),
        YAML => Ok(Encoding::Yaml),
        PROTOBUF if !custom => Ok(Encoding::Protobuf),
        _ if custom => Err(Status::unsupported_media_type(&CUSTOM_TYPES)),
        _ => Err(Status::unsupported_media_type(&ALL_TYPES)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: Offer = Offer { custom: false, table: true, collection: false, watch: false };

    fn get(header: &str) -> (Encoding, View) {
        let accepted = accept(header, OBJECT).expect("acceptable");
        (accepted.encoding, accepted.view)
    }

    #[test]
    fn clients_get_the_first_thing_they_ask_for_that_exists() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(get(kubectl), (Encoding::Json, View::Table { beta: false }));
        assert_eq!(get("application/vnd.kubernetes.protobuf,application/json"), (Encoding::Protobuf, View::Whole));
        assert_eq!(get("application/cbor, */*"), (Encoding::Json, View::Whole));
        assert_eq!(get("application/json;q=0.1,application/yaml"), (Encoding::Yaml, View::Whole));
        assert_eq!(get("application/json;as=Nothing,application/json"), (Encoding::Json, View::Whole));
        assert_eq!(get(""), (Encoding::Json, View::Whole));
        let custom = accept("application/vnd.kubernetes.protobuf,application/json", Offer { custom: true, ..OBJECT })
            .expect("json");
        assert_eq!(custom.encoding, Encoding::Json);
    }

    #[test]
    fn who_asks_for_what_there_is_not_learns_what_there_is() {
        let list = Offer { collection: true, ..OBJECT };
        for (header, offer, want) in [
            (
                "text/html",
                OBJECT,
                "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf",
            ),
            (
                "text/html",
                list,
                "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf, application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch",
            ),
            (
                "application/json;as=Foo;v=v1;g=meta.k8s.io",
                list,
                "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
            ),
            (
                "application/yaml",
                Offer { watch: true, ..list },
                "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch",
            ),
        ] {
            let error = accept(header, offer).expect_err(header);
            assert_eq!((error.code, error.message.as_str()), (406, want));
        }
    }
}
