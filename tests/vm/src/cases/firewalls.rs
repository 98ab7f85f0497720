//! Firewalls that stand before `up`, that it opens, and that close later.

use anyhow::{Result, ensure};
use testkit::image::BUSYBOX;

use crate::guest::Guest;

/// Two pods reach each other's Service and DNS.
fn pods_reach_each_other(guest: &Guest) -> Result<()> {
    guest.kubectl(&format!("run web --image {BUSYBOX} --expose --port 80 -- httpd -f -h /var/www"))?;
    guest.kubectl(&format!("run asks --image {BUSYBOX} -- sleep 1000"))?;
    guest.ready("web")?;
    guest.ready("asks")?;
    guest.until("the Service answers by its name", || {
        let get = "exec asks -- sh -c \"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 web 80\"";
        Ok(guest.kubectl(get)?.contains("hello"))
    })
}

/// Refused with the tool's own lines; opened, over the tool's reload; closed again by `reset`.
fn told_opened_closed(guest: &Guest, on: &str, off: &str, line: &str, reload: &str, rules: &str) -> Result<()> {
    guest.ok(on)?;
    let tried = || -> Result<()> {
        let before = guest.ok(rules)?;
        let refused = guest.fails("ferrokube up")?;
        ensure!(refused.contains(line) && refused.contains("--open-firewall"), "{refused}");
        ensure!(refused.matches(" (").count() <= 3 && refused.len() < 900, "only this host's tool: {refused}");
        guest.ok("ferrokube up --open-firewall")?;
        guest.import()?;
        pods_reach_each_other(guest)?;
        guest.ok(reload)?;
        guest.kubectl("delete pod,service --all --now")?;
        pods_reach_each_other(guest)?;
        guest.ok("ferrokube reset --yes")?;
        let after = guest.ok(rules)?;
        ensure!(after == before, "before: {before}\nafter: {after}");
        Ok(())
    }();
    guest.ok(&format!("ferrokube reset --yes; {off}"))?;
    tried
}

pub fn ufw(guest: &Guest) -> Result<()> {
    let on = "ufw allow 22/tcp; ufw --force enable";
    told_opened_closed(
        guest,
        on,
        "ufw --force disable; ufw --force reset",
        "ufw allow from 10.42.0.0/16",
        "ufw reload",
        "ufw status",
    )
}

pub fn firewalld(guest: &Guest) -> Result<()> {
    let rules = "firewall-cmd --list-all-zones; firewall-cmd --permanent --list-all-zones";
    let line = "firewall-cmd --zone=trusted --add-source=10.42.0.0/16";
    told_opened_closed(
        guest,
        "systemctl start firewalld",
        "systemctl stop firewalld",
        line,
        "firewall-cmd --reload",
        rules,
    )
}

pub fn docker(guest: &Guest) -> Result<()> {
    let off = "systemctl stop docker docker.socket containerd; nft flush ruleset";
    let line = "iptables -I DOCKER-USER -s 10.42.0.0/16 -j ACCEPT";
    told_opened_closed(
        guest,
        "systemctl start docker",
        off,
        line,
        "systemctl restart docker",
        "iptables -S DOCKER-USER",
    )
}

pub fn later(guest: &Guest) -> Result<()> {
    guest.up()?;
    guest.ok(
        "nft 'add table inet guard; add chain inet guard fw { type filter hook forward priority 0; policy drop; }'",
    )?;
    let condition = || -> Result<String> {
        let path = "jsonpath='{.status.conditions[?(@.type==\"PodTrafficDropped\")].status}'";
        guest.kubectl(&format!("get node -o {path}").replace("get node -o", "get node vm -o"))
    };
    guest.until("the node says so", || Ok(condition()? == "True"))?;
    guest.until("an event says so", || {
        Ok(guest.kubectl("get events -A --field-selector reason=HostFirewall")?.contains("inet guard fw"))
    })?;
    let status = guest.ok("ferrokube status")?;
    ensure!(status.contains("Warning: the host's firewall") && status.contains("inet guard fw"), "{status}");
    guest.ok("nft delete table inet guard")?;
    guest.until("the node says that it is over", || Ok(condition()? == "False"))
}
