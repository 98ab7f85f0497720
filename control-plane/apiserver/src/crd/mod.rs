//! CustomResourceDefinitions: from a stored definition to a served kind.
