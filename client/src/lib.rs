//! How every component speaks to the API server: client, informers, work queues, plans.
