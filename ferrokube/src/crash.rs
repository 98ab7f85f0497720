//! What broke: each panic in the daemon, each component and each daemon that ended by itself. Kept in `crashes.json` of
//! the data directory, by component, for `status`; panics are also counted for the pages of metrics and told in the log
//! with their backtrace. I/O: writes the file.

use std::backtrace::Backtrace;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::{Host, write_private};
use crate::fault::best_effort;

/// Ends that wait to be written. More at one moment tell nothing new; the metric counts them all.
const WAITING: usize = 64;
/// The file is written at most this often: a panic for every request must not become a write for every request.
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes that are kept of what was said: a first line.
const LINE: usize = 300;

tokio::task_local! {
    /// The component whose future this is: set by who runs it, for panics in code that all components share.
    pub static COMPONENT: &'static str;
}

/// The last end of a component, and how many there were.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct Crash {
    pub count: u64,
    pub time: Timestamp,
    pub what: String,
}

/// By component; the whole process is `daemon`.
pub type Crashes = BTreeMap<String, Crash>;

fn file(host: &Host) -> PathBuf {
    host.data_dir.join("crashes.json")
}

/// What broke of this cluster so far.
pub fn read(host: &Host) -> Crashes {
    std::fs::read(file(host)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Writes an end down at once.
pub fn note(host: &Host, component: &str, what: &str) -> Result<()> {
    let mut crashes = read(host);
    add(&mut crashes, component, what, Timestamp::now());
    write_private(&file(host), &serde_json::to_vec_pretty(&crashes)?)
}

fn add(crashes: &mut Crashes, component: &str, what: &str, time: Timestamp) {
    let count = crashes.get(component).map_or(0, |crash| crash.count) + 1;
    crashes.insert(component.to_owned(), Crash { count, time, what: first_line(what) });
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(LINE).collect()
}

type Note = (&'static str, String);

static NOTES: OnceLock<SyncSender<Note>> = OnceLock::new();

/// Notes an end from within the daemon, without waiting for the disk.
pub fn queue_note(component: &'static str, what: String) {
    if let Some(notes) = NOTES.get() {
        best_effort("noting a crash", notes.try_send((component, what)));
    }
}

/// From now on panics of this process are told. Called once, by the daemon.
pub fn watch(host: &Host) -> std::io::Result<()> {
    let (notes, waiting) = sync_channel(WAITING);
    if NOTES.set(notes).is_err() {
        return Ok(());
    }
    let host = host.clone();
    std::thread::Builder::new().name("crashes".into()).stack_size(256 << 10).spawn(move || keep(&waiting, &host))?;
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(String::new, |at| format!("{}:{}", at.file(), at.line()));
        let component = component(info.location().map_or("", |at| at.file()));
        let what = first_line(info.payload_as_str().unwrap_or("a value that is no text"));
        telemetry::process::count_panic(component);
        // Without symbols the addresses are what a build of the same commit can name: less the place of the program.
        let (base, trace) = (program_base(), Backtrace::force_capture());
        tracing::error!(component, at = place, base, "panicked: {what}\n{trace:#}");
        queue_note(component, format!("panicked at {place}: {what}"));
    }));
    Ok(())
}

fn keep(waiting: &Receiver<Note>, host: &Host) {
    while let Ok(first) = waiting.recv() {
        let mut crashes = read(host);
        for (component, what) in std::iter::once(first).chain(waiting.try_iter()) {
            add(&mut crashes, component, &what, Timestamp::now());
        }
        let written = serde_json::to_vec_pretty(&crashes).map_err(Into::into);
        if let Err(error) = written.and_then(|json| write_private(&file(host), &json)) {
            tracing::warn!(%error, "what broke could not be written down");
        }
        std::thread::sleep(PAUSE);
    }
}

/// Where the program was loaded.
fn program_base() -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    maps.split('-').next().unwrap_or_default().to_owned()
}

/// Folders of the source, and the component that each is.
pub const FOLDERS: [(&str, &str); 10] = [
    ("control-plane/etcd/", "etcd"),
    ("control-plane/apiserver/", "kube-apiserver"),
    ("control-plane/controller-manager/", "kube-controller-manager"),
    ("control-plane/scheduler/", "kube-scheduler"),
    ("control-plane/dns/", "kube-dns"),
    ("node/kubelet/", "kubelet"),
    ("node/runtime/", "container-runtime"),
    ("node/proxy/", "kube-proxy"),
    ("network/cni/", "container-runtime"),
    ("network/flannel/", "flannel"),
];

/// Whose code it is; of shared code, whose future.
fn component(file: &str) -> &'static str {
    let folder = FOLDERS.iter().find(|(folder, _)| file.contains(folder)).map(|(_, component)| *component);
    folder.or_else(|| COMPONENT.try_with(|component| *component).ok()).unwrap_or("daemon")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_end_of_each_component_is_kept_with_their_number() {
        let mut crashes = Crashes::new();
        let at = |second| Timestamp::from_second(second).expect("a time");
        add(&mut crashes, "dns", "panicked at a.rs:1: one\nmore", at(1));
        add(&mut crashes, "dns", &"x".repeat(10_000), at(2));
        add(&mut crashes, "daemon", "killed by signal 9", at(3));
        assert_eq!((crashes["dns"].count, crashes["dns"].time, crashes["dns"].what.len()), (2, at(2), LINE));
        assert_eq!(crashes["daemon"].count, 1);
        let text = serde_json::to_string(&crashes).expect("json");
        assert_eq!(serde_json::from_str::<Crashes>(&text).expect("read"), crashes);
    }

    #[tokio::test]
    async fn a_panic_belongs_to_the_component_whose_code_or_future_it_is() {
        assert_eq!(component("control-plane/scheduler/src/queue.rs"), "kube-scheduler");
        assert_eq!(component("client/src/informer.rs"), "daemon");
        let inside = COMPONENT.scope("kubelet", async { component("client/src/informer.rs") }).await;
        assert_eq!(inside, "kubelet");
    }
}
