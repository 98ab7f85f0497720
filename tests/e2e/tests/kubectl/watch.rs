//! Watching: what changes is seen as it changes, in both formats, and `wait` ends when it is so.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use testkit::runner::Test;
use testkit::{Cluster, Running, eventually};

pub const TESTS: &[Test] = &[
    ("a_watch_prints_rows_as_they_change", table),
    ("a_watch_prints_whole_objects_with_their_event", objects),
    ("wait_ends_when_it_is_so", wait),
];

const PATIENCE: Duration = Duration::from_secs(20);

fn table(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("watch-table")?;
    space.kubectl(&["create", "configmap", "old"])?;
    let all = Running::start(&mut space.command(&["get", "configmaps", "-w"]))?;
    let news = Running::start(&mut space.command(&["get", "configmaps", "--watch-only", "-l", "set=x"]))?;
    all.expect(PATIENCE, "\nold ")?;
    space.kubectl(&["create", "configmap", "new"])?;
    all.expect(PATIENCE, "\nnew ")?;
    // What was there before isn't shown; entering the selection is. Nothing tells when the watch begins: do it again.
    let said = eventually(PATIENCE, || {
        space.kubectl(&["label", "configmap", "old", "set-"])?;
        space.kubectl(&["label", "configmap", "old", "set=x"])?;
        news.expect(Duration::from_secs(1), "old ")
    })?;
    ensure!(said.starts_with("NAME   DATA   AGE\nold "), "{said}");
    space.kubectl(&["delete", "configmap", "new"])?;
    all.expect_that(PATIENCE, "new twice", |said| said.matches("\nnew ").count() == 2)?;
    ensure!(all.said().matches("NAME ").count() == 1, "one header: {}", all.said());
    drop((all, news));
    Ok(())
}

fn objects(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("watch-objects")?;
    space.kubectl(&["create", "configmap", "one"])?;
    let one = "--field-selector=metadata.name=one";
    let start =
        |args: &[&str]| Running::start(&mut space.command(&[&["get", "configmaps", "-w", one, "-o"], args].concat()));
    let watch = start(&["json", "--output-watch-events"])?;
    let yaml = start(&["yaml"])?;
    watch.expect(PATIENCE, "ADDED")?;
    yaml.expect(PATIENCE, "name: one")?;
    space.kubectl(&["patch", "configmap", "one", "-p", r#"{"data":{"a":"b"}}"#])?;
    space.kubectl(&["delete", "configmap", "one"])?;
    let said = watch.expect(PATIENCE, "DELETED")?;
    let said = watch.expect_that(PATIENCE, "a whole last event", |s| s.ends_with("}\n")).unwrap_or(said);
    let events: Vec<Value> = serde_json::Deserializer::from_str(&said).into_iter().collect::<Result<_, _>>()?;
    let kinds: Vec<&str> = events.iter().filter_map(|e| e["type"].as_str()).collect();
    ensure!(kinds == ["ADDED", "MODIFIED", "DELETED"], "{said}");
    ensure!(events[1]["object"]["data"]["a"] == "b" && events[2]["object"]["data"]["a"] == "b", "{said}");
    yaml.expect(PATIENCE, "data:\n  a: b\n")?;
    drop((watch, yaml));
    Ok(())
}

fn wait(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("waiting")?;
    let start = |args: &[&str]| Running::start(&mut space.command(&[&["wait", "--timeout=30s"], args].concat()));
    let mut created = start(&["--for=create", "pod/late"])?;
    space.shell_pod("late", testkit::space::STAY)?;
    ensure!(created.end(PATIENCE)?.1.contains("pod/late condition met"));
    ensure!(space.kubectl(&["wait", "--for=condition=Ready", "pod/late"])? == "pod/late condition met\n");
    let mut path = start(&["--for=jsonpath={.metadata.labels.step}=two", "pod/late"])?;
    let mut deleted = start(&["--for=delete", "pod/late"])?;
    space.kubectl(&["label", "pod", "late", "step=two"])?;
    ensure!(path.end(PATIENCE)?.0 == 0);
    space.kubectl(&["delete", "pod", "late", "--wait=false"])?;
    ensure!(deleted.end(PATIENCE)?.0 == 0);
    space.kubectl(&["create", "configmap", "c"])?;
    let never = space.refused(&["wait", "--for=jsonpath={.data.x}=y", "configmap/c", "--timeout=1s"])?;
    ensure!(never.contains("error: timed out waiting for the condition on configmaps/c"), "{never}");
    Ok(())
}
