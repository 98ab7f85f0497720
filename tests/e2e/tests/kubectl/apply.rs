//! Declared state: apply on both sides, diff, replace, kustomize, and manifests with mistakes.

use std::fs;

use anyhow::{Result, ensure};
use testkit::runner::Test;
use testkit::{Cluster, Space};

pub const TESTS: &[Test] = &[
    ("client_side_apply_merges_three_ways", client_side),
    ("apply_prunes_what_left_the_manifests", prune),
    ("server_side_apply_names_the_other_owner", server_side),
    ("client_side_objects_move_to_server_side_apply", migration),
    ("diff_tells_by_its_exit_code", diff),
    ("replace_needs_the_object_and_force_makes_it_anew", replace),
    ("kustomizations_are_applied", kustomize),
    ("mistakes_in_a_manifest_are_named", mistakes),
];

fn settings(data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\ndata:\n{data}")
}

/// `kubectl ARGS -f -` with this input.
fn feed(space: &Space<'_>, args: &[&str], manifest: &str) -> Result<String> {
    space.kubectl_with(&[args, &["-f", "-"]].concat(), manifest)?.ok()
}

fn client_side(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("apply-client")?;
    let first = settings("  a: one\n  b: two\n");
    for (side, text) in [("client", "(dry run)"), ("server", "(server dry run)")] {
        let said = feed(&space, &["apply", &format!("--dry-run={side}")], &first)?;
        ensure!(said == format!("configmap/settings created {text}\n"), "{said}");
        ensure!(space.refused(&["get", "configmap", "settings"])?.contains("NotFound"));
    }
    ensure!(space.apply(&first)? == "configmap/settings created\n");
    ensure!(space.apply(&first)? == "configmap/settings unchanged\n");
    space.kubectl(&["patch", "configmap", "settings", "-p", r#"{"data":{"foreign":"kept"}}"#])?;
    let said = space.apply(&settings("  a: changed\n"))?;
    ensure!(said == "configmap/settings configured\n", "{said}");
    let data = space.get("configmap/settings")?["data"].clone();
    ensure!(data == serde_json::json!({"a": "changed", "foreign": "kept"}), "{data}");
    let last = space.kubectl(&["apply", "view-last-applied", "configmap", "settings"])?;
    ensure!(last.contains("a: changed") && !last.contains("foreign"), "{last}");
    feed(&space, &["apply", "set-last-applied"], &settings("  a: changed\n  foreign: kept\n"))?;
    space.apply(&settings("  a: changed\n"))?;
    let data = space.get("configmap/settings")?["data"].clone();
    ensure!(data == serde_json::json!({"a": "changed"}), "{data}");
    Ok(())
}

fn prune(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("apply-prune")?;
    let map = |name: &str| {
        format!(
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{app: shop}}}}\ndata: {{a: b}}\n"
        )
    };
    space.apply(&[map("old"), map("kept")].concat())?;
    space.kubectl(&["create", "configmap", "never-applied"])?;
    let args = ["apply", "--prune", "-l", "app=shop", "--prune-allowlist=core/v1/ConfigMap"];
    let said = feed(&space, &args, &map("kept"))?;
    ensure!(said == "configmap/kept unchanged\nconfigmap/old pruned\n", "{said}");
    let left = space.kubectl(&["get", "configmaps", "-o", "name"])?;
    ensure!(!left.contains("/old") && left.contains("/kept") && left.contains("/never-applied"), "{left}");
    Ok(())
}

fn server_side(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("apply-server")?;
    let apply = |manager: &str, more: &[&str], data: &str| {
        let manager = format!("--field-manager={manager}");
        let args = [&["apply", "--server-side", manager.as_str()], more, &["-f", "-"]].concat();
        space.kubectl_with(&args, &settings(data))
    };
    let said = apply("one", &[], "  a: one\n  b: one\n")?.ok()?;
    ensure!(said == "configmap/settings serverside-applied\n", "{said}");
    apply("two", &[], "  c: two\n")?.ok()?;
    let refused = apply("two", &[], "  a: two\n  b: two\n  c: two\n")?.fails()?;
    let expected = "error: Apply failed with 2 conflicts: conflicts with \"one\":\n- .data.a\n- .data.b\n\
        Please review the fields above--they currently have other managers.";
    ensure!(refused.starts_with(expected), "{refused}");
    let refused = apply("two", &[], "  a: two\n  c: two\n")?.fails()?;
    ensure!(refused.starts_with("error: Apply failed with 1 conflict: conflict with \"one\": .data.a\n"), "{refused}");
    apply("two", &["--force-conflicts"], "  a: two\n  c: two\n")?.ok()?;
    // What one owned alone goes when it leaves one's manifest; what two took stays.
    apply("one", &[], "  d: one\n")?.ok()?;
    let data = space.get("configmap/settings")?["data"].clone();
    ensure!(data == serde_json::json!({"a": "two", "c": "two", "d": "one"}), "{data}");
    let shown = space.kubectl(&["get", "configmap", "settings", "-o", "yaml"])?;
    ensure!(!shown.contains("managedFields"), "{shown}");
    let shown = space.kubectl(&["get", "configmap", "settings", "-o", "yaml", "--show-managed-fields"])?;
    ensure!(shown.contains("manager: two") && shown.contains("operation: Apply"), "{shown}");
    let unchanged = |space: &Space<'_>| space.path("configmap/settings", "{.metadata.resourceVersion}");
    let before = unchanged(&space)?;
    apply("one", &[], "  d: one\n")?.ok()?;
    ensure!(before == unchanged(&space)?, "an apply that changes nothing writes nothing");
    Ok(())
}

fn migration(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("apply-migration")?;
    space.apply(&settings("  a: one\n  b: one\n"))?;
    feed(&space, &["apply", "--server-side"], &settings("  a: two\n"))?;
    let map = space.get("configmap/settings --show-managed-fields")?;
    ensure!(map["data"] == serde_json::json!({"a": "two"}), "{map:#}");
    let managers = map["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    ensure!(managers.iter().all(|m| m["operation"] == "Apply"), "no client-side owner is left: {managers:?}");
    Ok(())
}

fn diff(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("apply-diff")?;
    let diff = |more: &[&str], manifest: &str| {
        let args = [&["diff"], more, &["-f", "-"]].concat();
        space.kubectl_with(&args, manifest)
    };
    for side in [&[][..], &["--server-side"]] {
        feed(&space, &[&["apply"], side].concat(), &settings("  a: one\n"))?;
        let same = diff(side, &settings("  a: one\n"))?;
        ensure!(same.code == 0 && same.stdout.is_empty(), "{same:?}");
        let other = diff(side, &settings("  a: two\n"))?;
        ensure!(other.code == 1, "{other:?}");
        ensure!(other.stdout.contains("\n-  a: one\n+  a: two\n"), "{other:?}");
        space.kubectl(&["delete", "configmap", "settings"])?;
    }
    let new = diff(&[], &settings("  a: one\n").replace("name: settings", "name: fresh"))?;
    ensure!(new.code == 1 && new.stdout.contains("+  name: fresh\n"), "{new:?}");
    ensure!(space.refused(&["get", "configmap", "fresh"])?.contains("NotFound"));
    let wrong = diff(&[], "apiVersion: v1\nkind: Nonsense\nmetadata: {name: x}\n")?;
    ensure!(wrong.code > 1, "{wrong:?}");
    Ok(())
}

fn replace(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("replace")?;
    let missing = space.kubectl_with(&["replace", "-f", "-"], &settings("  a: one\n"))?.fails()?;
    ensure!(
        missing.contains(r#"(NotFound): error when replacing "STDIN": configmaps "settings" not found"#),
        "{missing}"
    );
    ensure!(feed(&space, &["create"], &settings("  a: one\n"))? == "configmap/settings created\n");
    let twice = space.kubectl_with(&["create", "-f", "-"], &settings("  a: one\n"))?.fails()?;
    let expected =
        "Error from server (AlreadyExists): error when creating \"STDIN\": configmaps \"settings\" already exists\n";
    ensure!(twice == expected, "{twice}");
    ensure!(feed(&space, &["replace"], &settings("  b: two\n"))? == "configmap/settings replaced\n");
    let old = space.get("configmap/settings")?;
    ensure!(old["data"] == serde_json::json!({"b": "two"}), "{old:#}");
    let said = feed(&space, &["replace", "--force"], &settings("  c: three\n"))?;
    ensure!(said.contains("configmap/settings replaced\n"), "{said}");
    ensure!(space.get("configmap/settings")?["metadata"]["uid"] != old["metadata"]["uid"]);
    let stale = settings("  d: four\n").replace("name: settings", "name: settings\n  resourceVersion: \"1\"");
    let conflict = space.kubectl_with(&["replace", "-f", "-"], &stale)?.fails()?;
    let expected = "Operation cannot be fulfilled on configmaps \"settings\": the object has been modified; \
        please apply your changes to the latest version and try again";
    ensure!(conflict.contains("(Conflict)") && conflict.contains(expected), "{conflict}");
    Ok(())
}

fn kustomize(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("kustomize")?;
    let dir = cluster.dir.join("kustomize");
    fs::create_dir_all(&dir)?;
    fs::write(
        dir.join("kustomization.yaml"),
        "namePrefix: big-\nlabels: [{pairs: {team: red}}]\nresources: [map.yaml]\n\
         configMapGenerator: [{name: made, literals: [a=b]}]\n",
    )?;
    fs::write(dir.join("map.yaml"), settings("  a: one\n"))?;
    let dir = dir.display().to_string();
    let shown = space.kubectl(&["kustomize", &dir])?;
    ensure!(shown.contains("name: big-settings") && shown.contains("name: big-made-"), "{shown}");
    let said = space.kubectl(&["apply", "-k", &dir])?;
    ensure!(said.contains("configmap/big-settings created") && said.contains("configmap/big-made-"), "{said}");
    let team = space.kubectl(&["get", "configmaps", "-l", "team=red", "-o", "name"])?;
    ensure!(team.lines().count() == 2, "{team}");
    ensure!(space.kubectl(&["delete", "-k", &dir])?.contains("configmap \"big-settings\" deleted"));
    Ok(())
}

fn mistakes(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("mistakes")?;
    let refuse = |manifest: &str| space.kubectl_with(&["apply", "-f", "-"], manifest)?.fails();
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers: [{name: a, image: b, comand: [c]}]\n  restart: No\n";
    let unknown = refuse(pod)?;
    let expected = "strict decoding error: unknown field \"spec.containers[0].comand\", unknown field \"spec.restart\"";
    ensure!(unknown.contains("(BadRequest)") && unknown.contains(expected), "{unknown}");
    let warned = space.kubectl_with(&["apply", "--validate=warn", "--dry-run=server", "-f", "-"], pod)?;
    ensure!(warned.code == 0, "{warned:?}");
    ensure!(warned.stderr.contains("Warning: unknown field \"spec.restart\""), "{warned:?}");
    let invalid = refuse(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  restartPolicy: Sometimes\n  containers:\n  \
         - {name: A_b, image: b, ports: [{containerPort: 70000}]}\n",
    )?;
    for part in [
        "The Pod \"p\" is invalid: \n",
        "* spec.containers[0].name: Invalid value: \"A_b\": a lowercase RFC 1123 label must consist of",
        "* spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        "* spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
    ] {
        ensure!(invalid.contains(part), "no {part:?} in {invalid}");
    }
    let typed = refuse("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {replicas: many}\n")?;
    ensure!(
        typed.contains("(BadRequest)")
            && typed.contains("Deployment in version \"v1\" cannot be handled as a Deployment"),
        "{typed}"
    );
    let unknown = refuse("apiVersion: example.com/v1\nkind: Thing\nmetadata: {name: t}\n")?;
    ensure!(unknown.contains("no matches for kind \"Thing\" in version \"example.com/v1\""), "{unknown}");
    ensure!(unknown.contains("ensure CRDs are installed first"), "{unknown}");
    let elsewhere = space.cluster.kubectl_with(
        &["apply", "-f", "-"],
        &settings("  a: b\n").replace("name: settings", "name: s\n  namespace: nowhere"),
    )?;
    let expected = "Error from server (NotFound): error when creating \"STDIN\": namespaces \"nowhere\" not found";
    ensure!(elsewhere.stderr.contains(expected), "{elsewhere:?}");
    Ok(())
}
