//! The consistent key-value store that holds all state: MVCC, WAL, watch, lease, etcd v3 gRPC.
