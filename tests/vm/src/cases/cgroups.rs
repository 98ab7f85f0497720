//! Control groups of version 2, as systemd's root hands them out.

use anyhow::{Result, ensure};

use crate::guest::Guest;

pub fn privileged(guest: &Guest) -> Result<()> {
    guest.up()?;
    guest.pod("root", "mknod /tmp/null c 1 3 && echo x > /tmp/null && touch /seen/done; sleep 1000", PRIVILEGED)?;
    guest.ready("root")?;
    guest.until("it used a device", || Ok(guest.ok("ls /srv/seen")?.contains("done")))
}

const PRIVILEGED: &str = "    securityContext: {privileged: true}\n";

/// Upstream sets memory.oom.group: a container whose child is killed is one that ended by OOMKilled.
pub fn child_out_of_memory(guest: &Guest) -> Result<()> {
    guest.up()?;
    let script = "sh -c 'dd if=/dev/zero of=/dev/null bs=200M count=1'; sleep 1000";
    guest.pod("hungry", script, "    resources: {limits: {memory: 32Mi}}\n")?;
    guest.until("it was killed for memory", || {
        let status = guest.get("pod hungry")?["status"]["containerStatuses"][0].clone();
        let ends = [&status["state"]["terminated"], &status["lastState"]["terminated"]];
        Ok(ends.iter().any(|end| end["reason"] == "OOMKilled"))
    })
}

pub fn classes(guest: &Guest) -> Result<()> {
    guest.up()?;
    guest.pod("little", "sleep 1000", "    resources: {requests: {cpu: 500m}}\n")?;
    guest.ready("little")?;
    let read = |file: &str| -> Result<String> {
        Ok(guest.ok(&format!("cat /sys/fs/cgroup/ferrokube/{file}"))?.trim().to_owned())
    };
    ensure!(read("kubepods/besteffort/cpu.weight")? == "1", "the least");
    let burstable: u32 = read("kubepods/burstable/cpu.weight")?.parse()?;
    ensure!((50..=70).contains(&burstable), "512 shares are 59: {burstable}");
    ensure!(read("kubepods/memory.max")? != "max", "pods leave what is reserved");
    let swap = read("kubepods/burstable/pod*/*/memory.swap.max")?;
    ensure!(swap.lines().all(|line| line == "0"), "containers without a limit have no swap: {swap}");
    let group = guest.ok("cat /proc/$(cat /run/ferrokube/ferrokube/daemon.pid | cut -d' ' -f1)/cgroup")?;
    ensure!(group.trim() == "0::/ferrokube/daemon", "{group}");
    let summary = guest.kubectl("get --raw /api/v1/nodes/vm/proxy/stats/summary")?;
    let summary: serde_json::Value = serde_json::from_str(&summary)?;
    ensure!(summary["node"]["memory"]["workingSetBytes"].as_u64().is_some_and(|bytes| bytes > 50 << 20), "{summary:#}");
    Ok(())
}

pub fn reset(guest: &Guest) -> Result<()> {
    let tree = "cat /sys/fs/cgroup/cgroup.subtree_control; ls -d /sys/fs/cgroup/*/";
    let before = guest.ok(tree)?;
    guest.up()?;
    ensure!(guest.ok(tree)? != before);
    guest.ok("ferrokube reset --yes")?;
    let after = guest.ok(tree)?;
    ensure!(after == before, "before: {before}\nafter: {after}");
    Ok(())
}
