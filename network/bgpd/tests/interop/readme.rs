//! The README's first session as it stands there: its addresses are those of the hosts here.

use std::net::IpAddr;

use anyhow::{Context, ensure};
use linux::netlink::{Route, RouteKind};
use serde_json::Value;

use crate::bird::Bird;
use crate::lab::{Lab, eventually, v4};
use crate::ours::Ours;
use crate::speaker::Speaker;

/// Between two words of the chapter.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    text.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).expect("a block").0
}

#[test]
fn the_first_session_of_the_readme() {
    let readme = include_str!("../../../../README.md");
    let chapter = readme.split("\n## ").find(|chapter| chapter.starts_with("BGP\n")).expect("a chapter");
    let words: Value = serde_saphyr::from_str(between(chapter, "<<END\n", "\nEND\n")).unwrap();
    let lab = Lab::new();
    let (one, two) = (lab.host(1), lab.host(2));
    let bird = Bird::with(&two, between(chapter, "```\n", "```"));
    let ours = Ours::with(&one, &words, false);
    ours.meets(&[v4(2)]);
    // What `show route 192.168.7.0/24` and `ip route show proto 71` are to say.
    let path = ours.has("192.168.7.0/24", "of BIRD", &|_| true);
    assert_eq!((path.next_hop, path.as_path, path.best), (Some(v4(2)), vec![], true));
    eventually("two routes of protocol 71", || {
        let mut routes = one.rtnl().routes_of(Some(254), |route| (route.protocol == 71).then_some(route))?;
        routes.sort_by_key(|route| route.dst);
        let said: Vec<_> = routes.iter().map(said).collect();
        let wanted = [
            ("192.168.1.0/24".to_owned(), RouteKind::Blackhole, None),
            ("192.168.7.0/24".to_owned(), RouteKind::Unicast, Some(v4(2))),
        ];
        ensure!(said == wanted, "{said:?}");
        Ok(())
    });
    eventually("BIRD has ours", || {
        let answer = bird.ask("show route 192.168.1.0/24")?;
        let line = answer.lines().find(|line| line.contains("192.168.1.0/24")).context("none")?;
        ensure!(line.contains("unicast"), "{answer}");
        Ok(())
    });
}

fn said(route: &Route) -> (String, RouteKind, Option<IpAddr>) {
    (route.dst.to_string(), route.kind, route.gateway())
}
