//! Many containers at once: all that were started live, and what they said is there.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use testkit::Cluster;
use testkit::image::BUSYBOX;
use testkit::output;
use testkit::runner::Test;

pub const TESTS: &[Test] = &[
    ("forty_containers_of_one_pod_live_and_keep_their_logs", forty),
    ("a_hundred_pods_at_once_live_and_keep_their_logs", hundred),
];

const CONTAINERS: usize = 40;
const PODS: usize = 100;
/// What was told of a container before it was started has arrived by then.
const LATE: Duration = Duration::from_secs(2);

/// Rounds, and threads that keep the processors busy meanwhile.
fn rounds() -> (usize, usize) {
    if testkit::full() { (200, 4) } else { (2, 2) }
}

/// Takes time from the cluster until it is dropped.
struct Load(Arc<AtomicBool>);

impl Load {
    fn begin(threads: usize) -> Load {
        let on = Arc::new(AtomicBool::new(true));
        for _ in 0..threads {
            let on = on.clone();
            std::thread::spawn(move || while on.load(Ordering::Relaxed) {});
        }
        Load(on)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

fn pod(name: &str, containers: usize, script: &str) -> String {
    let one = |i: usize| format!("{{name: c{i}, image: \"{BUSYBOX}\", command: [sh, -c, \"{script}\"]}}");
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{many: one}}}}\nspec:\n  restartPolicy: Never\n  \
         terminationGracePeriodSeconds: 0\n  containers: [{}]\n",
        (0..containers).map(one).collect::<Vec<_>>().join(", ")
    )
}

/// The lines of many logs, in one word of curl's for all of their paths. kubectl asks one after the other, five a second.
fn logs(cluster: &Cluster, paths: &str) -> Result<usize> {
    let server = cluster.kubectl(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"])?;
    let pki = cluster.data_dir().join("pki");
    let mut curl = cluster.program(Path::new("curl"));
    curl.args(["-sSf", "--max-time", "60", "--cacert"]).arg(pki.join("ca.crt"));
    curl.arg("--cert").arg(pki.join("admin.crt")).arg("--key").arg(pki.join("admin.key"));
    curl.arg(format!("{server}/api/v1/namespaces/default/pods/{paths}"));
    Ok(output(&mut curl, "")?.ok()?.lines().count())
}

/// Every container is in a state, none was restarted.
fn all_are(pod: &Value, state: &str) -> Result<()> {
    let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
    for status in &statuses {
        let good = status["state"].get(state).is_some() && status["restartCount"] == 0;
        let well = state != "terminated" || status["state"][state]["exitCode"] == 0;
        ensure!(good && well, "{}: {status:#}", pod["metadata"]["name"]);
    }
    Ok(())
}

fn forty(cluster: &Cluster) -> Result<()> {
    let (rounds, load) = rounds();
    let _load = Load::begin(load);
    for round in 0..rounds {
        let (stay, end) = (format!("stay-{round}"), format!("end-{round}"));
        cluster.apply(&pod(&stay, CONTAINERS, "echo up; exec sleep 1000"))?;
        cluster.wait_for(&format!("pod/{stay}"), Duration::from_secs(120), |p| {
            let statuses = p["status"]["containerStatuses"].as_array();
            statuses.is_some_and(|all| all.iter().all(|s| s["state"].get("waiting").is_none()))
        })?;
        cluster.apply(&pod(&end, CONTAINERS, "echo up"))?;
        let over = |p: &Value| p["status"]["phase"] == "Succeeded" || p["status"]["phase"] == "Failed";
        cluster.wait_for(&format!("pod/{end}"), Duration::from_secs(120), over)?;
        std::thread::sleep(LATE);
        for (name, state) in [(&stay, "running"), (&end, "terminated")] {
            all_are(&cluster.get(&format!("pod/{name}"))?, state)?;
            let logs = logs(cluster, &format!("{name}/log?container=c[0-{}]", CONTAINERS - 1))?;
            ensure!(logs == CONTAINERS, "round {round}, {name}: {logs} logs");
        }
        cluster.kubectl(&["delete", "pod", &stay, &end, "--now"])?;
    }
    Ok(())
}

fn hundred(cluster: &Cluster) -> Result<()> {
    let (rounds, load) = rounds();
    let _load = Load::begin(load);
    for round in 0..rounds.div_ceil(2) {
        let names: Vec<String> = (0..PODS).map(|i| format!("many-{round}-{i}")).collect();
        let manifests: Vec<String> = names.iter().map(|name| pod(name, 1, "echo up; exec sleep 1000")).collect();
        cluster.apply(&manifests.join("---\n"))?;
        let wait = ["wait", "pod", "-l", "many=one", "--for=condition=Ready", "--timeout=180s"];
        cluster.kubectl(&wait)?;
        std::thread::sleep(LATE);
        let pods: Value = serde_json::from_str(&cluster.kubectl(&["get", "pods", "-l", "many=one", "-o", "json"])?)?;
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        ensure!(pods.len() == PODS, "round {round}: {} pods", pods.len());
        pods.iter().try_for_each(|p| all_are(p, "running"))?;
        let logs = logs(cluster, &format!("many-{round}-[0-{}]/log", PODS - 1))?;
        ensure!(logs == PODS, "round {round}: {logs} logs");
        cluster.kubectl(&["delete", "pod", "-l", "many=one", "--now"])?;
    }
    Ok(())
}
