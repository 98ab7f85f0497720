//! The node's images: in from archives and registries, listed, removed, and what is said when that can't be.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::image::{archive, busybox_archive, oci_layout, tar};
use testkit::runner::Test;
use testkit::{Cluster, Registry, output};

pub const TESTS: &[Test] = &[
    ("images_come_from_every_form_of_archive", archives),
    ("images_come_from_a_registry", registry),
    ("an_image_that_cannot_be_had_is_told_of", missing),
];

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path of text")
}

fn listed(cluster: &Cluster) -> Result<Vec<String>> {
    let images: serde_json::Value = serde_json::from_str(&cluster.run(&["image", "ls", "-o", "json"])?.ok()?)?;
    let names =
        images.as_array().into_iter().flatten().flat_map(|i| i["names"].as_array().cloned().unwrap_or_default());
    Ok(names.filter_map(|n| n.as_str().map(str::to_owned)).collect())
}

fn archives(cluster: &Cluster) -> Result<()> {
    let docker = cluster.dir.join("docker.tar");
    busybox_archive(&docker, "example.com/docker:1")?;
    let layout = cluster.dir.join("layout");
    oci_layout(&docker, &layout, "example.com/layout:1")?;
    let other = cluster.dir.join("other");
    oci_layout(&docker, &other, "example.com/oci:1")?;
    let oci = cluster.dir.join("oci.tar");
    tar(&["-C", text(&other)?, "-cf", text(&oci)?, "."])?;
    let piped = cluster.dir.join("piped.tar");
    busybox_archive(&piped, "example.com/piped:1")?;

    for file in [&docker, &layout, &oci] {
        let said = cluster.run(&["image", "import", text(file)?])?.ok()?;
        ensure!(said.starts_with("imported example.com/"), "{said}");
    }
    let script = format!("gzip -c '{}' | \"$@\"", piped.display());
    let mut pipe = Command::new("sh");
    let import = cluster.command(&["image", "import", "-"]);
    pipe.args(["-c", &script, "sh"]).arg(import.get_program()).args(import.get_args());
    output(pipe.env("HOME", cluster.home()), "")?.ok()?;

    let names = ["docker", "layout", "oci", "piped"].map(|n| format!("example.com/{n}:1"));
    let there = listed(cluster)?;
    ensure!(names.iter().all(|n| there.contains(n)), "{there:?}");
    let table = cluster.run(&["image", "ls"])?.ok()?;
    ensure!(names.iter().all(|n| table.contains(n)) && table.starts_with("IMAGE"), "{table}");
    for name in &names {
        let pod = format!("from-{}", &name["example.com/".len()..name.len() - 2]);
        cluster.kubectl(&["run", &pod, "--restart=Never", "--image", name, "--", "true"])?;
    }
    for name in &names {
        let pod = format!("pod/from-{}", &name["example.com/".len()..name.len() - 2]);
        cluster.wait_for(&pod, Duration::from_secs(30), |p| p["status"]["phase"] == "Succeeded")?;
        cluster.kubectl(&["delete", &pod, "--now"])?;
        cluster.run(&["image", "rm", name])?.ok()?;
    }
    let there = listed(cluster)?;
    ensure!(names.iter().all(|n| !there.contains(n)), "{there:?}");
    Ok(())
}

fn registry(cluster: &Cluster) -> Result<()> {
    let registry = Registry::start(cluster)?;
    let file = cluster.dir.join("pushed.tar");
    busybox_archive(&file, "pushed:1")?;
    let layout = cluster.dir.join("pushed");
    oci_layout(&file, &layout, "pushed:1")?;
    registry.push(&layout, "team/app")?;
    let name = format!("{}/team/app:1", registry.address);
    let said = cluster.run(&["image", "pull", &name])?.ok()?;
    ensure!(said.contains(&format!("pulled {name}")), "{said}");
    ensure!(listed(cluster)?.contains(&name));
    cluster.run(&["image", "rm", &name])?.ok()?;
    // And by a pod.
    cluster.kubectl(&["run", "pulled", "--image", &name, "--", "sleep", "1000"])?;
    cluster.ready("pulled")?;
    cluster.kubectl(&["delete", "pod", "pulled", "--now"])?;
    let absent = format!("{}/team/absent:1", registry.address);
    let said = cluster.run(&["image", "pull", &absent])?.fails()?;
    ensure!(said.lines().count() == 1 && said.contains(&absent), "{said}");
    cluster.run(&["image", "rm", &name])?.ok()?;
    Ok(())
}

fn missing(cluster: &Cluster) -> Result<()> {
    let before = listed(cluster)?;
    let empty = cluster.dir.join("empty");
    fs::create_dir_all(&empty)?;
    let foreign = cluster.dir.join("foreign.tar");
    archive(&foreign, &empty, "example.com/foreign:1", &serde_json::json!({}))?;
    change_machine(&foreign)?;
    let words = cluster.dir.join("words.txt");
    fs::write(&words, "just some words\n".repeat(100))?;
    let cut = cluster.dir.join("cut.tar");
    busybox_archive(&cut, "example.com/cut:1")?;
    fs::write(&cut, &fs::read(&cut)?[..300_000])?;
    for (file, expected) in [
        (&foreign, "example.com/foreign:1 has no variant for linux/"),
        (&words, "not an image archive"),
        (&cut, "ends too early"),
        (&cluster.dir.join("absent.tar"), "No such file"),
        (&empty, "not an image archive"),
    ] {
        let said = cluster.run(&["image", "import", text(file)?])?.fails()?;
        ensure!(said.lines().count() == 1 && said.contains(expected), "{}: {said}", file.display());
    }
    let said = cluster.run(&["image", "rm", "example.com/absent"])?.fails()?;
    ensure!(said.contains("there is no image") && said.contains("image ls"), "{said}");
    let said = cluster.run(&["image", "pull", "Wrong Name"])?.fails()?;
    ensure!(said.contains("invalid image name"), "{said}");
    ensure!(listed(cluster)? == before, "nothing half-made is left");
    cluster.kubectl(&["run", "absent", "--image", "127.0.0.1:9/absent:1"])?;
    let waiting = |p: &serde_json::Value| {
        let reason = &p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"];
        reason == "ErrImagePull" || reason == "ImagePullBackOff"
    };
    let pod = cluster.wait_for("pod/absent", Duration::from_secs(20), waiting)?;
    ensure!(pod["status"]["phase"] == "Pending", "{}", pod["status"]);
    let events = cluster.kubectl(&["get", "events", "--field-selector=involvedObject.name=absent"])?;
    ensure!(events.contains("Failed to pull image \"127.0.0.1:9/absent:1\""), "{events}");
    cluster.kubectl(&["delete", "pod", "absent", "--now"])?;
    Ok(())
}

/// Says in an archive's configuration that the image is for another machine.
fn change_machine(file: &Path) -> Result<()> {
    let work = file.with_extension("changed");
    fs::create_dir_all(&work)?;
    tar(&["-C", text(&work)?, "-xf", text(file)?])?;
    let config = fs::read_to_string(work.join("config.json"))?;
    fs::write(work.join("config.json"), config.replace("amd64", "s390x").replace("arm64", "s390x"))?;
    tar(&["-C", text(&work)?, "-cf", text(file)?, "manifest.json", "config.json", "layer.tar"])
}
