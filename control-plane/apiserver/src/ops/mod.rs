//! What an operator of the server sees and sets: health checks, metrics, and how much is taken on at once.

pub mod health;
pub mod limits;
pub mod metrics;

#[cfg(test)]
mod tests;
