//! Changing what is there: patch of every type, subresources, label, annotate, edit, set.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testkit::runner::Test;
use testkit::{Cluster, output};

pub const TESTS: &[Test] = &[
    ("patches_of_three_types", patch),
    ("subresources_are_patched_and_read", subresources),
    ("labels_and_annotations", labels),
    ("edit_saves_what_the_editor_wrote", edit),
    ("set_changes_one_thing", set),
];

const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 0\n  \
    selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec:\n      containers:\n      \
    - {name: a, image: one}\n      - {name: b, image: one}\n";

fn patch(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("patching")?;
    space.apply(DEPLOYMENT)?;
    let patch = |kind: &str, patch: &str| space.kubectl(&["patch", "deployment", "web", "--type", kind, "-p", patch]);
    let containers = || space.path("deployment/web", "{.spec.template.spec.containers[*].image}");
    // Strategic: lists merge by their key.
    let strategic = r#"{"spec":{"template":{"spec":{"containers":[{"name":"b","image":"two"}]}}}}"#;
    ensure!(patch("strategic", strategic)? == "deployment.apps/web patched\n");
    ensure!(containers()? == "one two", "{}", containers()?);
    ensure!(patch("strategic", strategic)? == "deployment.apps/web patched (no change)\n");
    // JSON: operations, with a test that guards them.
    let json = r#"[{"op":"test","path":"/spec/template/spec/containers/0/name","value":"a"},
        {"op":"replace","path":"/spec/template/spec/containers/0/image","value":"three"}]"#;
    patch("json", json)?;
    ensure!(containers()? == "three two");
    let failing = space.refused(&[
        "patch",
        "deployment",
        "web",
        "--type=json",
        "-p",
        r#"[{"op":"remove","path":"/spec/none"}]"#,
    ])?;
    let expected = "The request is invalid: the server rejected our request due to an error in our request";
    ensure!(failing.starts_with(expected), "{failing}");
    // Merge: lists are replaced.
    patch("merge", r#"{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"four"}]}}}}"#)?;
    ensure!(containers()? == "four");
    let delete =
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"c","$patch":"delete"},{"name":"d","image":"five"}]}}}}"#;
    patch("strategic", delete)?;
    ensure!(containers()? == "five");
    Ok(())
}

fn subresources(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("subresources")?;
    space.apply(DEPLOYMENT)?;
    space.kubectl(&[
        "patch",
        "deployment",
        "web",
        "--subresource=scale",
        "--type=merge",
        "-p",
        r#"{"spec":{"replicas":0}}"#,
    ])?;
    let scale = space.kubectl(&[
        "get",
        "deployment",
        "web",
        "--subresource=scale",
        "-o",
        "jsonpath={.kind} {.status.selector}",
    ])?;
    ensure!(scale == "Scale app=web", "{scale}");
    let condition = r#"{"status":{"conditions":[{"type":"Checked","status":"True","reason":"By","message":"hand"}]},"spec":{"replicas":7}}"#;
    space.kubectl(&["patch", "deployment", "web", "--subresource=status", "-p", condition])?;
    ensure!(space.path("deployment/web", "{.spec.replicas}")? == "0", "a status write leaves the spec alone");
    space.kubectl(&["patch", "deployment", "web", "-p", r#"{"status":{"replicas":9}}"#])?;
    ensure!(space.path("deployment/web", "{.status.replicas}")?.is_empty(), "a plain write leaves the status alone");
    Ok(())
}

fn labels(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("labelling")?;
    space.kubectl(&["create", "configmap", "a"])?;
    ensure!(space.kubectl(&["label", "configmap", "a", "k=v"])? == "configmap/a labeled\n");
    let again = space.refused(&["label", "configmap", "a", "k=w"])?;
    ensure!(again == "error: 'k' already has a value (v), and --overwrite is false\n", "{again}");
    space.kubectl(&["label", "configmap", "a", "k=w", "--overwrite"])?;
    ensure!(space.kubectl(&["label", "configmap", "a", "--list"])? == "k=w\n");
    ensure!(space.kubectl(&["label", "configmap", "a", "k-"])? == "configmap/a unlabeled\n");
    ensure!(space.path("configmap/a", "{.metadata.labels}")?.is_empty());
    let wrong = space.refused(&["label", "configmap", "a", "k=not valid"])?;
    ensure!(wrong.contains("not valid"), "{wrong}");
    ensure!(space.kubectl(&["annotate", "configmap", "a", "note=two words"])? == "configmap/a annotated\n");
    ensure!(space.path("configmap/a", "{.metadata.annotations.note}")? == "two words");
    space.kubectl(&["annotate", "configmap", "a", "note-"])?;
    ensure!(space.path("configmap/a", "{.metadata.annotations}")?.is_empty());
    Ok(())
}

fn edit(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("editing")?;
    space.kubectl(&["create", "configmap", "a", "--from-literal=colour=red"])?;
    let editor = cluster.dir.join("editor");
    let edit = |script: &str| {
        fs::write(&editor, format!("#!/bin/sh\n{script}\n"))?;
        fs::set_permissions(&editor, fs::Permissions::from_mode(0o755))?;
        let mut command = space.command(&["edit", "configmap", "a"]);
        output(command.env("KUBE_EDITOR", &editor).env("TMPDIR", &cluster.dir), "")
    };
    let said = edit("sed -i 's/colour: red/colour: blue/' \"$1\"")?.ok()?;
    ensure!(said == "configmap/a edited\n", "{said}");
    ensure!(space.path("configmap/a", "{.data.colour}")? == "blue");
    let said = edit("true")?;
    ensure!(said.code == 0 && (said.stdout + &said.stderr).contains("Edit cancelled, no changes made."));
    // A refused edit opens the editor again with the reason; giving up then keeps the text in a file.
    let twice = "grep -q 'is invalid' \"$1\" && exit 0; sed -i 's/^data:/data:\\n  \"bad key!\": x/' \"$1\"";
    let said = edit(twice)?.fails()?;
    ensure!(said.contains("error: configmaps \"a\" is invalid"), "{said}");
    let copy = said.split('"').find(|word| word.ends_with(".yaml")).context("where the text is kept")?;
    let kept = fs::read_to_string(copy)?;
    ensure!(
        kept.contains("# * data[bad key!]: Invalid value: \"bad key!\": a valid config key must consist of"),
        "{kept}"
    );
    Ok(())
}

fn set(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("setting")?;
    space.apply(DEPLOYMENT)?;
    space.kubectl(&["create", "service", "clusterip", "web", "--tcp=80"])?;
    space.kubectl(&["create", "configmap", "vars", "--from-literal=SIZE=2"])?;
    space.kubectl(&["create", "rolebinding", "viewers", "--clusterrole=view", "--user=ann"])?;
    for (args, said) in [
        (&["image", "deployment/web", "a=two", "b=three"][..], "deployment.apps/web image updated\n"),
        (&["env", "deployment/web", "-c", "a", "COLOUR=red"], "deployment.apps/web env updated\n"),
        (&["env", "deployment/web", "-c", "a", "--from=configmap/vars"], "deployment.apps/web env updated\n"),
        (
            &["resources", "deployment/web", "-c", "b", "--limits=cpu=1,memory=64Mi"],
            "deployment.apps/web resource requirements updated\n",
        ),
        (&["serviceaccount", "deployment/web", "robot"], "deployment.apps/web serviceaccount updated\n"),
        (&["selector", "service/web", "tier=front"], "service/web selector updated\n"),
        (
            &["subject", "rolebinding/viewers", "--user=ben"],
            "rolebinding.rbac.authorization.k8s.io/viewers subjects updated\n",
        ),
    ] {
        let answer = space.kubectl(&[&["set"], args].concat())?;
        ensure!(answer == said, "{args:?}: {answer}");
    }
    let spec = space.get("deployment/web")?["spec"]["template"]["spec"].clone();
    let (a, b) = (&spec["containers"][0], &spec["containers"][1]);
    ensure!(a["image"] == "two" && b["image"] == "three" && spec["serviceAccountName"] == "robot", "{spec:#}");
    ensure!(a["env"][0] == json!({"name": "COLOUR", "value": "red"}), "{a:#}");
    ensure!(a["env"][1]["valueFrom"]["configMapKeyRef"] == json!({"key": "SIZE", "name": "vars"}), "{a:#}");
    ensure!(b["resources"]["limits"] == json!({"cpu": "1", "memory": "64Mi"}), "{b:#}");
    ensure!(space.get("service/web")?["spec"]["selector"] == json!({"tier": "front"}));
    ensure!(space.path("rolebinding/viewers", "{.subjects[*].name}")? == "ann ben");
    let list = space.kubectl(&["set", "env", "deployment/web", "-c", "a", "--list"])?;
    ensure!(list.contains("COLOUR=red") && list.contains("# SIZE from configmap vars, key SIZE"), "{list}");
    Ok(())
}
