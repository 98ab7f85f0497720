//! The operations of every served resource: what OpenAPI v2 and v3 both render. Pure.

use kinds::{Action, Kind, Subresource, Verbs};
use meta::Gvk;

use crate::discovery::catalogue::Catalogue;
use crate::registry::Served;

/// A parameter in the query or the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    pub name: &'static str,
    pub place: &'static str,
    /// `string`, `integer` or `boolean`.
    pub kind: &'static str,
}

const fn query(name: &'static str, kind: &'static str) -> Parameter {
    Parameter { name, place: "query", kind }
}

const fn path(name: &'static str) -> Parameter {
    Parameter { name, place: "path", kind: "string" }
}

const PRETTY: Parameter = query("pretty", "string");
const NAME: Parameter = path("name");
const NAMESPACE: Parameter = path("namespace");

const LIST: &[Parameter] = &[
    query("allowWatchBookmarks", "boolean"),
    query("continue", "string"),
    query("fieldSelector", "string"),
    query("labelSelector", "string"),
    query("limit", "integer"),
    query("resourceVersion", "string"),
    query("resourceVersionMatch", "string"),
    query("sendInitialEvents", "boolean"),
    query("shardSelector", "string"),
    query("timeoutSeconds", "integer"),
    query("watch", "boolean"),
];
const WRITE: &[Parameter] =
    &[query("dryRun", "string"), query("fieldManager", "string"), query("fieldValidation", "string")];
const PATCH: &[Parameter] = &[
    query("dryRun", "string"),
    query("fieldManager", "string"),
    query("fieldValidation", "string"),
    query("force", "boolean"),
];
const DELETE: &[Parameter] = &[
    query("dryRun", "string"),
    query("gracePeriodSeconds", "integer"),
    query("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
    query("orphanDependents", "boolean"),
    query("propagationPolicy", "string"),
];
const LOG: &[Parameter] = &[
    query("container", "string"),
    query("follow", "boolean"),
    query("insecureSkipTLSVerifyBackend", "boolean"),
    query("limitBytes", "integer"),
    query("previous", "boolean"),
    query("sinceSeconds", "integer"),
    query("stream", "string"),
    query("tailLines", "integer"),
    query("timestamps", "boolean"),
];
const EXEC: &[Parameter] = &[
    query("command", "string"),
    query("container", "string"),
    query("stderr", "boolean"),
    query("stdin", "boolean"),
    query("stdout", "boolean"),
    query("tty", "boolean"),
];
const ATTACH: &[Parameter] = &[
    query("container", "string"),
    query("stderr", "boolean"),
    query("stdin", "boolean"),
    query("stdout", "boolean"),
    query("tty", "boolean"),
];

/// A type that a body or an answer refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    None,
    Text,
    /// A definition by its published name.
    Definition(String),
}

impl Body {
    /// The name of the definition.
    pub fn definition(&self) -> Option<&str> {
        match self {
            Body::Definition(name) => Some(name),
            Body::None | Body::Text => None,
        }
    }
}

/// One operation.
#[derive(Debug, Clone)]
pub struct Operation {
    /// `get put post delete patch head options`.
    pub method: &'static str,
    pub id: String,
    /// `x-kubernetes-action`; empty for none.
    pub action: &'static str,
    pub gvk: Option<Gvk>,
    pub parameters: Vec<Parameter>,
    pub body: Body,
    pub body_required: bool,
    pub answer: Body,
    pub codes: &'static [&'static str],
    pub consumes: Consumes,
    /// Watch streams are among what it produces.
    pub streams: bool,
}

/// Media types of bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consumes {
    Any,
    /// What custom resources are written in.
    Custom,
    Patches {
        strategic: bool,
    },
}

/// Media types that custom resources are read from.
pub const CUSTOM_TYPES: [&str; 2] = ["application/json", "application/yaml"];

/// One path.
#[derive(Debug, Clone)]
pub struct PathItem {
    pub path: String,
    pub parameters: Vec<Parameter>,
    pub operations: Vec<Operation>,
    pub tag: String,
    /// Bodies and answers have a protobuf form.
    pub protobuf: bool,
    /// The one media type of the answers, where it is not that of objects.
    pub only: Option<&'static str>,
}

const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const WATCH_EVENT: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const PATCH_BODY: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// `Core`, `Apps`, `RbacAuthorization`: a group in operation ids.
pub fn group_word(group: &str) -> String {
    if group.is_empty() {
        return "Core".to_owned();
    }
    group.strip_suffix(".k8s.io").unwrap_or(group).split('.').map(capital).collect()
}

/// `core_v1`, `rbacAuthorization_v1`: a group and version as a tag.
pub fn tag(group: &str, version: &str) -> String {
    let word = group_word(group);
    let mut chars = word.chars();
    let lower: String = chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect());
    if version.is_empty() { lower } else { format!("{lower}_{version}") }
}

/// Published name of a kind's definition.
pub fn definition(kind: &Kind) -> String {
    // The schema of a custom kind has no name, and is not to be read to learn that.
    match kind.message.and_then(|_| kind.schema.name.as_ref()) {
        Some(name) => name.to_string(),
        None => custom_definition(&kind.group, &kind.version, &kind.kind),
    }
}

/// Published name of a custom kind: the group reversed, as upstream has it.
pub fn custom_definition(group: &str, version: &str, kind: &str) -> String {
    let reversed: Vec<&str> = group.split('.').rev().collect();
    format!("{}.{version}.{kind}", reversed.join("."))
}

fn named(gvk: &Gvk) -> Body {
    let schema = kinds::definitions::message_of(gvk).map(kinds::definitions::schema);
    match schema.as_ref().and_then(|schema| schema.name.clone()) {
        Some(name) => Body::Definition(name.to_string()),
        None => Body::Text,
    }
}

struct Maker<'a> {
    kind: &'a Kind,
    custom: bool,
    /// `CoreV1`.
    prefix: String,
    root: String,
    tag: String,
    /// The definition of a list.
    list: String,
}

/// Every path of these resources.
pub fn of<'a>(resources: impl IntoIterator<Item = &'a Served>) -> Vec<PathItem> {
    let mut items: Vec<PathItem> = resources.into_iter().flat_map(of_resource).collect();
    items.sort_by(|a: &PathItem, b: &PathItem| a.path.cmp(&b.path));
    items
}

/// Paths of discovery itself.
pub fn of_discovery(catalogue: &Catalogue) -> Vec<PathItem> {
    const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
    let item = |path: String, id: String, answer: Body, tag: String| PathItem {
        path,
        parameters: Vec::new(),
        operations: vec![Operation {
            method: "get",
            id,
            action: "",
            gvk: None,
            parameters: Vec::new(),
            body: Body::None,
            body_required: false,
            answer,
            codes: &["200"],
            consumes: Consumes::Any,
            streams: false,
        }],
        tag,
        protobuf: true,
        only: None,
    };
    let definition = |name: &str| Body::Definition(format!("{META}{name}"));
    let text = |path: &str, id: &str, tag: &str| item(path.to_owned(), id.to_owned(), Body::Text, tag.to_owned());
    let mut items = vec![
        item("/api/".to_owned(), "getCoreAPIVersions".to_owned(), definition("APIVersions"), "core".to_owned()),
        item("/apis/".to_owned(), "getAPIVersions".to_owned(), definition("APIGroupList"), "apis".to_owned()),
        text("/.well-known/openid-configuration/", "getServiceAccountIssuerOpenIDConfiguration", "WellKnown"),
        text("/openid/v1/jwks/", "getServiceAccountIssuerOpenIDKeyset", "openid"),
    ];
    items[2].only = Some("application/json");
    items[3].only = Some("application/jwk-set+json");
    let info = Body::Definition("io.k8s.apimachinery.pkg.version.Info".to_owned());
    let version = item("/version/".to_owned(), "getCodeVersion".to_owned(), info, "version".to_owned());
    items.push(PathItem { only: Some("application/json"), ..version });
    let mut seen: Vec<String> = Vec::new();
    for kind in catalogue.resources().filter(|served| !served.custom).map(|served| &served.kind) {
        let (group, version) = (&*kind.group, &*kind.version);
        let word = group_word(group);
        let root = if group.is_empty() { "/api/".to_owned() } else { format!("/apis/{group}/") };
        if !seen.contains(&root) {
            seen.push(root.clone());
            if !group.is_empty() {
                let id = format!("get{word}APIGroup");
                items.push(item(root.clone(), id, definition("APIGroup"), tag(group, "")));
            }
        }
        let path = format!("{root}{version}/");
        if !seen.contains(&path) {
            seen.push(path.clone());
            let id = format!("get{word}{}APIResources", capital(version));
            items.push(item(path, id, definition("APIResourceList"), tag(group, version)));
        }
    }
    items
}

fn of_resource(served: &Served) -> Vec<PathItem> {
    let kind = &*served.kind;
    let root = match &*kind.group {
        "" => format!("/api/{}", kind.version),
        group => format!("/apis/{group}/{}", kind.version),
    };
    let list = definition(kind);
    let list = match list.rsplit_once('.') {
        Some((package, _)) => format!("{package}.{}", kind.list_kind),
        None => kind.list_kind.to_string(),
    };
    let prefix = format!("{}{}", group_word(&kind.group), capital(&kind.version));
    let maker = Maker { kind, custom: served.custom, prefix, root, tag: tag(&kind.group, &kind.version), list };
    let mut items = maker.collections();
    items.extend(maker.single());
    for sub in &kind.subresources {
        items.extend(maker.subresource(sub));
    }
    items.retain(|item| !item.operations.is_empty());
    items
}

impl Maker<'_> {
    fn operation(&self, method: &'static str, id: String, action: &'static str) -> Operation {
        Operation {
            method,
            id,
            action,
            gvk: Some(self.kind.gvk()),
            parameters: Vec::new(),
            body: Body::None,
            body_required: false,
            answer: Body::Definition(definition(self.kind)),
            codes: &["200"],
            consumes: if self.custom { Consumes::Custom } else { Consumes::Any },
            streams: false,
        }
    }

    /// Parameters that all operations of a path have are the path's own.
    fn item(&self, path: String, mut parameters: Vec<Parameter>, mut operations: Vec<Operation>) -> PathItem {
        let first = operations.first().map(|one| one.parameters.clone()).unwrap_or_default();
        let shared = first.into_iter().filter(|p| operations.iter().all(|one| one.parameters.contains(p)));
        let shared: Vec<Parameter> = shared.collect();
        for one in &mut operations {
            one.parameters.retain(|p| !shared.contains(p));
        }
        parameters.extend(shared);
        PathItem { path, parameters, operations, tag: self.tag.clone(), protobuf: !self.custom, only: None }
    }

    /// `NamespacedPod` or `Node`.
    fn noun(&self) -> String {
        if self.kind.namespaced() { format!("Namespaced{}", self.kind.kind) } else { self.kind.kind.to_string() }
    }

    fn base(&self) -> String {
        let plural = &self.kind.plural;
        match self.kind.namespaced() {
            true => format!("{}/namespaces/{{namespace}}/{plural}", self.root),
            false => format!("{}/{plural}", self.root),
        }
    }

    fn scope_parameters(&self, name: bool) -> Vec<Parameter> {
        let mut all = Vec::new();
        if name {
            all.push(NAME);
        }
        if self.kind.namespaced() {
            all.push(NAMESPACE);
        }
        all
    }

    fn collections(&self) -> Vec<PathItem> {
        let (kind, noun, prefix) = (self.kind, self.noun(), &self.prefix);
        let mut operations = Vec::new();
        if kind.verbs.has(Verbs::LIST) {
            operations.push(self.list_operation(format!("list{prefix}{noun}")));
        }
        if kind.verbs.has(Verbs::CREATE) {
            let mut post = self.operation("post", format!("create{prefix}{noun}"), "post");
            post.parameters = WRITE.to_vec();
            post.body = Body::Definition(definition(kind));
            post.body_required = true;
            post.codes = &["200", "201", "202"];
            operations.push(post);
        }
        if kind.verbs.has(Verbs::DELETE_COLLECTION) {
            let mut delete = self.operation("delete", format!("delete{prefix}Collection{noun}"), "deletecollection");
            if self.custom {
                // Upstream publishes the options of a list here, and none of a deletion.
                delete.parameters = LIST.to_vec();
            } else {
                let select = LIST.iter().filter(|p| !matches!(p.name, "watch" | "allowWatchBookmarks"));
                delete.parameters = select.chain(DELETE).copied().collect();
                delete.parameters.sort_by_key(|p| p.name);
                delete.body = Body::Definition(DELETE_OPTIONS.to_owned());
            }
            delete.answer = Body::Definition(STATUS.to_owned());
            operations.push(delete);
        }
        let mut parameters = self.scope_parameters(false);
        parameters.push(PRETTY);
        let mut items = vec![self.item(self.base(), parameters, operations)];
        if kind.namespaced() && kind.verbs.has(Verbs::LIST) {
            let list = self.list_operation(format!("list{prefix}{}ForAllNamespaces", kind.kind));
            items.push(self.item(format!("{}/{}", self.root, kind.plural), vec![PRETTY], vec![list]));
        }
        if kind.verbs.has(Verbs::WATCH) && !self.custom {
            items.extend(self.watches());
        }
        items
    }

    fn list_operation(&self, id: String) -> Operation {
        let mut list = self.operation("get", id, "list");
        list.parameters = LIST.to_vec();
        list.answer = Body::Definition(self.list.clone());
        list.streams = true;
        list
    }

    /// The old paths below /watch.
    fn watches(&self) -> Vec<PathItem> {
        let (kind, noun, prefix) = (self.kind, self.noun(), &self.prefix);
        let watch = |path: String, id: String, action, scope: Vec<Parameter>| {
            let mut operation = self.operation("get", id, action);
            operation.answer = Body::Definition(WATCH_EVENT.to_owned());
            operation.streams = true;
            let mut parameters: Vec<Parameter> = LIST.iter().copied().chain(scope).chain([PRETTY]).collect();
            parameters.sort_by_key(|p| p.name);
            self.item(path, parameters, vec![operation])
        };
        let below = |path: &str| path.replacen(&self.root, &format!("{}/watch", self.root), 1);
        let base = below(&self.base());
        let mut items = vec![
            watch(base.clone(), format!("watch{prefix}{noun}List"), "watchlist", self.scope_parameters(false)),
            watch(format!("{base}/{{name}}"), format!("watch{prefix}{noun}"), "watch", self.scope_parameters(true)),
        ];
        if kind.namespaced() {
            let all = below(&format!("{}/{}", self.root, kind.plural));
            let id = format!("watch{prefix}{}ListForAllNamespaces", kind.kind);
            items.push(watch(all, id, "watchlist", Vec::new()));
        }
        items
    }

    fn single(&self) -> Vec<PathItem> {
        let (kind, noun, prefix) = (self.kind, self.noun(), &self.prefix);
        let mut operations = self.read_write(kind.verbs, &noun, "", &Body::Definition(definition(kind)), kind.gvk());
        if kind.verbs.has(Verbs::DELETE) {
            let mut delete = self.operation("delete", format!("delete{prefix}{noun}"), "delete");
            delete.parameters = DELETE.to_vec();
            delete.body = Body::Definition(DELETE_OPTIONS.to_owned());
            if !kind.answers_delete_with_object() {
                delete.answer = Body::Definition(STATUS.to_owned());
            }
            delete.codes = &["200", "202"];
            operations.push(delete);
        }
        let mut parameters = self.scope_parameters(true);
        parameters.push(PRETTY);
        vec![self.item(format!("{}/{{name}}", self.base()), parameters, operations)]
    }

    fn read_write(&self, verbs: Verbs, noun: &str, suffix: &str, what: &Body, gvk: Gvk) -> Vec<Operation> {
        let prefix = &self.prefix;
        let mut operations = Vec::new();
        let make = |method, id: String, action| Operation {
            gvk: Some(gvk.clone()),
            answer: what.clone(),
            ..self.operation(method, id, action)
        };
        if verbs.has(Verbs::GET) {
            let mut get = make("get", format!("read{prefix}{noun}{suffix}"), "get");
            if self.custom {
                get.parameters = vec![query("resourceVersion", "string")];
            }
            operations.push(get);
        }
        if verbs.has(Verbs::UPDATE) {
            let mut put = make("put", format!("replace{prefix}{noun}{suffix}"), "put");
            put.parameters = WRITE.to_vec();
            put.body = what.clone();
            put.body_required = true;
            put.codes = &["200", "201"];
            operations.push(put);
        }
        if verbs.has(Verbs::PATCH) {
            let mut patch = make("patch", format!("patch{prefix}{noun}{suffix}"), "patch");
            patch.parameters = PATCH.to_vec();
            patch.body = Body::Definition(PATCH_BODY.to_owned());
            patch.body_required = true;
            patch.codes = if self.custom { &["200"] } else { &["200", "201"] };
            patch.consumes = Consumes::Patches { strategic: !self.custom };
            operations.push(patch);
        }
        operations
    }

    fn subresource(&self, sub: &Subresource) -> Vec<PathItem> {
        let suffix: String = sub.name.split('/').map(capital).collect();
        let path = format!("{}/{{name}}/{}", self.base(), sub.name);
        let mut parameters = self.scope_parameters(true);
        let options = match sub.action {
            Action::Log => LOG,
            Action::Exec => EXEC,
            Action::Attach => ATTACH,
            Action::PortForward => &[query("ports", "integer")],
            Action::Proxy => &[query("path", "string")],
            _ => &[],
        };
        parameters.extend(options);
        parameters.sort_by_key(|p| p.name);
        match sub.action {
            Action::Exec | Action::Attach | Action::PortForward => {
                let operations = self.connects(sub, &suffix, &["get", "post"]);
                vec![self.item(path, parameters, operations)]
            }
            Action::Proxy => {
                let methods = ["delete", "get", "head", "options", "patch", "post", "put"];
                let mut deeper = parameters.clone();
                deeper.push(Parameter { name: "path", place: "path", kind: "string" });
                let with_path = self.connects(sub, &format!("{suffix}WithPath"), &methods);
                vec![
                    self.item(path.clone(), parameters, self.connects(sub, &suffix, &methods)),
                    self.item(format!("{path}/{{path}}"), deeper, with_path),
                ]
            }
            Action::Log => {
                parameters.push(PRETTY);
                let operations = self.read_write(Verbs::GET, &self.noun(), &suffix, &Body::Text, self.kind.gvk());
                vec![self.item(path, parameters, operations)]
            }
            _ => {
                parameters.push(PRETTY);
                vec![self.item(path, parameters, self.plain_sub(sub, &suffix))]
            }
        }
    }

    fn plain_sub(&self, sub: &Subresource, suffix: &str) -> Vec<Operation> {
        let own = sub.kind == self.kind.gvk();
        let what = if own { Body::Definition(definition(self.kind)) } else { named(&sub.kind) };
        let mut operations = self.read_write(sub.verbs, &self.noun(), suffix, &what, sub.kind.clone());
        if sub.verbs.has(Verbs::CREATE) {
            let mut post = self.operation("post", format!("create{}{}{suffix}", self.prefix, self.noun()), "post");
            post.gvk = Some(sub.kind.clone());
            post.parameters = WRITE.to_vec();
            post.body = what.clone();
            post.body_required = true;
            post.answer = what;
            post.codes = &["200", "201", "202"];
            operations.push(post);
        }
        operations
    }

    fn connects(&self, sub: &Subresource, suffix: &str, methods: &[&'static str]) -> Vec<Operation> {
        let make = |method: &&'static str| {
            let id = format!("connect{}{}{}{suffix}", self.prefix, capital(method), self.noun());
            Operation { gvk: Some(sub.kind.clone()), answer: Body::Text, ..self.operation(method, id, "connect") }
        };
        methods.iter().map(make).collect()
    }
}
