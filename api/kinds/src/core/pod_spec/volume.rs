//! Volumes of a pod: one source each, and what makes that source valid.

use std::collections::{BTreeMap, BTreeSet};

use meta::{FieldError, Path, Quantity, names};
use serde_json::Value;

use super::env::{VOLUME_FIELDS, field_ref, resource_ref};
use crate::check::{Errors, among, follows, no_backsteps, present, volume_path};
use crate::value::{at, int, items, text};

/// Valid volumes by name, for mounts to refer to.
pub(crate) type Volumes<'a> = BTreeMap<&'a str, &'a Value>;

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Pushes what is wrong with one source of a volume.
type SourceCheck = fn(&mut Errors, Path, &Value);

/// Sources in the order upstream looks at them, with the checks we make of each.
const SOURCES: [(&str, SourceCheck); 29] = [
    ("emptyDir", empty_dir),
    ("hostPath", host_path),
    ("gitRepo", |e, p, v| {
        present(e, &p, v, "repository");
    }),
    ("gcePersistentDisk", |e, p, v| {
        present(e, &p, v, "pdName");
    }),
    ("awsElasticBlockStore", |e, p, v| {
        present(e, &p, v, "volumeID");
    }),
    ("secret", secret),
    ("nfs", nfs),
    ("iscsi", iscsi),
    ("glusterfs", glusterfs),
    ("flocker", |_, _, _| {}),
    ("persistentVolumeClaim", |e, p, v| {
        present(e, &p, v, "claimName");
    }),
    ("rbd", rbd),
    ("cinder", |e, p, v| {
        present(e, &p, v, "volumeID");
    }),
    ("cephfs", |e, p, v| {
        if items(v, "monitors").is_empty() {
            e.push(FieldError::required(p.child("monitors"), ""));
        }
    }),
    ("quobyte", |_, _, _| {}),
    ("downwardAPI", downward),
    ("fc", |_, _, _| {}),
    ("flexVolume", |e, p, v| {
        present(e, &p, v, "driver");
    }),
    ("configMap", config_map),
    ("azureFile", |_, _, _| {}),
    ("vsphereVolume", |e, p, v| {
        present(e, &p, v, "volumePath");
    }),
    ("photonPersistentDisk", |e, p, v| {
        present(e, &p, v, "pdID");
    }),
    ("portworxVolume", |e, p, v| {
        present(e, &p, v, "volumeID");
    }),
    ("azureDisk", |_, _, _| {}),
    ("storageos", |_, _, _| {}),
    ("projected", projected),
    ("scaleIO", |_, _, _| {}),
    ("csi", csi),
    ("ephemeral", ephemeral),
];

/// Pushes what is wrong with a source that pods and persistent volumes share.
pub(crate) fn shared_source(errors: &mut Errors, path: Path, name: &str, source: &Value) {
    if let Some((_, check)) = SOURCES.iter().find(|(known, _)| *known == name) {
        check(errors, path, source);
    }
}

/// Everything wrong with the volumes of a spec, and those that are right. `pod` is empty for templates.
pub(crate) fn validate_all<'a>(errors: &mut Errors, path: Path, spec: &'a Value, pod: &str) -> Volumes<'a> {
    let list = items(spec, "volumes");
    let created: BTreeSet<String> = list
        .iter()
        .filter(|v| !pod.is_empty() && at(v, "ephemeral").is_some())
        .map(|v| format!("{pod}-{}", text(v, "name")))
        .collect();
    let mut known = Volumes::new();
    for (i, volume) in list.iter().enumerate() {
        let path = path.index(i);
        let (name, mut found) = (text(volume, "name"), Vec::new());
        source(&mut found, path, volume, pod);
        if name.is_empty() {
            found.push(FieldError::required(path.child("name"), ""));
        } else {
            follows(&mut found, path.child("name"), name, names::dns1123_label);
        }
        if known.contains_key(name) {
            found.push(FieldError::duplicate(path.child("name"), name));
        }
        if found.is_empty() {
            known.insert(name, volume);
        }
        errors.extend(found);
        let claim = text(volume, "persistentVolumeClaim.claimName");
        if created.contains(claim) {
            let message = "must not reference a PVC that gets created for an ephemeral volume";
            let path = path.child("persistentVolumeClaim");
            errors.push(FieldError::invalid(path.child("claimName"), claim, message));
        }
    }
    known
}

fn source(errors: &mut Errors, path: Path, volume: &Value, pod: &str) {
    let mut sources = 0;
    for (name, check) in SOURCES.iter().copied().chain([("image", image as fn(&mut Errors, Path, &Value))]) {
        let Some(found) = at(volume, name) else { continue };
        sources += 1;
        if sources > 1 {
            errors.push(FieldError::forbidden(path.child(name), "may not specify more than 1 volume type"));
        } else {
            check(errors, path.child(name), found);
            if name == "ephemeral" && !pod.is_empty() && !text(volume, "name").is_empty() {
                let claim = format!("{pod}-{}", text(volume, "name"));
                for message in names::dns1123_subdomain(&claim) {
                    let message = format!("PVC name {}: {message}", meta::text::quote(&claim));
                    errors.push(FieldError::invalid(path.child("name"), text(volume, "name"), message));
                }
            }
        }
    }
    if sources == 0 {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
}

fn empty_dir(errors: &mut Errors, path: Path, source: &Value) {
    let limit = text(source, "sizeLimit").parse::<Quantity>();
    if limit.is_ok_and(|limit| limit.sign() < 0) {
        let message = "SizeLimit field must be a valid resource quantity";
        errors.push(FieldError::forbidden(path.child("sizeLimit"), message));
    }
}

fn host_path(errors: &mut Errors, path: Path, source: &Value) {
    const TYPES: [&str; 8] =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    if present(errors, &path, source, "path") {
        no_backsteps(errors, path.child("path"), text(source, "path"));
        among(errors, path.child("type"), text(source, "type"), &TYPES);
    }
}

fn mode(errors: &mut Errors, path: &Path, object: &Value, key: &str) {
    if let Some(mode) = int(object, key).filter(|m| *m < 0 || *m > 0o777) {
        errors.push(FieldError::invalid(path.child(key), mode, FILE_MODE));
    }
}

fn key_to_paths(errors: &mut Errors, path: Path, source: &Value) {
    let list = path.child("items");
    for (i, item) in items(source, "items").iter().enumerate() {
        let path = list.index(i);
        present(errors, &path, item, "key");
        present(errors, &path, item, "path");
        volume_path(errors, path.child("path"), text(item, "path"));
        mode(errors, &path, item, "mode");
    }
}

fn secret(errors: &mut Errors, path: Path, source: &Value) {
    present(errors, &path, source, "secretName");
    mode(errors, &path, source, "defaultMode");
    key_to_paths(errors, path, source);
}

fn config_map(errors: &mut Errors, path: Path, source: &Value) {
    present(errors, &path, source, "name");
    mode(errors, &path, source, "defaultMode");
    key_to_paths(errors, path, source);
}

fn nfs(errors: &mut Errors, path: Path, source: &Value) {
    present(errors, &path, source, "server");
    present(errors, &path, source, "path");
    if !text(source, "path").starts_with('/') {
        errors.push(FieldError::invalid(path.child("path"), text(source, "path"), "must be an absolute path"));
    }
}

fn iscsi(errors: &mut Errors, path: Path, source: &Value) {
    present(errors, &path, source, "targetPortal");
    present(errors, &path, source, "iqn");
    if let Some(lun) = int(source, "lun").filter(|lun| !(0..=255).contains(lun)) {
        errors.push(FieldError::invalid(path.child("lun"), lun, names::range(0, 255)));
    }
}

fn glusterfs(errors: &mut Errors, path: Path, source: &Value) {
    present(errors, &path, source, "endpoints");
    present(errors, &path, source, "path");
}

fn rbd(errors: &mut Errors, path: Path, source: &Value) {
    if items(source, "monitors").is_empty() {
        errors.push(FieldError::required(path.child("monitors"), ""));
    }
    present(errors, &path, source, "image");
}

fn csi(errors: &mut Errors, path: Path, source: &Value) {
    let driver = text(source, "driver");
    csi_driver(errors, path.child("driver"), driver);
    if let Some(secret) = at(source, "nodePublishSecretRef") {
        let path = path.child("nodePublishSecretRef");
        if text(secret, "name").is_empty() {
            errors.push(FieldError::required(path.child("name"), ""));
        } else {
            follows(errors, path.child("name"), text(secret, "name"), names::dns1123_subdomain);
        }
    }
}

/// The name of a CSI driver.
pub(crate) fn csi_driver(errors: &mut Errors, path: Path, driver: &str) {
    if driver.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    if driver.len() > 63 {
        errors.push(FieldError::too_long(path, 63));
    }
    let problems = names::dns1123_subdomain(&driver.to_lowercase());
    errors.extend(problems.into_iter().map(|problem| FieldError::invalid(path, driver, problem)));
}

fn ephemeral(errors: &mut Errors, path: Path, source: &Value) {
    let Some(template) = at(source, "volumeClaimTemplate") else {
        errors.push(FieldError::required(path.child("volumeClaimTemplate"), ""));
        return;
    };
    let path = path.child("volumeClaimTemplate");
    let spec = at(template, "spec").unwrap_or(&Value::Null);
    crate::core::persistent_volume_claim::validate_spec(errors, path.child("spec"), spec);
}

fn image(errors: &mut Errors, path: Path, source: &Value) {
    if text(source, "reference").is_empty() {
        errors.push(FieldError::required(path.child("reference"), ""));
    }
    crate::check::one_of_if_set(errors, &path, source, "pullPolicy", &["Always", "IfNotPresent", "Never"]);
}

fn downward(errors: &mut Errors, path: Path, source: &Value) {
    mode(errors, &path, source, "defaultMode");
    for file in items(source, "items") {
        downward_file(errors, path, file);
    }
}

fn downward_file(errors: &mut Errors, path: Path, file: &Value) {
    present(errors, &path, file, "path");
    volume_path(errors, path.child("path"), text(file, "path"));
    match (at(file, "fieldRef"), at(file, "resourceFieldRef")) {
        (Some(field), resource) => {
            field_ref(errors, path.child("fieldRef"), field, &VOLUME_FIELDS);
            if resource.is_some() {
                let message = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(FieldError::invalid(path, "resource", message));
            }
        }
        (None, Some(resource)) => resource_ref(errors, path.child("resourceFieldRef"), resource, true),
        (None, None) => {
            errors.push(FieldError::required(path, "one of fieldRef and resourceFieldRef is required"));
        }
    }
    mode(errors, &path, file, "mode");
}

fn projected(errors: &mut Errors, path: Path, source: &Value) {
    mode(errors, &path, source, "defaultMode");
    let mut paths = BTreeSet::new();
    let list = path.child("sources");
    for (i, source) in items(source, "sources").iter().enumerate() {
        let source_path = list.index(i);
        let mut sources = 0;
        for kind in
            ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"]
        {
            if let Some(found) = at(source, kind) {
                sources += 1;
                projection(errors, path, source_path.child(kind), kind, found);
                occupy(errors, path, &mut paths, kind, found);
            }
        }
        if sources > 1 {
            let message = "may not specify more than 1 volume type per source";
            errors.push(FieldError::forbidden(source_path, message));
        }
    }
}

fn projection(errors: &mut Errors, volume: Path, path: Path, kind: &str, source: &Value) {
    match kind {
        "secret" | "configMap" => {
            present(errors, &path, source, "name");
            key_to_paths(errors, path, source);
        }
        "downwardAPI" => items(source, "items").iter().for_each(|file| downward_file(errors, path, file)),
        "serviceAccountToken" => {
            let seconds = int(source, "expirationSeconds");
            let seconds_path = path.child("expirationSeconds");
            match seconds {
                None => errors.push(FieldError::required(seconds_path, "")),
                Some(s) if s < 600 => {
                    let message = "may not specify a duration less than 10 minutes";
                    errors.push(FieldError::invalid(seconds_path, s, message));
                }
                Some(s) if s > 1 << 32 => {
                    let message = "may not specify a duration larger than 2^32 seconds";
                    errors.push(FieldError::invalid(seconds_path, s, message));
                }
                Some(_) => {}
            }
            match text(source, "path") {
                "" => errors.push(FieldError::required(volume.child("path"), "")),
                found => volume_path(errors, volume.child("path"), found),
            }
        }
        "clusterTrustBundle" => trust_bundle(errors, path, source),
        _ => pod_certificate(errors, path, source),
    }
}

fn trust_bundle(errors: &mut Errors, path: Path, source: &Value) {
    match (at(source, "name"), at(source, "signerName")) {
        (Some(_), Some(_)) => {
            let message = "only one of name and signerName may be used";
            errors.push(FieldError::invalid(path, source.clone(), message));
        }
        (Some(name), None) => {
            if name == "" {
                errors.push(FieldError::required(path.child("name"), "must be a valid object name"));
            }
            if let Some(selector) = at(source, "labelSelector") {
                let message = "labelSelector must be unset if name is specified";
                errors.push(FieldError::invalid(path.child("labelSelector"), selector.clone(), message));
            }
        }
        (None, Some(_)) => {
            crate::check::label_selector(errors, path.child("labelSelector"), at(source, "labelSelector"));
        }
        (None, None) => errors.push(FieldError::required(path, "either name or signerName must be specified")),
    }
    present(errors, &path, source, "path");
    volume_path(errors, path.child("path"), text(source, "path"));
}

fn pod_certificate(errors: &mut Errors, path: Path, source: &Value) {
    const TYPES: [&str; 6] = ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
    among(errors, path.child("keyType"), text(source, "keyType"), &TYPES);
    if let Some(seconds) = int(source, "maxExpirationSeconds") {
        let seconds_path = path.child("maxExpirationSeconds");
        let most = if text(source, "signerName").starts_with("kubernetes.io/") { 86_400 } else { 7_862_400 };
        if seconds < 3600 {
            let message = "if provided, maxExpirationSeconds must be >= 3600";
            errors.push(FieldError::invalid(seconds_path, seconds, message));
        }
        if seconds > most {
            let message = format!("if provided, maxExpirationSeconds must be <= {most}");
            errors.push(FieldError::invalid(seconds_path, seconds, message));
        }
    }
    let keys = ["credentialBundlePath", "keyPath", "certificateChainPath"];
    for key in keys.iter().filter(|key| !text(source, key).is_empty()) {
        volume_path(errors, path.child(key), text(source, key));
    }
    if keys.iter().all(|key| text(source, key).is_empty()) {
        let message = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.push(FieldError::required(path, message));
    }
}

/// Two sources may not write the same file.
fn occupy<'a>(errors: &mut Errors, volume: Path, paths: &mut BTreeSet<&'a str>, kind: &str, source: &'a Value) {
    let mut take = |path: &'a str, shown: &'a str| {
        if !path.is_empty() && !paths.insert(path) {
            errors.push(FieldError::invalid(volume, shown, "conflicting duplicate paths"));
        }
    };
    match kind {
        "secret" | "configMap" => {
            items(source, "items").iter().for_each(|i| take(text(i, "path"), text(source, "name")))
        }
        "downwardAPI" => items(source, "items").iter().for_each(|i| take(text(i, "path"), text(i, "path"))),
        "clusterTrustBundle" => take(text(source, "path"), text(source, "path")),
        "podCertificate" => {
            for key in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
                take(text(source, key), text(source, key));
            }
        }
        _ => {}
    }
}
