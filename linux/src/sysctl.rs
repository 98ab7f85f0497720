//! Kernel settings under /proc/sys. Those below `net` are those of the calling thread's network namespace.
//! Does I/O.

use std::io;
use std::path::PathBuf;

/// Reads a setting by its dotted or slashed name, without the newline.
pub fn get(name: &str) -> io::Result<String> {
    std::fs::read_to_string(path(name)).map(|value| value.trim_end().to_owned())
}

/// Writes a setting and returns what it was before. Nothing is written when it has the value already.
pub fn set(name: &str, value: &str) -> io::Result<String> {
    let old = get(name)?;
    if old != value {
        std::fs::write(path(name), value)?;
    }
    Ok(old)
}

/// `net.ipv4.ip_forward`, or `net/ipv4/conf/eth0.100/forwarding` where a part holds dots.
fn path(name: &str) -> PathBuf {
    let relative = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    PathBuf::from("/proc/sys").join(relative)
}
