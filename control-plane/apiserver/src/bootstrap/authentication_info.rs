//! Tells extension API servers, and upstream's other components, whose client certificates to trust: the ConfigMap
//! `kube-system/extension-apiserver-authentication`, as upstream keeps it, and as the files are now. I/O: reads the CA
//! files.

use std::path::PathBuf;

use meta::Status;
use serde_json::{Map, Value, json};
use serving::reload::{Stamp, stamp};

use crate::config::Config;
use crate::registry::verbs::Verbs;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";

/// What the ConfigMap holds; lists are JSON in text.
fn data(config: &Config, client_ca: Option<String>, proxy_ca: Option<String>) -> Map<String, Value> {
    let mut data = Map::new();
    if let Some(pem) = client_ca {
        data.insert("client-ca-file".to_owned(), pem.into());
    }
    if let Some(pem) = proxy_ca {
        let lists = [
            ("allowed-names", json!(config.requestheader_allowed_names)),
            ("extra-headers-prefix", json!(["X-Remote-Extra-"])),
            ("group-headers", json!(["X-Remote-Group"])),
            ("uid-headers", json!(["X-Remote-Uid"])),
            ("username-headers", json!(["X-Remote-User"])),
        ];
        data.extend(lists.map(|(name, list)| (format!("requestheader-{name}"), list.to_string().into())));
        data.insert("requestheader-client-ca-file".to_owned(), pem.into());
    }
    data
}

fn read(path: Option<&PathBuf>) -> Result<Option<String>, Status> {
    let text = path.map(std::fs::read_to_string).transpose();
    text.map_err(|error| Status::internal(format!("{}: {error}", path.map_or("".into(), |p| p.display().to_string()))))
}

/// Brings the ConfigMap up to date.
pub async fn tell(verbs: &Verbs, config: &Config) -> Result<(), Status> {
    let client_ca = read(config.client_ca_file.as_ref())?;
    let proxy_ca = read(config.requestheader_client_ca_file.as_ref())?;
    let wanted = data(config, client_ca, proxy_ca);
    if wanted.is_empty() {
        return Ok(());
    }
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": NAME, "namespace": NAMESPACE}, "data": wanted,
    });
    if verbs.ensure(&object).await? {
        return Ok(());
    }
    verbs
        .amend("", "configmaps", NAMESPACE, NAME, |old| {
            let mut new = old.clone();
            new["data"] = Value::Object(wanted.clone());
            Ok(new)
        })
        .await
}

/// What tells whether a file was replaced since.
pub fn stamps(config: &Config) -> [Option<Stamp>; 2] {
    [&config.client_ca_file, &config.requestheader_client_ca_file].map(|path| stamp(path.as_deref()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_json_in_text_as_upstreams_readers_expect() {
        let config = Config { requestheader_allowed_names: vec!["front-proxy-client".into()], ..Config::default() };
        let both = data(&config, Some("A".into()), Some("B".into()));
        assert_eq!(both["client-ca-file"], "A");
        assert_eq!(both["requestheader-client-ca-file"], "B");
        assert_eq!(both["requestheader-allowed-names"], r#"["front-proxy-client"]"#);
        assert_eq!(both["requestheader-group-headers"], r#"["X-Remote-Group"]"#);
        assert_eq!(data(&config, Some("A".into()), None).len(), 1);
    }
}
