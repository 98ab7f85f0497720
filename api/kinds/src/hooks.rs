//! The hooks of a kind: plain functions on the dynamic object, all no-ops by default. What upstream spreads over
//! defaulting functions, registry strategies, validation packages and printers is one struct here.
//! Nobody calls them directly: `Kind::apply_defaults`, then mutating admission, then `Kind::prepare_create` and
//! `Kind::check`, then validating admission; on an update `prepare_update` and `check_update`, on a subresource
//! `prepare_subresource` and `check_subresource`.

use jiff::Timestamp;
use meta::FieldError;
use serde_json::Value;

/// Who asks and when: what some strategies stamp into the object.
#[derive(Clone, Debug)]
pub struct Context {
    /// The server's clock when the request came.
    pub now: Timestamp,
    /// Who is recorded as the writer: after impersonation.
    pub user: User,
}

/// The authenticated caller.
#[derive(Clone, Debug, Default)]
pub struct User {
    /// `system:node:web-1`; empty for the server's own writes.
    pub name: String,
    /// Differs for two users who had one name after another; empty where the authenticator knows none.
    pub uid: String,
    /// With `system:authenticated`.
    pub groups: Vec<String>,
    /// What the authenticator knows beside: a key, and its values in order.
    pub extra: Vec<(String, Vec<String>)>,
}

impl Context {
    /// A caller without a name, for tests and the server's own writes.
    pub fn at(now: Timestamp) -> Context {
        Context { now, user: User::default() }
    }
}

/// See the head of this file for when each is called.
#[derive(Clone, Copy)]
pub struct Hooks {
    /// Fills what the constant defaults of the schema cannot: values that depend on other values.
    pub default: fn(&mut Value),
    /// Stamps initial state, after status and generation were reset.
    pub prepare_create: fn(&mut Value, &Context),
    /// Keeps what the main resource may not change, beside status; `(new, old)`.
    pub prepare_update: fn(&mut Value, &Value, &Context),
    /// Keeps what /status may not change, beside everything but status and metadata; `(new, old)`.
    pub prepare_status: fn(&mut Value, &Value, &Context),
    /// What the first delete marks on an object, beside its deletion time: finalizers, a phase, a condition.
    pub prepare_delete: fn(&mut Value, &Context),
    /// Everything wrong with the object, beside its metadata.
    pub validate: fn(&Value) -> Vec<FieldError>,
    /// Everything wrong with an update, beside metadata; `(new, old)`.
    pub validate_update: fn(&Value, &Value) -> Vec<FieldError>,
    /// Everything wrong with a status update; `(new, old)`.
    pub validate_status: fn(&Value, &Value) -> Vec<FieldError>,
    /// Warnings for what is accepted and likely wrong; `(new, old)`, old is None on create.
    pub warnings: fn(&Value, Option<&Value>) -> Vec<String>,
    /// The cells of a table row, in the order of the columns.
    pub row: fn(&Value, Timestamp) -> Vec<Value>,
    /// From this type to the stored one, for kinds that share storage. apiVersion is set by the caller.
    pub to_storage: fn(&mut Value),
    /// From the stored type to this one.
    pub from_storage: fn(&mut Value),
}

impl Hooks {
    /// Does nothing, accepts everything, prints the name and the age.
    pub const NONE: Hooks = Hooks {
        default: |_| {},
        prepare_create: |_, _| {},
        prepare_update: |_, _, _| {},
        prepare_status: |_, _, _| {},
        prepare_delete: |_, _| {},
        validate: |_| Vec::new(),
        validate_update: |_, _| Vec::new(),
        validate_status: |_, _| Vec::new(),
        warnings: |_, _| Vec::new(),
        row: crate::print::name_and_age,
        to_storage: |_| {},
        from_storage: |_| {},
    };
}
