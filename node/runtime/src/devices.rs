//! Looks up device nodes of the host, to be made again in containers. Does I/O.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use linux::container::DeviceNode;

/// Directories below /dev that containers have their own of.
const OWN: [&str; 6] = ["pts", "shm", "mqueue", "fd", "console", "ptmx"];
/// More nodes than any machine has; a loop of directories ends here.
const MAX_NODES: usize = 8192;

/// The device at a path, or all devices in a directory.
pub fn at(host: &Path, container: &str) -> io::Result<Vec<DeviceNode>> {
    if std::fs::metadata(host)?.is_dir() {
        let mut nodes = Vec::new();
        walk(host, container, &mut nodes)?;
        return Ok(nodes);
    }
    let node = node(host, container)?;
    node.map(|n| vec![n]).ok_or_else(|| io::Error::other("it is not a device"))
}

/// Every device of the host, for privileged containers.
pub fn all() -> Vec<DeviceNode> {
    let mut nodes = Vec::new();
    let _ = walk(Path::new("/dev"), "/dev", &mut nodes);
    nodes
}

fn walk(dir: &Path, container: &str, nodes: &mut Vec<DeviceNode>) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if (dir == Path::new("/dev") && OWN.contains(&name.as_str())) || nodes.len() >= MAX_NODES {
            continue;
        }
        let inside = format!("{}/{name}", container.trim_end_matches('/'));
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &inside, nodes)?;
        } else if !entry.file_type()?.is_symlink() {
            nodes.extend(node(&entry.path(), &inside)?);
        }
    }
    Ok(())
}

fn node(host: &Path, container: &str) -> io::Result<Option<DeviceNode>> {
    let meta = std::fs::metadata(host)?;
    let kind = if meta.file_type().is_block_device() {
        'b'
    } else if meta.file_type().is_char_device() {
        'c'
    } else {
        return Ok(None);
    };
    Ok(Some(DeviceNode {
        path: container.to_owned(),
        kind,
        major: rustix::fs::major(meta.rdev()),
        minor: rustix::fs::minor(meta.rdev()),
        mode: meta.mode() & 0o777,
        uid: meta.uid(),
        gid: meta.gid(),
    }))
}
