//! Who may do what, as kubectl shows it: acting as somebody else, granting, and what a namespace lets in.

use anyhow::{Result, ensure};
use testkit::Cluster;
use testkit::runner::Test;

pub const TESTS: &[Test] = &[
    ("kubectl_acts_as_somebody_else", acting),
    ("nobody_grants_what_they_do_not_hold", granting),
    ("a_namespace_refuses_pods_that_break_its_standard", standards),
];

fn acting(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["create", "role", "reader", "--verb=list", "--resource=pods"])?;
    cluster.kubectl(&["create", "rolebinding", "reader", "--role=reader", "--group=readers"])?;
    let jane = ["--as=jane", "--as-group=readers"];
    let with = |args: &[&str]| cluster.kubectl_with(&[args, &jane].concat(), "");
    ensure!(with(&["auth", "can-i", "list", "pods"])?.ok()? == "yes\n");
    let refused = with(&["auth", "can-i", "delete", "pods"])?;
    ensure!(refused.stdout == "no\n" && refused.code == 1, "{refused:?}");
    let groups = with(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.groups}"])?.ok()?;
    ensure!(groups == r#"["readers","system:authenticated"]"#, "{groups}");
    with(&["get", "pods"])?.ok()?;
    let refused = with(&["get", "secrets"])?.fails()?;
    ensure!(refused.contains(r#"User "jane" cannot list resource "secrets""#), "{refused}");
    cluster.kubectl(&["delete", "role/reader", "rolebinding/reader"]).map(drop)
}

fn granting(cluster: &Cluster) -> Result<()> {
    let rules = ["--verb=create", "--resource=roles,rolebindings"];
    cluster.kubectl(&[&["create", "role", "granter"], &rules[..]].concat())?;
    cluster.kubectl(&["create", "rolebinding", "granter", "--role=granter", "--user=bob"])?;
    let bob = |args: &[&str]| cluster.kubectl_with(&[args, &["--as=bob"]].concat(), "");
    let refused = bob(&["create", "role", "more", "--verb=get", "--resource=secrets"])?.fails()?;
    ensure!(refused.contains("attempting to grant RBAC permissions not currently held"), "{refused}");
    let refused = bob(&["create", "rolebinding", "more", "--clusterrole=cluster-admin", "--user=bob"])?.fails()?;
    ensure!(refused.contains("attempting to grant RBAC permissions not currently held"), "{refused}");
    bob(&[&["create", "role", "same"], &rules[..]].concat())?.ok()?;
    cluster.kubectl(&["delete", "role/granter", "role/same", "rolebinding/granter"]).map(drop)
}

fn standards(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["create", "namespace", "strict"])?;
    cluster.kubectl(&["label", "namespace", "strict", "pod-security.kubernetes.io/enforce=baseline"])?;
    let overrides = r#"--overrides={"spec":{"hostNetwork":true}}"#;
    let refused = cluster.kubectl_with(&["run", "p", "-n", "strict", "--image=i", overrides], "")?.fails()?;
    let why = r#"violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)"#;
    ensure!(refused.contains(why), "{refused}");
    cluster.kubectl(&["delete", "namespace", "strict"]).map(drop)
}
