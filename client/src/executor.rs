//! Carries out plans, as one identity: in order, with their preconditions, and no further than the first step that
//! fails. Who calls: the loops of controllers and of the scheduler. I/O: writes to the API server.

use futures::{FutureExt, StreamExt};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use serde_json::Value;

use crate::events::{EventRecorder, EventType};
use crate::plan::{Action, Deletion, Op, PatchBody, Plan, Step, Target, Verb};

/// Requests under way for one [`Step::Together`]: enough to share group commits, too few to crowd others out.
const AT_ONCE: usize = 32;

/// What a request that succeeded did, as far as caches come to show it.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// The object was created, patched or replaced, and the server answered with this.
    Written(Box<DynamicObject>),
    /// The object is gone or going; of this UID, if the request said one.
    Deleted(Option<String>),
    /// Something else, of which the answer says nothing: a binding, an eviction.
    Posted,
}

/// The request that failed and the server's answer.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", op.describe())]
pub struct ExecuteError {
    /// The request.
    pub op: Box<Op>,
    /// What came back.
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

    /// What the server said, without the request.
    pub fn message(&self) -> String {
        server_message(&self.source)
    }

    /// The namespace is being deleted: nothing can be made there any more, and that is nobody's fault.
    pub fn is_namespace_terminating(&self) -> bool {
        namespace_terminating(&self.source)
    }

    /// The plan was decided on another version, or another life, of the object.
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(|(code, reason)| code == 409 && reason == "Conflict")
    }

    /// The name is taken.
    pub fn is_already_exists(&self) -> bool {
        self.status().is_some_and(|(_, reason)| reason == "AlreadyExists")
    }

    /// The object, or the namespace to make it in, is not there.
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

    /// Runs the steps in order, and gives each effect to `seen` as it comes: so those of a plan that fails half way are
    /// known too. Errors are the first failure; nothing after its step was begun, and whatever ran together with it was
    /// tried to the end.
    pub async fn run(&self, plan: &Plan, mut seen: impl FnMut(&Target, Effect) + Send) -> Result<(), ExecuteError> {
        for step in &plan.steps {
            match step {
                Step::One(action) => self.perform(action).await?.into_iter().for_each(|(t, e)| seen(t, e)),
                Step::Together(all) => self.together(all, &mut seen).await?,
            }
        }
        Ok(())
    }

    async fn together(
        &self,
        all: &[Action],
        seen: &mut (impl FnMut(&Target, Effect) + Send),
    ) -> Result<(), ExecuteError> {
        let mut first = Ok(());
        // Boxed and collected first: the compiler can't prove a closure that is held across an await `Send`.
        let started: Vec<_> = all.iter().map(|one| self.perform(one).boxed()).collect();
        let mut results = futures::stream::iter(started).buffer_unordered(AT_ONCE);
        while let Some(result) = results.next().await {
            match result {
                Ok(effect) => effect.into_iter().for_each(|(t, e)| seen(t, e)),
                Err(error) if first.is_ok() => first = Err(error),
                Err(error) => tracing::debug!(%error, "failed beside another"),
            }
        }
        first
    }

    async fn perform<'a>(&self, action: &'a Action) -> Result<Option<(&'a Target, Effect)>, ExecuteError> {
        let (op, result) = match action {
            Action::Event { regarding, kind, reason, note } => {
                self.events.event(regarding, *kind, reason, note);
                return Ok(None);
            }
            Action::Do(op) => (op, self.act(op).await),
            Action::Recorded { op, regarding, done, failed } => {
                let result = self.act(op).await;
                match &result {
                    Ok(effect) => {
                        let note = format!("{}{}", done.note, name_of(op, effect));
                        self.events.event(regarding, EventType::Normal, done.reason, &note);
                    }
                    Err(error) if namespace_terminating(error) => {}
                    Err(error) => {
                        let note = format!("{}{}", failed.note, server_message(error));
                        self.events.event(regarding, EventType::Warning, failed.reason, &note);
                    }
                }
                (op, result)
            }
        };
        let failed = |error| ExecuteError { op: Box::new(op.clone()), source: Box::new(error) };
        Ok(Some((&op.target, result.map_err(failed)?)))
    }

    fn api(&self, target: &Target) -> Api<DynamicObject> {
        if target.namespace.is_empty() {
            Api::all_with(self.client.clone(), &target.resource)
        } else {
            Api::namespaced_with(self.client.clone(), &target.namespace, &target.resource)
        }
    }

    /// One request. The only place that says what a [`Verb`] is on the wire.
    async fn act(&self, op: &Op) -> Result<Effect, kube::Error> {
        let (target, api) = (&op.target, self.api(&op.target));
        let written = match &op.verb {
            Verb::Create(object) => api.create(&self.post_params(), &typed(object)?).await?,
            Verb::Patch { subresource, patch } => self.patch(target, *subresource, patch).await?,
            Verb::Update { subresource: Some(sub), object } => {
                api.replace_subresource(sub, &target.name, &self.post_params(), object).await?
            }
            Verb::Update { subresource: None, object } => {
                api.replace(&target.name, &self.post_params(), &typed(object)?).await?
            }
            Verb::Delete(deletion) => {
                return match api.delete(&target.name, &delete_params(deletion)).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => Ok(Effect::Deleted(deletion.uid.clone())),
                    Err(error) => Err(error),
                    Ok(_) => Ok(Effect::Deleted(deletion.uid.clone())),
                };
            }
            Verb::Post { subresource, object } => {
                let _: Value = api.create_subresource(subresource, &target.name, &self.post_params(), object).await?;
                return Ok(Effect::Posted);
            }
        };
        Ok(Effect::Written(Box::new(written)))
    }

    async fn patch(&self, target: &Target, sub: Option<&str>, body: &PatchBody) -> Result<DynamicObject, kube::Error> {
        let params = PatchParams { field_manager: Some(self.manager.clone()), ..PatchParams::default() };
        let patch = match body {
            PatchBody::Merge(value) => Patch::Merge(value),
            PatchBody::Strategic(value) => Patch::Strategic(value),
        };
        let api = self.api(target);
        match sub {
            Some(sub) => api.patch_subresource(sub, &target.name, &params, &patch).await,
            None => api.patch(&target.name, &params, &patch).await,
        }
    }

    fn post_params(&self) -> PostParams {
        PostParams { field_manager: Some(self.manager.clone()), ..PostParams::default() }
    }
}

fn typed(object: &Value) -> Result<DynamicObject, kube::Error> {
    serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)
}

fn delete_params(deletion: &Deletion) -> DeleteParams {
    let Deletion { uid, resource_version, propagation, grace_seconds } = deletion.clone();
    DeleteParams {
        preconditions: (uid.is_some() || resource_version.is_some()).then_some(Preconditions { uid, resource_version }),
        propagation_policy: propagation,
        grace_period_seconds: grace_seconds,
        ..DeleteParams::default()
    }
}

/// The object's name, which the server may have made.
fn name_of<'a>(op: &'a Op, effect: &'a Effect) -> &'a str {
    match effect {
        Effect::Written(object) => object.metadata.name.as_deref().unwrap_or(&op.target.name),
        Effect::Deleted(_) | Effect::Posted => &op.target.name,
    }
}
