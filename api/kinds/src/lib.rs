//! The table of built-in kinds: one file a kind (row, defaults, validation, columns).
