//! The file of a `clusterTrustBundle` source: which bundles it means, and their certificates as one text. Pure: bundles
//! are given. Called when the files of a projected volume are made; `Objects` watches what [`selector`] says.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ClusterTrustBundleProjection, Volume};
use meta::{Selector, pem};

use crate::io::objects::Bundles;

/// Field selectors of the bundles that the volume needs. None for a source whose labels can match nothing.
pub fn references(volume: &Volume) -> Vec<String> {
    let sources = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
    sources.filter_map(|s| s.cluster_trust_bundle.as_ref()).filter_map(selector).collect()
}

/// The field selector of the bundles that a source chooses from.
fn selector(source: &ClusterTrustBundleProjection) -> Option<String> {
    match (&source.name, &source.signer_name) {
        (Some(name), _) => Some(format!("metadata.name={name}")),
        (None, Some(signer)) => source.label_selector.as_ref().map(|_| format!("spec.signerName={signer}")),
        (None, None) => None,
    }
}

/// The content of the source's file, or why the volume has to wait for it.
pub fn content(source: &ClusterTrustBundleProjection, bundles: &Bundles) -> Result<Vec<u8>, String> {
    let among = selector(source).and_then(|s| bundles.get(&s)).map_or(&[][..], Vec::as_slice);
    let chosen = match &source.name {
        Some(_) => among.to_vec(),
        None => labelled(source, among)?,
    };
    if chosen.is_empty() && source.optional != Some(true) {
        return Err(missing(source));
    }
    Ok(certificates(chosen.iter().map(|b| b.spec.trust_bundle.as_str())).into_bytes())
}

fn labelled(
    source: &ClusterTrustBundleProjection,
    among: &[Arc<ClusterTrustBundle>],
) -> Result<Vec<Arc<ClusterTrustBundle>>, String> {
    let wanted = serde_json::to_value(&source.label_selector).map_err(|e| e.to_string())?;
    let wanted = Selector::from_object(Some(&wanted))?;
    let fits = |bundle: &&Arc<ClusterTrustBundle>| {
        let labels = bundle.metadata.labels.clone().unwrap_or_default();
        bundle.spec.signer_name == source.signer_name && wanted.matches(&labels)
    };
    Ok(among.iter().filter(fits).cloned().collect())
}

fn missing(source: &ClusterTrustBundleProjection) -> String {
    match (&source.name, &source.signer_name) {
        (Some(name), _) => {
            format!("while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io \"{name}\" not found")
        }
        (None, signer) => format!(
            "combination of signerName and labelSelector matched zero ClusterTrustBundles: signerName {:?}",
            signer.as_deref().unwrap_or_default()
        ),
    }
}

/// Every certificate of the texts once, without what stands around it. The order depends on nothing but the
/// certificates, so files change only when these do.
fn certificates<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let blocks = texts.flat_map(pem::all).filter(|block| block.kind == CERTIFICATE);
    let unique: BTreeSet<Vec<u8>> = blocks.map(|block| block.content).collect();
    unique.iter().map(|content| pem::encode(CERTIFICATE, content)).collect()
}

const CERTIFICATE: &str = "CERTIFICATE";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn source(value: Value) -> ClusterTrustBundleProjection {
        let mut value = value;
        value["path"] = json!("ca.pem");
        serde_json::from_value(value).unwrap()
    }

    fn bundle(name: &str, signer: Option<&str>, labels: Value, contents: &[&str]) -> ClusterTrustBundle {
        let text: String =
            contents.iter().map(|c| format!("about {c}\n{}", pem::encode(CERTIFICATE, c.as_bytes()))).collect();
        serde_json::from_value(json!({"metadata": {"name": name, "labels": labels},
            "spec": {"signerName": signer, "trustBundle": text}}))
        .unwrap()
    }

    /// What the source shows of these bundles, as letters.
    fn shown(asked: Value, all: &[ClusterTrustBundle]) -> Result<String, String> {
        let source = source(asked);
        // As the API's field selectors choose.
        let chosen = |b: &&ClusterTrustBundle| match &source.name {
            Some(name) => b.metadata.name.as_ref() == Some(name),
            None => b.spec.signer_name == source.signer_name,
        };
        let found = all.iter().filter(chosen).cloned().map(Arc::new).collect();
        let bundles = selector(&source).into_iter().map(|s| (s, Vec::clone(&found))).collect();
        let text = String::from_utf8(content(&source, &bundles)?).unwrap();
        let blocks = pem::all(&text);
        let bare: String = blocks.iter().map(|b| pem::encode(CERTIFICATE, &b.content)).collect();
        assert_eq!(text, bare, "nothing stands around the blocks");
        Ok(blocks.into_iter().map(|b| String::from_utf8(b.content).unwrap()).collect())
    }

    #[test]
    fn a_bundle_by_its_name() {
        let all = [bundle("one", None, json!({}), &["b", "a", "b"]), bundle("two", None, json!({}), &["c"])];
        assert_eq!(shown(json!({"name": "one"}), &all).unwrap(), "ab");
        let error = shown(json!({"name": "three"}), &all).unwrap_err();
        assert!(error.contains("clustertrustbundle.certificates.k8s.io \"three\" not found"), "{error}");
        assert_eq!(shown(json!({"name": "three", "optional": true}), &all).unwrap(), "");
    }

    #[test]
    fn bundles_of_a_signer_by_their_labels() {
        let all = [
            bundle("x.y:s:1", Some("x.y/s"), json!({"tier": "live"}), &["b", "c"]),
            bundle("x.y:s:2", Some("x.y/s"), json!({"tier": "next"}), &["a", "b"]),
            bundle("x.y:o:1", Some("x.y/o"), json!({"tier": "live"}), &["z"]),
        ];
        let asked = |selector: Value| shown(json!({"signerName": "x.y/s", "labelSelector": selector}), &all);
        assert_eq!(asked(json!({})).unwrap(), "abc", "an empty selector takes all");
        assert_eq!(asked(json!({"matchLabels": {"tier": "live"}})).unwrap(), "bc");
        let some = json!({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["live"]}]});
        assert_eq!(asked(some).unwrap(), "ab");
        for none in [json!({"signerName": "x.y/s"}), json!({"signerName": "x.y/q", "labelSelector": {}})] {
            let error = shown(none.clone(), &all).unwrap_err();
            assert!(error.contains("matched zero ClusterTrustBundles: signerName \"x.y/"), "{error}");
            let mut optional = none;
            optional["optional"] = json!(true);
            assert_eq!(shown(optional, &all).unwrap(), "");
        }
    }

    #[test]
    fn only_what_can_match_is_watched() {
        let volume = |sources: Value| -> Volume {
            serde_json::from_value(json!({"name": "v", "projected": {"sources": sources}})).unwrap()
        };
        let sources = json!([
            {"clusterTrustBundle": {"name": "one", "path": "a"}},
            {"clusterTrustBundle": {"signerName": "x.y/s", "path": "b"}},
            {"clusterTrustBundle": {"signerName": "x.y/s", "labelSelector": {}, "path": "c"}},
            {"secret": {"name": "s"}},
        ]);
        assert_eq!(references(&volume(sources)), ["metadata.name=one", "spec.signerName=x.y/s"]);
    }
}
