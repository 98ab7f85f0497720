//! An administrator looks at the rules with `nft`: it understands all of them.

use std::process::Command;

use serde_json::json;

use crate::objects::{service, slice};
use crate::world::World;

/// What `nft list ruleset` prints about the Services of a host.
fn listed(world: &World) -> String {
    let listed = world.host.run(|| Command::new("nft").args(["list", "ruleset"]).output().unwrap()).unwrap();
    let said = String::from_utf8_lossy(&listed.stderr);
    assert!(listed.status.success(), "nft ends with {}: {said}", listed.status);
    String::from_utf8(listed.stdout).unwrap()
}

#[test]
fn nft_lists_services_with_every_way_in() {
    if Command::new("nft").arg("--version").output().is_err() {
        return eprintln!("not tested: there is no nft here; `cargo xtask tools` installs it");
    }
    let mut world = World::new(2);
    let extra = json!({
        "type": "LoadBalancer", "externalIPs": ["203.0.113.7"], "loadBalancerSourceRanges": ["198.51.100.0/24"],
        "externalTrafficPolicy": "Local",
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}},
    });
    let web = service("web", "10.43.0.9", &[("TCP", 80, 30080), ("UDP", 53, 30053)], extra);
    let ports = [("TCP", 80, 8080), ("UDP", 53, 5353)];
    let both = slice("web", &ports, &[("10.42.0.2", "here", "ready"), ("10.42.0.3", "there", "ready")]);
    world.set(&web, &[both]);
    world.applier.set_ranges(None, &["10.43.0.0/16".parse().unwrap(), "fd43::/112".parse().unwrap()]);
    world.applier.replace(&world.model.whole()).unwrap();
    let text = listed(&world);
    for part in ["10.43.0.9 . tcp . 80", "10.43.0.0/16", "fd43::/112"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// Clients that keep their endpoint are remembered in a map that rules change: a statement that few programs print.
#[test]
fn nft_lists_services_that_remember_their_clients() {
    if Command::new("nft").arg("--version").output().is_err() {
        return eprintln!("not tested: there is no nft here; `cargo xtask tools` installs it");
    }
    let mut world = World::new(2);
    let extra = json!({
        "type": "NodePort", "externalTrafficPolicy": "Local", "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 600}},
    });
    let ports = [("TCP", 80, 8080)];
    let web = service("web", "10.43.0.9", &[("TCP", 80, 30080)], extra.clone());
    world.set(&web, &[slice("web", &ports, &[("10.42.0.2", "here", "ready"), ("10.42.0.3", "there", "ready")])]);
    let six = service("six", "fd00:43::9", &[("TCP", 80, 30081)], extra);
    world.set(&six, &[slice("six", &ports, &[("fd00:42::2", "here", "ready"), ("fd00:42::3", "there", "ready")])]);
    let text = listed(&world);
    for part in ["10.43.0.9 . tcp . 80", "fd00:43::9 . tcp . 80", "ip saddr timeout 10m", "ip6 saddr timeout 10m"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
