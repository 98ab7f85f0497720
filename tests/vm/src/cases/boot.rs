//! What a boot brings.

use anyhow::{Result, ensure};

use crate::cases::sessions::{TRAPS, beating};
use crate::guest::Guest;

pub fn without_memory(guest: &Guest) -> Result<()> {
    guest.machine.reboot("cgroup_disable=memory")?;
    let refused = guest.fails("ferrokube up");
    guest.machine.reboot("")?;
    let refused = refused?;
    ensure!(refused.contains("cgroup_enable=memory"), "{refused}");
    Ok(())
}

pub fn reboot(guest: &Guest) -> Result<()> {
    guest.ok("ferrokube install --now")?;
    guest.import()?;
    beating(guest, TRAPS)?;
    guest.kubectl("create deployment many --replicas 5 --image docker.io/library/busybox:test -- sleep 1000")?;
    guest.kubectl("rollout status deployment many --timeout 300s")?;
    guest.machine.reboot("")?;
    ensure!(guest.seen("end")? == ["told", "done"], "{:?}", guest.seen("end")?);
    guest.until("the cluster runs by itself", || Ok(guest.ok("ferrokube status")?.contains("running")))?;
    let beats = guest.seen("beats")?.len();
    guest.until("the pod runs again", || Ok(guest.seen("beats")?.len() > beats))?;
    guest.kubectl("rollout status deployment many --timeout 300s")?;
    let addresses = guest.kubectl("get pods -o jsonpath='{.items[*].status.podIP}'")?;
    let mut all: Vec<&str> = addresses.split_whitespace().collect();
    all.sort_unstable();
    all.dedup();
    ensure!(all.len() == 6, "each has its own: {addresses}");
    // Without the service the next boot starts nothing, and the cluster is still there.
    guest.ok("ferrokube uninstall")?;
    ensure!(guest.ok("ferrokube status")?.contains("stopped"));
    guest.ok("ferrokube up")?;
    guest.ready("beat")?;
    Ok(())
}
