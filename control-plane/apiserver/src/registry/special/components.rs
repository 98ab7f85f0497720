//! How the other parts of the control plane are: nothing is stored, they are asked at their health checks on this host.
//! I/O: asks them.

use std::sync::Arc;
use std::time::Duration;

use meta::{Gvr, Status};
use serde_json::{Value, json};

use crate::http::answer::Answer;
use crate::http::call::Call;
use crate::proxy::Proxy;
use crate::registry::Served;
use crate::registry::objects::Objects;

/// The parts that listen on this host: name and port of the health check.
const COMPONENTS: [(&str, u16); 2] = [("controller-manager", 10257), ("scheduler", 10259)];
/// The store, asked over the connection that the server has.
const STORE: &str = "etcd-0";
/// How long a part may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks the parts of the control plane how they are.
pub struct Components {
    pub objects: Arc<Objects>,
    pub proxy: Arc<Proxy>,
}

impl Components {
    /// Answers a get or list.
    pub async fn answer(&self, call: &Call, served: &Arc<Served>) -> Result<Answer, Status> {
        let name = call.info.name.as_str();
        if call.info.verb == "get" {
            let Some(health) = self.component(name).await else {
                // Upstream names the kind's singular here.
                let gvr = Gvr { resource: served.kind.singular.clone(), ..served.gvr() };
                return Err(Status::not_found(&gvr, name));
            };
            return Ok(Answer::object(200, served, status(served, name, &health)));
        }
        let names = COMPONENTS.iter().map(|(name, _)| *name).chain([STORE]);
        let mut items = Vec::new();
        for name in names.filter(|known| name.is_empty() || *known == name) {
            if let Some(health) = self.component(name).await {
                items.push(status(served, name, &health));
            }
        }
        Ok(Answer::Objects(served.clone(), items))
    }

    /// What a part says, or why it says nothing; `None` when there is no such part.
    async fn component(&self, name: &str) -> Option<Result<String, String>> {
        if name == STORE {
            return Some(self.objects.ping().await.map(|()| "ok".to_owned()));
        }
        let (_, port) = COMPONENTS.into_iter().find(|(known, _)| *known == name)?;
        let url = format!("https://127.0.0.1:{port}/healthz");
        let failed = |why: String| format!("Get \"{url}\": {why}");
        Some(match tokio::time::timeout(PATIENCE, self.proxy.ask("127.0.0.1", port, "/healthz")).await {
            Ok(outcome) => outcome.map_err(failed),
            Err(_) => Err(failed("context deadline exceeded".to_owned())),
        })
    }
}

fn status(served: &Served, name: &str, health: &Result<String, String>) -> Value {
    let (status, message) = match health {
        Ok(message) => ("True", message),
        Err(message) => ("False", message),
    };
    json!({
        "kind": served.kind.kind, "apiVersion": served.kind.api_version(), "metadata": {"name": name},
        "conditions": [{"type": "Healthy", "status": status, "message": message}],
    })
}
