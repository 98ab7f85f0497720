//! Helpers shared by tests: temporary clusters, namespaces, eventually().
