//! The table of fuzz targets: what is fed, what must hold, and how much of the machine one input may take. Both drivers
//! go by it.

use crate::targets::{bgp, files, flannel, network, node, objects, patches, store, trust, web, words};

/// One decoder or parser.
pub struct Target {
    pub name: &'static str,
    /// Whose bytes are read there.
    pub what: &'static str,
    /// Reads the bytes and panics when something that must hold does not.
    pub run: fn(&[u8]),
    /// Inputs to begin with that have to be made; those in `seeds/NAME` are added.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Bytes that may be held at once for each byte of the input, beside [`crate::limits::BASE_MEMORY`].
    pub memory: usize,
    /// What nests in this language: opening, innermost, closing.
    pub nests: &'static [(&'static str, &'static str, &'static str)],
    /// How deep the drivers nest it: far beyond what is accepted, so that a missing bound is seen.
    pub depth: usize,
}

/// JSON's two ways to nest.
pub const JSON: &[(&str, &str, &str)] = &[("[", "1", "]"), ("{\"a\":", "1", "}")];
/// YAML's two ways to nest, beside JSON's, which are YAML, too.
pub const YAML: &[(&str, &str, &str)] = &[("[", "1", "]"), ("{a: ", "1", "}"), ("- ", "1", "")];
/// A language in which nothing nests.
pub const FLAT: &[(&str, &str, &str)] = &[];
/// Deep enough to end the stack of a server's thread wherever each level takes a hundred and seventy bytes of it.
pub const DEEP: usize = 50_000;

/// Every target, by what it is about.
pub const TARGETS: &[&[Target]] = &[
    objects::TARGETS,
    patches::TARGETS,
    words::TARGETS,
    web::TARGETS,
    trust::TARGETS,
    store::TARGETS,
    node::TARGETS,
    network::TARGETS,
    flannel::TARGETS,
    bgp::TARGETS,
    files::TARGETS,
];

/// The target of this name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().copied().flatten().find(|target| target.name == name)
}
