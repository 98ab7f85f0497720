//! kube-apiserver: the one component that touches the store.
//!
//! `storage` is the contract with etcd. Requests come in over `http`, pass authn, authz and admission, and end in the
//! `registry`, which works on dynamic objects plus a schema: no file here names a kind outside admission plugins.

pub mod cache;
pub mod storage;
