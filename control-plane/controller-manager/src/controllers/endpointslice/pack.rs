//! Slices for desired endpoints with the least writes: what is right stays where it is, changed slices are filled
//! first, then one with room, then new ones. Upstream's way of packing. Pure.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use client::Action;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::desired::{self, Group};
use super::{CONTROLLER, MANAGED_BY, SERVICE_NAME};
use crate::common::{acts, owners, template};
use crate::controllers::services::{self, HEADLESS_LABEL};

/// Labels of this prefix are ours to say, whatever the service carries.
const RESERVED: &str = "endpointslice.kubernetes.io/";

/// A slice being worked on.
struct Draft {
    slice: EndpointSlice,
    changed: bool,
}

/// `existing`: our slices of this family.
pub fn slices(
    service: &Service,
    family: &str,
    groups: Vec<Group>,
    existing: &[Arc<EndpointSlice>],
    most: usize,
) -> Vec<Action> {
    let mut by_ports: BTreeMap<String, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in existing {
        by_ports.entry(desired::key(slice.ports.as_deref().unwrap_or_default())).or_default().push(slice.clone());
    }
    // A service without endpoints keeps one empty slice, so that others can tell it from one not looked at yet.
    let groups = if groups.is_empty() { vec![Group::default()] } else { groups };
    let mut actions = Vec::new();
    let mut obsolete = Vec::new();
    for group in groups {
        let same = by_ports.remove(&desired::key(&group.ports)).unwrap_or_default();
        let (kept, unused) = one_group(service, family, group, &same, most);
        actions.extend(kept);
        obsolete.extend(unused);
    }
    obsolete.extend(by_ports.into_values().flatten());
    actions.extend(obsolete.iter().map(|s| acts::delete(s.as_ref())));
    actions
}

/// Writes for one list of ports, and the slices that it needs no more.
fn one_group(
    service: &Service,
    family: &str,
    group: Group,
    existing: &[Arc<EndpointSlice>],
    most: usize,
) -> (Vec<Action>, Vec<Arc<EndpointSlice>>) {
    let mut wanted: HashMap<String, Endpoint> = group.endpoints.iter().map(|e| (identity(e), e.clone())).collect();
    let order: Vec<String> = group.endpoints.iter().map(identity).collect();
    let mut drafts: Vec<Draft> = existing.iter().map(|s| keep(s, &mut wanted)).collect();
    let mut fresh: Vec<Endpoint> = order.iter().filter_map(|id| wanted.remove(id)).collect();
    fill(&mut drafts, &mut fresh, most);
    let mut actions = Vec::new();
    let placeholder = group.endpoints.is_empty();
    let mut unused = Vec::new();
    for (n, (mut draft, original)) in drafts.into_iter().zip(existing).enumerate() {
        let spare = draft.slice.endpoints.as_ref().is_none_or(Vec::is_empty) && !(placeholder && n == 0);
        if spare {
            unused.push(original.clone());
            continue;
        }
        dress(&mut draft.slice, service);
        if !template::equal(&draft.slice, original) {
            actions.push(acts::update(&draft.slice));
        }
    }
    if placeholder && existing.is_empty() {
        actions.push(acts::create(&new_slice(service, family, &group, Vec::new())));
    }
    while !fresh.is_empty() {
        let rest = fresh.split_off(fresh.len().min(most));
        actions.push(acts::create(&new_slice(service, family, &group, fresh)));
        fresh = rest;
    }
    (actions, unused)
}

fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|r| r.uid.as_deref()).unwrap_or("");
    format!("{uid} {}", endpoint.addresses.first().map_or("", String::as_str))
}

/// The slice with what is still wanted of it; takes that out of `wanted`.
fn keep(slice: &EndpointSlice, wanted: &mut HashMap<String, Endpoint>) -> Draft {
    let mut draft = Draft { slice: slice.clone(), changed: false };
    let before = draft.slice.endpoints.take().unwrap_or_default();
    let kept: Vec<Endpoint> = before.iter().filter_map(|e| wanted.remove(&identity(e))).collect();
    draft.changed = kept != before;
    draft.slice.endpoints = Some(kept);
    draft
}

/// Puts new endpoints into slices that are written anyway, then into the fullest other one that takes all the rest.
fn fill(drafts: &mut [Draft], fresh: &mut Vec<Endpoint>, most: usize) {
    let len = |d: &Draft| d.slice.endpoints.as_ref().map_or(0, Vec::len);
    let mut changed: Vec<&mut Draft> = drafts.iter_mut().filter(|d| d.changed).collect();
    changed.sort_by_key(|d| std::cmp::Reverse(len(d)));
    for draft in changed {
        let room = most.saturating_sub(len(draft)).min(fresh.len());
        draft.slice.endpoints.get_or_insert_default().extend(fresh.drain(..room));
    }
    if fresh.is_empty() || fresh.len() >= most {
        return;
    }
    let fitting = drafts.iter_mut().filter(|d| !d.changed && len(d) + fresh.len() <= most && len(d) > 0);
    if let Some(draft) = fitting.max_by_key(|d| len(d)) {
        draft.slice.endpoints.get_or_insert_default().append(fresh);
        draft.changed = true;
    }
}

fn new_slice(service: &Service, family: &str, group: &Group, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let name = service.metadata.name.as_deref().unwrap_or("");
    let mut slice = EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(template::name_prefix(name)),
            namespace: service.metadata.namespace.clone(),
            owner_references: Some(vec![owners::owner_reference(service)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        ports: Some(group.ports.clone()),
        endpoints: Some(endpoints),
    };
    dress(&mut slice, service);
    slice
}

/// Labels, as the service has them now.
fn dress(slice: &mut EndpointSlice, service: &Service) {
    let theirs = service.metadata.labels.clone().unwrap_or_default();
    let mut labels: BTreeMap<String, String> = theirs
        .into_iter()
        .filter(|(k, _)| k != HEADLESS_LABEL && k != SERVICE_NAME && !k.starts_with(RESERVED))
        .collect();
    if services::is_headless(service) {
        labels.insert(HEADLESS_LABEL.into(), String::new());
    }
    labels.insert(SERVICE_NAME.into(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.into(), CONTROLLER.into());
    slice.metadata.labels = Some(labels);
    // The server leaves out empty lists: what is read back must compare equal.
    slice.ports = slice.ports.take().filter(|p| !p.is_empty());
    slice.endpoints = slice.endpoints.take().filter(|e| !e.is_empty());
}
