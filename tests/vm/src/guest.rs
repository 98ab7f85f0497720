//! A cluster on the machine, driven as a person there would: by commands of a shell. I/O: ssh.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use testkit::image::{BUSYBOX, busybox_archive};

use crate::machine::{Machine, ROOT};

/// Everything takes its time where a processor is emulated.
const PATIENCE: Duration = Duration::from_secs(300);

/// Whoever started the cluster has its context in his own file.
const KUBECTL: &str = "kubectl --kubeconfig /var/lib/ferrokube/ferrokube/kubeconfig";

pub struct Guest {
    pub machine: Machine,
}

impl Guest {
    /// Puts in the program, kubectl and an image.
    pub fn prepare(machine: Machine, ferrokube: &Path, kubectl: &Path) -> Result<Guest> {
        let guest = Guest { machine };
        guest.machine.put(ferrokube, "/usr/local/bin/ferrokube")?;
        guest.machine.put(kubectl, "/usr/local/bin/kubectl")?;
        let archive = std::env::temp_dir().join(format!("vm-busybox-{}.tar", std::process::id()));
        busybox_archive(&archive, BUSYBOX)?;
        guest.machine.put(&archive, "/root/busybox.tar")?;
        std::fs::remove_file(archive)?;
        guest.ok("chmod 755 /usr/local/bin/*")?;
        Ok(guest)
    }

    /// Whatever a case left is gone before the next.
    pub fn clean(&self) -> Result<()> {
        let end = "rm -f /etc/systemd/system/by-hand.service; systemctl daemon-reload";
        self.ok(&format!(
            "systemctl stop by-hand 2>/dev/null; ferrokube reset --yes; {end}; rm -rf /srv/seen; mkdir -p /srv/seen"
        ))?;
        Ok(())
    }

    /// Standard output of a command of root's that must succeed.
    pub fn ok(&self, command: &str) -> Result<String> {
        self.machine.run(ROOT, command)?.ok()
    }

    /// Standard error of one that must fail.
    pub fn fails(&self, command: &str) -> Result<String> {
        self.machine.run(ROOT, command)?.fails()
    }

    pub fn kubectl(&self, command: &str) -> Result<String> {
        self.ok(&format!("{KUBECTL} {command}"))
    }

    pub fn get(&self, what: &str) -> Result<Value> {
        serde_json::from_str(&self.kubectl(&format!("get {what} -o json"))?).context("kubectl's JSON")
    }

    /// A cluster with the image.
    pub fn up(&self) -> Result<()> {
        self.ok("ferrokube up")?;
        self.import()
    }

    pub fn import(&self) -> Result<()> {
        self.ok("ferrokube image import /root/busybox.tar").map(drop)
    }

    /// Makes a pod of a script with /srv/seen of the host at /seen; `more` are fields of its container, as YAML.
    pub fn pod(&self, name: &str, script: &str, more: &str) -> Result<()> {
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  containers:\n  - name: c\n    \
             image: {BUSYBOX}\n    command: [sh, -c, {script:?}]\n    volumeMounts: [{{name: seen, mountPath: /seen}}]\n{more}  \
             volumes: [{{name: seen, hostPath: {{path: /srv/seen}}}}]\n"
        );
        self.ok(&format!("{KUBECTL} apply -f - <<'EOF'\n{pod}EOF\n")).map(drop)
    }

    /// Waits until a pod is ready.
    pub fn ready(&self, name: &str) -> Result<Value> {
        let pod = format!("pod {name}");
        self.until(&format!("{name} is ready"), || {
            let conditions = self.get(&pod)?["status"]["conditions"].clone();
            let ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
            Ok(conditions.as_array().is_some_and(|all| all.iter().any(ready)))
        })?;
        self.get(&pod)
    }

    /// Waits until something is so.
    pub fn until(&self, what: &str, mut is: impl FnMut() -> Result<bool>) -> Result<()> {
        let began = Instant::now();
        let mut last = None;
        while began.elapsed() < PATIENCE {
            match is() {
                Ok(true) => return Ok(()),
                Ok(false) => last = None,
                Err(error) => last = Some(error),
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        match last {
            Some(error) => Err(error.context(format!("not so in time: {what}"))),
            None => bail!("not so in time: {what}"),
        }
    }

    /// Lines of a file that a pod has written to.
    pub fn seen(&self, file: &str) -> Result<Vec<String>> {
        let text = self.ok(&format!("cat /srv/seen/{file} 2>/dev/null || true"))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The container of a pod goes on: it has the ID that it had, and still writes.
    pub fn goes_on(&self, pod: &str, id: &Value, file: &str) -> Result<()> {
        let now = self.ready(pod)?["status"]["containerStatuses"][0].clone();
        ensure!(now["containerID"] == *id && now["restartCount"] == 0, "was {id}, is {now:#}");
        let before = self.seen(file)?.len();
        self.until("it writes", || Ok(self.seen(file)?.len() > before))
    }

    /// What a person would look at.
    pub fn explain(&self) {
        let look = "export KUBECONFIG=/var/lib/ferrokube/ferrokube/kubeconfig; ferrokube status; kubectl get pods -A -o wide; kubectl get events -A | tail -15; \
                    tail -15 /var/lib/ferrokube/ferrokube/daemon.log; journalctl -u ferrokube -u by-hand -n 30 --no-pager";
        if let Ok(out) = self.machine.run(ROOT, look) {
            println!("{}{}", out.stdout, out.stderr);
        }
    }
}
