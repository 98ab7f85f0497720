//! Table cells of custom resources: `additionalPrinterColumns` are JSONPaths.

use jiff::Timestamp;
use kinds::Kind;
use serde_json::Value;

/// The cells of one row, in the order of the columns.
pub fn cells(kind: &Kind, object: &Value, now: Timestamp) -> Vec<Value> {
    (kind.hooks.row)(object, now)
}
