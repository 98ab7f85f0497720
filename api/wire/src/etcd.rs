//! etcd v3: messages, clients and server traits of `etcdserverpb` and `mvccpb`.
//! The server half is implemented by the `etcd` crate; the client half serves the API server with `--etcd-servers`.

/// What a key holds, and events.
#[allow(clippy::all, missing_docs)]
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// Requests, responses and the five services.
#[allow(clippy::all, missing_docs)]
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

pub use etcdserverpb::*;
pub use mvccpb::{Event, KeyValue, event::EventType};
