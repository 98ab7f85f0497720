//! The last steps before exec: limits, user, capabilities, filter, program. Does I/O.
//!
//! The order is the point: what needs privileges comes before they are given up, the filter as late as it can. A program
//! that joins a PID namespace in which others live is seen by them from its fork on, and a neighbour with CAP_SYS_PTRACE
//! may then do with it what it likes (CVE-2016-9962): so that fork is the last step of all, made by a process that has
//! the container's root, user and rights and no descriptor but the program's own.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::process::{Gid, Resource, Rlimit as Limit, Uid};

use super::spec::{Program, Text};
use crate::failure::{Doing, Failure};
use crate::namespaces::{self, Kind};
use crate::report::Report;
use crate::{caps, process, seccomp};

/// Becomes the program. The standard streams are in place. Returns only on failure.
pub fn run(program: &Program) -> Failure {
    match begin_session(program).and_then(|()| Ready::new(program, false)) {
        Ok(ready) => ready.run(),
        Err(failure) => failure,
    }
}

/// Has the program run in a process of its own in a PID namespace (open, or that of a pidfd), as a child of the caller's
/// parent. Returns when it runs, or when it can't: the report tells which.
pub fn run_in(program: &Program, pids: impl AsFd, report: &Report) -> Result<(), Failure> {
    namespaces::enter(pids, Kind::Pid)?;
    let ready = Ready::new(program, true)?;
    report.keep_number().doing("keep a page")?;
    process::close_from(3);
    let program = process::fork_sibling(|| {
        let failure = match begin_session(program) {
            Ok(()) => ready.run(),
            Err(failure) => failure,
        };
        report.fail(&failure.to_string());
        127
    });
    report.set_number(program.doing("fork the program")?);
    Ok(())
}

/// A session of its own, with the terminal on the standard streams if it has one.
fn begin_session(program: &Program) -> Result<(), Failure> {
    process::new_session().doing("start a session")?;
    if program.terminal { process::take_terminal().doing("take the terminal") } else { Ok(()) }
}

/// A process that lacks nothing but the call to exec.
struct Ready<'a> {
    name: &'a [u8],
    arguments: Arguments,
    /// The filter, if it has yet to be loaded.
    filter: Option<&'a [u64]>,
}

impl<'a> Ready<'a> {
    fn new(program: &'a Program, forks: bool) -> Result<Self, Failure> {
        let name = program.args.first().map(Text::bytes).unwrap_or_default();
        let (arguments, filter) = prepare(program, forks)?;
        Ok(Ready { name, arguments, filter })
    }

    fn run(&self) -> Failure {
        let go = || {
            process::die_with_parent().doing("tie the life to the monitor's")?;
            self.filter.map_or(Ok(()), seccomp::load)
        };
        if let Err(failure) = go() {
            return failure;
        }
        let (path, args, env) = &self.arguments;
        let name = String::from_utf8_lossy(self.name);
        Failure { doing: format!("exec: {name:?}"), source: process::exec(path, args, env) }
    }
}

/// Gives up everything that the program may not have. What is left is its arguments and, where that needs no right, the
/// filter.
fn prepare(program: &Program, forks: bool) -> Result<(Arguments, Option<&[u64]>), Failure> {
    // No descriptor of ours may pass, and none may stand for a place outside (CVE-2024-21626).
    process::close_on_exec_from(3).doing("close descriptors")?;
    set_rlimits(program)?;
    process::new_keyring();
    let cwd = if program.cwd.is_empty() { "/" } else { &program.cwd };
    // Tried with both sets of rights: either may be the one that is allowed to enter.
    let entered = std::env::set_current_dir(cwd);
    caps::limit(program.caps.bounding)?;
    let mut filter = program.seccomp.as_deref();
    // A filter that forbids the fork can only come after it, where no right is left to load it with. The price is that
    // programs of other users don't gain rights in there.
    let late = program.no_new_privileges || (forks && filter.is_some_and(|f| !lets_fork(f)));
    if !late && let Some(filter) = filter.take() {
        // Without no_new_privs only a privileged process may load a filter.
        seccomp::load(filter)?;
    }
    own_stdio(program.uid);
    become_user(program)?;
    if entered.is_err() {
        std::env::set_current_dir(cwd).doing(format_args!("enter the working directory {cwd}"))?;
    }
    check_cwd()?;
    if program.no_new_privileges || filter.is_some() {
        rustix::thread::set_no_new_privs(true).doing("set no_new_privs")?;
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let arguments = arguments(program)?;
    process::reset_signals();
    Ok((arguments, filter))
}

/// Whether the fork of a program, and what its process does before exec, passes a filter.
fn lets_fork(filter: &[u64]) -> bool {
    let calls = [
        (libc::SYS_clone, [process::SIBLING_FLAGS, 0]),
        (libc::SYS_setsid, [0, 0]),
        (libc::SYS_ioctl, [0, libc::TIOCSCTTY]),
        (libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as u64, libc::SIGKILL as u64]),
    ];
    calls.iter().all(|(call, [first, second])| seccomp::passes(filter, *call, [*first, *second, 0, 0, 0, 0]))
}

fn set_rlimits(program: &Program) -> Result<(), Failure> {
    for limit in &program.rlimits {
        let resource = match limit.resource {
            libc::RLIMIT_NOFILE => Resource::Nofile,
            libc::RLIMIT_NPROC => Resource::Nproc,
            libc::RLIMIT_CORE => Resource::Core,
            other => return Err(Failure::new("set a resource limit", format_args!("unknown resource {other}"))),
        };
        let value = Limit { current: Some(limit.soft), maximum: Some(limit.hard) };
        rustix::process::setrlimit(resource, value).doing("set a resource limit")?;
    }
    Ok(())
}

/// The kernel takes this number for "as it is" (CVE-2024-40635).
const UNCHANGED: u32 = u32::MAX;

fn become_user(program: &Program) -> Result<(), Failure> {
    if program.uid == UNCHANGED || program.gid == UNCHANGED || program.groups.contains(&UNCHANGED) {
        return Err(Failure::new("become the user", "an ID of -1 would leave it root"));
    }
    rustix::thread::set_keep_capabilities(true).doing("keep capabilities")?;
    let groups: Vec<Gid> = program.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    rustix::thread::set_thread_groups(&groups).doing("set supplemental groups")?;
    let gid = Gid::from_raw(program.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).doing(format_args!("become group {}", program.gid))?;
    let uid = Uid::from_raw(program.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).doing(format_args!("become user {}", program.uid))?;
    rustix::thread::set_keep_capabilities(false).doing("keep capabilities")?;
    caps::apply(program.caps)
}

/// The program may open /dev/stdout anew, so the pipe or terminal behind it becomes its user's. Best effort: a volume's
/// file or /dev/null stays whose it is.
fn own_stdio(uid: u32) {
    use rustix::fs::FileType;
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let Ok(stat) = rustix::fs::fstat(stream) else { continue };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let null = stat.st_rdev == rustix::fs::makedev(1, 3);
        if stat.st_uid != uid && matches!(kind, FileType::Fifo | FileType::Socket | FileType::CharacterDevice) && !null
        {
            let _ = rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), None);
        }
    }
}

/// A working directory outside the root shows as unreachable; a container must not get one.
fn check_cwd() -> Result<(), Failure> {
    let cwd = std::env::current_dir().doing("look up the working directory")?;
    if cwd.is_absolute() {
        return Ok(());
    }
    Err(Failure::new("look up the working directory", "it lies outside the container"))
}

/// Lowering the score needs CAP_SYS_RESOURCE; without it the score stays as it is, which harms nobody but the container.
pub fn set_oom_score(score: Option<i32>) -> Result<(), Failure> {
    let Some(score) = score else { return Ok(()) };
    match std::fs::write("/proc/self/oom_score_adj", score.to_string()) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => Ok(()),
        other => other.doing(format_args!("set oom_score_adj to {score}")),
    }
}

type Arguments = (PathBuf, Vec<Vec<u8>>, Vec<Vec<u8>>);

fn arguments(program: &Program) -> Result<Arguments, Failure> {
    let bytes = |list: &[Text]| list.iter().map(|t| t.bytes().to_vec()).collect::<Vec<_>>();
    let (args, env) = (bytes(&program.args), bytes(&program.env));
    let Some(first) = args.first().filter(|a| !a.is_empty()) else {
        return Err(Failure::new("exec", "no command specified"));
    };
    Ok((find_program(first, &env)?, args, env))
}

/// Looks a program up in the PATH of the program's own environment.
fn find_program(name: &[u8], env: &[Vec<u8>]) -> Result<PathBuf, Failure> {
    use std::os::unix::ffi::OsStrExt;
    let shown = String::from_utf8_lossy(name).into_owned();
    let name = Path::new(std::ffi::OsStr::from_bytes(name));
    if name.as_os_str().as_bytes().contains(&b'/') {
        return match rustix::fs::stat(name) {
            Ok(_) => Ok(name.to_owned()),
            Err(e) => Err(e).doing(format_args!("exec: {shown:?}: stat {shown}")),
        };
    }
    let path = env.iter().find_map(|e| e.strip_prefix(b"PATH=")).unwrap_or(b"/usr/local/bin:/usr/bin:/bin");
    let mut denied = false;
    for dir in path.split(|b| *b == b':') {
        let candidate = Path::new(std::ffi::OsStr::from_bytes(if dir.is_empty() { b"." } else { dir })).join(name);
        if !candidate.is_file() {
            continue;
        }
        match rustix::fs::access(&candidate, rustix::fs::Access::EXEC_OK) {
            Ok(()) => return Ok(candidate),
            Err(_) => denied = true,
        }
    }
    let why = if denied { "permission denied" } else { "executable file not found in $PATH" };
    Err(Failure { doing: format!("exec: {shown:?}"), source: io::Error::new(io::ErrorKind::NotFound, why) })
}
