//! Users and groups of an image: what `1000`, `app` or `app:staff` mean there. Pure, but the lookup of the two files does
//! I/O.
//!
//! Container creation calls [`Accounts::resolve`]; the files are read through the layers without mounting them. A number
//! is an ID, whatever the image's files call by that name, and IDs end where the kernel's signed ones do: a bigger one
//! could come to mean root (CVE-2024-40635).

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, OFlags};

use linux::root::Root;

use super::cut;

/// Files of accounts are small; an image with a bigger one is refused.
const MAX_FILE: u64 = 4 << 20;
/// Longer lines are passed over, as Go's programs do: no account needs one.
const MAX_LINE: usize = 64 << 10;
/// The highest ID, as everywhere else in Kubernetes.
pub const MAX_ID: u32 = i32::MAX as u32;
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
    ///
    /// # Errors
    /// A sentence, when one is there but can't be read.
    pub fn of_layers(layers: &[PathBuf]) -> Result<Self, String> {
        let read = |path| match read_layered(layers, path) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()),
            Err(e) => Err(format!("read /{path} of the image: {e}")),
        };
        Ok(Accounts { passwd: read("etc/passwd")?, group: read("etc/group")? })
    }

    fn users(&self) -> impl Iterator<Item = User<'_>> {
        lines(&self.passwd).filter_map(|line| {
            let mut f = line.splitn(7, ':');
            let (name, _, uid, gid) = (f.next()?, f.next()?, f.next()?.parse().ok()?, f.next()?.parse().ok()?);
            Some(User { name, uid, gid, home: f.nth(1).unwrap_or("") })
        })
    }

    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        lines(&self.group).filter_map(|line| {
            let mut f = line.splitn(4, ':');
            let (name, _, gid) = (f.next()?, f.next()?, f.next()?.parse().ok()?);
            Some((name, gid, f.next().unwrap_or("")))
        })
    }

    /// Resolves `user[:group]` of names or numbers; empty means root.
    ///
    /// # Errors
    /// A sentence when a name is not in the image, or an ID is out of range.
    pub fn resolve(&self, text: &str) -> Result<Identity, String> {
        let (user, group) = text.split_once(':').map_or((text, None), |(u, g)| (u, Some(g)));
        let wanted = Wanted::of(if user.is_empty() { "0" } else { user })?;
        let known = match &wanted {
            Wanted::Id(id) => self.users().find(|u| u.uid == *id),
            Wanted::Name(name) => self.users().find(|u| u.name == *name),
        };
        let mut identity = match (&known, wanted) {
            (Some(u), _) => Identity { uid: u.uid, gid: u.gid, groups: vec![], home: u.home.to_owned() },
            (None, Wanted::Id(uid)) => Identity { uid, ..Identity::default() },
            (None, Wanted::Name(name)) => {
                return Err(format!("unable to find user {}: no matching entries in passwd file", cut(name)));
            }
        };
        if let Some(user) = &known {
            let member = |list: &str| list.split(',').any(|m| m.trim() == user.name);
            identity.groups = self.groups().filter(|g| member(g.2)).map(|g| g.1).collect();
        }
        if let Some(group) = group.filter(|g| !g.is_empty()) {
            identity.gid =
                match Wanted::of(group)? {
                    Wanted::Id(id) => id,
                    Wanted::Name(name) => self.groups().find(|g| g.0 == name).map(|g| g.1).ok_or_else(|| {
                        format!("unable to find group {}: no matching entries in group file", cut(name))
                    })?,
                };
        }
        if identity.home.is_empty() {
            identity.home = "/".to_owned();
        }
        identity.check().map(|()| identity)
    }
}

impl Identity {
    /// Refuses IDs that are none.
    pub fn check(&self) -> Result<(), String> {
        let mut all = [self.uid, self.gid].into_iter().chain(self.groups.iter().copied());
        all.try_for_each(|id| self::id(i64::from(id)).map(drop))
    }
}

/// An ID within its range.
pub fn id(number: i64) -> Result<u32, String> {
    let id = u32::try_from(number).ok().filter(|id| *id <= MAX_ID);
    id.ok_or_else(|| format!("uids and gids must be in range 0-{MAX_ID}"))
}

enum Wanted<'a> {
    Id(u32),
    Name(&'a str),
}

impl<'a> Wanted<'a> {
    /// Whatever is written as a number is one, even if it is no ID.
    fn of(text: &'a str) -> Result<Self, String> {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Wanted::Name(text));
        }
        id(text.parse().unwrap_or(-1)).map(Wanted::Id)
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| line.len() <= MAX_LINE)
}

/// Reads a file as a container of these layers would see it. Whiteouts hide what is below; links are followed.
fn read_layered(layers: &[PathBuf], path: &str) -> io::Result<Option<Vec<u8>>> {
    let mut path = PathBuf::from(path);
    for _ in 0..MAX_LINKS {
        match find(layers, &path)? {
            Found::Nothing => return Ok(None),
            Found::File(bytes) => return Ok(Some(bytes)),
            Found::Link(target) => {
                let base = path.parent().unwrap_or(Path::new(""));
                let joined = if target.is_absolute() { target } else { base.join(target) };
                path = normal(&joined);
            }
        }
    }
    Ok(None)
}

enum Found {
    Nothing,
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

fn find(layers: &[PathBuf], path: &Path) -> io::Result<Found> {
    for layer in layers {
        match look(&Root::open(layer)?, path)? {
            Look::Found(found) => return Ok(found),
            Look::Hidden => return Ok(Found::Nothing),
            Look::Absent => {}
        }
    }
    Ok(Found::Nothing)
}

enum Look {
    Found(Found),
    Hidden,
    Absent,
}

fn look(root: &Root, path: &Path) -> io::Result<Look> {
    // A directory on the way may be hidden or replaced here.
    let mut so_far = PathBuf::new();
    let parts: Vec<_> = path.components().collect();
    for (at, part) in parts.iter().enumerate() {
        so_far.push(part);
        let fd = match root.get_plain(&so_far, OFlags::PATH | OFlags::NOFOLLOW) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Look::Absent),
            other => other?,
        };
        let stat = rustix::fs::statat(&fd, "", AtFlags::EMPTY_PATH)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let last = at + 1 == parts.len();
        match kind {
            FileType::CharacterDevice if stat.st_rdev == 0 => return Ok(Look::Hidden),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&fd, "", Vec::new())?;
                let mut target = PathBuf::from(String::from_utf8_lossy(target.as_bytes()).into_owned());
                if !last {
                    let parent = so_far.parent().unwrap_or(Path::new(""));
                    let base = if target.is_absolute() { target } else { parent.join(target) };
                    target = Path::new("/").join(base).join(parts[at + 1..].iter().collect::<PathBuf>());
                }
                return Ok(Look::Found(Found::Link(target)));
            }
            FileType::RegularFile if last => return read(root, &so_far).map(|bytes| Look::Found(Found::File(bytes))),
            FileType::Directory if !last => {}
            _ => return Ok(Look::Hidden),
        }
    }
    Ok(Look::Absent)
}

fn read(root: &Root, path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let file = std::fs::File::from(root.get_plain(path, OFlags::RDONLY | OFlags::NONBLOCK)?);
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("it is longer than {MAX_FILE} bytes")));
    }
    Ok(bytes)
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
        assert_eq!(read_layered(&layers, "etc/passwd").unwrap().as_deref(), Some(b"low".as_slice()));
        std::fs::create_dir_all(layers[0].join("usr/etc")).unwrap();
        std::os::unix::fs::symlink("/../../../../etc/passwd", layers[0].join("usr/etc/passwd")).unwrap();
        let looped = read_layered(&layers, "etc/passwd").unwrap();
        assert_eq!(looped, None, "a loop ends, the host's file is never read");
        std::fs::remove_file(layers[0].join("usr/etc/passwd")).unwrap();
        let big = std::fs::File::create(layers[0].join("usr/etc/passwd")).unwrap();
        big.set_len(1 << 40).unwrap();
        let error = Accounts::of_layers(&layers).unwrap_err();
        assert!(error.contains("longer than 4194304 bytes"), "{error}");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_number_is_an_id_whatever_the_image_calls_by_it() {
        let a = Accounts { passwd: "1000:x:0:0::/root:/bin/sh\n".into(), group: "5:x:0:\n".into() };
        let user = a.resolve("1000:5").unwrap();
        assert_eq!((user.uid, user.gid, user.home.as_str()), (1000, 5, "/"), "not root");
        assert_eq!(a.resolve("007").unwrap().uid, 7);
    }

    #[test]
    fn ids_out_of_range_are_refused() {
        let a = Accounts {
            passwd: "minus:x:4294967295:0::/:/bin/sh\nlong:x:9:2147483648::/:/bin/sh\n".into(),
            group: "minus:x:4294967295:\nall:x:4294967295:in\n".into(),
        };
        for text in [
            "4294967295",
            "2147483648",
            "-1",
            "99999999999999999999",
            "1000:4294967295",
            "1000:-1",
            "minus",
            "long",
            "1000:minus",
        ] {
            assert_eq!(a.resolve(text).unwrap_err(), "uids and gids must be in range 0-2147483647", "{text}");
        }
        assert_eq!(a.resolve("2147483647").unwrap().uid, MAX_ID);
        let member = Accounts { passwd: "in:x:1:1::/:/bin/sh\n".into(), ..a };
        assert!(member.resolve("in").is_err(), "a group of the image's, too");
    }

    #[test]
    fn long_names_and_lines_stay_out_of_messages_and_memory() {
        let a = Accounts { passwd: ":".repeat(1 << 20) + "\napp:x:3:3:::\n", group: String::new() };
        assert_eq!(a.resolve("app").unwrap().uid, 3);
        let error = a.resolve(&"x".repeat(1 << 20)).unwrap_err();
        assert!(error.len() < 300 && error.contains("(1048576 bytes)"), "{error}");
    }
}
