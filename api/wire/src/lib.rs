//! Protobuf messages and gRPC services of etcd v3 and of the container runtime interface.
