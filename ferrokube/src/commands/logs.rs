//! `logs`: the daemon's log, whole or what one component wrote. A service's is in the journal. I/O: reads the log, and
//! waits for more of it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use kubelet::files::Watcher;

use crate::commands::misc::{no_cluster, print};
use crate::components::COMPONENTS;
use crate::config::Which;
use crate::config::record::{self, Record};
use crate::fault::Fault;
use crate::nodes::home;
use crate::process::Daemon;
use crate::systemd;

/// Short names that are taken for a component's.
const SHORT: [(&str, &str); 2] = [("runtime", "container-runtime"), ("dns", "kube-dns")];
/// Who writes what no component does: the process itself.
const DAEMON: (&str, &str) = ("daemon", "ferrokube");
/// A line that is longer is shown in pieces.
const MAX_LINE: u64 = 1 << 20;
/// Where the log can't be watched, it is looked at so often.
const WITHOUT_INOTIFY: Duration = Duration::from_secs(1);

pub fn run(
    which: &Which,
    component: Option<&str>,
    follow: bool,
    tail: Option<usize>,
    node: Option<&str>,
) -> Result<()> {
    let host = which.load()?.ok_or_else(|| no_cluster(which))?;
    let mut wanted = Wanted::new(component)?;
    let runs = Daemon::any(&host).is_some();
    // The host's own node is in its daemon.
    let node = node.filter(|node| *node != host.node_name);
    if node.is_none() && is_in_journal(systemd::is_installed(&host), systemd::is_active(&host), runs) {
        return journal(&systemd::unit_of(&host), &mut wanted, follow, tail);
    }
    let (path, opened) = match node {
        Some(node) => {
            record::read(&host)?.unwrap_or_else(|| Record::new(host.cluster.pod_cidr.primary())).named(node)?;
            (home::path(&host, node).join("daemon.log"), home::read_log(&host, node))
        }
        None => (host.log(), File::open(host.log())),
    };
    let file = match opened {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let sentence = format!("{} is not there: `ferrokube server` logs to where it was started", path.display());
            return Err(Fault::failed(sentence).into());
        }
        opened => opened.with_context(|| path.display().to_string())?,
    };
    let mut log = BufReader::new(file);
    let mut kept = Kept { most: tail, lines: VecDeque::new() };
    read(&mut log, &mut wanted, |line| kept.add(line))?;
    kept.lines.iter().try_for_each(|line| print(line))?;
    if !follow {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(keep_reading(&path, log, wanted))
}

/// A daemon that was started by hand before its cluster became a service logs to its file until it is handed over.
fn is_in_journal(installed: bool, active: bool, runs: bool) -> bool {
    installed && (active || !runs)
}

fn journal(unit: &str, wanted: &mut Wanted, follow: bool, tail: Option<usize>) -> Result<()> {
    let mut kept = Kept { most: tail, lines: VecDeque::new() };
    if tail.is_some() || !follow {
        journalctl(&["-u", unit], |line| if wanted.is(line) { kept.add(line) } else { Ok(()) })?;
        kept.lines.iter().try_for_each(|line| print(line))?;
    }
    if !follow {
        return Ok(());
    }
    let before = if tail.is_some() { "0" } else { "all" };
    journalctl(&["-u", unit, "-f", "-n", before], |line| if wanted.is(line) { print(line) } else { Ok(()) })
}

/// Every line that the journal gives, as it was logged.
fn journalctl(args: &[&str], mut give: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let mut command = Command::new("journalctl");
    command.args(["--no-pager", "-q", "-o", "cat"]).args(args).stdout(Stdio::piped());
    let mut child = command.spawn().context("journalctl")?;
    let mut lines = BufReader::new(child.stdout.take().context("journalctl")?);
    loop {
        let mut line = Vec::new();
        if std::io::Read::take(&mut lines, MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        give(&String::from_utf8_lossy(&line))?;
    }
    match child.wait()? {
        status if status.success() => Ok(()),
        status => Err(Fault::failed(format!("journalctl: {status}")).into()),
    }
}

async fn keep_reading(path: &Path, mut log: BufReader<File>, mut wanted: Wanted) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut watcher = Watcher::new().and_then(|watcher| watcher.add_dir(dir).map(|()| watcher)).ok();
    loop {
        if is_another(path, &mut log)? {
            // What runs on a node may have put anything in its place.
            log = BufReader::new(linux::root::open_regular(path).with_context(|| path.display().to_string())?);
        }
        read(&mut log, &mut wanted, print)?;
        match &mut watcher {
            Some(watcher) => watcher.changed().await,
            None => tokio::time::sleep(WITHOUT_INOTIFY).await,
        }
    }
}

/// The log was put aside or emptied since it was opened.
fn is_another(path: &Path, log: &mut BufReader<File>) -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let Ok(now) = std::fs::metadata(path) else { return Ok(false) };
    let ours = log.get_ref().metadata()?;
    Ok((now.dev(), now.ino()) != (ours.dev(), ours.ino()) || now.len() < log.stream_position()?)
}

/// Gives every whole line that is wanted; half of one is read again later.
fn read(log: &mut BufReader<File>, wanted: &mut Wanted, mut give: impl FnMut(&str) -> Result<()>) -> Result<()> {
    loop {
        let mut line = Vec::new();
        let n = std::io::Read::take(&mut *log, MAX_LINE).read_until(b'\n', &mut line)?;
        if n == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') && (n as u64) < MAX_LINE {
            log.seek(SeekFrom::Current(-i64::try_from(n).unwrap_or(0)))?;
            return Ok(());
        }
        let line = String::from_utf8_lossy(&line);
        if wanted.is(&line) {
            give(&line)?;
        }
    }
}

/// The last lines.
struct Kept {
    most: Option<usize>,
    lines: VecDeque<String>,
}

impl Kept {
    fn add(&mut self, line: &str) -> Result<()> {
        let Some(most) = self.most else { return print(line) };
        self.lines.push_back(line.to_owned());
        if self.lines.len() > most {
            self.lines.pop_front();
        }
        Ok(())
    }
}

/// Whose lines are shown.
struct Wanted {
    /// The name and the crate of the component.
    writer: Option<(&'static str, &'static str)>,
    /// The last record was theirs: what follows it without a head of its own, such as a backtrace, is too.
    last: bool,
}

impl Wanted {
    fn new(component: Option<&str>) -> Result<Wanted, Fault> {
        let Some(name) = component else { return Ok(Wanted { writer: None, last: true }) };
        let name = SHORT.iter().find(|(short, _)| *short == name).map_or(name, |(_, long)| long);
        let writers = || COMPONENTS.iter().map(|component| (component.name, component.writer)).chain([DAEMON]);
        let found = writers().find(|(known, _)| *known == name);
        let names = || writers().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
        let writer = found.ok_or_else(|| Fault::usage(format!("there is no component {name:?}: say {}", names())))?;
        Ok(Wanted { writer: Some(writer), last: false })
    }

    fn is(&mut self, line: &str) -> bool {
        let Some((name, own)) = self.writer else { return true };
        if let Some((writer, text)) = head(line) {
            let of_it = [format!("component={name:?}"), format!("component={name}")];
            self.last = writer == own || of_it.iter().any(|mark| text.split(' ').any(|word| word == mark));
        }
        self.last
    }
}

/// The crate that wrote a line, and the rest of it: `2026-01-01T00:00:00Z  INFO kubelet::daemon: text`, or `ferrokube:
/// text` of what is told without a log.
fn head(line: &str) -> Option<(&str, &str)> {
    if let Some(text) = line.strip_prefix("ferrokube: ") {
        return Some(("ferrokube", text));
    }
    let mut words = line.splitn(2, ' ');
    let time = words.next()?;
    let dated =
        time.len() > 19 && time.as_bytes().get(10) == Some(&b'T') && time.starts_with(|c: char| c.is_ascii_digit());
    let (_level, rest) = words.next().filter(|_| dated)?.trim_start().split_once(' ')?;
    // Spans stand before the target: `name{field=1}: target: text`.
    let target = rest.split(": ").find(|word| !word.contains(['{', '}', ' ', '"']))?;
    Some((target.split("::").next().unwrap_or(target), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
2026-01-01T00:00:00.1Z  INFO kubelet::daemon: a pod
2026-01-01T00:00:00.2Z  WARN apiserver::http: slow
thread 'x' panicked
   2: backtrace
2026-01-01T00:00:00.3Z ERROR ferrokube::cluster: ended component=\"kubelet\" error=\"x\"
ferrokube: the daemon ended
2026-01-01T00:00:00.4Z  INFO request{id=7 path=\"/a: b\"}: apiserver::audit: done
";

    fn lines(component: Option<&str>, tail: Option<usize>) -> Vec<String> {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("log"), LOG.to_owned() + "half a li").expect("written");
        let mut log = BufReader::new(File::open(dir.path().join("log")).expect("opened"));
        let mut kept = Kept { most: tail.or(Some(usize::MAX)), lines: VecDeque::new() };
        read(&mut log, &mut Wanted::new(component).expect("known"), |line| kept.add(line)).expect("read");
        kept.lines.into()
    }

    #[test]
    fn each_line_goes_to_who_wrote_it_and_a_backtrace_with_its_record() {
        let shown = |component: &str| lines(Some(component), None).concat();
        assert_eq!(lines(None, None).len(), 7);
        assert!(shown("kube-apiserver").contains("slow") && shown("kube-apiserver").contains("backtrace"));
        assert!(shown("kube-apiserver").contains("done"), "the span is not who wrote it");
        let kubelet = shown("kubelet");
        assert!(kubelet.contains("a pod") && kubelet.contains("ended component") && !kubelet.contains("slow"));
        assert!(shown("daemon").contains("the daemon ended") && shown("etcd").is_empty());
        let refused = Wanted::new(Some("kublet")).err().expect("refused");
        assert!(refused.sentence.contains("kubelet") && refused.code == 2);
    }

    #[test]
    fn the_tail_is_counted_in_lines_that_are_shown() {
        assert_eq!(lines(Some("kube-apiserver"), Some(1)).len(), 1);
        assert!(lines(None, Some(2))[1].contains("audit"));
        assert!(lines(None, Some(0)).is_empty());
    }

    /// `logs` of a service that runs was refused.
    #[test]
    fn the_log_of_a_service_is_shown_while_it_runs_and_when_it_has_ended() {
        assert!(
            is_in_journal(true, true, true) && is_in_journal(true, true, false) && is_in_journal(true, false, false)
        );
        assert!(!is_in_journal(true, false, true), "started by hand");
        assert!(!is_in_journal(false, false, true) && !is_in_journal(false, false, false));
    }

    #[test]
    fn a_log_that_was_put_aside_is_opened_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        std::fs::write(&path, LOG).expect("written");
        let mut log = BufReader::new(File::open(&path).expect("opened"));
        read(&mut log, &mut Wanted::new(None).expect("all"), |_| Ok(())).expect("read");
        assert!(!is_another(&path, &mut log).expect("looked"));
        std::fs::rename(&path, dir.path().join("log.1")).expect("moved");
        std::fs::write(&path, "").expect("written");
        assert!(is_another(&path, &mut log).expect("looked"));
    }
}
