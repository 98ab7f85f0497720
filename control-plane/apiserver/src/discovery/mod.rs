//! What clients ask before anything else: which groups, versions and resources there are, how healthy the server is,
//! which version it has.

mod aggregated;
pub mod catalogue;
mod legacy;
mod openapi;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Response};
use meta::Status;
use meta::version::{GIT_VERSION, MAJOR, MINOR};
use serde_json::{Value, json};
use sha2::{Digest, Sha512};
use telemetry::process;

use self::catalogue::Catalogue;
use crate::http::answer::Answer;
use crate::http::body::Body;
use crate::http::call::Call;
use crate::http::negotiate;
use crate::http::respond::{self, response};
use crate::ops::{health, metrics};
use crate::server::Core;

/// Answers a request that is about no resource.
pub async fn serve(core: &Core, call: &Call) -> Result<Answer, Status> {
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return Err(Status::method_not_allowed());
    }
    let catalogue = Catalogue::new(core.objects.registry.load_full());
    let parts: Vec<&str> = call.info.path.split('/').filter(|part| !part.is_empty()).collect();
    let document = match parts.as_slice() {
        [] => paths(&catalogue),
        ["version"] => version(),
        [root @ ("api" | "apis")] if aggregated::is_wanted(call) => {
            return Ok(aggregated::serve(&catalogue, *root == "api", call));
        }
        ["api"] => legacy::versions(),
        ["apis"] => legacy::groups(&catalogue),
        ["apis", group] => match catalogue.group(group) {
            Some(group) => legacy::group(&group),
            None => return Ok(respond::no_such_page()),
        },
        ["api", version] => resources(&catalogue, "", version)?,
        ["apis", group, version] if catalogue.has(group) => resources(&catalogue, group, version)?,
        [".well-known", "openid-configuration"] => {
            let issuer = &core.config.service_account_issuer;
            let keys = core.config.service_account_jwks_uri.clone();
            let keys = keys.unwrap_or_else(|| format!("{issuer}/openid/v1/jwks"));
            let document = json!({
                "issuer": issuer, "jwks_uri": keys, "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256", "RS256"],
            });
            return Ok(Answer::Raw(cacheable(negotiate::JSON, &document)));
        }
        ["openid", "v1", "jwks"] => {
            let keys = crate::authn::jwt::jwks(&core.token_keys);
            return Ok(Answer::Raw(cacheable("application/jwk-set+json", &keys)));
        }
        ["openapi", "v2"] => return openapi::v2_document(catalogue, call).await,
        ["openapi", "v3"] => openapi::index(&catalogue),
        ["openapi", "v3", path @ ..] => return openapi::v3_document(&catalogue, call, &path.join("/")),
        [endpoint, check @ ..] if health::ENDPOINTS.contains(endpoint) => {
            let endpoint = health::ENDPOINTS.into_iter().find(|known| known == endpoint).unwrap_or_default();
            let answer = health::serve(core, call, endpoint, &check.join("/")).await?;
            return Ok(answer.map_or_else(respond::no_such_page, Answer::Raw));
        }
        ["metrics"] => return Ok(Answer::Raw(metrics::page(&core.metrics, &*core.objects.store).await)),
        ["metrics", "slis"] => return Ok(Answer::Raw(metrics::slis(&core.metrics))),
        ["api", ..] => return Err(Status::no_such_path()),
        ["apis", group, ..] if catalogue.has(group) => return Err(Status::no_such_path()),
        _ => return Ok(respond::no_such_page()),
    };
    if matches!(parts.first(), Some(&("api" | "apis"))) {
        let accepted = call.accepted(false, false)?;
        if accepted.encoding == negotiate::Encoding::Yaml {
            let body = Bytes::from(codec::yaml::encode(&document));
            return Ok(Answer::Raw(response(200, negotiate::YAML, body)));
        }
    }
    Ok(document_answer(call, &document))
}

/// `/api/<version>` and `/apis/<group>/<version>` of a group that is served.
fn resources(catalogue: &Catalogue, group: &str, version: &str) -> Result<Value, Status> {
    let served = catalogue.version(group, version).ok_or_else(Status::no_such_path)?;
    Ok(legacy::resources(group, version, &served))
}

/// A document in JSON.
fn document_answer(call: &Call, document: &Value) -> Answer {
    let body = if call.pretty() { serde_json::to_vec_pretty(document) } else { serde_json::to_vec(document) };
    Answer::Raw(response(200, negotiate::JSON, Bytes::from(body.unwrap_or_default())))
}

/// Documents of the token issuer may be kept for an hour.
fn cacheable(content_type: &'static str, document: &Value) -> Response<Body> {
    let body = serde_json::to_vec(document).unwrap_or_default();
    let mut answer = response(200, content_type, Bytes::from(body));
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    answer
}

/// A body with an ETag, or 304 when the client has it.
pub fn tagged(call: &Call, content_type: &'static str, body: Bytes) -> Response<Body> {
    let digest = Sha512::digest(&body);
    let tag: String = digest.iter().take(32).map(|byte| format!("{byte:02X}")).collect();
    let tag = format!("\"{tag}\"");
    let known = call.header(header::IF_NONE_MATCH).split(',').any(|known| known.trim() == tag);
    let mut answer = if known {
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = http::StatusCode::NOT_MODIFIED;
        answer
    } else {
        response(200, content_type, body)
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        answer.headers_mut().insert(header::ETAG, tag);
    }
    answer.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    answer
}

fn version() -> Value {
    json!({
        "major": MAJOR, "minor": MINOR,
        "emulationMajor": MAJOR, "emulationMinor": MINOR,
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "36",
        "gitVersion": GIT_VERSION,
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, process::architecture()),
    })
}

fn paths(catalogue: &Catalogue) -> Value {
    let mut paths: Vec<String> =
        ["/.well-known/openid-configuration", "/api", "/api/v1", "/apis", "/apis/", "/metrics", "/metrics/slis"]
            .map(str::to_owned)
            .to_vec();
    paths.extend(["/openapi/v2", "/openapi/v3", "/openid/v1/jwks", "/version"].map(str::to_owned));
    paths.extend(health::paths());
    for group in catalogue.groups().filter(|group| !group.name.is_empty()) {
        paths.push(format!("/apis/{}", group.name));
        paths.extend(group.versions.iter().map(|version| format!("/apis/{}/{}", group.name, version.name)));
    }
    paths.sort();
    json!({"paths": paths})
}
