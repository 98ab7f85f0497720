//! The CNI protocol and the plugins built in: bridge, host-local, loopback, portmap.
