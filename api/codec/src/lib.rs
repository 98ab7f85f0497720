//! JSON, YAML and protobuf over the same schema; Table and PartialObjectMetadata.
