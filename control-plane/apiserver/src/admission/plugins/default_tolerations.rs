//! DefaultTolerationSeconds: pods stay five minutes on a node that is not ready or unreachable, unless they say else.

use async_trait::async_trait;
use meta::Status;
use serde_json::json;

use crate::admission::{Mutating, Plugin, Request, World};

/// `--default-not-ready-toleration-seconds` and its sibling.
const SECONDS: i64 = 300;

pub struct DefaultTolerationSeconds;

impl Plugin for DefaultTolerationSeconds {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.writes() && request.is("", "pods")
    }
}

#[async_trait]
impl Mutating for DefaultTolerationSeconds {
    async fn admit(&self, request: &mut Request<'_>, _world: &dyn World) -> Result<(), Status> {
        for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
            let list = request.object["spec"]["tolerations"].as_array();
            let covered = list.into_iter().flatten().any(|toleration| {
                let effect = toleration["effect"].as_str().unwrap_or_default();
                let about = toleration["key"].as_str().unwrap_or_default();
                (about == key || about.is_empty()) && (effect == "NoExecute" || effect.is_empty())
            });
            if covered {
                continue;
            }
            let toleration =
                json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS});
            match request.object["spec"]["tolerations"].as_array_mut() {
                Some(list) => list.push(toleration),
                None => request.object["spec"]["tolerations"] = json!([toleration]),
            }
        }
        Ok(())
    }
}
