//! Where the `kubernetes` Service leads.

use std::sync::Arc;

use apiserver::config::EndpointReconciler;
use apiserver::daemon::assemble;
use apiserver::proxy::Tcp;
use apiserver::storage::memory::MemoryStore;
use apiserver::storage::{Store, Txn};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

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

/// Servers of one store: each has an address, and no listener.
async fn another(store: &Arc<dyn Store>, address: [u8; 4]) -> apiserver::Server {
    let config = apiserver::Config {
        advertise_address: Some(address.into()),
        endpoint_reconciler: EndpointReconciler::Lease,
        ..apiserver::Config::default()
    };
    assemble(config, store.clone(), None, Arc::new(Tcp), &CancellationToken::new()).await.unwrap()
}

async fn stored_endpoints(store: &Arc<dyn Store>) -> Value {
    let key = Bytes::from_static(b"/registry/services/endpoints/default/kubernetes");
    let (_, kv) = store.get(key).await.unwrap();
    let object: Value = serde_json::from_slice(&kv.unwrap().value).unwrap();
    object["subsets"][0]["addresses"].clone()
}

#[tokio::test]
async fn the_kubernetes_service_leads_to_all_servers_of_a_store_that_live() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let first = another(&store, [192, 0, 2, 1]).await;
    assert_eq!(stored_endpoints(&store).await, json!([{"ip": "192.0.2.1"}]));
    let _second = another(&store, [192, 0, 2, 2]).await;
    assert_eq!(stored_endpoints(&store).await, json!([{"ip": "192.0.2.1"}, {"ip": "192.0.2.2"}]));
    first.core.advertise([192, 0, 2, 3].into()).await.unwrap();
    assert_eq!(stored_endpoints(&store).await, json!([{"ip": "192.0.2.2"}, {"ip": "192.0.2.3"}]));
    // The second's lease is over.
    let lease = Bytes::from_static(b"/registry/masterleases/192.0.2.2");
    store.txn(Txn::default().and_delete(lease)).await.unwrap();
    first.core.advertise([192, 0, 2, 3].into()).await.unwrap();
    assert_eq!(stored_endpoints(&store).await, json!([{"ip": "192.0.2.3"}]));
}
