//! The chain of authorisers that `--authorization-mode` names: the first opinion counts.

use std::sync::Arc;

use super::node::Node;
use super::rbac::Rbac;
use super::rules::Rule;
use super::{AlwaysAllow, Attributes, Authorizer, Decision, Masters, Rules};
use crate::authn::UserInfo;
use crate::config::Config;
use crate::error::Error;
use crate::registry::Registry;

/// Whoever is to be asked, in order.
pub struct Authorizers(Vec<Arc<dyn Authorizer>>);

impl Authorizers {
    /// The authorisers of the flags, after the one that lets system:masters through.
    pub fn new(config: &Config, registry: &Registry, rbac: &Arc<Rbac>) -> Result<Authorizers, Error> {
        const FLAG: &str = "--authorization-mode";
        let mut chain: Vec<Arc<dyn Authorizer>> = vec![Arc::new(Masters)];
        for mode in &config.authorization_mode {
            match mode.as_str() {
                "Node" => {
                    let node = Node::new(registry, node_rules());
                    chain.push(Arc::new(node.ok_or_else(|| Error::Bootstrap("pods are not served".to_owned()))?));
                }
                "RBAC" => chain.push(rbac.clone()),
                "AlwaysAllow" => chain.push(Arc::new(AlwaysAllow)),
                "AlwaysDeny" => {}
                other => {
                    let reason = format!("{other}: choose among Node, RBAC, AlwaysAllow, AlwaysDeny");
                    return Err(Error::Flag { flag: FLAG, reason });
                }
            }
        }
        Ok(Authorizers(chain))
    }

    /// Asks the chain; no opinion at all is a refusal.
    pub fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        let mut reasons = Vec::new();
        for authorizer in &self.0 {
            match authorizer.authorize(attributes) {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                decided => return decided,
            }
        }
        Decision::NoOpinion(reasons.join(", "))
    }

    /// What each would allow a user in a namespace.
    pub fn rules(&self, user: &UserInfo, namespace: &str) -> impl Iterator<Item = Rules> {
        self.0.iter().map(move |authorizer| authorizer.rules(user, namespace))
    }
}

/// The rules of upstream's `system:node` role.
fn node_rules() -> Vec<Rule> {
    let role = kinds::bootstrap().find(|o| o["kind"] == "ClusterRole" && o["metadata"]["name"] == "system:node");
    role.as_ref().map(Rule::all).unwrap_or_default()
}
