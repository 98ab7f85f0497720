//! Kinds of the `storagemigration` group.

pub(crate) mod storage_version_migration;
