//! The documents of an image: index, manifest, configuration; choosing the variant for this machine. Pure.
//!
//! Formats: OCI image specification 1.1 and Docker image manifest version 2, schema 2.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{ImageError, Result, cut};

/// Accepted from registries, best first.
pub const MEDIA_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// overlayfs stacks no more layers than this, so an image with more can't run; its chain would take long to compute.
pub const MAX_LAYERS: usize = 500;

/// A pointer to a blob.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    #[serde(default)]
    pub size: u64,
    #[serde(default)]
    pub platform: Option<Platform>,
    #[serde(default, deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
}

/// Which machine a variant is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub variant: String,
}

/// An index or a manifest: told apart by what they hold.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    #[serde(default)]
    pub schema_version: u32,
    #[serde(default)]
    pub manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    pub config: Option<Descriptor>,
    #[serde(default, deserialize_with = "or_default")]
    pub layers: Vec<Descriptor>,
}

/// How containers of the image run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub cmd: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub working_dir: String,
    #[serde(deserialize_with = "or_default")]
    pub stop_signal: String,
    /// Paths as keys.
    #[serde(deserialize_with = "or_default")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct RootFs {
    #[serde(default, deserialize_with = "or_default")]
    pub diff_ids: Vec<String>,
}

/// The configuration document; its digest is the image's ID.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Config {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub variant: String,
    #[serde(default, deserialize_with = "or_default")]
    pub config: RunConfig,
    #[serde(default, deserialize_with = "or_default")]
    pub rootfs: RootFs,
}

/// Builders write `null` for "nothing".
pub fn or_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    d: D,
) -> std::result::Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

impl Platform {
    /// This machine, in the names that images use.
    pub fn here() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "aarch64" => ("arm64", "v8"),
            "x86" => ("386", ""),
            "arm" => ("arm", "v7"),
            "riscv64" => ("riscv64", ""),
            other => (other, ""),
        };
        Platform { os: "linux".into(), architecture: architecture.into(), variant: variant.into() }
    }

    fn runs(&self, other: &Platform) -> bool {
        let variant_ok = other.variant.is_empty() || self.variant.is_empty() || other.variant == self.variant;
        self.os == other.os && self.architecture == other.architecture && variant_ok
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

impl Config {
    /// Refuses an image that can't run here. Images that say nothing are taken at their word.
    pub fn check_platform(&self, name: &str) -> Result<()> {
        let here = Platform::here();
        let its =
            Platform { os: self.os.clone(), architecture: self.architecture.clone(), variant: self.variant.clone() };
        if (its.os.is_empty() && its.architecture.is_empty()) || here.runs(&its) {
            return Ok(());
        }
        Err(ImageError::Platform { name: name.into(), wanted: here.to_string(), has: cut(&its.to_string()) })
    }
}

/// The entry of an index for this machine.
pub fn choose<'a>(name: &str, manifests: &'a [Descriptor]) -> Result<&'a Descriptor> {
    let here = Platform::here();
    let fits = |d: &&Descriptor| d.platform.as_ref().is_none_or(|p| here.runs(p)) && !is_attestation(d);
    if let Some(found) = manifests.iter().find(fits) {
        return Ok(found);
    }
    let has: Vec<String> = manifests
        .iter()
        .filter(|d| !is_attestation(d))
        .filter_map(|d| d.platform.as_ref().map(ToString::to_string))
        .collect();
    Err(ImageError::Platform { name: name.into(), wanted: here.to_string(), has: cut(&has.join(", ")) })
}

/// Build tools list their attestations beside the variants, marked as for no machine.
fn is_attestation(descriptor: &Descriptor) -> bool {
    descriptor.platform.as_ref().is_some_and(|p| p.os == "unknown" || p.architecture == "unknown")
}

/// Reads a document; schema 1, which carries no digests of what is inside, is refused.
pub fn parse(what: &str, bytes: &[u8]) -> Result<Document> {
    let document: Document = serde_json::from_slice(bytes)
        .map_err(|e| ImageError::Invalid(unread(&format!("{what} is not a manifest"), &e)))?;
    if document.schema_version != 2 {
        let version = document.schema_version;
        return Err(ImageError::Invalid(format!("{what} has schema version {version}; only 2 is supported")));
    }
    check_layers(what, document.layers.len())?;
    Ok(document)
}

/// Reads a configuration.
pub fn parse_config(what: &str, bytes: &[u8]) -> Result<Config> {
    let config: Config = serde_json::from_slice(bytes)
        .map_err(|e| ImageError::Invalid(unread(&format!("the configuration of {what}"), &e)))?;
    check_layers(what, config.rootfs.diff_ids.len())?;
    Ok(config)
}

/// The reader's words quote what they don't like, however long it is.
fn unread(what: &str, error: &serde_json::Error) -> String {
    format!("{what}: {}", cut(&error.to_string()))
}

fn check_layers(what: &str, layers: usize) -> Result<()> {
    if layers > MAX_LAYERS {
        return Err(ImageError::Invalid(format!("{what} has {layers} layers; the limit is {MAX_LAYERS}")));
    }
    Ok(())
}

/// The identity of a stack of layers (OCI image specification, "Layer ChainID").
pub fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff in diff_ids {
        chain.push(match chain.last() {
            None => diff.clone(),
            Some(parent) => crate::digest::of(format!("{parent} {diff}").as_bytes()),
        });
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(os: &str, architecture: &str) -> Descriptor {
        let platform = Platform { os: os.into(), architecture: architecture.into(), variant: String::new() };
        Descriptor {
            media_type: String::new(),
            digest: format!("sha256:{architecture}"),
            size: 0,
            platform: Some(platform),
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn the_variant_of_this_machine_is_chosen_or_the_others_named() {
        let here = Platform::here().architecture;
        let list = [entry("linux", "s390x"), entry("linux", &here), entry("unknown", "unknown")];
        assert_eq!(choose("app", &list).unwrap().digest, format!("sha256:{here}"));
        let error = choose("app", &[entry("linux", "s390x"), entry("windows", &here)]).unwrap_err().to_string();
        assert!(error.contains("s390x") && error.contains("windows"), "{error}");
    }

    #[test]
    fn nulls_in_a_configuration_mean_nothing() {
        let text = br#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":["sh"],"Entrypoint":null,"Volumes":null},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        let config = parse_config("x", text).unwrap();
        assert_eq!((config.config.cmd.as_slice(), config.config.env.len()), (["sh".to_owned()].as_slice(), 0));
        let config = parse_config("x", br#"{"config":null}"#).unwrap();
        assert_eq!(config.config, RunConfig::default());
    }

    #[test]
    fn an_image_of_endless_layers_is_refused() {
        let layers = vec![serde_json::json!({"digest": "sha256:aa"}); MAX_LAYERS + 1];
        let manifest = serde_json::json!({"schemaVersion": 2, "layers": layers}).to_string();
        assert!(parse("x", manifest.as_bytes()).unwrap_err().to_string().contains("501 layers; the limit is 500"));
        let config = serde_json::json!({"rootfs": {"diff_ids": vec!["sha256:aa"; MAX_LAYERS + 1]}}).to_string();
        assert!(parse_config("x", config.as_bytes()).is_err());
        let deep = "[".repeat(1 << 20);
        let error = parse("x", format!("{{\"other\":{deep}").as_bytes()).unwrap_err().to_string();
        assert!(error.len() < 500, "{error}");
        let error =
            parse_config("x", format!("{{\"config\":{{\"Volumes\":{{\"a\":{deep}").as_bytes()).unwrap_err().to_string();
        assert!(error.contains("recursion limit") && error.len() < 500, "{error}");
        let long = format!("{{\"schemaVersion\": \"{}\"}}", "x".repeat(1 << 20));
        assert!(parse("x", long.as_bytes()).unwrap_err().to_string().len() < 500, "the document is not in the message");
    }

    #[test]
    fn a_chain_of_one_is_its_layer() {
        let layers = ["sha256:aa".to_owned(), "sha256:bb".to_owned()];
        let chain = chain_ids(&layers);
        assert_eq!(chain[0], "sha256:aa");
        assert!(chain[1].starts_with("sha256:") && chain[1].len() == 71);
    }
}
