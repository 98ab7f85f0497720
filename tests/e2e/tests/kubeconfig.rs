//! The user's kubeconfig: what is in it stays as it is, under sudo it stays the user's, and a broken one is told of
//! before anything is made.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use anyhow::{Context, Result, ensure};
use testkit::runner::Test;
use testkit::{Cluster, output, tool};

pub const TESTS: &[Test] = &[
    ("kubeconfig_is_merged_and_given_back", merged),
    ("reset_cleans_every_kubeconfig_that_it_is_in", several),
    ("kubeconfig_that_is_broken_is_told_of_first", broken),
    ("files_under_sudo_stay_the_users", sudo),
];

const MINE: &str = "\
# the clusters at work
apiVersion: v1
kind: Config
x-tool: {keep: [me, 1.50]}
contexts:
  - name: work   # the usual one
    context: {cluster: work, user: me, namespace: team}
clusters:
  - cluster:
      server: https://work.example:6443
      x-unknown: 'yes'
    name: work
users:
- name: me
  user:
    exec: {apiVersion: client.authentication.k8s.io/v1, command: login, interactiveMode: Never}
current-context: work
";

fn merged(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("merged")?;
    let (dir, real) = (own.home().join(".kube"), own.dir.join("dotfiles"));
    fs::create_dir_all(&dir)?;
    fs::write(&real, MINE)?;
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640))?;
    // A person's dotfiles are often links.
    symlink(&real, dir.join("config"))?;
    own.up()?;
    let text = fs::read_to_string(&real)?;
    for line in MINE.lines().filter(|l| !l.starts_with("current-context")) {
        ensure!(text.lines().any(|l| l == line), "{line:?} stays in\n{text}");
    }
    ensure!(dir.join("config").is_symlink() && fs::metadata(&real)?.mode() & 0o777 == 0o640);
    let kubectl = |args: &[&str]| {
        let mut command = own.program(&tool("KUBECTL", "kubectl"));
        output(command.args(args).env("HOME", own.home()).env_remove("KUBECONFIG"), "")?.ok()
    };
    ensure!(kubectl(&["config", "current-context"])?.trim() == own.name);
    ensure!(kubectl(&["get", "nodes", "--no-headers"])?.contains(" Ready "));
    let server = ["config", "view", "-o", "jsonpath={.clusters[?(@.name=='work')].cluster.server}"];
    ensure!(kubectl(&server)? == "https://work.example:6443");
    // What a person adds later stays too.
    kubectl(&["config", "set-context", "later", "--cluster=work", "--user=me"])?;
    own.run(&["reset", "--yes"])?.ok()?;
    let left = fs::read_to_string(&real)?;
    ensure!(left.contains("later") && left.contains("work") && !left.contains(&own.name), "{left}");
    ensure!(kubectl(&["config", "current-context"])?.trim() == "work");
    // Unchanged in between, it comes back byte for byte.
    fs::write(&real, MINE)?;
    own.up()?;
    own.run(&["reset", "--yes"])?.ok()?;
    ensure!(fs::read_to_string(&real)? == MINE);
    Ok(())
}

fn several(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("several")?;
    let (mine, theirs) = (own.home().join(".kube/config"), own.dir.join("theirs"));
    fs::write(&theirs, MINE)?;
    own.up()?;
    own.run(&["down"])?.ok()?;
    output(own.command(&["up"]).env("KUBECONFIG", &theirs), "")?.ok()?;
    ensure!(fs::read_to_string(&theirs)?.contains(&own.name) && fs::read_to_string(&mine)?.contains(&own.name));
    own.run(&["reset", "--yes"])?.ok()?;
    ensure!(fs::read_to_string(&theirs)? == MINE, "it was there before");
    ensure!(!own.home().join(".kube").exists(), "we made it");
    Ok(())
}

fn broken(cluster: &Cluster) -> Result<()> {
    let own = cluster.another("broken")?;
    let file = own.home().join(".kube/config");
    fs::create_dir_all(own.home().join(".kube"))?;
    for text in ["clusters: [\n", "clusters: 3\n", "just words"] {
        fs::write(&file, text)?;
        let said = own.run(&["up"])?.fails()?;
        ensure!(said.lines().count() == 1 && said.contains(&file.display().to_string()), "{said}");
        ensure!(said.contains("mend or move it, or set KUBECONFIG"), "{said}");
        ensure!(fs::read_to_string(&file)? == text && !own.data_dir().exists(), "nothing was made");
    }
    fs::remove_file(&file)?;
    fs::create_dir(&file)?;
    let said = own.run(&["up"])?.fails()?;
    ensure!(said.contains("not a regular file") && !own.data_dir().exists(), "{said}");
    Ok(())
}

/// A person of /etc/passwd who isn't root: Debian has this one everywhere.
const PERSON: &str = "nobody";

fn sudo(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("sudo")?;
    let host = own.host.as_ref().context("a host")?;
    // In this mount namespace only, the person has a home.
    let passwd = own.dir.join("passwd");
    let home = own.dir.join("person");
    let lines = fs::read_to_string("/etc/passwd")?;
    let line = lines.lines().find(|l| l.starts_with(&format!("{PERSON}:"))).context("no such person")?;
    let fields: Vec<&str> = line.split(':').collect();
    let (uid, gid): (u32, u32) = (fields[2].parse()?, fields[3].parse()?);
    let at_home = [&fields[..5], &[home.to_str().context("path")?, fields[6]]].concat().join(":");
    fs::write(&passwd, lines.replace(line, &at_home))?;
    host.sh(&format!("mount --bind {} /etc/passwd", passwd.display()))?;
    fs::create_dir(&home)?;
    std::os::unix::fs::chown(&home, Some(uid), Some(gid))?;
    let sudo = |args: &[&str]| {
        let mut command = own.command(args);
        // As sudo calls it; some keep HOME, some set root's.
        command.env("SUDO_UID", uid.to_string()).env("SUDO_GID", gid.to_string()).env("HOME", "/root");
        output(&mut command, "")
    };
    let before = fs::metadata("/root/.kube/config").and_then(|m| m.modified()).ok();
    sudo(&["up"])?.ok()?;
    let file = home.join(".kube/config");
    for path in [home.join(".kube"), file.clone()] {
        let meta = fs::metadata(&path)?;
        ensure!((meta.uid(), meta.gid()) == (uid, gid), "{} belongs to {}:{}", path.display(), meta.uid(), meta.gid());
    }
    ensure!(fs::metadata(&file)?.mode() & 0o777 == 0o600);
    ensure!(fs::metadata("/root/.kube/config").and_then(|m| m.modified()).ok() == before, "root's own is untouched");
    // The person, without privileges, reads it.
    let mut read = own.program("setpriv".as_ref());
    read.args([&format!("--reuid={uid}"), &format!("--regid={gid}"), "--clear-groups", "--", "cat"]).arg(&file);
    ensure!(output(&mut read, "")?.ok()?.contains(&own.name));
    fs::write(&file, format!("# mine\n{}", fs::read_to_string(&file)?))?;
    sudo(&["reset", "--yes"])?.ok()?;
    let meta = fs::metadata(&file)?;
    ensure!((meta.uid(), meta.gid()) == (uid, gid), "and it stays the person's");
    Ok(())
}
