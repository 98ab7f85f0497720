//! A small builder for rows of the table: each `src/<group>/<kind>.rs` names what differs from the usual kind, which is
//! stored, has every verb, and is printed as name and age.

use base64::Engine as _;
use meta::{Gvk, Scope, Str};
use sha2::{Digest, Sha256};

use crate::hooks::Hooks;
use crate::kind::{
    Action, Column, Kind, NameRule, ScalePaths, Selectable, StatusMetadata, Storage, Subresource, Verbs, Writes,
};

/// Base64 of the first 8 bytes of SHA-256 over "group/version/kind", which discovery publishes.
pub fn storage_version_hash(stored: &Gvk) -> String {
    let digest = Sha256::digest(format!("{}/{}/{}", stored.group, stored.version, stored.kind).as_bytes());
    base64::engine::general_purpose::STANDARD.encode(&digest[..8])
}

impl Kind {
    /// A kind whose objects live in a namespace.
    pub(crate) fn namespaced_row(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
    ) -> Kind {
        Kind::row(Scope::Namespaced, group, version, kind, plural)
    }

    /// A kind whose objects belong to the cluster.
    pub(crate) fn cluster_row(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
    ) -> Kind {
        Kind::row(Scope::Cluster, group, version, kind, plural)
    }

    fn row(scope: Scope, group: &'static str, version: &'static str, kind: &'static str, plural: &'static str) -> Kind {
        let gvk = Gvk::new(group, version, kind);
        Kind {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            list_kind: format!("{kind}List").into(),
            plural: plural.into(),
            singular: kind.to_ascii_lowercase().into(),
            short_names: Vec::new(),
            categories: Vec::new(),
            scope,
            verbs: Verbs::ALL,
            subresources: Vec::new(),
            storage: Some(Storage {
                prefix: format!("/registry/{plural}").into(),
                version_hash: storage_version_hash(&gvk),
                kind: gvk.clone(),
                ttl_seconds: None,
            }),
            deprecated: None,
            action: None,
            schema: crate::definitions::of_kind(&gvk),
            message: crate::definitions::message_of(&gvk),
            columns: Vec::new(),
            selectable: Vec::new(),
            names: NameRule::Subdomain,
            unconditional_update: true,
            create_on_update: false,
            generation: false,
            status_on_create: false,
            status_metadata: StatusMetadata::Writable,
            graceful_deletion: false,
            hooks: Hooks::NONE,
        }
    }

    pub(crate) fn short(mut self, names: &[&'static str]) -> Kind {
        self.short_names = names.iter().map(|n| Str::from(*n)).collect();
        self
    }

    pub(crate) fn category(mut self, name: &'static str) -> Kind {
        self.categories.push(name.into());
        self
    }

    /// Answered by the server itself, never stored.
    pub(crate) fn virtual_with(mut self, verbs: Verbs) -> Kind {
        self.storage = None;
        self.verbs = verbs;
        self
    }

    /// Never stored: creation does this.
    pub(crate) fn answers(mut self, action: Action) -> Kind {
        self.action = Some(action);
        self.virtual_with(Verbs::CREATE)
    }

    /// Never stored: get and list do this.
    pub(crate) fn shows(mut self, action: Action) -> Kind {
        self.action = Some(action);
        self.virtual_with(Verbs::GET.and(Verbs::LIST))
    }

    /// Still served, but clients are told to leave it.
    pub(crate) fn deprecated(mut self, warning: &'static str) -> Kind {
        self.deprecated = Some(warning.into());
        self
    }

    pub(crate) fn without(mut self, verbs: Verbs) -> Kind {
        self.verbs = self.verbs.without(verbs);
        self
    }

    /// Stored under a prefix that differs from `/registry/<plural>`.
    pub(crate) fn stored_at(mut self, prefix: &'static str) -> Kind {
        if let Some(storage) = &mut self.storage {
            storage.prefix = prefix.into();
        }
        self
    }

    /// Stored as another type (and under that type's prefix).
    pub(crate) fn stored_as(mut self, stored: Gvk) -> Kind {
        if let Some(storage) = &mut self.storage {
            storage.version_hash = storage_version_hash(&stored);
            storage.kind = stored;
        }
        self
    }

    pub(crate) fn expires(mut self, seconds: u32) -> Kind {
        if let Some(storage) = &mut self.storage {
            storage.ttl_seconds = Some(seconds);
        }
        self
    }

    /// Has /status.
    pub(crate) fn status(self) -> Kind {
        self.own("status", Action::Status, Verbs::GET_PATCH_UPDATE)
    }

    /// Has /scale over `spec.replicas`, `status.replicas` and `spec.selector`.
    pub(crate) fn scale(self) -> Kind {
        let paths = ScalePaths {
            spec_replicas: "spec.replicas".into(),
            status_replicas: "status.replicas".into(),
            selector: Some("spec.selector".into()),
        };
        let kind = Gvk::new("autoscaling", "v1", "Scale");
        self.foreign("scale", kind.clone(), vec![kind], Action::Scale(paths), Verbs::GET_PATCH_UPDATE)
    }

    /// A subresource that speaks the kind itself.
    pub(crate) fn own(self, name: &'static str, action: Action, verbs: Verbs) -> Kind {
        let kind = self.gvk();
        self.foreign(name, kind, Vec::new(), action, verbs)
    }

    /// A subresource that writes part of the kind itself.
    pub(crate) fn writing(mut self, name: &'static str, action: Action, verbs: Verbs, writes: Writes) -> Kind {
        self = self.own(name, action, verbs);
        if let Some(last) = self.subresources.last_mut() {
            last.writes = Some(writes);
        }
        self
    }

    /// A subresource that speaks another kind.
    pub(crate) fn foreign(
        mut self,
        name: &'static str,
        kind: Gvk,
        accepts: Vec<Gvk>,
        action: Action,
        verbs: Verbs,
    ) -> Kind {
        self.subresources.push(Subresource { name: name.into(), kind, accepts, verbs, action, writes: None });
        self
    }

    /// A subresource that connects; its options travel in the query.
    pub(crate) fn connect(self, name: &'static str, options: &'static str, action: Action, verbs: Verbs) -> Kind {
        self.foreign(name, Gvk::new("", "v1", options), Vec::new(), action, verbs)
    }

    pub(crate) fn columns(mut self, columns: Vec<Column>) -> Kind {
        self.columns = columns;
        self
    }

    pub(crate) fn selectable(mut self, fields: Vec<Selectable>) -> Kind {
        self.selectable = fields;
        self
    }

    pub(crate) fn names(mut self, rule: NameRule) -> Kind {
        self.names = rule;
        self
    }

    /// An update must carry the resourceVersion it replaces.
    pub(crate) fn conditional_update(mut self) -> Kind {
        self.unconditional_update = false;
        self
    }

    pub(crate) fn created_by_update(mut self) -> Kind {
        self.create_on_update = true;
        self
    }

    /// Status counts from creation on.
    pub(crate) fn created_with_status(mut self) -> Kind {
        self.status_on_create = true;
        self
    }

    /// /status leaves metadata alone.
    pub(crate) fn fixed_status_metadata(mut self) -> Kind {
        self.status_metadata = StatusMetadata::Fixed;
        self
    }

    /// Deletion waits for a grace period.
    pub(crate) fn graceful(mut self) -> Kind {
        self.graceful_deletion = true;
        self
    }

    /// Keeps `metadata.generation`.
    pub(crate) fn generations(mut self) -> Kind {
        self.generation = true;
        self
    }

    pub(crate) fn hooks(mut self, hooks: Hooks) -> Kind {
        self.hooks = hooks;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_upstreams() {
        assert_eq!(storage_version_hash(&Gvk::new("", "v1", "Pod")), "xPOwRZ+Yhw8=");
    }
}
