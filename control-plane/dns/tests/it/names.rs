//! The tables of the Kubernetes DNS specification, answered from the name table.

use dns::{Name, Outcome, Records, Responder, Table, of_service};
use hickory_proto::op::{Edns, Message};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;

use crate::world::{question, service, slice, told};

const SOA: &str = "cluster.local. SOA ns.dns.cluster.local. hostmaster.cluster.local.";

struct Cluster {
    table: Table,
    zone: Name,
}

impl Cluster {
    fn new() -> Self {
        let zone = Name::parse("cluster.local").unwrap();
        let mut table = Table::new(zone.clone(), 30, &["10.43.0.10".parse().unwrap()]);
        table.set_namespace("default", true);
        table.set_namespace("empty", true);
        table.set_synced();
        Cluster { table, zone }
    }

    fn with(mut self, service: &Service, slices: &[&EndpointSlice]) -> Self {
        let key = client::Key::of(service);
        self.table.set(&key, of_service(service, slices, &self.zone, &Records::plain(30)), 1);
        self
    }

    fn raw(&self, message: &Message) -> (Outcome, Vec<u8>) {
        let mut out = Vec::new();
        let (outcome, _) = Responder::new().respond(&self.table, &message.to_vec().unwrap(), true, &mut out);
        (outcome, out)
    }

    /// The code and the answers.
    fn ask(&self, name: &str, kind: &str) -> (String, Vec<String>) {
        let (outcome, out) = self.raw(&question(name, kind));
        assert_eq!(outcome, Outcome::Done, "{name} {kind}");
        let (code, answers, authority, _) = told(&out);
        let negative = answers.is_empty() && code != "Query Refused" && code != "Server Failure";
        if negative && !name.ends_with("arpa.") {
            assert_eq!(authority, [SOA], "a no tells how long it holds: {name} {kind}");
        }
        (code, answers)
    }

    fn answers(&self, name: &str, kind: &str) -> Vec<String> {
        let (code, answers) = self.ask(name, kind);
        assert_eq!(code, "No Error", "{name} {kind}");
        answers
    }

    fn nothing(&self, name: &str, kind: &str) {
        assert_eq!(self.ask(name, kind), ("Non-Existent Domain".to_owned(), vec![]), "{name} {kind}");
    }

    fn no_data(&self, name: &str, kind: &str) {
        assert_eq!(self.ask(name, kind), ("No Error".to_owned(), vec![]), "{name} {kind}");
    }
}

fn web() -> Service {
    service(
        "web",
        json!({
            "clusterIP": "10.43.0.9", "clusterIPs": ["10.43.0.9", "fd43::9"],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}],
        }),
    )
}

#[test]
fn the_zone_tells_its_schema_version_servers_and_authority() {
    let cluster = Cluster::new();
    assert_eq!(cluster.answers("dns-version.cluster.local.", "TXT"), ["dns-version.cluster.local. TXT 1.1.0"]);
    assert_eq!(cluster.answers("cluster.local.", "NS"), ["cluster.local. NS ns.dns.cluster.local."]);
    assert_eq!(cluster.answers("ns.dns.cluster.local.", "A"), ["ns.dns.cluster.local. A 10.43.0.10"]);
    assert_eq!(cluster.answers("cluster.local.", "SOA"), [SOA]);
    cluster.no_data("svc.cluster.local.", "A");
    cluster.no_data("empty.svc.cluster.local.", "A");
    cluster.nothing("nowhere.svc.cluster.local.", "A");
    cluster.nothing("x.cluster.local.", "A");
}

#[test]
fn a_service_with_a_cluster_address() {
    let cluster = Cluster::new().with(&web(), &[]);
    let name = "web.default.svc.cluster.local.";
    assert_eq!(cluster.answers(name, "A"), [format!("{name} A 10.43.0.9")]);
    assert_eq!(cluster.answers(name, "AAAA"), [format!("{name} AAAA fd43::9")]);
    let http = format!("_http._tcp.{name}");
    assert_eq!(cluster.answers(&http, "SRV"), [format!("{http} SRV 0 100 80 {name}")]);
    assert_eq!(cluster.answers(&format!("_dns._udp.{name}"), "SRV").len(), 1);
    cluster.nothing(&format!("_http._udp.{name}"), "SRV");
    assert_eq!(cluster.answers("9.0.43.10.in-addr.arpa.", "PTR"), [format!("9.0.43.10.in-addr.arpa. PTR {name}")]);
    let v6 = "9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.3.4.d.f.ip6.arpa.";
    assert_eq!(cluster.answers(v6, "PTR"), [format!("{v6} PTR {name}")]);
    cluster.no_data(name, "TXT");
    cluster.nothing("web.other.svc.cluster.local.", "A");
    cluster.nothing("pod.web.default.svc.cluster.local.", "A");
    let (_, _, _, additional) = told(&cluster.raw(&question(&http, "SRV")).1);
    assert_eq!(additional, [format!("{name} A 10.43.0.9"), format!("{name} AAAA fd43::9")]);
}

#[test]
fn a_headless_service_has_the_names_of_its_ready_endpoints() {
    let headless = |extra: serde_json::Value| {
        let mut spec = json!({"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        service("db", spec)
    };
    let ends = [
        ("10.42.0.2", "db-0", true),
        ("10.42.0.3", "db-0", true),
        ("10.42.0.4", "", true),
        ("10.42.0.5", "db-9", false),
    ];
    let ends = slice("db", &[("sql", "TCP", 5433)], &ends);
    let cluster = Cluster::new().with(&headless(json!({})), &[&ends]);
    let name = "db.default.svc.cluster.local.";
    let all = |last: u8| (2..=last).map(|i| format!("{name} A 10.42.0.{i}")).collect::<Vec<_>>();
    assert_eq!(cluster.answers(name, "A"), all(4));
    let host = format!("db-0.{name}");
    assert_eq!(cluster.answers(&host, "A"), [format!("{host} A 10.42.0.2"), format!("{host} A 10.42.0.3")]);
    let unnamed = format!("10-42-0-4.{name}");
    assert_eq!(cluster.answers(&unnamed, "A"), [format!("{unnamed} A 10.42.0.4")]);
    let sql = format!("_sql._tcp.{name}");
    assert_eq!(
        cluster.answers(&sql, "SRV"),
        [format!("{sql} SRV 0 50 5433 {unnamed}"), format!("{sql} SRV 0 50 5433 {host}")]
    );
    assert_eq!(cluster.answers("2.0.42.10.in-addr.arpa.", "PTR"), [format!("2.0.42.10.in-addr.arpa. PTR {host}")]);
    cluster.nothing(&format!("db-9.{name}"), "A");

    let everyone = cluster.with(&headless(json!({"publishNotReadyAddresses": true})), &[&ends]);
    assert_eq!(everyone.answers(name, "A"), all(5));
    let nobody = everyone.with(&headless(json!({})), &[&slice("db", &[], &[("10.42.0.5", "", false)])]);
    nobody.nothing(name, "A");
    assert_eq!(nobody.raw(&question("2.0.42.10.in-addr.arpa.", "PTR")).0, Outcome::Elsewhere);
}

#[test]
fn pods_are_named_by_their_address() {
    let cluster = Cluster::new();
    let name = "10-42-0-5.default.pod.cluster.local.";
    assert_eq!(cluster.answers(name, "A"), [format!("{name} A 10.42.0.5")]);
    cluster.no_data(name, "AAAA");
    let v6 = "fd42--5.default.pod.cluster.local.";
    assert_eq!(cluster.answers(v6, "AAAA"), [format!("{v6} AAAA fd42::5")]);
    cluster.nothing("10-42-0-500.default.pod.cluster.local.", "A");
    cluster.nothing("10-42-0-5.nowhere.pod.cluster.local.", "A");
}

#[test]
fn an_external_name_is_an_alias_within_the_cluster_or_to_the_outside() {
    let alias = |target: &str| service("out", json!({"type": "ExternalName", "externalName": target}));
    let cluster = Cluster::new().with(&web(), &[]).with(&alias("web.default.svc.cluster.local"), &[]);
    let name = "out.default.svc.cluster.local.";
    let cname = format!("{name} CNAME web.default.svc.cluster.local.");
    assert_eq!(cluster.answers(name, "CNAME"), std::slice::from_ref(&cname));
    assert_eq!(cluster.answers(name, "A"), [cname, "web.default.svc.cluster.local. A 10.43.0.9".to_owned()]);
    let cluster = cluster.with(&alias("Example.org"), &[]);
    match cluster.raw(&question(name, "A")).0 {
        Outcome::Alias { count: 1, target, .. } => assert_eq!(target.to_string(), "Example.org."),
        other => panic!("{other:?}"),
    }
    let circle = cluster.with(&alias("out.default.svc.cluster.local"), &[]);
    assert_eq!(circle.ask(name, "A").0, "Server Failure", "a circle of aliases ends");
}

#[test]
fn the_clients_spelling_comes_back() {
    let cluster = Cluster::new().with(&web(), &[]);
    let (_, out) = cluster.raw(&question("WeB.default.SVC.cluster.LOCAL.", "A"));
    let message = Message::from_vec(&out).unwrap();
    assert_eq!(message.queries[0].name().to_string(), "WeB.default.SVC.cluster.LOCAL.");
    assert_eq!(message.answers[0].name.to_string(), "WeB.default.SVC.cluster.LOCAL.");
    assert!(message.metadata.authoritative && message.metadata.recursion_available);
    assert_eq!((message.metadata.id, message.answers[0].ttl), (4711, 30));
}

#[test]
fn long_answers_are_cut_to_what_the_client_takes_and_whole_by_tcp() {
    let addresses: Vec<_> = (0..100).map(|i| format!("10.42.1.{i}")).collect();
    let ends: Vec<_> = addresses.iter().map(|a| (a.as_str(), "", true)).collect();
    let db = service("db", json!({"clusterIP": "None", "ports": []}));
    let cluster = Cluster::new().with(&db, &[&slice("db", &[], &ends)]);
    let mut asked = question("db.default.svc.cluster.local.", "A");
    let parsed = |out: &[u8]| Message::from_vec(out).unwrap();
    let (_, out) = cluster.raw(&asked);
    assert!(out.len() <= 512 && parsed(&out).metadata.truncation && parsed(&out).answers.len() > 20);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    asked.set_edns(edns);
    let (_, out) = cluster.raw(&asked);
    assert!(out.len() > 1100 && out.len() <= 1232 && parsed(&out).metadata.truncation);
    assert_eq!(parsed(&out).edns.unwrap().max_payload(), 1232);
    let mut out = Vec::new();
    Responder::new().respond(&cluster.table, &asked.to_vec().unwrap(), false, &mut out);
    assert_eq!((parsed(&out).answers.len(), parsed(&out).metadata.truncation), (100, false));
}

#[test]
fn addresses_take_turns_at_being_first() {
    let ends = slice("db", &[], &[("10.42.0.2", "", true), ("10.42.0.3", "", true)]);
    let db = service("db", json!({"clusterIP": "None"}));
    let cluster = Cluster::new().with(&db, &[&ends]);
    let mut responder = Responder::new();
    let asked = question("db.default.svc.cluster.local.", "A").to_vec().unwrap();
    let mut firsts: Vec<_> = (0..4)
        .map(|_| {
            let mut out = Vec::new();
            responder.respond(&cluster.table, &asked, true, &mut out);
            Message::from_vec(&out).unwrap().answers[0].data.to_string()
        })
        .collect();
    firsts.dedup();
    assert_eq!(firsts.len(), 4);
}

#[test]
fn what_is_not_for_us_or_not_a_question_is_told_apart() {
    let cluster = Cluster::new();
    assert_eq!(cluster.raw(&question("example.org.", "A")).0, Outcome::Elsewhere);
    assert_eq!(cluster.raw(&question("notcluster.local.", "A")).0, Outcome::Elsewhere);
    assert_eq!(cluster.raw(&question("1.1.1.10.in-addr.arpa.", "PTR")).0, Outcome::Elsewhere);
    assert_eq!(cluster.ask("cluster.local.", "AXFR").0, "Query Refused");
    let starting = Table::new(Name::parse("cluster.local").unwrap(), 30, &[]);
    let mut out = Vec::new();
    let asked = question("web.default.svc.cluster.local.", "A").to_vec().unwrap();
    Responder::new().respond(&starting, &asked, true, &mut out);
    assert_eq!(told(&out).0, "Server Failure", "before the lists are in nothing is said not to be there");
    for cut in 0..asked.len() {
        Responder::new().respond(&cluster.table, &asked[..cut], true, &mut out);
    }
}
