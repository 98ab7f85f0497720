//! Who may do what: auth can-i, whoami and reconcile, tokens with audience, duration and bound object.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::runner::Test;
use testkit::{Cluster, Output, output};

pub const TESTS: &[Test] = &[
    ("can_i_answers_for_oneself_and_for_others", can_i),
    ("reconcile_adds_what_a_role_lacks", reconcile),
    ("tokens_are_made_for_an_audience_a_time_and_an_object", tokens),
];

const PATIENCE: Duration = Duration::from_secs(20);

const READER: &str = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: reader}\nrules:\n\
    - {apiGroups: [\"\"], resources: [pods], verbs: [get, list]}\n";

fn can_i(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("can-i")?;
    let whoami = space.kubectl(&["auth", "whoami"])?;
    ensure!(whoami.contains("Username") && whoami.contains("system:masters"), "{whoami}");
    ensure!(space.kubectl(&["auth", "can-i", "delete", "nodes"])?.trim() == "yes");
    let rules = space.kubectl(&["auth", "can-i", "--list"])?;
    ensure!(
        rules.lines().filter(|l| l.split_whitespace().eq(["[*]", "[]", "[*]"])).count() == 1,
        "each rule once: {rules}"
    );
    space.apply(READER)?;
    space.kubectl(&[
        "create",
        "rolebinding",
        "reader",
        "--role=reader",
        "--user=ann",
        "--serviceaccount=can-i:default",
    ])?;
    let asked = |args: &[&str]| space.kubectl_with(&[&["auth", "can-i"], args].concat(), "");
    for caller in ["ann", "system:serviceaccount:can-i:default"] {
        let caller = format!("--as={caller}");
        ensure!(asked(&["list", "pods", &caller])?.stdout == "yes\n");
        for refused in [
            &["delete", "pods"][..],
            &["get", "pods", "--subresource=log"],
            &["list", "pods", "-A"],
            &["get", "/metrics"],
        ] {
            let answer = asked(&[refused, &[caller.as_str()]].concat())?;
            ensure!(answer.code == 1 && answer.stdout.starts_with("no"), "{refused:?} {answer:?}");
        }
    }
    let list = asked(&["--list", "--as=ann"])?.ok()?;
    ensure!(
        list.contains("Resources") && list.lines().any(|l| l.starts_with("pods ") && l.contains("[get list]")),
        "{list}"
    );
    let whoami = space.kubectl(&["auth", "whoami", "--as=ann", "--as-group=staff", "-o", "json"])?;
    let whoami: Value = serde_json::from_str(&whoami)?;
    ensure!(whoami["status"]["userInfo"]["username"] == "ann", "{whoami:#}");
    ensure!(
        whoami["status"]["userInfo"]["groups"] == serde_json::json!(["staff", "system:authenticated"]),
        "{whoami:#}"
    );
    let refused = space.refused(&["delete", "pod", "any", "--as=ann"])?;
    let expected = "Error from server (Forbidden): pods \"any\" is forbidden: User \"ann\" cannot delete resource \"pods\" \
        in API group \"\" in the namespace \"can-i\"\n";
    ensure!(refused == expected, "{refused}");
    Ok(())
}

fn reconcile(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("reconcile")?;
    let reconcile = |manifest: &str| {
        let manifest = manifest.replace("name: reader", "name: reader, namespace: reconcile");
        space.kubectl_with(&["auth", "reconcile", "-f", "-"], &manifest)?.ok()
    };
    let said = reconcile(READER)?;
    ensure!(said.contains("role.rbac.authorization.k8s.io/reader reconciled"), "{said}");
    let more = READER.replace("[get, list]", "[watch]");
    reconcile(&more)?;
    let rules = space.get("role/reader")?["rules"].clone();
    ensure!(rules.as_array().is_some_and(|r| r.len() == 2), "missing rules are added, none is taken away: {rules}");
    let same = space.path("role/reader", "{.metadata.resourceVersion}")?;
    reconcile(&more)?;
    ensure!(same == space.path("role/reader", "{.metadata.resourceVersion}")?);
    Ok(())
}

/// The claims of a token.
fn claims(token: &str) -> Result<Value> {
    let payload = token.trim().split('.').nth(1).context("three parts")?.replace('-', "+").replace('_', "/");
    let padded = format!("{payload}{}", "=".repeat((4 - payload.len() % 4) % 4));
    Ok(serde_json::from_str(&output(Command::new("base64").arg("-d"), &padded)?.ok()?)?)
}

/// kubectl with nothing but this token.
fn with_token(cluster: &Cluster, token: &str, args: &[&str]) -> Result<Output> {
    let view = cluster.kubectl(&["config", "view", "--raw", "-o", "jsonpath={.clusters[0].cluster}"])?;
    let view: Value = serde_json::from_str(&view)?;
    let text = |field: &str| view[field].as_str().unwrap_or_default().to_owned();
    let config = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: '{}', certificate-authority-data: {}}}}}]\n\
         users: [{{name: u, user: {{token: '{}'}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n",
        text("server"),
        text("certificate-authority-data"),
        token.trim()
    );
    let file = cluster.dir.join("token.kubeconfig");
    fs::write(&file, config)?;
    let file = file.display().to_string();
    cluster.kubectl_with(&[&["--kubeconfig", file.as_str()], args].concat(), "")
}

fn tokens(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("tokens")?;
    let token = space.kubectl(&["create", "token", "default"])?;
    let claims_of = claims(&token)?;
    ensure!(claims_of["sub"] == "system:serviceaccount:tokens:default", "{claims_of:#}");
    ensure!(
        claims_of["exp"].as_i64().zip(claims_of["iat"].as_i64()).is_some_and(|(exp, iat)| exp - iat == 3600),
        "{claims_of:#}"
    );
    let who = with_token(cluster, &token, &["auth", "whoami", "-o", "json"])?.ok()?;
    ensure!(
        who.contains("system:serviceaccount:tokens:default") && who.contains("system:serviceaccounts:tokens"),
        "{who}"
    );
    let refused = with_token(cluster, &token, &["get", "secrets", "-n", "tokens"])?.fails()?;
    let expected = "Error from server (Forbidden): secrets is forbidden: User \"system:serviceaccount:tokens:default\" \
        cannot list resource \"secrets\" in API group \"\" in the namespace \"tokens\"\n";
    ensure!(refused == expected, "{refused}");
    space.kubectl(&["create", "rolebinding", "view", "--clusterrole=view", "--serviceaccount=tokens:default"])?;
    testkit::eventually(PATIENCE, || with_token(cluster, &token, &["get", "configmaps", "-n", "tokens"])?.ok())?;
    // Another audience: whole and valid, but not for this server.
    let other = space.kubectl(&["create", "token", "default", "--audience=vault", "--duration=2h"])?;
    let claims_of = claims(&other)?;
    ensure!(claims_of["aud"] == serde_json::json!(["vault"]), "{claims_of:#}");
    ensure!(
        claims_of["exp"].as_i64().zip(claims_of["iat"].as_i64()).is_some_and(|(exp, iat)| exp - iat == 7200),
        "{claims_of:#}"
    );
    let refused = with_token(cluster, &other, &["get", "configmaps", "-n", "tokens"])?.fails()?;
    ensure!(refused.contains("(Unauthorized)") || refused.contains("must be logged in"), "{refused}");
    ensure!(
        space
            .refused(&["create", "token", "default", "--duration=1s"])?
            .contains("may not specify a duration less than 10 minutes")
    );
    ensure!(space.refused(&["create", "token", "none"])?.contains("serviceaccounts \"none\" not found"));
    // Bound to a secret: dies with it.
    space.kubectl(&["create", "secret", "generic", "anchor"])?;
    let bound =
        space.kubectl(&["create", "token", "default", "--bound-object-kind=Secret", "--bound-object-name=anchor"])?;
    ensure!(claims(&bound)?["kubernetes.io"]["secret"]["name"] == "anchor", "{:#}", claims(&bound)?);
    with_token(cluster, &bound, &["get", "configmaps", "-n", "tokens"])?.ok()?;
    space.kubectl(&["delete", "secret", "anchor"])?;
    testkit::eventually(PATIENCE, || with_token(cluster, &bound, &["get", "configmaps", "-n", "tokens"])?.fails())?;
    let forged = format!("{}x", token.trim());
    with_token(cluster, &forged, &["get", "configmaps", "-n", "tokens"])?.fails()?;
    Ok(())
}
