//! Exec, attach and port-forward as clients of Kubernetes speak them.

use crate::Test;

pub const TESTS: &[Test] = &[];
