//! The commands that print, the help of every one, the configuration file, and the daemon in the foreground.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::runner::Test;
use testkit::{Cluster, Running, Signal, eventually, output};

const PATIENCE: Duration = Duration::from_secs(30);

pub const TESTS: &[Test] = &[
    ("completion_kubeconfig_and_version", prints),
    ("every_command_has_help", help),
    ("config_file_is_strict", config),
    ("config_file_shapes_the_cluster", shaped),
    ("server_ends_cleanly_on_a_signal", server),
    ("two_ups_at_once_start_one_cluster", two_ups),
    ("interrupted_up_leaves_nothing", interrupted),
];

fn prints(cluster: &Cluster) -> Result<()> {
    let script = cluster.run(&["completion", "bash"])?.ok()?;
    let file = cluster.dir.join("completion.bash");
    fs::write(&file, script)?;
    // bash not only parses it: it completes.
    let complete = format!(
        "source {}; COMP_WORDS=(ferrokube kub); COMP_CWORD=1; _ferrokube ferrokube kub ferrokube; echo \"${{COMPREPLY[@]}}\"",
        file.display()
    );
    let completed = output(Command::new("bash").args(["-ec", &complete]), "")?.ok()?;
    ensure!(completed.contains("kubeconfig"), "{completed}");
    let printed = cluster.run(&["kubeconfig"])?.ok()?;
    ensure!(printed == fs::read_to_string(cluster.kubeconfig())?);
    let version = cluster.run(&["version"])?.ok()?;
    ensure!(version.starts_with("ferrokube ") && version.contains("(Kubernetes v1.37."), "{version}");
    Ok(())
}

const COMMANDS: &[&[&str]] = &[
    &["up"],
    &["server"],
    &["status"],
    &["down"],
    &["reset"],
    &["image"],
    &["image", "import"],
    &["image", "ls"],
    &["image", "pull"],
    &["image", "rm"],
    &["image", "save"],
    &["image", "tag"],
    &["node"],
    &["node", "ls"],
    &["node", "add"],
    &["node", "rm"],
    &["node", "stop"],
    &["node", "start"],
    &["ls"],
    &["logs"],
    &["kubectl"],
    &["assets"],
    &["kubeconfig"],
    &["completion"],
    &["version"],
];

pub const COMPONENTS: &[&str] = &[
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "container-runtime",
    "kubelet",
    "kube-proxy",
    "kube-dns",
];

fn help(cluster: &Cluster) -> Result<()> {
    let ask = |args: &[&str]| output(Command::new(testkit::binary()).args(args).arg("--help"), "")?.ok();
    let top = ask(&[])?;
    for command in COMMANDS {
        let text = ask(command)?;
        ensure!(text.contains("Usage: ferrokube") && text.contains("--name"), "{command:?}: {text}");
        ensure!(top.contains(command[0]), "{top}");
    }
    for component in COMPONENTS {
        let text = ask(&[component])?;
        ensure!(text.contains(&format!("Usage: {component} ")), "{component}: {text}");
        ensure!(top.contains(component), "the components are in the help, too: {top}");
    }
    let wrong = cluster.run(&["stat"])?;
    ensure!(wrong.code == 2 && wrong.stderr.contains("there is no command \"stat\""), "{wrong:?}");
    let wrong = output(Command::new(testkit::binary()).args(["kube-scheduler", "--kubeconfg", "x"]), "")?;
    ensure!(wrong.code == 2 && wrong.stderr.contains("--kubeconfig"), "{wrong:?}");
    Ok(())
}

fn config(cluster: &Cluster) -> Result<()> {
    let own = cluster.another("strict")?;
    let file = own.dir.join("config.yaml");
    for (text, path, allowed) in [
        ("apiport: 7443\n", "apiport", "apiPort"),
        ("apiPort: high\n", "apiPort", "a port"),
        ("podCIDR: 10.0.0.0\n", "podCIDR", "like 10.42.0.0/16"),
        ("nodeIP: here\n", "nodeIP", "not an address"),
        ("apiPort: 7443\napiPort: 7444\n", "apiPort", "line 2 column 1: duplicate mapping key"),
        ("- apiPort\n", "", "apiPort, podCIDR, serviceCIDR, clusterDomain, nodeName, nodeIP"),
    ] {
        fs::write(&file, text)?;
        let wrong = own.run(&["up", "--config", &file.display().to_string()])?;
        ensure!(wrong.code == 2 && wrong.stderr.lines().count() == 1, "{text:?}: {wrong:?}");
        let said = &wrong.stderr;
        ensure!(said.contains("config.yaml") && said.contains(path) && said.contains(allowed), "{text:?}: {said}");
        ensure!(!own.data_dir().exists(), "{text:?}: nothing was made");
    }
    let wrong = own.run(&["up", "--config", "/nowhere.yaml"])?;
    ensure!(wrong.code == 2 && wrong.stderr.contains("/nowhere.yaml"), "{wrong:?}");
    for (flag, value, why) in [
        ("--pod-cidr", "10.0.0.0/33", "between /8 and /24"),
        ("--service-cidr", "here", "like 10.43.0.0/16"),
        ("--api-port", "70000", "65535"),
        ("--pod-cidr", "10.43.0.0/8", "overlap"),
    ] {
        let wrong = own.run(&["up", flag, value])?;
        ensure!(wrong.code == 2 && wrong.stderr.contains(why), "{flag} {value}: {wrong:?}");
    }
    Ok(())
}

fn shaped(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("shaped")?;
    let file = own.dir.join("config.yaml");
    let text = "apiPort: 7443\npodCIDR: 10.88.0.0/16\nserviceCIDR: 10.89.0.0/16\nclusterDomain: home.arpa\n\
        nodeName: box\nnodeIP: 192.0.2.2\n";
    fs::write(&file, text)?;
    own.run(&["up", "--config", &file.display().to_string()])?.ok()?;
    own.import_busybox("docker.io/library/busybox:test")?;
    own.kubectl(&["run", "a", "--image", "docker.io/library/busybox:test", "--", "sleep", "1000"])?;
    let pod = own.ready("a")?;
    ensure!(pod["status"]["podIP"].as_str().is_some_and(|ip| ip.starts_with("10.88.")), "{}", pod["status"]);
    ensure!(pod["spec"]["nodeName"] == "box" && pod["status"]["hostIP"] == "192.0.2.2");
    ensure!(own.status()?["server"] == "https://127.0.0.1:7443");
    let answer = own.kubectl(&["exec", "a", "--", "nslookup", "kubernetes.default.svc.home.arpa"])?;
    ensure!(answer.contains("10.89.0.1"), "{answer}");
    // Addresses are in use: they can't change under a cluster.
    own.run(&["down"])?.ok()?;
    let wrong = own.run(&["up", "--pod-cidr", "10.90.0.0/16"])?;
    ensure!(
        wrong.code == 2 && wrong.stderr.contains("they stay, and a range of the other family may be said behind each"),
        "{wrong:?}"
    );
    // And what was chosen is kept without the file.
    own.up()?;
    ensure!(own.status()?["server"] == "https://127.0.0.1:7443");
    Ok(())
}

fn server(cluster: &Cluster) -> Result<()> {
    let own = cluster.another("server")?;
    for (signal, pod) in [("INT", true), ("TERM", false)] {
        let mut server = foreground(&own)?;
        if pod {
            own.import_busybox("docker.io/library/busybox:test")?;
            own.kubectl(&["run", "a", "--image", "docker.io/library/busybox:test", "--", "sleep", "1000"])?;
            own.ready("a")?;
            let second = own.run(&["server"])?.fails()?;
            ensure!(second.contains("runs already"), "{second}");
        }
        let daemon = own.pids("daemon")?;
        ensure!(daemon == [server.id() as i32], "{daemon:?}");
        output(Command::new("kill").args([format!("-{signal}"), server.id().to_string()]), "")?.ok()?;
        let status = eventually(Duration::from_secs(15), || server.try_wait()?.context("still runs"))?;
        ensure!(status.success(), "SIG{signal}: {status}");
        let left = own.status()?;
        ensure!(left["state"] == "stopped" && left["processes"].as_array().is_some_and(Vec::is_empty), "{left:#}");
    }
    Ok(())
}

fn two_ups(cluster: &Cluster) -> Result<()> {
    let own = cluster.another("twice")?;
    let mut ups = [Running::start(&mut own.command(&["up"]))?, Running::start(&mut own.command(&["up"]))?];
    let mut said = Vec::new();
    for up in &mut ups {
        let (code, words) = up.end(PATIENCE)?;
        ensure!(code == 0, "{words}");
        // Whoever comes second waits for the first: the cluster is ready for both.
        own.kubectl(&["get", "nodes"])?;
        said.push(words);
    }
    ensure!(said.iter().filter(|words| words.contains("Ready after")).count() == 1, "{said:?}");
    ensure!(said.iter().filter(|words| words.contains("runs already")).count() == 1, "{said:?}");
    ensure!(own.pids("daemon")?.len() == 1);
    Ok(())
}

fn interrupted(cluster: &Cluster) -> Result<()> {
    let own = cluster.another("interrupted")?;
    let mut up = Running::start(&mut own.command(&["up"]))?;
    up.expect(PATIENCE, "✓")?;
    up.signal(Signal::INT)?;
    let (code, said) = up.end(PATIENCE)?;
    ensure!(code == 130 && said.contains("interrupted: what had been started is stopped"), "{code}: {said}");
    let status = own.run(&["status"])?.fails()?;
    ensure!(status.contains("there is no cluster"), "{status}");
    ensure!(!own.data_dir().exists(), "the data directory stays");
    Ok(())
}

/// `server`, as far as Ready.
fn foreground(own: &Cluster) -> Result<Child> {
    let mut command = own.command(&["server"]);
    let log = fs::File::create(own.dir.join("server.log"))?;
    let mut server = command.stdout(Stdio::piped()).stderr(log).spawn()?;
    let out = BufReader::new(server.stdout.take().context("no output")?);
    let ready = out.lines().map_while(|l| l.ok()).any(|line| line.starts_with("Ready."));
    ensure!(ready, "{}", fs::read_to_string(own.dir.join("server.log"))?);
    Ok(server)
}
