//! Where the `kubernetes` Service leads.

use serde_json::{Value, json};

use crate::world::World;

async fn led_to(world: &World) -> [Value; 2] {
    let endpoints = world.admin("GET", "/api/v1/namespaces/default/endpoints/kubernetes", Value::Null).await.ok();
    let slice = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    let slice = world.admin("GET", slice, Value::Null).await.ok();
    [endpoints["subsets"][0]["addresses"].clone(), slice["endpoints"][0]["addresses"].clone()]
}

#[tokio::test]
async fn the_kubernetes_service_follows_the_host_to_another_address() {
    let world = World::with(|config| config.advertise_address = Some([192, 0, 2, 1].into())).await;
    assert_eq!(led_to(&world).await, [json!([{"ip": "192.0.2.1"}]), json!(["192.0.2.1"])]);
    world.core.advertise([192, 0, 2, 2].into()).await.unwrap();
    assert_eq!(led_to(&world).await, [json!([{"ip": "192.0.2.2"}]), json!(["192.0.2.2"])]);
}
