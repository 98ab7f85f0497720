//! Images: archives, names, removal, registries.

use crate::Test;

pub const TESTS: &[Test] = &[];
