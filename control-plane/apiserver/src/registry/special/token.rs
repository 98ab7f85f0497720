//! TokenRequest: a signed token for a service account, bound to audiences, a lifetime and, if asked, an object.

use std::sync::Arc;
use std::time::Duration;

use kinds::Subresource;
use meta::{FieldError, Gvr, Status};
use object::{meta_text, metadata};
use serde_json::{Value, json};

use crate::admission::Operation;
use crate::authn::jwt::Signer;
use crate::authn::service_account::{self, Bound, Grant};
use crate::cache::Entry;
use crate::config::Config;
use crate::http::answer::Answer;
use crate::http::body::{self, RequestBody};
use crate::http::call::Call;
use crate::registry::Served;
use crate::registry::decode;
use crate::registry::options::WriteOptions;
use crate::registry::verbs::Verbs;

const DEFAULT_SECONDS: i64 = 3600;
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;
/// The lifetime that mounted tokens ask for; such tokens work for a year, with warnings after this time, so that
/// programs which never read them again go on.
const MOUNTED_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

/// Issues the tokens of service accounts.
pub struct Tokens {
    pub verbs: Arc<Verbs>,
    /// `None` when this server signs none.
    pub signer: Option<Signer>,
    pub config: Arc<Config>,
}

impl Tokens {
    pub async fn issue(
        &self,
        call: &Call,
        served: &Arc<Served>,
        sub: &Subresource,
        body: RequestBody,
    ) -> Result<Answer, Status> {
        let options = WriteOptions::parse(&call.query, "CreateOptions")?;
        let body = body::read(body).await?;
        let mut request = decode::decode_as(call, &sub.kind, &body, options.field_validation)?;
        let given = meta_text(&request, "name").to_owned();
        if !given.is_empty() && given != call.info.name {
            let detail = "must match the service account name if specified";
            let error = FieldError::invalid("metadata.name", given, detail);
            return Err(Status::invalid(&sub.kind, &call.info.name, &[error]));
        }
        let what = (Operation::Create, sub.name.as_ref());
        self.verbs.admit_posted(call, served, what, &call.info.name, &mut request, Some(&options)).await?;
        let Some(signer) = &self.signer else {
            return Err(Status::service_unavailable("this server has no key to sign tokens with"));
        };
        let key = self.verbs.objects.key_of(call, served, &call.info.name)?;
        let Some(account) = self.verbs.objects.live(served, &key).await? else {
            return Err(Status::not_found(&served.gvr(), &call.info.name));
        };
        let own_audiences = self.config.audiences();
        let audiences: Vec<String> = match request["spec"]["audiences"].as_array() {
            Some(list) if !list.is_empty() => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => own_audiences.to_vec(),
        };
        let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(DEFAULT_SECONDS);
        check_lifetime(sub, &call.info.name, seconds)?;
        let (seconds, shortened) = shortened(seconds, self.config.service_account_max_token_expiration);
        if let Some(warning) = shortened {
            call.warn(warning);
        }
        let bound = self.bound_objects(&account, &request["spec"]["boundObjectRef"]).await?;
        let now = call.now.as_second();
        let for_us = audiences.iter().any(|audience| own_audiences.contains(audience));
        let mounted = seconds == MOUNTED_SECONDS && for_us && bound.iter().any(|b| b.kind == "pod");
        let extend = mounted && self.config.service_account_extend_token_expiration;
        let account_object = account.object();
        let grant = Grant {
            issuer: &self.config.service_account_issuer,
            audiences: &audiences,
            namespace: account.namespace(),
            account: account.name(),
            account_uid: meta_text(&account_object, "uid"),
            bound: &bound,
            now,
            expires: now + if extend { EXTENDED_SECONDS } else { seconds },
            warn_after: extend.then_some(now + seconds),
        };
        let token = signer.sign(&service_account::claims(&grant)).map_err(Status::internal)?;
        let expires = call.now + jiff::SignedDuration::from_secs(seconds);
        request["spec"]["audiences"] = json!(audiences);
        request["spec"]["expirationSeconds"] = seconds.into();
        if request["spec"]["boundObjectRef"].is_null()
            && let Some(spec) = request["spec"].as_object_mut()
        {
            spec.insert("boundObjectRef".to_owned(), Value::Null);
        }
        request["status"] = json!({"token": token, "expirationTimestamp": meta::time::format(expires)});
        let meta = metadata(&mut request);
        meta.insert("name".to_owned(), account.name().into());
        meta.insert("namespace".to_owned(), account.namespace().into());
        meta.insert("creationTimestamp".to_owned(), meta::time::format(call.now).into());
        Ok(Answer::object(201, served, request))
    }

    async fn bound_objects(&self, account: &Entry, reference: &Value) -> Result<Vec<Bound>, Status> {
        let text = |field: &str| reference[field].as_str().unwrap_or_default();
        let (name, uid) = (text("name"), text("uid"));
        if reference.is_null() {
            return Ok(Vec::new());
        }
        let (kind, plural, namespace) = match (text("apiVersion"), text("kind")) {
            ("v1" | "", "Pod") => ("pod", "pods", account.namespace()),
            ("v1" | "", "Secret") => ("secret", "secrets", account.namespace()),
            ("v1" | "", "Node") => ("node", "nodes", ""),
            (version, kind) => {
                let (group, version) = meta::gvk::split_api_version(version);
                let message = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
                return Err(Status::bad_request(message));
            }
        };
        let gvr = Gvr { group: "".into(), version: "v1".into(), resource: plural.into() };
        let Some(entry) = self.verbs.objects.find("", plural, namespace, name).await? else {
            return Err(Status::not_found(&gvr, name));
        };
        let object = entry.object();
        let have = meta_text(&object, "uid");
        if !uid.is_empty() && uid != have {
            let why = format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            );
            // Upstream names the kind here.
            let gvr = Gvr { resource: text("kind").to_owned().into(), ..gvr };
            return Err(Status::conflict(&gvr, name, why));
        }
        let mut bound = vec![Bound { kind, name: name.to_owned(), uid: have.to_owned() }];
        if kind == "pod" {
            let runs_as = object["spec"]["serviceAccountName"].as_str().unwrap_or_default();
            if runs_as != account.name() {
                let message = format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    account.name()
                );
                return Err(Status::bad_request(message));
            }
            if let Some(node) = object["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
                let uid = self.verbs.objects.find("", "nodes", "", node).await?.map(|node| node.object());
                let uid = uid.map(|node| meta_text(&node, "uid").to_owned()).unwrap_or_default();
                bound.push(Bound { kind: "node", name: node.to_owned(), uid });
            }
        }
        Ok(bound)
    }
}

/// The lifetime that a token gets of the one asked for, and what is to be said of it.
fn shortened(seconds: i64, most: Option<Duration>) -> (i64, Option<String>) {
    match most.map(|most| most.as_secs() as i64) {
        Some(most) if most > 0 && seconds > most => {
            (most, Some(format!("requested expiration of {seconds} seconds shortened to {most} seconds")))
        }
        _ => (seconds, None),
    }
}

fn check_lifetime(sub: &Subresource, name: &str, seconds: i64) -> Result<(), Status> {
    let detail = match seconds {
        ..MIN_SECONDS => "may not specify a duration less than 10 minutes",
        MAX_SECONDS.. => "may not specify a duration larger than 2^32 seconds",
        _ => return Ok(()),
    };
    let error = FieldError::invalid("spec.expirationSeconds", seconds, detail);
    Err(Status::invalid(&sub.kind, name, &[error]))
}
