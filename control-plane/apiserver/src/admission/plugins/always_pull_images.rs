//! AlwaysPullImages: every container's image is pulled at every start, so that nobody runs an image that somebody else's
//! credentials brought to the node. Off by default, as upstream has it.

use async_trait::async_trait;
use meta::{FieldError, Path, Status};
use serde_json::{Value, json};

use crate::admission::{Mutating, Operation, Plugin, Request, Validating, World};

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
const ALWAYS: &str = "Always";

pub struct AlwaysPullImages;

impl Plugin for AlwaysPullImages {
    fn handles(&self, request: &Request<'_>) -> bool {
        let pods = request.kind.group.is_empty() && request.kind.plural == "pods";
        let part = matches!(request.subresource, "" | "ephemeralcontainers");
        match request.operation {
            Operation::Create => pods && part,
            // A pod that was there before the plugin may go on as long as its images are the same.
            Operation::Update => pods && part && request.old.is_none_or(|old| images(request.object) != images(old)),
            _ => false,
        }
    }
}

#[async_trait]
impl Mutating for AlwaysPullImages {
    async fn admit(&self, request: &mut Request<'_>, _world: &dyn World) -> Result<(), Status> {
        let spec = &mut request.object["spec"];
        for list in LISTS {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                container["imagePullPolicy"] = ALWAYS.into();
            }
        }
        for volume in spec["volumes"].as_array_mut().into_iter().flatten() {
            if volume["image"].is_object() {
                volume["image"]["pullPolicy"] = ALWAYS.into();
            }
        }
        // Indexing makes what is not there.
        if let Some(spec) = spec.as_object_mut() {
            spec.retain(|_, value| !value.is_null());
        }
        Ok(())
    }
}

#[async_trait]
impl Validating for AlwaysPullImages {
    async fn validate(&self, request: &Request<'_>, _world: &dyn World) -> Result<(), Status> {
        for list in LISTS {
            for (at, container) in containers(request.object, list).iter().enumerate() {
                let policy = &container["imagePullPolicy"];
                if policy != ALWAYS {
                    let spec = Path::root("spec");
                    let list = spec.child(list);
                    let container = list.index(at);
                    let path = container.child("imagePullPolicy");
                    let given = json!(policy.as_str().unwrap_or_default());
                    return Err(request.forbidden(FieldError::not_supported(path, given, [ALWAYS])));
                }
            }
        }
        Ok(())
    }
}

fn containers<'a>(pod: &'a Value, list: &str) -> &'a [Value] {
    pod["spec"][list].as_array().map_or(&[][..], Vec::as_slice)
}

fn images(pod: &Value) -> Vec<&Value> {
    let volumes = containers(pod, "volumes").iter().map(|volume| &volume["image"]["reference"]);
    LISTS.iter().flat_map(|list| containers(pod, list)).map(|container| &container["image"]).chain(volumes).collect()
}
