//! A machine within this one: network, mounts, processes, name and control groups of its own, as a host has them after a
//! boot. What holds it together is its first process; when that ends, the kernel takes all of it away. Does I/O.
//!
//! ```text
//!   pack     in the host's namespaces: what goes inside is taken by descriptor, so no path is looked up there
//!   leave    the caller, of one thread, goes into the machine's network, and has name, IPC and groups anew
//!   fork     with mounts and PIDs of its own ([`crate::process::fork`]): the child is process 1
//!   settle   in the child: /proc, /sys, /run and groups are the machine's, and what is the host's alone is hidden
//! ```
//!
//! It has the host's files otherwise: programs, certificates, /etc, /dev. Called by the binary, for the nodes that it makes
//! on one host.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::MountPropagationFlags;
use rustix::thread::UnshareFlags;

use crate::cgroup::{Cgroups, V1Mount};
use crate::failure::{Doing, Failure};
use crate::mount::{self, Attributes};
use crate::namespaces::{self, Kind};
use crate::root::Root;

const HARDENED: Attributes = Attributes { readonly: false, nosuid: true, nodev: true, noexec: true, noatime: false };
const READONLY: Attributes = Attributes { readonly: true, nosuid: false, nodev: false, noexec: false, noatime: false };
/// Programs are run from /run.
const RUN: Attributes = Attributes { readonly: false, nosuid: true, nodev: true, noexec: false, noatime: false };
const CGROUPS: &str = "/sys/fs/cgroup";

/// What a machine is to be.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// Its name, as the kernel has it: 64 bytes at most.
    pub hostname: String,
    /// The directory that is its own, at the same path as outside.
    pub home: PathBuf,
    /// Directories of which nothing is seen inside but the way to `home`.
    pub hidden: Vec<PathBuf>,
    /// Directories below /run that are seen inside, read-only; those that aren't there are left out.
    pub kept: Vec<PathBuf>,
    /// Directories of outside, read-only at a place below `home`, whose way may hold no link.
    pub shared: Vec<(PathBuf, PathBuf)>,
    /// Where in /run this program is, read-only: from nowhere else can it be started again inside.
    pub program: PathBuf,
    /// Files that say something else inside; those that aren't there are left out.
    pub files: Vec<(PathBuf, String)>,
}

/// What is taken along; see [`Machine::pack`].
#[derive(Debug)]
pub struct Luggage {
    program: OwnedFd,
    home: OwnedFd,
    kept: Vec<(PathBuf, OwnedFd)>,
    shared: Vec<(PathBuf, OwnedFd)>,
    cgroups: Cgroups,
}

/// Moves the calling process, which has one thread, into a network namespace and into new ones of its host name, IPC and
/// control groups; the group that it is in becomes the root of all that it sees.
pub fn leave(network: impl AsFd) -> Result<(), Failure> {
    namespaces::enter(network, Kind::Net)?;
    let flags = UnshareFlags::NEWUTS | UnshareFlags::NEWIPC | UnshareFlags::NEWCGROUP;
    // SAFETY: none of the kinds changes memory, descriptors or the file system view.
    unsafe { rustix::thread::unshare_unsafe(flags) }.doing("make the machine's namespaces")
}

impl Machine {
    /// Takes what goes inside, while the caller is outside.
    pub fn pack(&self) -> Result<Luggage, Failure> {
        let tree = |path: &Path, attributes: Attributes| {
            let tree = mount::clone_tree(path, false)?;
            mount::set_attributes(&tree, attributes, false)?;
            io::Result::Ok(tree)
        };
        let mut kept = Vec::new();
        for dir in self.kept.iter().filter(|dir| dir.is_dir()) {
            kept.push((dir.clone(), tree(dir, READONLY).doing(format_args!("take {} along", dir.display()))?));
        }
        let mut shared = Vec::new();
        for (dir, place) in &self.shared {
            shared.push((place.clone(), tree(dir, READONLY).doing(format_args!("take {} along", dir.display()))?));
        }
        Ok(Luggage {
            program: tree(Path::new("/proc/self/exe"), READONLY).doing("take this program along")?,
            home: tree(&self.home, Attributes::default()).doing(format_args!("take {} along", self.home.display()))?,
            kept,
            shared,
            cgroups: Cgroups::detect()?,
        })
    }

    /// Makes what the calling process sees the machine's. It has one thread, mounts of its own, and is process 1.
    pub fn settle(&self, luggage: Luggage) -> Result<(), Failure> {
        mount::make_private().doing("make mounts private")?;
        let system = ["/run", "/sys", "/proc"].map(PathBuf::from);
        uncover(&[&self.hidden[..], &system].concat())?;
        for dir in &self.hidden {
            fs::create_dir_all(dir).doing(format_args!("make {}", dir.display()))?;
            mount::mount("tmpfs", dir, "mode=755,size=1m", HARDENED).doing(format_args!("hide {}", dir.display()))?;
        }
        put_dir(&luggage.home, &self.home)?;
        mount::mount("tmpfs", Path::new("/run"), "mode=755", RUN).doing("mount /run")?;
        for (dir, tree) in &luggage.kept {
            put_dir(tree, dir)?;
        }
        self.put_program(&luggage.program)?;
        mount::mount("sysfs", Path::new("/sys"), "", HARDENED).doing("mount /sys")?;
        mount_cgroups(&luggage.cgroups)?;
        mount::mount("proc", Path::new("/proc"), "", HARDENED).doing("mount /proc")?;
        rustix::system::sethostname(self.hostname.as_bytes()).doing("set the host's name")?;
        self.put_files()?;
        self.put_shared(&luggage.shared)?;
        // As on a host: pods may mount things for each other. Nothing of it is seen outside.
        let flags = MountPropagationFlags::REC | MountPropagationFlags::SHARED;
        rustix::mount::mount_change("/", flags).doing("share mounts inside")
    }

    fn put_program(&self, program: &OwnedFd) -> Result<(), Failure> {
        let doing = || format!("put this program at {}", self.program.display());
        if let Some(dir) = self.program.parent() {
            fs::create_dir_all(dir).doing(doing())?;
        }
        fs::File::create(&self.program).doing(doing())?;
        put(program, &self.program).doing(doing())
    }

    /// The contents lie beside the program, which nothing but root can change.
    fn put_files(&self) -> Result<(), Failure> {
        let Some(dir) = self.program.parent() else { return Ok(()) };
        for (n, (path, text)) in self.files.iter().enumerate().filter(|(_, (path, _))| path.is_file()) {
            let doing = || format!("put another {}", path.display());
            let source = dir.join(n.to_string());
            let mut file = fs::OpenOptions::new();
            let file = file.write(true).create_new(true).mode(0o444).open(&source).doing(doing())?;
            io::Write::write_all(&mut &file, text.as_bytes()).doing(doing())?;
            rustix::mount::mount_bind(&source, path).doing(doing())?;
        }
        Ok(())
    }

    /// Pods may have changed anything below `home` in a former life.
    fn put_shared(&self, shared: &[(PathBuf, OwnedFd)]) -> Result<(), Failure> {
        let home = Root::open(&self.home).doing("open the machine's directory")?;
        for (place, tree) in shared {
            let doing = || format!("mount {}", self.home.join(place).display());
            home.make_dirs(place, Mode::from_raw_mode(0o700)).doing(doing())?;
            let target = home.get_plain(place, OFlags::PATH | OFlags::DIRECTORY).doing(doing())?;
            mount::attach(tree, target).doing(doing())?;
        }
        Ok(())
    }
}

/// Takes away every mount that is on one of these directories or below it, the innermost first.
fn uncover(dirs: &[PathBuf]) -> Result<(), Failure> {
    let text = fs::read_to_string("/proc/self/mountinfo").doing("read /proc/self/mountinfo")?;
    for target in targets(&text, dirs).iter().rev() {
        mount::detach(target).doing(format_args!("take {} away", target.display()))?;
    }
    Ok(())
}

/// Where something is mounted on one of these directories or below it, in the order in which it was.
fn targets(mountinfo: &str, dirs: &[PathBuf]) -> Vec<PathBuf> {
    let all = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(|path| PathBuf::from(unescape(path)));
    all.filter(|target| dirs.iter().any(|dir| target.starts_with(dir))).collect()
}

/// The kernel writes blanks and backslashes of paths as octal numbers.
fn unescape(path: &str) -> String {
    let plain = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    plain.iter().fold(path.to_owned(), |path, (octal, plain)| path.replace(octal, plain))
}

fn put_dir(tree: &OwnedFd, dir: &Path) -> Result<(), Failure> {
    fs::create_dir_all(dir).doing(format_args!("make {}", dir.display()))?;
    put(tree, dir).doing(format_args!("mount {}", dir.display()))
}

fn put(tree: &OwnedFd, path: &Path) -> io::Result<()> {
    let target = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    mount::attach(tree, target)
}

/// The same hierarchies as outside, at the same places; their roots are the caller's own groups.
fn mount_cgroups(cgroups: &Cgroups) -> Result<(), Failure> {
    let put = |kind: &str, path: &Path, options: &str| {
        let doing = || format!("mount {}", path.display());
        fs::create_dir_all(path).doing(doing())?;
        mount::mount(kind, path, options, HARDENED).doing(doing())
    };
    if !cgroups.v1.is_empty() {
        put("tmpfs", Path::new(CGROUPS), "mode=755,size=1m")?;
    }
    for hierarchy in &cgroups.v1 {
        put("cgroup", &hierarchy.path, &options(hierarchy))?;
        // The short names, as systemd has them.
        for name in hierarchy.controllers.iter().filter(|_| hierarchy.controllers.len() > 1) {
            if let (Some(dir), Some(long)) = (hierarchy.path.parent(), hierarchy.path.file_name()) {
                let _ = std::os::unix::fs::symlink(long, dir.join(name));
            }
        }
    }
    cgroups.v2.iter().try_for_each(|path| put("cgroup2", path, ""))
}

fn options(hierarchy: &V1Mount) -> String {
    let list = hierarchy.controllers.join(",");
    if list.starts_with("name=") { format!("none,{list}") } else { list }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_what_is_hidden_are_found_and_no_others() {
        let text = "\
            22 27 0:21 / /proc rw - proc proc rw\n\
            30 27 0:30 / /var/lib/x rw - tmpfs tmpfs rw\n\
            31 30 0:31 / /var/lib/x/a\\040b rw - overlay overlay rw\n\
            32 27 0:32 / /var/lib/xyz rw - tmpfs tmpfs rw\n";
        let dirs = ["/var/lib/x", "/proc"].map(PathBuf::from);
        let found = targets(text, &dirs);
        assert_eq!(found, ["/proc", "/var/lib/x", "/var/lib/x/a b"].map(PathBuf::from));
    }

    #[test]
    fn hierarchies_are_mounted_by_their_controllers() {
        let of = |names: &[&str]| V1Mount {
            controllers: names.iter().map(|name| (*name).to_owned()).collect(),
            path: PathBuf::new(),
        };
        assert_eq!(options(&of(&["cpu", "cpuacct"])), "cpu,cpuacct");
        assert_eq!(options(&of(&["name=systemd"])), "none,name=systemd");
    }
}
