//! Structural schemas: default, prune, validate, OpenAPI out. Pure.
