//! What is served: every resource, where it is kept, and the verbs on it.
//!
//! The table is built from `kinds::ALL` and grows and shrinks with CustomResourceDefinitions; from here on built-in and
//! custom kinds take the same path. One file a verb: [`create`], [`update`], [`patch`], [`delete`], [`read`], [`watch`].

pub mod admit;
pub mod convert;
pub mod create;
pub mod decode;
pub mod delete;
mod go;
pub mod managed;
pub mod object_meta;
pub mod objects;
pub mod options;
pub mod own;
pub mod patch;
pub mod read;
pub mod reading;
mod retry;
pub mod selection;
pub mod special;
pub mod update;
pub mod verbs;
pub mod watch;
mod world;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;
use kinds::types::MessageId;
use kinds::{Action, Context, Kind, KindRef, Subresource};
use meta::{FieldError, Gvr, Status, Str};
use schema::Budget;
use serde_json::Value;

use crate::cache::hub::Hub;
use crate::cache::{Cache, FieldSpec, HeaderSpec};
use crate::crd::scale;
use crate::crd::source::Source;
use convert::{Builtin, Conversion, Conversions};

/// One resource in one version.
pub struct Served {
    pub kind: KindRef,
    /// Absent for kinds that are answered and never stored.
    pub store: Option<Stored>,
    /// Made from a CustomResourceDefinition.
    pub custom: bool,
    /// The type in the codec's table; custom kinds have none.
    pub message: Option<MessageId>,
    /// Changes with the definition of a custom kind; 0 for built-in ones.
    pub generation: u64,
    /// The definition of a custom kind is being deleted: nothing new is taken.
    pub terminating: bool,
    /// Sent as a warning with every answer, for deprecated versions.
    pub deprecation: Option<String>,
    /// Where the schema of a custom kind comes from.
    pub source: Option<Arc<Source>>,
    /// Absent where everything is stored as it is served.
    pub conversion: Option<Conversion>,
}

/// Where the objects of a resource are.
#[derive(Clone)]
pub struct Stored {
    pub cache: Arc<Cache>,
    /// The kind in the version that is stored.
    pub kind: KindRef,
}

impl Served {
    /// Whether stored bytes are what this version serves.
    pub fn native(&self) -> bool {
        self.store.as_ref().is_none_or(|store| Arc::ptr_eq(&store.kind, &self.kind))
    }

    pub fn gvr(&self) -> Gvr {
        self.kind.gvr()
    }

    /// The kind with the rules: that of the stored version, when a built-in kind has two.
    fn rules(&self) -> &KindRef {
        match &self.store {
            Some(store) if !self.custom => &store.kind,
            _ => &self.kind,
        }
    }

    /// Built-in and stored as another version: the hooks between both, which neither fail nor wait.
    fn translated(&self) -> Option<Builtin> {
        let store = self.store.as_ref().filter(|_| !self.custom && !self.native())?;
        Some(Builtin { kind: self.kind.clone(), stored: store.kind.clone() })
    }

    /// The object as the rules see it.
    fn ruled<'a>(&self, object: &'a Value) -> Cow<'a, Value> {
        let Some(hooks) = self.translated() else { return Cow::Borrowed(object) };
        let mut stored = object.clone();
        hooks.to_storage(&mut stored);
        self.rules().apply_defaults(&mut stored);
        Cow::Owned(stored)
    }

    /// See [`Kind::prepare_create`].
    pub fn prepare_create(&self, object: &mut Value, context: &Context) {
        self.enter_rules(object);
        self.rules().prepare_create(object, context);
        self.leave_rules(object);
    }

    /// See [`Kind::prepare_update`].
    pub fn prepare_update(&self, object: &mut Value, old: &Value, context: &Context) {
        self.enter_rules(object);
        self.rules().prepare_update(object, &self.ruled(old), context);
        self.leave_rules(object);
    }

    /// See [`Kind::prepare_subresource`].
    pub fn prepare_subresource(&self, sub: &Subresource, object: &mut Value, old: &Value, context: &Context) {
        self.enter_rules(object);
        self.rules().prepare_subresource(sub, object, &self.ruled(old), context);
        self.leave_rules(object);
    }

    fn enter_rules(&self, object: &mut Value) {
        if let Some(hooks) = self.translated() {
            hooks.to_storage(object);
            self.rules().apply_defaults(object);
        }
    }

    fn leave_rules(&self, object: &mut Value) {
        if let Some(hooks) = self.translated() {
            hooks.from_storage(object);
            self.normalise(object);
        }
    }

    /// Everything wrong with a new object.
    pub fn check(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = self.rules().check(&self.ruled(object));
        if self.translated().is_some() {
            errors.extend((self.kind.hooks.validate)(object));
        }
        errors.extend(self.check_schema(object, None));
        errors
    }

    /// Everything wrong with replacing `old`.
    pub fn check_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = self.rules().check_update(&self.ruled(object), &self.ruled(old));
        if self.translated().is_some() {
            errors.extend((self.kind.hooks.validate_update)(object, old));
        }
        errors.extend(self.check_schema(object, Some(old)));
        errors
    }

    /// Everything wrong with replacing `old` through a subresource.
    pub fn check_subresource(&self, sub: &Subresource, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = self.rules().check_subresource(sub, &self.ruled(object), &self.ruled(old));
        errors.extend(match sub.action {
            Action::Status if self.custom => {
                let mut errors = schema::validate_status(object, old, &self.kind.schema, &mut Budget::default());
                errors.extend(scale::check(&self.kind, object, true));
                errors
            }
            _ => self.check_schema(object, Some(old)),
        });
        errors
    }

    /// What the definition of a custom kind has against an object that is new or takes the place of `old`. Built-in types
    /// were checked when the body was decoded.
    fn check_schema(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        if !self.custom {
            return Vec::new();
        }
        let mut errors = schema::validate(object, old, &self.kind.schema, &mut Budget::default());
        errors.extend(scale::check(&self.kind, object, false));
        errors
    }

    /// What bodies of this kind are decoded as.
    pub fn form(&self) -> codec::Form {
        self.message.map_or(codec::Form::Custom, codec::Form::Typed)
    }

    /// Brings a changed object into the form that decoding gives: unknown fields gone, texts canonical.
    pub fn normalise(&self, object: &mut Value) {
        match self.message {
            Some(id) => kinds::normal::normalize(object, id),
            None => {
                kinds::normal::normalize_metadata(object);
                schema::drop_nulls(object, &self.kind.schema);
                schema::prune(object, &self.kind.schema);
            }
        }
    }

    /// Fills in defaults, and leaves the object in normal form.
    pub fn fill_defaults(&self, object: &mut Value) -> Result<(), Status> {
        if !self.custom {
            self.kind.apply_defaults(object);
            return Ok(());
        }
        fill(object, &self.kind.schema)
    }

    /// Whether `spec.finalizers` holds the object (kinds that have a /finalize).
    pub fn has_spec_finalizers(&self, object: &Value) -> bool {
        self.kind.subresources.iter().any(|s| s.action == Action::Finalize)
            && object["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty())
    }

    pub fn orphans_by_default(&self) -> bool {
        self.kind.orphans_dependents_by_default()
    }

    pub fn answers_deleted_object(&self) -> bool {
        self.kind.answers_delete_with_object()
    }

    /// The place of a selectable field in the entries of the cache. Versions of a custom resource have fields of their own.
    pub fn selects(&self, field: &str) -> Option<usize> {
        let place = self.kind.selectable.iter().position(|selectable| selectable.name == field)?;
        match self.store.as_ref().filter(|_| self.custom) {
            Some(store) => store.cache.header().field(field),
            None => Some(place),
        }
    }

    /// Objects are namespaced.
    pub fn namespaced(&self) -> bool {
        self.kind.namespaced()
    }
}

fn fill(object: &mut Value, schema: &schema::Schema) -> Result<(), Status> {
    schema::apply_defaults(object, schema).map_err(|schema::TooMuch| {
        let most = schema::MAX_DEFAULTED;
        Status::too_large(format_args!("the defaults of its schema add more than {most} bytes"))
    })
}

/// Everything that is served, by group and plural. Replaced as a whole when it changes; the old and the new share what
/// is the same, so that a change costs what changes.
#[derive(Default, Clone)]
pub struct Registry {
    groups: OrdMap<Str, Group>,
    /// What of custom resources was converted, shared with every registry that follows this one.
    pub conversions: Arc<Conversions>,
}

#[derive(Default, Clone)]
struct Group {
    /// By plural, then versions as they came.
    resources: OrdMap<Str, Arc<[Arc<Served>]>>,
}

impl Registry {
    fn versions(&self, group: &str, plural: &str) -> &[Arc<Served>] {
        self.groups.get(group).and_then(|group| group.resources.get(plural)).map_or(&[], |versions| versions)
    }

    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Served>> {
        self.versions(group, plural).iter().find(|served| served.kind.version == version)
    }

    /// The resource that serves a kind.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Served>> {
        self.of_group(group).find(|s| s.kind.version == version && s.kind.kind == kind)
    }

    /// Some served version of a resource: for looking at its objects whatever the version.
    pub fn any(&self, group: &str, plural: &str) -> Option<&Arc<Served>> {
        self.versions(group, plural).first()
    }

    /// The cache of a resource, in any version.
    pub fn cache(&self, group: &str, plural: &str) -> Option<Arc<Cache>> {
        self.any(group, plural)?.store.as_ref().map(|store| store.cache.clone())
    }

    /// By group, then plural.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.groups.keys().flat_map(|group| self.of_group(group))
    }

    /// What is served of a group, by plural.
    pub fn of_group(&self, group: &str) -> impl Iterator<Item = &Arc<Served>> + use<'_> {
        let resources = self.groups.get(group).map(|group| group.resources.values());
        resources.into_iter().flatten().flat_map(|versions| versions.iter())
    }

    /// Names of the groups, sorted.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.groups.keys().map(|group| &**group)
    }

    pub fn has_group(&self, group: &str) -> bool {
        self.groups.contains_key(group)
    }

    /// Adds one resource in one version.
    pub fn insert(&mut self, served: Served) {
        let kind = served.kind.clone();
        let group = self.groups.entry(kind.group.clone()).or_default();
        let versions = group.resources.get(&kind.plural).into_iter().flat_map(|versions| versions.iter().cloned());
        let versions = versions.chain([Arc::new(served)]).collect();
        group.resources.insert(kind.plural.clone(), versions);
    }

    /// Drops the custom resources of a group with this plural.
    pub fn remove_custom(&mut self, group: &str, plural: &str) {
        let Some(entry) = self.groups.get_mut(group) else { return };
        let kept: Arc<[Arc<Served>]> =
            entry.resources.get(plural).into_iter().flat_map(|all| all.iter()).filter(|s| !s.custom).cloned().collect();
        if kept.is_empty() {
            entry.resources.remove(plural);
        } else {
            entry.resources.insert(plural.to_owned().into(), kept);
        }
        if entry.resources.is_empty() {
            self.groups.remove(group);
        }
    }

    /// The built-in kinds, their caches declared to the hub; `root` takes the place of upstream's `/registry`.
    pub fn builtin(hub: &Hub, root: &str) -> Registry {
        let mut registry = Registry::default();
        let mut caches: HashMap<Bytes, Arc<Cache>> = HashMap::new();
        for kind in kinds::ALL.iter() {
            let store = kind.storage.as_ref().map(|storage| {
                let stored = &storage.kind;
                let stored_kind = kinds::by_kind(&stored.group, &stored.version, &stored.kind).unwrap_or(kind).clone();
                let prefix = &stored_kind.storage.as_ref().unwrap_or(storage).prefix;
                let below = prefix.strip_prefix("/registry").unwrap_or(prefix);
                let prefix = Bytes::from(format!("{root}{below}/"));
                let header = header_spec(&stored_kind);
                let reader = reading::of_kind(&stored_kind);
                let cache = caches.entry(prefix.clone()).or_insert_with(|| hub.declare(prefix, header, reader)).clone();
                Stored { cache, kind: stored_kind }
            });
            let message = kind.message;
            let stored = store.as_ref().map(|store: &Stored| store.kind.clone()).filter(|s| !Arc::ptr_eq(s, kind));
            let conversion = stored.map(|stored| Conversion::builtin(kind, stored));
            registry.insert(Served {
                kind: kind.clone(),
                store,
                custom: false,
                message,
                generation: 0,
                terminating: false,
                deprecation: kind.deprecated.as_ref().map(|text| text.to_string()),
                source: None,
                conversion,
            });
        }
        registry
    }
}

/// What the watch cache extracts from the objects of a kind.
pub fn header_spec(kind: &Kind) -> HeaderSpec {
    HeaderSpec::new(kind.selectable.iter().map(field_spec))
}

/// The same for a kind whose versions select by fields of their own: all of them.
pub fn header_spec_of_all<'a>(kinds: impl Iterator<Item = &'a KindRef>) -> HeaderSpec {
    let mut fields: Vec<&kinds::Selectable> = Vec::new();
    for field in kinds.flat_map(|kind| &kind.selectable) {
        if !fields.iter().any(|known| known.name == field.name) {
            fields.push(field);
        }
    }
    HeaderSpec::new(fields.into_iter().map(field_spec))
}

fn field_spec(field: &kinds::Selectable) -> FieldSpec {
    FieldSpec {
        paths: field.paths.iter().map(|path| path.split('.').map(str::to_owned).collect()).collect(),
        absent: field.missing.to_string(),
        indexed: field.indexed,
    }
}
