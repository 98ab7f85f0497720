//! Reads what a cluster is made of: only what root wrote, for root acts on it. A directory that somebody else made may say
//! that it is any cluster. I/O: reads a file.

use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// No cluster needs as much to be described.
const MAX_FILE: u64 = 1 << 20;

/// What stands in a file, if it is to be believed.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    Ours(Vec<u8>),
    /// The user whose file it is, or who may have written to it.
    Foreign(u32),
}

/// Reads a file that nobody but root, or who asks, can have written. Links and pipes are none.
pub fn read(path: &Path) -> io::Result<Read> {
    let file = linux::root::open_regular(path)?;
    let about = file.metadata()?;
    let me = rustix::process::geteuid().as_raw();
    if ![0, me].contains(&about.uid()) || about.mode() & 0o022 != 0 {
        return Ok(Read::Foreign(about.uid()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(Read::Ours(bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;
    use crate::config::register::own_slot;
    use crate::config::{Host, STATE_FILE, Which};
    use crate::fault::Fault;

    /// `reset` of a directory that somebody had made ended the cluster whose place it named.
    #[test]
    fn what_somebody_else_wrote_is_no_cluster() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join(STATE_FILE);
        let host = crate::config::tests::host(dir.path());
        let which = Which { name: None, data_dir: Some(dir.path().to_owned()) };
        let write = |host: &Host| {
            fs::write(&file, serde_json::to_vec(host).expect("json")).expect("written");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("a mode");
        };
        write(&host);
        assert_eq!(which.load().expect("read").map(|c| c.cluster.name), Some(host.cluster.name.clone()));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("a mode");
        assert!(which.load().is_err(), "everybody may have written it");
        let mut foreign = host.clone();
        foreign.cluster.name = "../../tmp".into();
        write(&foreign);
        let told = which.load().expect_err("refused").chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
        assert!(told.contains("inner dashes"), "{told}");
        if rustix::process::geteuid().is_root() {
            chown(&file, Some(1000), None).expect("an owner");
            let told = which.load().expect_err("refused");
            assert!(told.to_string().contains("belongs to user 1000"), "{told}");
            assert_eq!(told.downcast_ref::<Fault>().map(|fault| fault.code), Some(1), "`reset` looks for another mark");
        }
        fs::rename(&file, dir.path().join("other")).expect("moved");
        symlink(dir.path().join("other"), &file).expect("a link");
        assert!(which.load().is_err());
    }

    #[test]
    fn a_directory_from_elsewhere_takes_nobodys_place() {
        let here = |name: &str, slot| Host { slot, ..crate::config::tests::named(name, Path::new("/var/lib/x")) };
        let slot = |host: Host, known: &[Host]| own_slot(host, known).expect("a place").slot;
        assert_eq!(slot(here("b", 0), &[here("a", 0), here("c", 1)]), 2);
        assert_eq!(slot(here("b", 1), &[here("a", 0), here("b", 1)]), 1, "its own");
        assert_eq!(slot(here("b", 9999), &[]), 0);
    }
}
