//! Security contexts of pods and containers.

use meta::{FieldError, Path, names};
use serde_json::Value;

use crate::check::{Errors, among, in_range, one_of_if_set, relative_path};
use crate::value::{at, flag, items, text};

/// User and group ids that the kernel knows.
const MAX_ID: i64 = i32::MAX as i64;
const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
const SYSCTL_LENGTH: usize = 253;
const SYSCTL: &str = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

/// The context of a whole pod. `path` is the spec's.
pub(super) fn of_pod(errors: &mut Errors, path: Path, spec: &Value) {
    let Some(context) = at(spec, "securityContext") else { return };
    let path = path.child("securityContext");
    for key in ["fsGroup", "runAsUser", "runAsGroup"] {
        in_range(errors, &path, context, key, 0, MAX_ID);
    }
    let groups = path.child("supplementalGroups");
    for (i, group) in items(context, "supplementalGroups").iter().enumerate() {
        if let Some(id) = group.as_i64().filter(|id| !(0..=MAX_ID).contains(id)) {
            errors.push(FieldError::invalid(groups.index(i), id, names::range(0, MAX_ID)));
        }
    }
    sysctls(errors, path.child("sysctls"), items(context, "sysctls"), spec);
    one_of_if_set(errors, &path, context, "fsGroupChangePolicy", &["Always", "OnRootMismatch"]);
    seccomp(errors, path.child("seccompProfile"), at(context, "seccompProfile"));
    app_armor(errors, path.child("appArmorProfile"), at(context, "appArmorProfile"));
    one_of_if_set(errors, &path, context, "supplementalGroupsPolicy", &["Merge", "Strict"]);
    one_of_if_set(errors, &path, context, "seLinuxChangePolicy", &["MountOption", "Recursive"]);
}

/// The context of one container.
pub(super) fn of_container(errors: &mut Errors, path: Path, container: &Value, host_users: bool) {
    let Some(context) = at(container, "securityContext") else { return };
    for key in ["runAsUser", "runAsGroup"] {
        in_range(errors, &path, context, key, 0, MAX_ID);
    }
    if let Some(Value::String(mount)) = at(context, "procMount") {
        among(errors, path.child("procMount"), mount, &["Default", "Unmasked"]);
        if host_users && mount == "Unmasked" {
            let message = "`hostUsers` must be false to use `Unmasked`";
            errors.push(FieldError::invalid(path.child("procMount"), mount.as_str(), message));
        }
    }
    seccomp(errors, path.child("seccompProfile"), at(context, "seccompProfile"));
    if at(context, "allowPrivilegeEscalation") == Some(&Value::Bool(false)) {
        if flag(context, "privileged") {
            let message = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(FieldError::invalid(path, context.clone(), message));
        }
        if items(context, "capabilities.add").iter().any(|c| c == "CAP_SYS_ADMIN") {
            let message = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(FieldError::invalid(path, context.clone(), message));
        }
    }
    app_armor(errors, path.child("appArmorProfile"), at(context, "appArmorProfile"));
}

fn seccomp(errors: &mut Errors, path: Path, profile: Option<&Value>) {
    let Some(profile) = profile else { return };
    match text(profile, "type") {
        "" => errors.push(FieldError::required(path.child("type"), "type is required when seccompProfile is set")),
        kind => among(errors, path.child("type"), kind, &PROFILES),
    }
    let local = at(profile, "localhostProfile").and_then(Value::as_str);
    match (text(profile, "type"), local) {
        ("Localhost", None) => {
            let message = "must be set when seccomp type is Localhost";
            errors.push(FieldError::required(path.child("localhostProfile"), message));
        }
        ("Localhost", Some(file)) => relative_path(errors, path.child("localhostProfile"), file),
        (_, Some(_)) => {
            let message = "can only be set when seccomp type is Localhost";
            errors.push(FieldError::invalid(path.child("localhostProfile"), profile.clone(), message));
        }
        (_, None) => {}
    }
}

fn app_armor(errors: &mut Errors, path: Path, profile: Option<&Value>) {
    let Some(profile) = profile else { return };
    let local = at(profile, "localhostProfile").and_then(Value::as_str);
    let local_path = path.child("localhostProfile");
    match (text(profile, "type"), local) {
        ("", _) => {
            let message = "type is required when appArmorProfile is set";
            errors.push(FieldError::required(path.child("type"), message));
        }
        ("Localhost", None | Some("")) => {
            errors.push(FieldError::required(local_path, "must be set when AppArmor type is Localhost"));
        }
        ("Localhost", Some(name)) if name.trim() != name => {
            errors.push(FieldError::invalid(local_path, name, "must not be padded with whitespace"));
        }
        ("Localhost", Some(name)) if name.len() > 4095 => errors.push(FieldError::too_long(local_path, 4095)),
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            errors.push(FieldError::invalid(local_path, name, "can only be set when AppArmor type is Localhost"));
        }
        (kind, _) => among(errors, path.child("type"), kind, &PROFILES),
    }
}

fn sysctls(errors: &mut Errors, path: Path, sysctls: &[Value], spec: &Value) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, sysctl) in sysctls.iter().enumerate() {
        let path = path.index(i);
        let name = text(sysctl, "name");
        let name_path = path.child("name");
        if name.is_empty() {
            errors.push(FieldError::required(name_path, ""));
        } else if !valid_sysctl(name) {
            let message = format!("must have at most {SYSCTL_LENGTH} characters and match regex {SYSCTL}");
            errors.push(FieldError::invalid(name_path, name, message));
        } else if seen.contains(&name) {
            errors.push(FieldError::duplicate(name_path, name));
        }
        let dotted = name.replace('/', ".");
        let ipc = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."].iter().any(|p| dotted.starts_with(p));
        if flag(spec, "hostNetwork") && dotted.starts_with("net.") {
            errors.push(FieldError::invalid(name_path, name, "may not be specified when 'hostNetwork' is true"));
        } else if flag(spec, "hostIPC") && ipc {
            errors.push(FieldError::invalid(name_path, name, "may not be specified when 'hostIPC' is true"));
        }
        seen.push(name);
    }
}

/// Segments of lower-case letters, digits, dashes and underscores, joined by dots or slashes.
fn valid_sysctl(name: &str) -> bool {
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let segment = |s: &str| {
        let bytes = s.as_bytes();
        let ends = bytes.first().zip(bytes.last()).is_some_and(|(a, b)| edge(*a) && edge(*b));
        ends && bytes.iter().all(|b| edge(*b) || matches!(b, b'-' | b'_'))
    };
    name.len() <= SYSCTL_LENGTH && name.split(['.', '/']).all(segment)
}
