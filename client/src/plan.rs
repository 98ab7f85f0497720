//! What a pure decision wants done to the API, and the executor that does it. Controllers, the scheduler and the
//! kubelet return a [`Plan`]; the executor carries its preconditions, runs it in order and stops at the first failure,
//! because later steps were decided on the success of earlier ones.

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use kube::api::PropagationPolicy;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use serde_json::Value;

use crate::events::{EventRecorder, EventType};

/// Requests under way for one [`Action::Together`]: enough to share group commits, too few to crowd others out.
const AT_ONCE: usize = 32;

/// The object an action is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    pub resource: ApiResource,
    /// Empty for cluster-scoped resources.
    pub namespace: String,
    pub name: String,
}

impl Target {
    /// The target that `object` is, of a built-in type.
    pub fn of<K: kube::Resource<DynamicType = ()>>(object: &K) -> Target {
        let meta = object.meta();
        Target::named::<K>(meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""))
    }

    pub fn named<K: kube::Resource<DynamicType = ()>>(namespace: &str, name: &str) -> Target {
        Target { resource: ApiResource::erase::<K>(&()), namespace: namespace.into(), name: name.into() }
    }
}

/// A patch and its kind. Put `metadata.uid` or `metadata.resourceVersion` into the body as a precondition.
#[derive(Debug, Clone, PartialEq)]
pub enum PatchBody {
    Merge(Value),
    Strategic(Value),
    Json(Value),
    /// Server-side apply with force, as the executor's field manager.
    Apply(Value),
}

/// One step of a plan. `why` belongs into the log line; what users should see is an [`Action::Event`].
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// The target's name is empty with `metadata.generateName`.
    Create {
        target: Target,
        object: Value,
    },
    Patch {
        target: Target,
        subresource: Option<&'static str>,
        patch: PatchBody,
    },
    /// Replaces the object (or its subresource): the body carries `metadata.resourceVersion`.
    Update {
        target: Target,
        subresource: Option<&'static str>,
        object: Value,
    },
    Delete {
        target: Target,
        uid: Option<String>,
        resource_version: Option<String>,
        propagation: Option<PropagationPolicy>,
        grace_seconds: Option<u32>,
    },
    /// POST to a subresource: `binding`, `eviction`, `token`.
    Post {
        target: Target,
        subresource: &'static str,
        object: Value,
    },
    Event {
        regarding: Box<k8s_openapi::api::core::v1::ObjectReference>,
        kind: EventType,
        reason: String,
        note: String,
    },
    /// Does all of these at once. One that fails doesn't stop its siblings, but nothing after them is done.
    Together(Vec<Action>),
    /// Does the action, then tells as an event how it went: the name (which a create may have from the server) or the
    /// server's refusal follows the given words.
    Told {
        action: Box<Action>,
        regarding: Box<k8s_openapi::api::core::v1::ObjectReference>,
        done: Words,
        failed: Words,
    },
}

/// Reason and start of the note of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Words {
    pub reason: &'static str,
    pub note: &'static str,
}

/// What to do, in order, and when to look again without being told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub requeue_after: Option<Duration>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.requeue_after.is_none()
    }

    pub fn push(&mut self, action: Action) -> &mut Self {
        self.actions.push(action);
        self
    }

    /// Looks again after `delay`, or earlier if another reason asks so.
    pub fn requeue(&mut self, delay: Duration) -> &mut Self {
        self.requeue_after = Some(self.requeue_after.map_or(delay, |d| d.min(delay)));
        self
    }
}

/// The failed step and the server's answer.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct ExecuteError {
    /// Index into `plan.actions`.
    pub index: usize,
    pub step: String,
    pub source: Box<kube::Error>,
}

impl ExecuteError {
    /// The HTTP code and reason of the server, if it answered.
    pub fn status(&self) -> Option<(u16, &str)> {
        match &*self.source {
            kube::Error::Api(status) => Some((status.code, status.reason.as_str())),
            _ => None,
        }
    }

    /// What the server said, without the step.
    pub fn message(&self) -> String {
        server_message(&self.source)
    }

    /// The namespace is being deleted: nothing can be made there any more, and that is nobody's fault.
    pub fn is_namespace_terminating(&self) -> bool {
        namespace_terminating(&self.source)
    }

    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(|(code, reason)| code == 409 && reason == "Conflict")
    }

    pub fn is_already_exists(&self) -> bool {
        self.status().is_some_and(|(_, reason)| reason == "AlreadyExists")
    }

    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(|(code, _)| code == 404)
    }
}

fn server_message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

fn namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|d| &d.causes);
    causes.into_iter().any(|c| c.reason == "NamespaceTerminating")
}

/// Executes plans as one identity. Cheap to clone.
#[derive(Clone)]
pub struct Executor {
    client: kube::Client,
    manager: String,
    events: EventRecorder,
}

impl Executor {
    /// `manager` is the field manager and the source component of events.
    pub fn new(client: kube::Client, manager: &str) -> Executor {
        let events = EventRecorder::new(client.clone(), manager);
        Executor { client, manager: manager.to_owned(), events }
    }

    /// Events come from `component` instead of the field manager's name.
    pub fn reporting(mut self, component: &str) -> Executor {
        self.events = EventRecorder::new(self.client.clone(), component);
        self
    }

    pub fn events(&self) -> &EventRecorder {
        &self.events
    }

    pub fn client(&self) -> &kube::Client {
        &self.client
    }

    /// Runs the actions in order and gives back what each create, patch and update answered, and each delete that
    /// left the object there for now (`None` for the others). Deleting what is gone already counts as done.
    pub async fn run(&self, plan: &Plan) -> Result<Vec<Option<DynamicObject>>, ExecuteError> {
        let mut answers = Vec::with_capacity(plan.actions.len());
        self.run_telling(plan, |_, answer| answers.push(answer)).await?;
        Ok(answers)
    }

    /// As [`Executor::run`], but gives each answer to `told` as it comes, so that those of a plan that fails half way
    /// are known too. Actions done together are told one by one.
    pub async fn run_telling(
        &self,
        plan: &Plan,
        mut told: impl FnMut(&Action, Option<DynamicObject>) + Send,
    ) -> Result<(), ExecuteError> {
        for (index, action) in plan.actions.iter().enumerate() {
            let failed =
                |step: &Action, e: kube::Error| ExecuteError { index, step: describe(step), source: Box::new(e) };
            if let Action::Together(all) = action {
                let mut first = None;
                // Boxed and collected first: the compiler can't prove a closure that is held across an await `Send`.
                let started: Vec<_> = all.iter().map(|one| async move { (one, self.one(one).await) }.boxed()).collect();
                let mut results = futures::stream::iter(started).buffer_unordered(AT_ONCE);
                while let Some((one, result)) = results.next().await {
                    match result {
                        Ok(answer) => told(one, answer),
                        Err(error) => first = first.or(Some(failed(one, error))),
                    }
                }
                first.map_or(Ok(()), Err)?;
            } else {
                told(action, self.one(action).await.map_err(|e| failed(action, e))?);
            }
        }
        Ok(())
    }

    /// One action that is not `Together`, with its event.
    async fn one(&self, action: &Action) -> Result<Option<DynamicObject>, kube::Error> {
        let Action::Told { action, regarding, done, failed } = action else { return self.act(action).await };
        let result = self.act(action).await;
        match &result {
            Ok(answer) => {
                let made = answer.as_ref().and_then(|o| o.metadata.name.clone());
                let name = made.or_else(|| target(action).map(|t| t.name.clone())).unwrap_or_default();
                let note = format!("{}{name}", done.note);
                self.events.tell(regarding, EventType::Normal, done.reason, &note);
            }
            Err(error) if namespace_terminating(error) => {}
            Err(error) => {
                let note = format!("{}{}", failed.note, server_message(error));
                self.events.tell(regarding, EventType::Warning, failed.reason, &note);
            }
        }
        result
    }

    fn api(&self, target: &Target) -> Api<DynamicObject> {
        if target.namespace.is_empty() {
            Api::all_with(self.client.clone(), &target.resource)
        } else {
            Api::namespaced_with(self.client.clone(), &target.namespace, &target.resource)
        }
    }

    async fn act(&self, action: &Action) -> Result<Option<DynamicObject>, kube::Error> {
        match action {
            Action::Create { target, object } => {
                let object = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
                self.api(target).create(&self.post_params(), &object).await.map(Some)
            }
            Action::Patch { target, subresource, patch } => self.patch(target, *subresource, patch).await.map(Some),
            Action::Update { target, subresource, object } => {
                let api = self.api(target);
                match subresource {
                    Some(sub) => api.replace_subresource(sub, &target.name, &self.post_params(), object).await,
                    None => {
                        let object = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
                        api.replace(&target.name, &self.post_params(), &object).await
                    }
                }
                .map(Some)
            }
            Action::Delete { target, uid, resource_version, propagation, grace_seconds } => {
                let params = DeleteParams {
                    preconditions: (uid.is_some() || resource_version.is_some())
                        .then(|| Preconditions { uid: uid.clone(), resource_version: resource_version.clone() }),
                    propagation_policy: propagation.clone(),
                    grace_period_seconds: *grace_seconds,
                    ..DeleteParams::default()
                };
                match self.api(target).delete(&target.name, &params).await {
                    Ok(left) => Ok(left.left()),
                    Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
                    Err(error) => Err(error),
                }
            }
            Action::Post { target, subresource, object } => {
                let api = self.api(target);
                let _: Value = api.create_subresource(subresource, &target.name, &self.post_params(), object).await?;
                Ok(None)
            }
            Action::Event { regarding, kind, reason, note } => {
                self.events.tell(regarding, *kind, reason, note);
                Ok(None)
            }
            // Both are taken apart by the callers; neither nests.
            Action::Together(_) | Action::Told { .. } => Ok(None),
        }
    }

    async fn patch(&self, target: &Target, sub: Option<&str>, body: &PatchBody) -> Result<DynamicObject, kube::Error> {
        let params = PatchParams { field_manager: Some(self.manager.clone()), ..PatchParams::default() };
        let (params, patch) = match body {
            PatchBody::Merge(value) => (params, Patch::Merge(value.clone())),
            PatchBody::Strategic(value) => (params, Patch::Strategic(value.clone())),
            PatchBody::Apply(value) => (params.force(), Patch::Apply(value.clone())),
            PatchBody::Json(value) => return self.json_patch(target, sub, value).await,
        };
        let api = self.api(target);
        match sub {
            Some(sub) => api.patch_subresource(sub, &target.name, &params, &patch).await,
            None => api.patch(&target.name, &params, &patch).await,
        }
    }

    /// kube wants a typed JSON patch behind a feature; the request is plain enough to write.
    async fn json_patch(&self, target: &Target, sub: Option<&str>, ops: &Value) -> Result<DynamicObject, kube::Error> {
        let base = if target.namespace.is_empty() {
            DynamicUrl::cluster(&target.resource)
        } else {
            DynamicUrl::namespaced(&target.resource, &target.namespace)
        };
        let sub = sub.map(|s| format!("/{s}")).unwrap_or_default();
        let uri = format!("{base}/{}{sub}?fieldManager={}", target.name, self.manager);
        let request = http::Request::patch(uri)
            .header(http::header::CONTENT_TYPE, "application/json-patch+json")
            .body(serde_json::to_vec(ops).map_err(kube::Error::SerdeError)?)
            .map_err(kube::Error::HttpError)?;
        self.client.request(request).await
    }

    fn post_params(&self) -> PostParams {
        PostParams { field_manager: Some(self.manager.clone()), ..PostParams::default() }
    }
}

struct DynamicUrl;

impl DynamicUrl {
    fn root(resource: &ApiResource) -> String {
        let prefix = if resource.group.is_empty() { "/api" } else { "/apis" };
        format!("{prefix}/{}", resource.api_version)
    }

    fn cluster(resource: &ApiResource) -> String {
        format!("{}/{}", Self::root(resource), resource.plural)
    }

    fn namespaced(resource: &ApiResource, namespace: &str) -> String {
        format!("{}/namespaces/{namespace}/{}", Self::root(resource), resource.plural)
    }
}

/// What the action is about.
fn target(action: &Action) -> Option<&Target> {
    match action {
        Action::Create { target, .. }
        | Action::Patch { target, .. }
        | Action::Update { target, .. }
        | Action::Delete { target, .. }
        | Action::Post { target, .. } => Some(target),
        Action::Told { action, .. } => target(action),
        Action::Event { .. } | Action::Together(_) => None,
    }
}

fn describe(action: &Action) -> String {
    let (verb, target) = match action {
        Action::Create { target, .. } => ("create", target),
        Action::Patch { target, .. } => ("patch", target),
        Action::Update { target, .. } => ("update", target),
        Action::Delete { target, .. } => ("delete", target),
        Action::Post { target, subresource, .. } => {
            return format!("create {}/{subresource} {}/{}", target.resource.plural, target.namespace, target.name);
        }
        Action::Event { reason, .. } => return format!("event {reason}"),
        Action::Together(all) => return format!("{} at once", all.len()),
        Action::Told { action, .. } => return describe(action),
    };
    format!("{verb} {} {}/{}", target.resource.plural, target.namespace, target.name)
}
