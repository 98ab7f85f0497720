//! Which API servers of one store live, as they tell each other: each keeps a key below `masterleases/` whose lease ends
//! with it. Upstream's keys and times, so that servers of both kinds may share a store; an address is in its key, and
//! values are only written. I/O: the store. Called by [`super::endpoints`].

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use crate::storage::{RangeRequest, Store, StoreError, Txn, Write, keys};

/// How long a server is believed to live after it has said so.
const TTL_SECONDS: i64 = 15;
/// How often it says so.
pub const INTERVAL: Duration = Duration::from_secs(10);

fn prefix(root: &str) -> String {
    format!("{root}/masterleases/")
}

fn key(root: &str, server: IpAddr) -> Bytes {
    Bytes::from(format!("{}{server}", prefix(root)))
}

/// Says that this server lives. `root` is `--etcd-prefix`.
pub async fn renew(store: &dyn Store, root: &str, server: IpAddr) -> Result<(), StoreError> {
    let lease = store.grant_lease(TTL_SECONDS).await?;
    let value = json!({
        "apiVersion": "v1", "kind": "Endpoints", "metadata": {},
        "subsets": [{"addresses": [{"ip": server.to_string()}]}],
    });
    let write = Write::Put { key: key(root, server), value: Bytes::from(value.to_string()), lease };
    store.txn(Txn { guards: Vec::new(), writes: vec![write] }).await.map(drop)
}

/// Says that it lives no longer, at least not at this address.
pub async fn end(store: &dyn Store, root: &str, server: IpAddr) -> Result<(), StoreError> {
    store.txn(Txn::default().and_delete(key(root, server))).await.map(drop)
}

/// The servers that live.
pub async fn living(store: &dyn Store, root: &str) -> Result<BTreeSet<IpAddr>, StoreError> {
    let prefix = prefix(root);
    let end = keys::prefix_end(prefix.as_bytes());
    let request = RangeRequest { key: Bytes::from(prefix.clone()), end, keys_only: true, ..RangeRequest::default() };
    let kvs = store.range(request).await?.kvs;
    Ok(kvs.iter().filter_map(|kv| address(&kv.key, &prefix)).collect())
}

fn address(key: &[u8], prefix: &str) -> Option<IpAddr> {
    std::str::from_utf8(key).ok()?.strip_prefix(prefix)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStore;

    #[tokio::test]
    async fn servers_are_known_by_their_keys() {
        let store = MemoryStore::default();
        let servers = ["192.0.2.1", "192.0.2.2", "2001:db8::1"].map(|text| text.parse().expect("an address"));
        for server in servers {
            renew(&store, "/registry", server).await.expect("told");
            renew(&store, "/registry", server).await.expect("and again");
        }
        renew(&store, "/other", "192.0.2.9".parse().expect("an address")).await.expect("of another cluster");
        let odd = Txn::create(Bytes::from_static(b"/registry/masterleases/x"), Bytes::new(), 0);
        store.txn(odd).await.expect("put");
        assert_eq!(living(&store, "/registry").await.expect("read"), BTreeSet::from(servers));
        end(&store, "/registry", servers[0]).await.expect("gone");
        assert_eq!(living(&store, "/registry").await.expect("read").len(), 2);
    }
}
