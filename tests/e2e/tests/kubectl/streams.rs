//! Streams to and from containers: logs, exec on pipes and terminals, attach, run, cp; over WebSockets and SPDY.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use testkit::runner::Test;
use testkit::space::STAY;
use testkit::{Cluster, Running, eventually, output};

pub const TESTS: &[Test] = &[
    ("logs_are_shown_followed_and_cut", logs),
    ("logs_of_the_last_run_and_of_several_containers", logs_of_many),
    ("exec_over_pipes_keeps_streams_and_exit_codes_apart", exec_pipes),
    ("exec_on_a_terminal_echoes_resizes_and_interrupts", exec_terminal),
    ("attach_and_run_join_the_first_process", attach),
    ("cp_copies_files_and_directories_both_ways", cp),
];

const PATIENCE: Duration = Duration::from_secs(20);

/// Each protocol that kubectl speaks, and the environment that makes it do so.
pub const PROTOCOLS: &[(&str, &[(&str, &str)])] = &[
    ("websockets", &[]),
    ("spdy", &[("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false"), ("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false")]),
];

pub fn speaking<'a>(command: &'a mut Command, protocol: &[(&str, &str)]) -> &'a mut Command {
    command.envs(protocol.iter().copied())
}

fn logs(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("logs")?;
    space.shell_pod(
        "talker",
        &format!("for i in 1 2 3; do echo line $i; done; echo oops >&2; touch /ready\n{STAY} 2>/dev/null | cat"),
    )?;
    eventually(PATIENCE, || {
        let all = space.kubectl(&["logs", "talker"])?;
        ensure!(all.starts_with("line 1\nline 2\nline 3\n") && all.contains("oops\n"), "{all:?}");
        Ok(())
    })?;
    ensure!(space.kubectl(&["logs", "talker", "--tail=1"])?.lines().count() == 1);
    ensure!(space.kubectl(&["logs", "talker", "--limit-bytes=6"])? == "line 1");
    ensure!(space.kubectl(&["logs", "talker", "--since=1h"])?.lines().count() == 4);
    ensure!(space.kubectl(&["logs", "talker", "--since-time=2100-01-01T00:00:00Z"])?.is_empty());
    let stamped = space.kubectl(&["logs", "talker", "--timestamps", "--tail=4"])?;
    ensure!(
        stamped.lines().all(|l| l.starts_with("20") && l.split(' ').next().is_some_and(|t| t.ends_with('Z'))),
        "{stamped}"
    );
    let prefixed = space.kubectl(&["logs", "talker", "--prefix", "--tail=4"])?;
    ensure!(prefixed.contains("[pod/talker/talker] line 1"), "{prefixed}");
    let mut follow = Running::start(&mut space.command(&["logs", "-f", "talker"]))?;
    follow.expect(PATIENCE, "oops")?;
    space.kubectl(&["exec", "talker", "--", "sh", "-c", "echo late > /proc/1/fd/1"])?;
    follow.expect(PATIENCE, "late\n")?;
    space.kubectl(&["delete", "pod", "talker", "--now"])?;
    ensure!(follow.end(PATIENCE)?.0 == 0, "following ends with the container");
    let none = space.refused(&["logs", "talker"])?;
    ensure!(none.contains("pods \"talker\" not found"), "{none}");
    Ok(())
}

const TWO: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: two, labels: {app: two}, annotations: {kubectl.kubernetes.io/default-container: b}}
spec:
  terminationGracePeriodSeconds: 0
  initContainers: [{name: first, image: "docker.io/library/busybox:test", command: [echo, prepared]}]
  containers:
  - {name: a, image: "docker.io/library/busybox:test", command: [sh, -c, "echo from a; sleep 1000"]}
  - {name: b, image: "docker.io/library/busybox:test", command: [sh, -c, "echo from b; sleep 1000"]}
---
apiVersion: v1
kind: Pod
metadata: {name: crashes}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: docker.io/library/busybox:test
    command: [sh, -c, "[ -e /keep/ran ] && echo second && sleep 1000; touch /keep/ran; echo first; exit 3"]
    volumeMounts: [{name: keep, mountPath: /keep}]
  volumes: [{name: keep, emptyDir: {}}]
"#;

fn logs_of_many(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("logs-of-many")?;
    space.apply(TWO)?;
    space.ready("two")?;
    space.wait_for("pod/crashes", PATIENCE, |p| p["status"]["containerStatuses"][0]["restartCount"] == 1)?;
    space.ready("crashes")?;
    let says = |args: &[&str], expected: &str| {
        eventually(PATIENCE, || {
            let said = space.kubectl(&[&["logs"], args].concat())?;
            ensure!(said == expected, "logs {args:?}: {said:?}");
            Ok(())
        })
    };
    says(&["two", "-c", "a"], "from a\n")?;
    says(&["two", "-c", "first"], "prepared\n")?;
    says(&["two", "--all-containers"], "prepared\nfrom a\nfrom b\n")?;
    says(
        &["-l", "app=two", "--all-containers", "--prefix"],
        "[pod/two/first] prepared\n[pod/two/a] from a\n[pod/two/b] from b\n",
    )?;
    says(&["crashes"], "second\n")?;
    says(&["crashes", "--previous"], "first\n")?;
    let defaulted = space.kubectl_with(&["logs", "two"], "")?;
    ensure!(defaulted.stdout == "from b\n", "the annotation names the container: {defaulted:?}");
    let wrong = space.refused(&["logs", "two", "-c", "none"])?;
    ensure!(wrong.contains("container none is not valid for pod two"), "{wrong}");
    let none = space.refused(&["logs", "two", "-c", "a", "--previous"])?;
    ensure!(none.contains("previous terminated container \"a\" in pod \"two\" not found"), "{none}");
    Ok(())
}

fn exec_pipes(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("exec-pipes")?;
    space.shell_pod("shell", STAY)?;
    // More than any window or buffer on the way.
    let large = "0123456789abcde\n".repeat(64 << 10);
    for (name, protocol) in PROTOCOLS {
        let exec = |args: &[&str], input: &str| {
            output(speaking(&mut space.command(&[&["exec"], args].concat()), protocol), input)
        };
        let both = exec(&["shell", "--", "sh", "-c", "echo out; echo err >&2; exit 7"], "")?;
        ensure!(both.stdout == "out\n" && both.code == 7, "{name}: {both:?}");
        ensure!(
            both.stderr.starts_with("err\n") && both.stderr.contains("command terminated with exit code 7"),
            "{name}: {both:?}"
        );
        let copied = exec(&["-i", "shell", "--", "cat"], &large)?.ok()?;
        ensure!(copied == large, "{name}: {} of {} bytes came back", copied.len(), large.len());
        let counted = exec(&["-i", "shell", "--", "wc", "-c"], &large)?.ok()?;
        ensure!(counted.trim() == large.len().to_string(), "{name}: {counted}");
        let missing = exec(&["shell", "--", "no-such-program"], "")?;
        ensure!(missing.code != 0 && missing.stderr.contains("no-such-program"), "{name}: {missing:?}");
        let mut talk = Running::start(speaking(&mut space.command(&["exec", "-i", "shell", "--", "sh"]), protocol))?;
        talk.send("echo one $((1 + 1))\n")?;
        talk.expect(PATIENCE, "one 2\n")?;
        talk.send("exit 3\n")?;
        ensure!(talk.end(PATIENCE)?.0 == 3, "{name}: {}", talk.said());
    }
    ensure!(space.refused(&["exec", "none", "--", "true"])?.contains("pods \"none\" not found"));
    ensure!(space.refused(&["exec", "shell", "-c", "none", "--", "true"])?.contains("container none"));
    Ok(())
}

fn exec_terminal(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("exec-terminal")?;
    space.shell_pod("shell", STAY)?;
    for (name, protocol) in PROTOCOLS {
        let mut command = space.command(&["exec", "-it", "shell", "--", "sh"]);
        let mut shell = Running::on_terminal(speaking(&mut command, protocol).env("TERM", "xterm"), 31, 97)?;
        shell.send("stty size; tty; echo term=$TERM\r")?;
        shell.expect(PATIENCE, "31 97").map_err(|e| e.context(*name))?;
        shell.expect(PATIENCE, "/dev/pts/0")?;
        shell.expect(PATIENCE, "term=xterm")?;
        shell.resize(20, 60)?;
        eventually(PATIENCE, || {
            shell.send("stty size\r")?;
            shell.expect(Duration::from_secs(1), "20 60").map(|_| ())
        })?;
        // Ctrl-C goes to what runs inside, not to kubectl.
        shell.send("sleep 1000\r")?;
        shell.expect(PATIENCE, "sleep 1000\r\n")?;
        shell.send("\x03")?;
        shell.send("echo still $((40 + 2))\r")?;
        shell.expect(PATIENCE, "still 42")?;
        shell.send("exit 5\r")?;
        ensure!(shell.end(PATIENCE)?.0 == 5, "{name}: {}", shell.said());
    }
    Ok(())
}

fn attach(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("attach")?;
    let image = format!("--image={}", testkit::image::BUSYBOX);
    for (name, protocol) in PROTOCOLS {
        let run = [
            "run",
            name,
            &image,
            "--stdin",
            "--",
            "sh",
            "-c",
            "while read line; do echo \"got $line\"; done; echo over",
        ];
        space.kubectl(&[&run[..3], &["--stdin", "--attach=false", "--restart=Never"], &run[4..]].concat())?;
        space.ready(name)?;
        let mut attached = Running::start(speaking(&mut space.command(&["attach", "-i", name]), protocol))?;
        attached.send("one\n")?;
        attached.expect(PATIENCE, "got one\n").map_err(|e| e.context(*name))?;
        drop(attached);
        space.kubectl(&["delete", "pod", name, "--now"])?;
        // `run -i --rm`: the input goes in, the output comes out, the exit code too, and the pod is gone.
        let once = [
            "run",
            name,
            &image,
            "-i",
            "--rm",
            "--restart=Never",
            "--quiet",
            "--",
            "sh",
            "-c",
            "read line; echo \"got $line\"; exit 4",
        ];
        let ran = output(speaking(&mut space.command(&once), protocol), "two\n")?;
        ensure!(ran.stdout.contains("got two\n") && ran.code == 4, "{name}: {ran:?}");
        ensure!(space.refused(&["get", "pod", name])?.contains("NotFound"));
        let mut command = space.command(&["run", name, &image, "-it", "--rm", "--restart=Never", "--", "sh"]);
        let mut shell = Running::on_terminal(speaking(&mut command, protocol), 25, 80)?;
        shell.prompt(PATIENCE).map_err(|e| e.context(*name))?;
        shell.send("echo $((6 * 7)); exit\r")?;
        let (code, said) = shell.end(PATIENCE)?;
        ensure!(
            code == 0 && said.contains("42\r\n") && said.contains(&format!("pod \"{name}\" deleted")),
            "{name}: {said}"
        );
    }
    Ok(())
}

fn cp(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("cp")?;
    space.shell_pod("box", STAY)?;
    let dir = cluster.dir.join("cp");
    fs::create_dir_all(dir.join("tree/deep"))?;
    let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(dir.join("tree/deep/data"), &bytes)?;
    fs::write(dir.join("tree/run"), "#!/bin/sh\n")?;
    fs::set_permissions(dir.join("tree/run"), fs::Permissions::from_mode(0o755))?;
    let path = |name: &str| dir.join(name).display().to_string();
    for (name, protocol) in PROTOCOLS {
        let cp = |from: &str, to: &str| output(speaking(&mut space.command(&["cp", from, to]), protocol), "")?.ok();
        cp(&path("tree"), &format!("box:/tmp/{name}"))?;
        let listed = space.kubectl(&[
            "exec",
            "box",
            "--",
            "sh",
            "-c",
            &format!("cd /tmp/{name}; wc -c < deep/data; test -x run && echo runs"),
        ])?;
        ensure!(listed.trim() == format!("{}\nruns", bytes.len()), "{name}: {listed}");
        cp(&format!("box:/tmp/{name}"), &path(name))?;
        ensure!(fs::read(dir.join(name).join("deep/data"))? == bytes, "{name}: the bytes come back");
        cp(&format!("cp/box:/tmp/{name}/run"), &path("one"))?;
        ensure!(fs::read_to_string(dir.join("one"))? == "#!/bin/sh\n");
    }
    // kubectl's exit code depends on which of its two ends is heard of first.
    // kubectl may end before it has shown what tar said; what counts is that it leaves nothing behind.
    space.kubectl_with(&["cp", "box:/none", &path("none")], "")?;
    ensure!(!std::path::Path::new(&path("none")).exists(), "nothing is made of what isn't there");
    Ok(())
}
