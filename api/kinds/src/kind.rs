//! What the server knows of one kind: names, scope, verbs, subresources, where it is stored, how it is printed, and the
//! hooks that default, prepare and validate it. Built-in kinds are rows of `ALL`; a CustomResourceDefinition makes the
//! same struct at run time, so every string may be borrowed or owned. Who calls: the API server, `codec`, kubectl tables.

use std::sync::Arc;

use meta::gvk::{join_api_version, qualified};
use meta::{FieldError, Gvk, Gvr, Scope, Str};
use schema::SchemaRef;
use serde_json::Value;

use crate::hooks::{Context, Hooks};
use crate::types::MessageId;

/// A set of API verbs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Verbs(u8);

impl Verbs {
    /// A resource of subresources alone.
    pub const NONE: Verbs = Verbs(0);
    /// POST to the collection.
    pub const CREATE: Verbs = Verbs(1);
    /// DELETE of one object.
    pub const DELETE: Verbs = Verbs(2);
    /// DELETE of the collection.
    pub const DELETE_COLLECTION: Verbs = Verbs(4);
    /// GET of one object.
    pub const GET: Verbs = Verbs(8);
    /// GET of the collection.
    pub const LIST: Verbs = Verbs(16);
    /// PATCH, of all four sorts.
    pub const PATCH: Verbs = Verbs(32);
    /// PUT.
    pub const UPDATE: Verbs = Verbs(64);
    /// GET of the collection with `watch=true`.
    pub const WATCH: Verbs = Verbs(128);
    /// What a stored kind has unless its row says otherwise.
    pub const ALL: Verbs = Verbs(255);
    /// What status-like subresources have.
    pub const GET_PATCH_UPDATE: Verbs = Verbs(8 | 32 | 64);
    /// What connecting subresources that take any HTTP method have.
    pub(crate) const PROXY: Verbs = Verbs(1 | 2 | 8 | 32 | 64);

    const NAMES: [(Verbs, &'static str); 8] = [
        (Verbs::CREATE, "create"),
        (Verbs::DELETE, "delete"),
        (Verbs::DELETE_COLLECTION, "deletecollection"),
        (Verbs::GET, "get"),
        (Verbs::LIST, "list"),
        (Verbs::PATCH, "patch"),
        (Verbs::UPDATE, "update"),
        (Verbs::WATCH, "watch"),
    ];

    /// Both sets together.
    pub const fn and(self, other: Verbs) -> Verbs {
        Verbs(self.0 | other.0)
    }

    /// This set without `other`.
    pub const fn without(self, other: Verbs) -> Verbs {
        Verbs(self.0 & !other.0)
    }

    /// Whether every verb of `other` is in this set.
    pub const fn has(self, other: Verbs) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names in alphabetical order, as discovery lists them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Verbs::NAMES.into_iter().filter(move |(v, _)| self.has(*v)).map(|(_, n)| n)
    }
}

impl std::fmt::Debug for Verbs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// What a subresource does, or the creation of a kind that is never stored; the server dispatches on this and never on
/// a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Writes `status` only.
    Status,
    /// Reads and writes the replica count as an autoscaling/v1 Scale.
    Scale(ScalePaths),
    /// Writes `spec.finalizers` of a namespace only.
    Finalize,
    /// Writes the approval conditions of a signing request only.
    Approval,
    /// Adds ephemeral containers to a pod.
    EphemeralContainers,
    /// Changes the resources of a running pod.
    Resize,
    /// Assigns a pod to a node.
    Binding,
    /// Assigns an object of this resource, whose name is the body's, to a node.
    BindingOf(Gvr),
    /// Deletes a pod if its disruption budgets allow it.
    Eviction,
    /// Issues a token for a service account.
    Token,
    /// Shows what a container printed.
    Log,
    /// Runs a program in a container.
    Exec,
    /// Joins the streams of a container's own program.
    Attach,
    /// Carries TCP connections to ports of a pod.
    PortForward,
    /// Sends a request on to a pod, node or Service.
    Proxy,
    /// Tells the caller who they are.
    WhoAmI,
    /// Tells whose a token is.
    TokenReview,
    /// Tells what a subject or the caller may do.
    AccessReview(Asked),
    /// Lists what the caller may do in a namespace.
    RulesReview,
    /// Asks the other parts of the control plane how they are; get and list.
    ComponentHealth,
}

impl Action {
    /// Whether what it answers can be shown as a table: upstream has none of what is asked, issued or assigned.
    pub fn has_table(&self) -> bool {
        match self {
            Action::Status | Action::Scale(_) | Action::Finalize | Action::Approval => true,
            Action::EphemeralContainers | Action::Resize | Action::ComponentHealth => true,
            Action::Binding | Action::BindingOf(_) | Action::Eviction | Action::Token => false,
            Action::WhoAmI | Action::TokenReview | Action::AccessReview(_) | Action::RulesReview => false,
            // Their answers are somebody else's.
            Action::Log | Action::Exec | Action::Attach | Action::PortForward | Action::Proxy => true,
        }
    }
}

/// About whom and where an access review asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The subject of the spec, anywhere.
    Subject,
    /// The subject of the spec, in the namespace of the request.
    SubjectHere,
    /// The caller.
    Caller,
}

/// Where a kind keeps what a Scale shows. Dotted paths from the object's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    /// How many are wanted: `spec.replicas`.
    pub spec_replicas: Str,
    /// How many there are: `status.replicas`.
    pub status_replicas: Str,
    /// A label selector, a plain label map, or a string in selector syntax.
    pub selector: Option<Str>,
}

/// How a writing subresource other than /status changes and checks the object; `(new, old)`.
#[derive(Clone, Copy)]
pub struct Writes {
    /// Puts back everything that the subresource may not change.
    pub prepare: fn(&mut Value, &Value, &Context),
    /// All that is wrong with the new object; empty when nothing is.
    pub validate: fn(&Value, &Value) -> Vec<FieldError>,
}

/// What /status may change of metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusMetadata {
    /// All that an update may.
    Writable,
    /// Nothing but managed fields.
    Fixed,
}

/// One path below an object, e.g. `pods/exec`.
#[derive(Clone)]
pub struct Subresource {
    /// `exec`, as in `pods/exec`.
    pub name: Str,
    /// The type it answers with; equal to the parent's unless foreign.
    pub kind: Gvk,
    /// What a body may be. Empty when it takes none or the kind above.
    pub accepts: Vec<Gvk>,
    /// By which HTTP methods it can be reached.
    pub verbs: Verbs,
    /// What it does.
    pub action: Action,
    /// For subresources that write the object itself, /status apart.
    pub writes: Option<Writes>,
}

/// Where and as what objects are stored.
#[derive(Clone, Debug)]
pub struct Storage {
    /// Key prefix without a trailing slash, e.g. `/registry/services/specs`.
    pub prefix: Str,
    /// The version objects are stored in. Differs from the row's own type for cohabiting kinds.
    pub kind: Gvk,
    /// Base64 of the first 8 bytes of SHA-256 over "group/version/kind" of the stored type.
    pub version_hash: String,
    /// Objects expire this many seconds after their last write; events only.
    pub ttl_seconds: Option<u32>,
}

/// One column of `kubectl get`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The heading, as `kubectl get` shows it in capitals.
    pub name: Str,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: Str,
    /// `name` for the column that holds the object's name.
    pub format: Str,
    /// Shown by clients that have a place for it; empty for most.
    pub description: Str,
    /// 0 always; 1 with `-o wide`.
    pub priority: i32,
    /// JSONPath of the cell for kinds made from a CustomResourceDefinition; built-in kinds have a row function.
    pub path: Option<Str>,
}

impl Column {
    /// The first column of nearly every kind.
    pub fn name() -> Column {
        Column { format: "name".into(), ..Column::text("Name") }
    }
    /// A column of texts.
    pub fn text(name: &'static str) -> Column {
        Column::typed(name, "string")
    }
    /// A column of whole numbers.
    pub fn int(name: &'static str) -> Column {
        Column::typed(name, "integer")
    }
    /// A column of `true` and `false`.
    pub fn boolean(name: &'static str) -> Column {
        Column::typed(name, "boolean")
    }
    /// A column of times, which clients show as ages.
    pub fn date(name: &'static str) -> Column {
        Column::typed(name, "date")
    }
    fn typed(name: &'static str, kind: &'static str) -> Column {
        Column {
            name: name.into(),
            kind: kind.into(),
            format: "".into(),
            description: "".into(),
            priority: 0,
            path: None,
        }
    }
    /// Shown with `-o wide` only.
    pub fn wide(self) -> Column {
        Column { priority: 1, ..self }
    }
    /// Marked as holding the object's name.
    pub fn named(self) -> Column {
        Column { format: "name".into(), ..self }
    }
}

/// A field that field selectors may name beside metadata.name and metadata.namespace.
#[derive(Clone, Debug)]
pub struct Selectable {
    /// As written in a selector.
    pub name: Str,
    /// Dotted paths tried in order; the first that holds a value wins.
    pub paths: Vec<Str>,
    /// The value when no path holds one.
    pub missing: Str,
    /// The server finds objects by it without a walk over all.
    pub indexed: bool,
}

impl Selectable {
    /// Selector name and path are the same.
    pub fn path(name: impl Into<Str>) -> Selectable {
        let name = name.into();
        Selectable { paths: vec![name.clone()], name, missing: "".into(), indexed: false }
    }
    /// The selector's name differs from the path.
    pub fn at(name: &'static str, paths: &[&'static str]) -> Selectable {
        let paths = paths.iter().map(|p| (*p).into()).collect();
        Selectable { name: name.into(), paths, missing: "".into(), indexed: false }
    }
    /// The value an absent field counts as.
    pub fn or(self, missing: &'static str) -> Selectable {
        Selectable { missing: missing.into(), ..self }
    }
    /// The server keeps an index by it.
    pub fn indexed(self) -> Selectable {
        Selectable { indexed: true, ..self }
    }
    /// The value of `object` that a selector compares with.
    pub fn value(&self, object: &Value) -> String {
        for path in &self.paths {
            match crate::value::at(object, path) {
                Some(Value::String(s)) if !s.is_empty() => return s.clone(),
                Some(Value::Number(n)) => return n.to_string(),
                Some(Value::Bool(b)) => return b.to_string(),
                _ => {}
            }
        }
        self.missing.to_string()
    }
}

/// How names of objects are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// Lower-case DNS subdomain of RFC 1123, up to 253 characters.
    Subdomain,
    /// DNS label of RFC 1123, up to 63 characters.
    Label,
    /// DNS label of RFC 1035.
    Label1035,
    /// Anything that may stand in a URL path.
    PathSegment,
    /// Not checked here (the kind's own validation does, or names are free).
    Any,
}

/// One kind of object that the API serves.
#[derive(Clone)]
pub struct Kind {
    /// Such as `apps`; empty for the core group.
    pub group: Str,
    /// Such as `v1`.
    pub version: Str,
    /// `Deployment`
    pub kind: Str,
    /// `DeploymentList`
    pub list_kind: Str,
    /// `deployments`, as paths and rules of RBAC have it.
    pub plural: Str,
    /// `deployment`, which kubectl takes too.
    pub singular: Str,
    /// `deploy`, which kubectl takes too.
    pub short_names: Vec<Str>,
    /// `all`: kinds that kubectl takes together.
    pub categories: Vec<Str>,
    /// Whether objects live in namespaces.
    pub scope: Scope,
    /// What can be done with the resource itself.
    pub verbs: Verbs,
    /// What lies below an object's path.
    pub subresources: Vec<Subresource>,
    /// None for kinds that are answered and never stored (reviews, bindings, component statuses).
    pub storage: Option<Storage>,
    /// Sent as a warning with every answer.
    pub deprecated: Option<Str>,
    /// What creation does (or get and list, when it has no creation), for a kind that is not stored.
    pub action: Option<Action>,
    /// How objects look: defaults, list types, OpenAPI.
    pub schema: SchemaRef,
    /// The type in [`crate::types`]; None for kinds made from a CustomResourceDefinition.
    pub message: Option<MessageId>,
    /// What `kubectl get` prints; the hooks have the cells.
    pub columns: Vec<Column>,
    /// What field selectors may ask for.
    pub selectable: Vec<Selectable>,
    /// What names objects may have.
    pub names: NameRule,
    /// An update without resourceVersion is applied to whatever is stored.
    pub unconditional_update: bool,
    /// PUT of an object that does not exist creates it.
    pub create_on_update: bool,
    /// `metadata.generation` is kept: 1 at creation, one more with each change of the desired state.
    pub generation: bool,
    /// A creator may set status (nodes report theirs when they register).
    pub status_on_create: bool,
    /// What of metadata a status update may change.
    pub status_metadata: StatusMetadata,
    /// Deletion first sets deletionTimestamp and waits for the grace period (pods).
    pub graceful_deletion: bool,
    /// What the kind does at each step of a write.
    pub hooks: Hooks,
}

impl Kind {
    /// Group, version and kind.
    pub fn gvk(&self) -> Gvk {
        Gvk { group: self.group.clone(), version: self.version.clone(), kind: self.kind.clone() }
    }
    /// Group, version and plural.
    pub fn gvr(&self) -> Gvr {
        Gvr { group: self.group.clone(), version: self.version.clone(), resource: self.plural.clone() }
    }
    /// `v1` or `group/version`.
    pub fn api_version(&self) -> String {
        join_api_version(&self.group, &self.version)
    }
    /// Whether objects live in namespaces.
    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }
    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }
    /// Whether /status exists, so that the main resource leaves `status` alone.
    pub fn has_status(&self) -> bool {
        self.subresources.iter().any(|s| s.action == Action::Status)
    }
    /// `deployments.apps`, as upstream writes resources in messages.
    pub fn resource(&self) -> String {
        qualified(&self.plural, &self.group)
    }
    /// `Deployment.apps`, as upstream writes kinds in messages.
    pub fn group_kind(&self) -> String {
        qualified(&self.kind, &self.group)
    }
    /// What is said of a field selector that is not understood; upstream's groups say it in words of their own.
    pub fn unknown_selector(&self, field: &str) -> String {
        let quoted = meta::text::quote(field);
        match self.group.as_ref() {
            "batch" => format!("field label {quoted} not supported for {}", self.kind),
            group if self.message.is_some() && (self.selectable.is_empty() || group == "apps") => {
                format!("{quoted} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
            }
            _ => format!("field label not supported: {field}"),
        }
    }
    /// Field selectors understood: metadata.name, metadata.namespace and the row's own.
    pub fn selects(&self, field: &str) -> bool {
        field == "metadata.name" || field == "metadata.namespace" || self.selectable.iter().any(|s| s.name == field)
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kind({} {})", self.api_version(), self.kind)
    }
}

/// Kinds are shared: one row, many holders.
pub type KindRef = Arc<Kind>;
