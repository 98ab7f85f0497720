//! Cluster DNS: Services, headless endpoints, pods, SRV and PTR; forwards and caches the rest.
