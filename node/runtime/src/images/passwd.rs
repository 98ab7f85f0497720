//! Users and groups of an image: what `1000`, `app` or `app:staff` mean there. Pure, but the lookup of the two files does
//! I/O.
//!
//! Container creation calls [`resolve`]; the files are read through the layers without mounting them.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, OFlags};

use linux::root::Root;

/// Files of accounts are small; a bigger one is not read.
const MAX_FILE: u64 = 4 << 20;
/// Links followed from layer to layer before it counts as a loop.
const MAX_LINKS: usize = 16;

/// Numbers to run as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Groups that the image's /etc/group gives the user, beside `gid`.
    pub groups: Vec<u32>,
    /// For HOME; "/" when unknown.
    pub home: String,
}

/// The image's two account files, empty when missing.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    pub passwd: String,
    pub group: String,
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl Accounts {
    /// Reads them from layer directories, top first.
    pub fn of_layers(layers: &[PathBuf]) -> Self {
        let read = |path| String::from_utf8_lossy(&read_layered(layers, path).unwrap_or_default()).into_owned();
        Accounts { passwd: read("etc/passwd"), group: read("etc/group") }
    }

    fn users(&self) -> impl Iterator<Item = User<'_>> {
        self.passwd.lines().filter_map(|line| {
            let f: Vec<&str> = line.split(':').collect();
            let home = f.get(5).copied().unwrap_or("");
            Some(User { name: f.first()?, uid: f.get(2)?.parse().ok()?, gid: f.get(3)?.parse().ok()?, home })
        })
    }

    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let f: Vec<&str> = line.split(':').collect();
            Some((*f.first()?, f.get(2)?.parse().ok()?, f.get(3).copied().unwrap_or("")))
        })
    }

    /// Resolves `user[:group]` of names or numbers; empty means root.
    ///
    /// # Errors
    /// A sentence when a name is not in the image.
    pub fn resolve(&self, text: &str) -> Result<Identity, String> {
        let (user, group) = text.split_once(':').map_or((text, None), |(u, g)| (u, Some(g)));
        let user = if user.is_empty() { "0" } else { user };
        let number = user.parse::<u32>().ok();
        let known = self.users().find(|u| u.name == user).or_else(|| self.users().find(|u| Some(u.uid) == number));
        let mut identity = match (&known, number) {
            (Some(u), _) => Identity { uid: u.uid, gid: u.gid, groups: vec![], home: u.home.to_owned() },
            (None, Some(uid)) => Identity { uid, ..Identity::default() },
            (None, None) => return Err(format!("unable to find user {user}: no matching entries in passwd file")),
        };
        if let Some(user) = &known {
            let member = |list: &str| list.split(',').any(|m| m.trim() == user.name);
            identity.groups = self.groups().filter(|g| member(g.2)).map(|g| g.1).collect();
        }
        if let Some(group) = group.filter(|g| !g.is_empty()) {
            let found = self.groups().find(|g| g.0 == group).map(|g| g.1).or_else(|| group.parse().ok());
            identity.gid =
                found.ok_or_else(|| format!("unable to find group {group}: no matching entries in group file"))?;
        }
        if identity.home.is_empty() {
            identity.home = "/".to_owned();
        }
        Ok(identity)
    }
}

/// Reads a file as a container of these layers would see it. Whiteouts hide what is below; links are followed.
fn read_layered(layers: &[PathBuf], path: &str) -> Option<Vec<u8>> {
    let mut path = PathBuf::from(path);
    for _ in 0..MAX_LINKS {
        match find(layers, &path)? {
            Found::File(bytes) => return Some(bytes),
            Found::Link(target) => {
                let base = path.parent().unwrap_or(Path::new(""));
                let joined = if target.is_absolute() { target } else { base.join(target) };
                path = normal(&joined);
            }
        }
    }
    None
}

enum Found {
    File(Vec<u8>),
    Link(PathBuf),
}

/// `/a/../b` as `b`: as good as what the kernel would do for the account files of any sane image.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => out.push(name),
            std::path::Component::ParentDir => drop(out.pop()),
            _ => {}
        }
    }
    out
}

fn find(layers: &[PathBuf], path: &Path) -> Option<Found> {
    for layer in layers {
        let root = Root::open(layer).ok()?;
        match look(&root, path) {
            Look::Found(found) => return Some(found),
            Look::Hidden => return None,
            Look::Absent => {}
        }
    }
    None
}

enum Look {
    Found(Found),
    Hidden,
    Absent,
}

fn look(root: &Root, path: &Path) -> Look {
    // A directory on the way may be hidden or replaced here.
    let mut so_far = PathBuf::new();
    let parts: Vec<_> = path.components().collect();
    for (at, part) in parts.iter().enumerate() {
        so_far.push(part);
        let Ok(fd) = root.get_plain(&so_far, OFlags::PATH | OFlags::NOFOLLOW) else { return Look::Absent };
        let Ok(stat) = rustix::fs::statat(&fd, "", AtFlags::EMPTY_PATH) else { return Look::Absent };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let last = at + 1 == parts.len();
        match kind {
            FileType::CharacterDevice if stat.st_rdev == 0 => return Look::Hidden,
            FileType::Symlink => {
                let Ok(target) = rustix::fs::readlinkat(&fd, "", Vec::new()) else { return Look::Absent };
                let mut target = PathBuf::from(String::from_utf8_lossy(target.as_bytes()).into_owned());
                if !last {
                    let parent = so_far.parent().unwrap_or(Path::new(""));
                    let base = if target.is_absolute() { target } else { parent.join(target) };
                    target = Path::new("/").join(base).join(parts[at + 1..].iter().collect::<PathBuf>());
                }
                return Look::Found(Found::Link(target));
            }
            FileType::RegularFile if last => return read(root, &so_far, stat.st_size as u64),
            FileType::Directory if !last => {}
            _ => return Look::Hidden,
        }
    }
    Look::Absent
}

fn read(root: &Root, path: &Path, size: u64) -> Look {
    use std::io::Read;
    let Ok(fd) = root.get_plain(path, OFlags::RDONLY | OFlags::NONBLOCK) else { return Look::Absent };
    let mut bytes = Vec::new();
    let file = std::fs::File::from(fd);
    if size > MAX_FILE || file.take(MAX_FILE).read_to_end(&mut bytes).is_err() {
        return Look::Hidden;
    }
    Look::Found(Found::File(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\nbroken\n".into(),
            group: "root:x:0:\nwheel:x:10:root,app\nstaff:x:50:app\n".into(),
        }
    }

    #[test]
    fn users_by_name_by_number_and_unknown() {
        let a = accounts();
        let app = Identity { uid: 1000, gid: 1001, groups: vec![10, 50], home: "/home/app".into() };
        assert_eq!(a.resolve("app"), Ok(app.clone()));
        assert_eq!(a.resolve("1000"), Ok(app.clone()));
        assert_eq!(a.resolve("app:staff"), Ok(Identity { gid: 50, ..app }));
        assert_eq!(a.resolve("7:8"), Ok(Identity { uid: 7, gid: 8, groups: vec![], home: "/".into() }));
        assert_eq!(a.resolve("").unwrap().uid, 0);
        assert!(a.resolve("nobody").unwrap_err().contains("no matching entries in passwd file"));
        assert!(a.resolve("app:none").unwrap_err().contains("group file"));
    }

    #[test]
    fn files_are_found_through_layers_links_and_whiteouts() {
        let dir = std::env::temp_dir().join(format!("layers-{}", std::process::id()));
        let layers: Vec<PathBuf> = ["top", "low"].iter().map(|n| dir.join(n)).collect();
        std::fs::create_dir_all(layers[1].join("usr/etc")).unwrap();
        std::fs::create_dir_all(&layers[0]).unwrap();
        std::fs::write(layers[1].join("usr/etc/passwd"), "low").unwrap();
        std::os::unix::fs::symlink("/usr/etc", layers[1].join("etc")).unwrap();
        assert_eq!(read_layered(&layers, "etc/passwd").as_deref(), Some(b"low".as_slice()));
        std::fs::create_dir_all(layers[0].join("usr/etc")).unwrap();
        std::os::unix::fs::symlink("/../../../../etc/passwd", layers[0].join("usr/etc/passwd")).unwrap();
        assert_eq!(read_layered(&layers, "etc/passwd"), None, "a loop ends, the host's file is never read");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
