//! What of the host and of whoever calls reaches pods.

use anyhow::{Result, ensure};

use crate::guest::Guest;

pub fn real_servers(guest: &Guest) -> Result<()> {
    ensure!(guest.ok("cat /etc/resolv.conf")?.contains("127.0.0.53"), "the machine has resolved's stub");
    guest.up()?;
    let overrides = r#"'{"spec":{"dnsPolicy":"Default"}}'"#;
    guest
        .kubectl(&format!("run plain --image docker.io/library/busybox:test --overrides {overrides} -- sleep 1000"))?;
    guest.ready("plain")?;
    let file = guest.kubectl("exec plain -- cat /etc/resolv.conf")?;
    ensure!(file.contains("nameserver 10.0.2.3") && !file.contains("127.0.0.53"), "{file}");
    Ok(())
}

pub fn umask_and_limits(guest: &Guest) -> Result<()> {
    guest.ok("umask 077; ulimit -n 1024; nice -n 10 ferrokube up && ferrokube image import /root/busybox.tar")?;
    guest.pod(
        "other",
        "id -u; cat /etc/resolv.conf && cat /etc/passwd && sleep 1000",
        "    securityContext: {runAsUser: 1000}\n",
    )?;
    guest.ready("other")?;
    ensure!(guest.kubectl("logs other")?.contains("nameserver"));
    let daemon = "/proc/$(cut -d' ' -f1 /run/ferrokube/ferrokube/daemon.pid)";
    let limits = guest.ok(&format!("grep 'open files' {daemon}/limits"))?;
    ensure!(limits.contains("1048576"), "{limits}");
    let nice = guest.ok(&format!("cut -d' ' -f19 {daemon}/stat"))?;
    ensure!(nice.trim() == "0", "nice is {nice}");
    Ok(())
}
