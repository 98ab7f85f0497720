//! The small processes that outlive the daemon: one monitor a container, and the zygote that forks them. Does I/O.
//!
//! The daemon starts this program again as `container-monitor` ([`main`]): one single-threaded process, the zygote,
//! which only waits for orders. Forking from it costs a fraction of a millisecond and shares all memory that isn't
//! written, so a monitor has a few hundred kilobytes of its own. Three kinds of children: the monitor of a container
//! (`run`), the helper of an exec (`exec`), and process 1 of a pod that shares PIDs (`pod`).
//!
//! Orders and answers are messages on unix sockets; `protocol` has their forms.

mod attach;
mod exec;
mod log;

pub use log::now;
mod pod;
pub mod protocol;
mod run;

pub use run::read_pid_file;

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use linux::{cgroup, fdpass, process};
use rustix::process::Signal;

/// The hidden subcommand that ends up in [`main`].
pub const SUBCOMMAND: &str = "container-monitor";

/// The zygote. Call it first thing in the program's `main` when the first argument is [`SUBCOMMAND`], before any thread
/// is started. It lives until the daemon closes the socket on standard input. The arguments are the files by which a
/// process joins the group of monitors: in the group of whoever started the daemon (a unit of systemd, a session) it and
/// all that it forks would be ended together with it. For the same reason no signal that ends a session, a unit or a
/// host ends it; programs in containers get the default actions back.
pub fn main(args: impl Iterator<Item = OsString>) -> ! {
    process::set_name("fk-zygote");
    // The daemon does without; containers have what the host gives.
    process::allow_huge_pages(true);
    process::ignore_children();
    process::ignore(&[Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT]);
    // The daemon has told what it knew of a group that can't be had.
    let _ = cgroup::join(&args.map(PathBuf::from).collect::<Vec<_>>());
    // A panic must not print into whatever descriptor 2 is in a child.
    std::panic::set_hook(Box::new(|_| {}));
    let _ = std::env::set_current_dir("/");
    // What the starter of the daemon left open would stay open as long as any container runs.
    process::close_from(3);
    let Ok(mut orders) = take_stdin() else { std::process::exit(1) };
    let mut buffer = [0u8; 16];
    loop {
        match fdpass::receive(&orders, &mut buffer) {
            Ok((0, _)) | Err(_) => std::process::exit(0),
            Ok((_, fds)) => serve(buffer[0], fds, &mut orders),
        }
    }
}

/// Takes the socket away from descriptor 0, where /dev/null goes.
fn take_stdin() -> std::io::Result<OwnedFd> {
    let orders = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    process::set_stdio(&null, &null, &null)?;
    Ok(orders)
}

/// Forks the child that does what was ordered. A failed fork closes the order's control socket, which tells the daemon.
fn serve(order: u8, fds: Vec<OwnedFd>, orders: &mut OwnedFd) {
    let child = || {
        // Only the zygote may hold this socket: its end is how the daemon notices that the zygote is gone.
        if let Ok(null) = std::fs::File::open("/dev/null") {
            *orders = null.into();
        }
        process::expect_children();
        let _ = rustix::process::setsid();
        match (order, take(fds)) {
            (protocol::RUN, Some(fds)) => run::main(fds),
            (protocol::EXEC, Some(fds)) => exec::main(fds),
            (protocol::POD, Some(fds)) => pod::main(fds),
            _ => 64,
        }
    };
    let _ = process::fork(process::Fresh::default(), child);
}

/// The descriptors of an order: the control socket, the specification, and what else the order needs.
struct Fds {
    control: OwnedFd,
    spec: OwnedFd,
    rest: Vec<OwnedFd>,
}

fn take(fds: Vec<OwnedFd>) -> Option<Fds> {
    let mut fds = fds.into_iter();
    Some(Fds { control: fds.next()?, spec: fds.next()?, rest: fds.collect() })
}

/// Reads the whole specification from its descriptor.
fn read_spec<T: serde::de::DeserializeOwned>(spec: OwnedFd) -> Result<T, String> {
    let mut file = std::fs::File::from(spec);
    let mut bytes = Vec::new();
    std::io::Seek::rewind(&mut file)
        .and_then(|()| std::io::Read::read_to_end(&mut file, &mut bytes))
        .map_err(|e| format!("read the specification: {e}"))?;
    serde_json::from_slice(&bytes).map_err(|e| format!("the specification: {e}"))
}

/// Tells the daemon how an order went. Nobody listening is no failure of the order.
fn answer(control: impl AsFd, text: &str) {
    let _ = fdpass::send(control, text.as_bytes(), &[]);
}

/// What the child of a monitor writes when it can't become the program; an empty message means it did.
fn read_failure(pipe: OwnedFd) -> Option<String> {
    let mut text = String::new();
    let _ = std::io::Read::read_to_string(&mut std::fs::File::from(pipe), &mut text);
    (!text.is_empty()).then_some(text)
}
