//! Removing images and what no image or container needs any more. Does I/O.

use std::collections::HashSet;
use std::fs;

use super::store::{Catalog, Images};
use super::{ImageError, Reference, Result};

impl Images {
    /// Removes an image: by its ID with all its names, by one of several names only that name. Layers stay while `in_use` (directory names of containers) holds them.
    ///
    /// # Errors
    /// [`ImageError::NotFound`] when it isn't here.
    pub fn remove(&self, name: &str, in_use: &HashSet<String>) -> Result<()> {
        let image = self.get(name)?;
        {
            let mut catalog = self.catalog.lock();
            let mut next = catalog.clone();
            let tag = Reference::parse(name).ok().and_then(|r| r.tagged());
            match tag.filter(|tag| image.tags.len() > 1 && image.tags.contains(tag)) {
                Some(tag) => {
                    if let Some(named) = next.images.get_mut(&image.id) {
                        named.tags.retain(|t| *t != tag);
                    }
                }
                None => {
                    next.images.remove(&image.id);
                }
            }
            self.save(&next)?;
            *catalog = next;
        }
        self.forget_config(&image.id);
        self.collect(in_use)
    }

    /// Removes layers and blobs that nothing names. Called after removals and once at start.
    pub fn collect(&self, in_use: &HashSet<String>) -> Result<()> {
        let doomed = {
            let mut catalog = self.catalog.lock();
            let doomed = garbage(&catalog, in_use);
            if !doomed.is_empty() {
                let mut next = catalog.clone();
                next.layers.retain(|chain, _| !doomed.contains(chain));
                self.save(&next)?;
                *catalog = next;
            }
            doomed
        };
        if !doomed.is_empty() {
            tracing::debug!(layers = doomed.len(), "removed unused layers");
        }
        self.sweep(in_use)
    }

    /// Deletes directories and files that the catalog doesn't know: of removed layers, or left by a crash.
    fn sweep(&self, in_use: &HashSet<String>) -> Result<()> {
        let (layers, blobs) = {
            let catalog = self.catalog.lock();
            let layers: HashSet<String> = catalog.layers.values().map(|l| l.dir.clone()).collect();
            let blobs: HashSet<String> = catalog.images.keys().map(|id| id["sha256:".len()..].to_owned()).collect();
            (layers, blobs)
        };
        let list = |sub: &str| {
            let dir = self.dir.join(sub);
            let read = fs::read_dir(&dir).map_err(ImageError::io(format_args!("read {}", dir.display())));
            read.map(|entries| entries.flatten().collect::<Vec<_>>())
        };
        for entry in list("layers")? {
            let name = entry.file_name().to_string_lossy().into_owned();
            // Names that we don't give are somebody else's.
            let ours = name.bytes().all(|b| b.is_ascii_digit());
            if ours && !layers.contains(&name) && !in_use.contains(&name) {
                let _ = linux::root::remove_tree(entry.path());
            }
        }
        for entry in list("blobs/sha256")? {
            if !blobs.contains(entry.file_name().to_string_lossy().as_ref()) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

/// Chain IDs of layers that no image has and no container stands on.
fn garbage(catalog: &Catalog, in_use: &HashSet<String>) -> HashSet<String> {
    let named: HashSet<&String> = catalog.images.values().flat_map(|i| &i.chain).collect();
    let unused = catalog.layers.iter().filter(|(chain, layer)| !named.contains(chain) && !in_use.contains(&layer.dir));
    unused.map(|(chain, _)| chain.clone()).collect()
}
