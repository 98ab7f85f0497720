//! What the server writes of its own: it calls its own verbs, under an identity of its own. [`crate::bootstrap`] and
//! [`crate::crd`] do. I/O: reads the clock.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Uri};
use jiff::Timestamp;
use meta::{Reason, Status};
use object::meta_text;
use parking_lot::Mutex;
use serde_json::Value;

use super::Served;
use super::options::{FieldValidation, WriteOptions};
use super::update::{Change, Origin, Part};
use super::verbs::Verbs;
use crate::authn::{AUTHENTICATED, MASTERS, UserInfo};
use crate::http::call::Call;
use crate::http::request::{Query, RequestInfo};
use crate::notes::Warnings;

/// Name of the server's own identity, as upstream has it.
const SELF: &str = "system:apiserver";

/// A call that the server makes to itself.
pub fn own_call(namespace: &str, name: &str) -> Call {
    let groups = vec![MASTERS.to_owned(), AUTHENTICATED.to_owned()];
    let user = Arc::new(UserInfo { name: SELF.to_owned(), groups, ..UserInfo::default() });
    let agent = (http::header::USER_AGENT, HeaderValue::from_static("kube-apiserver"));
    Call {
        method: Method::POST,
        uri: Uri::default(),
        info: RequestInfo {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            in_namespace: !namespace.is_empty(),
            resource_request: true,
            ..RequestInfo::default()
        },
        query: Query::default(),
        headers: HeaderMap::from_iter([agent]),
        peer: None,
        caller: Some(user.clone()),
        user,
        audit_id: String::new(),
        now: Timestamp::now(),
        upgrade: Mutex::new(None),
        tables: true,
        trail: None,
        warnings: Warnings::default(),
    }
}

/// Options of the server's own writes.
pub fn own_options() -> WriteOptions {
    WriteOptions {
        dry_run: false,
        field_manager: "kube-apiserver".to_owned(),
        field_validation: FieldValidation::Ignore,
        force: None,
    }
}

impl Verbs {
    /// The resource that an object belongs to.
    pub fn served_of(&self, object: &Value) -> Option<Arc<Served>> {
        let (group, version) = meta::gvk::split_api_version(object["apiVersion"].as_str().unwrap_or_default());
        self.objects.registry.load().by_kind(group, version, object["kind"].as_str().unwrap_or_default()).cloned()
    }

    /// Creates an object of the server's own unless it exists; whether it did.
    pub async fn ensure(&self, object: &Value) -> Result<bool, Status> {
        let served = self.served_of(object).ok_or_else(|| Status::internal(format!("no resource for {object}")))?;
        let (namespace, name) = (meta_text(object, "namespace"), meta_text(object, "name"));
        if self.objects.stored(&served)?.cache.lookup(namespace, name).is_some() {
            return Ok(false);
        }
        let call = own_call(namespace, "");
        match self.create_object(&call, &served, "", object.clone(), &own_options(), false).await {
            Ok(_) => Ok(true),
            Err(status) if status.reason == Reason::AlreadyExists => Ok(false),
            Err(status) => Err(status),
        }
    }

    /// Changes an object of the server's own, when the change makes a difference.
    pub async fn amend(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        name: &str,
        make: impl FnMut(&Value) -> Result<Value, Status> + Send,
    ) -> Result<(), Status> {
        let registry = self.objects.registry.load_full();
        let Some(served) = registry.any(group, plural) else { return Ok(()) };
        let options = own_options();
        let change =
            Change { part: Part::Main, subresource: "", name, options: &options, retry: true, origin: Origin::Whole };
        self.change(&own_call(namespace, name), served, &change, make).await.map(drop)
    }
}
