//! Sessions and units end what is in them; a cluster is in none.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::guest::Guest;
use crate::machine::USER;

const BEATS: &str = "while true; do date >> /seen/beats; sleep 1; done";
/// What a well-behaved program does with its grace.
pub const TRAPS: &str = "trap 'echo told >> /seen/end; sleep 2; echo done >> /seen/end; exit 0' TERM; \
                         while true; do date >> /seen/beats; sleep 1 & wait $!; done";

/// A pod that beats, and its container's ID.
pub fn beating(guest: &Guest, script: &str) -> Result<Value> {
    guest.pod("beat", script, "")?;
    Ok(guest.ready("beat")?["status"]["containerStatuses"][0]["containerID"].clone())
}

pub fn logout(guest: &Guest) -> Result<()> {
    // As on a desktop where an administrator wants nothing left of a session.
    guest.ok("mkdir -p /etc/systemd/logind.conf.d; printf '[Login]\\nKillUserProcesses=yes\\n' > /etc/systemd/logind.conf.d/kill.conf; systemctl restart systemd-logind")?;
    let up = "systemd-run --user --scope --quiet sudo ferrokube up || sudo ferrokube up";
    guest.machine.run(USER, up)?.ok()?;
    guest.import()?;
    let id = beating(guest, BEATS)?;
    guest.ok("loginctl terminate-user user; sleep 5")?;
    guest.ok("rm /etc/systemd/logind.conf.d/kill.conf; systemctl restart systemd-logind")?;
    ensure!(guest.ok("ferrokube status")?.contains("running"));
    guest.goes_on("beat", &id, "beats")
}

pub fn hang_up(guest: &Guest) -> Result<()> {
    let mut terminal = guest.machine.terminal("root", "ferrokube up; sleep 1000")?;
    guest.until("it is up", || Ok(guest.ok("ferrokube status")?.contains("running")))?;
    guest.import()?;
    let id = beating(guest, BEATS)?;
    terminal.kill().context("ssh")?;
    terminal.wait()?;
    guest.ok("pkill -HUP -x ferrokube; pkill -HUP fk-; sleep 5")?;
    ensure!(guest.ok("ferrokube status")?.contains("running"));
    guest.goes_on("beat", &id, "beats")
}

/// As somebody writes it who knows nothing of us: the default KillMode ends all that is in the unit's group.
fn by_hand(guest: &Guest) -> Result<Value> {
    let unit = "[Service]\nExecStart=/usr/local/bin/ferrokube server\n";
    guest.ok(&format!(
        "printf '{unit}' > /etc/systemd/system/by-hand.service; systemctl daemon-reload; systemctl start by-hand"
    ))?;
    guest.until("it is up", || Ok(guest.ok("ferrokube status")?.contains("running")))?;
    guest.import()?;
    beating(guest, TRAPS)
}

pub fn stop_of_a_unit(guest: &Guest) -> Result<()> {
    by_hand(guest)?;
    guest.ok("systemctl stop by-hand")?;
    ensure!(guest.seen("end")? == ["told", "done"], "{:?}", guest.seen("end")?);
    ensure!(guest.ok("pgrep -c fk-monitor || true")?.trim() == "0", "nothing runs on");
    Ok(())
}

pub fn restart_of_a_unit(guest: &Guest) -> Result<()> {
    let id = by_hand(guest)?;
    guest.ok("systemctl restart by-hand")?;
    guest.until("it is up", || Ok(guest.ok("ferrokube status")?.contains("running")))?;
    guest.goes_on("beat", &id, "beats")?;
    ensure!(guest.seen("end")?.is_empty(), "nobody told it to end");
    guest.ok("systemctl stop by-hand").map(drop)
}
