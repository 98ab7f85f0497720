//! Daemons on loopback addresses, with each other and with peers whose every message is the test's.

mod asked;
mod found;
mod hostile;
mod lasting;
mod reasons;
mod refused;
mod restarts;
mod sessions;
mod world;
