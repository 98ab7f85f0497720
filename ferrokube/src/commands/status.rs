//! `status`: what of the cluster runs, as a table or as JSON (each of our processes with its role and pid; of a further
//! node its init), and what of
//! it broke: the last panic or end of each component, and how many there were; and what of the host stands in its way.

use anyhow::Result;
use serde_json::json;

use crate::cli::Output;
use crate::cluster::{flannel, runtime_config};
use crate::commands::misc::print;
use crate::config::{Host, Which, record};
use crate::crash::{self, Crashes};
use crate::fault::Fault;
use crate::firewall;
use crate::nodes::life;
use crate::process::{Daemon, state};
use crate::systemd;

/// One of our processes.
struct Process {
    role: &'static str,
    pid: i32,
    what: String,
}

pub fn run(which: &Which, output: Output) -> Result<()> {
    let Some(host) = which.load()? else {
        if output == Output::Json {
            print(&format!("{}\n", json!({"name": which.name(), "state": "absent", "processes": []})))?;
        }
        return Err(Fault::failed(format!("there is no cluster {:?}: `ferrokube up` makes one", which.name())).into());
    };
    let processes = processes(&host);
    let state = state(&host);
    let crashes = crash::read(&host);
    let warnings = if state == "stopped" { Vec::new() } else { warnings(&host) };
    match output {
        Output::Json => print(&format!("{:#}\n", as_json(&host, state, &processes, &crashes, &warnings))),
        Output::Table => print(&as_table(&host, state, &processes, &crashes, &warnings)),
    }
}

fn processes(host: &Host) -> Vec<Process> {
    let daemon = Daemon::find(host).map(|d| Process { role: "daemon", pid: d.pid, what: "all components".into() });
    let supervisor = Daemon::supervisor(host);
    let supervisor =
        supervisor.map(|s| Process { role: "supervisor", pid: s.pid, what: "starts the daemon again".into() });
    let containers = std::fs::read_dir(runtime_config(host).run_dir.join("containers")).into_iter().flatten().flatten();
    let monitors = containers.filter_map(|entry| {
        let (pid, _) =
            runtime::monitor::read_pid_file(&entry.path().join(runtime::monitor::protocol::MONITOR_PID_FILE))?;
        Some(Process { role: "monitor", pid, what: entry.file_name().to_string_lossy().chars().take(13).collect() })
    });
    let nodes = record::nodes(host).unwrap_or_default();
    let inits = nodes.into_iter().filter_map(|node| {
        let pid = life::find(host, &node.name)?.pid;
        Some(Process { role: "node", pid, what: node.name })
    });
    daemon.into_iter().chain(supervisor).chain(inits).chain(monitors).collect()
}

/// The unit that starts the cluster at boot.
fn service(host: &Host) -> Option<String> {
    systemd::is_installed(host).then(|| systemd::unit_of(host))
}

/// What of the host keeps the cluster from working.
fn warnings(host: &Host) -> Vec<String> {
    let walls = match firewall::walls(host) {
        Ok(walls) => firewall::told(&walls),
        Err(error) => vec![format!("{error:#}")],
    };
    walls.into_iter().chain(flannel::notice(host)).collect()
}

fn as_json(
    host: &Host,
    state: &str,
    processes: &[Process],
    crashes: &Crashes,
    warnings: &[String],
) -> serde_json::Value {
    let processes: Vec<_> = processes.iter().map(|p| json!({"role": p.role, "pid": p.pid, "what": p.what})).collect();
    json!({
        "name": host.cluster.name,
        "state": state,
        "server": host.server_url(),
        "dataDir": host.data_dir,
        "kubeconfig": host.kubeconfig(),
        "podCIDR": host.cluster.pod_cidr,
        "serviceCIDR": host.cluster.service_cidr,
        "service": service(host),
        "processes": processes,
        "crashes": crashes,
        "warnings": warnings,
    })
}

fn as_table(host: &Host, state: &str, processes: &[Process], crashes: &Crashes, warnings: &[String]) -> String {
    let mut text = format!(
        "Cluster     {}\nState       {state}\nServer      {}\nKubeconfig  {}\nData        {}\n",
        host.cluster.name,
        host.server_url(),
        host.kubeconfig().display(),
        host.data_dir.display(),
    );
    if let Some(service) = service(host) {
        text += &format!("Service     {service}\n");
    }
    if !processes.is_empty() {
        text += &format!("\n{:<10} {:>8}  {}\n", "ROLE", "PID", "WHAT");
        for p in processes {
            text += &format!("{:<10} {:>8}  {}\n", p.role, p.pid, p.what);
        }
    }
    for warning in warnings {
        text += &format!("\nWarning: {warning}\n");
    }
    if !crashes.is_empty() {
        text += &format!("\n{:<23}  {:>5}  {:<20}  {}\n", "BROKE", "COUNT", "LAST", "WHY");
        for (component, crash) in crashes {
            let time = crash.time.strftime("%Y-%m-%dT%H:%M:%SZ");
            text += &format!("{component:<23}  {:>5}  {time:<20}  {}\n", crash.count, crash.what);
        }
        text += "`ferrokube logs` has the backtrace of a panic\n";
    }
    text
}
