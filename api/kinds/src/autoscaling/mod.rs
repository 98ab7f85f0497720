//! Kinds of the `autoscaling` group.

pub(crate) mod horizontal_pod_autoscaler;
pub(crate) mod horizontal_pod_autoscaler_v1;

/// The CPU utilisation aimed at when nobody says what to scale by.
const DEFAULT_CPU_PERCENT: i64 = 80;
