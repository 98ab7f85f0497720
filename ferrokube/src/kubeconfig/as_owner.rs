//! Work in directories that aren't root's. Whoever owns one may put a link there at any moment, so what root reads or
//! writes by a path through it is wherever the owner likes. It is done with the owner's rights instead. I/O: a thread of
//! another user.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::{Gid, Uid, geteuid};

/// Does something about a path with the rights of whoever may change where it leads: the first owner that is not root
/// of what it leads through, the last part included. Root's own paths, and callers that aren't root, need nothing.
pub fn as_owner<T: Send>(path: &Path, act: impl FnOnce() -> T + Send) -> io::Result<T> {
    let Some((uid, gid)) = owner(path).filter(|_| geteuid().is_root()) else { return Ok(act()) };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, move || become_user(uid, gid).map(|()| act()))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn owner(path: &Path) -> Option<(Uid, Gid)> {
    let mut parts: Vec<_> = path.ancestors().collect();
    parts.reverse();
    // A link counts by who made it. Nothing is below what isn't there.
    let found = parts.into_iter().map_while(|part| part.symlink_metadata().ok()).find(|about| about.uid() != 0);
    found.map(|about| (Uid::from_raw(about.uid()), Gid::from_raw(about.gid())))
}

/// The calling thread alone. Its real and saved user stay root, so that the user can't send it signals.
fn become_user(uid: Uid, gid: Gid) -> io::Result<()> {
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(Gid::ROOT, gid, Gid::ROOT)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, uid, Uid::ROOT)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    const SOMEBODY: u32 = 65_534;

    #[test]
    fn through_somebodys_directory_root_reaches_what_he_does_and_no_more() {
        if !geteuid().is_root() {
            return println!("skipped: needs root");
        }
        let dir = tempfile::tempdir().expect("done");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("done");
        let (home, secret) = (dir.path().join("home"), dir.path().join("secret"));
        fs::create_dir(&home).expect("done");
        chown(&home, Some(SOMEBODY), Some(SOMEBODY)).expect("done");
        fs::write(&secret, "root's").expect("done");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("done");
        symlink(&secret, home.join("link")).expect("done");
        symlink(dir.path(), home.join("up")).expect("done");
        let read = |path: &Path| as_owner(path, || fs::read_to_string(path)).expect("done");
        assert_eq!(read(&secret).expect("done"), "root's");
        for link in [home.join("link"), home.join("up/secret")] {
            assert_eq!(read(&link).expect_err("refused").kind(), io::ErrorKind::PermissionDenied, "{}", link.display());
        }
        let new = home.join("up/new");
        assert!(as_owner(&new, || fs::write(&new, "")).expect("done").is_err() && !dir.path().join("new").exists());
        let own = home.join("own");
        as_owner(&own, || fs::write(&own, "")).expect("done").unwrap();
        assert_eq!(fs::metadata(&own).expect("done").uid(), SOMEBODY);
        assert!(geteuid().is_root() && read(&secret).is_ok(), "others stay who they are");
    }
}
