//! `check`: what is at fault on this host and between the nodes; `check --cis`: the checks of the CIS benchmark by what they
//! mean, asked of the running cluster.

use anyhow::Result;
use serde_json::json;

use crate::cis::{self, Finding, State, facts::Facts};
use crate::cli::Output;
use crate::commands::misc::{no_cluster, print};
use crate::config::{Shape, Which};
use crate::diagnosis;
use crate::fault::Fault;
use crate::preflight;
use crate::process::Daemon;

/// The benchmark that the numbers are of.
const BENCHMARK: &str = "CIS Kubernetes Benchmark 1.11";

/// A check that failed is no failure of the command, as with kube-bench, unless an exit code is asked for.
pub fn cis(which: &Which, output: Output, exit_code: u8) -> Result<()> {
    preflight::root("check")?;
    let host = which.load()?.ok_or_else(|| no_cluster(which))?;
    let Some(daemon) = Daemon::find(&host) else {
        let sentence = format!("the cluster {:?} doesn't run: what it does is what is looked at", host.cluster.name);
        return Err(Fault::failed(sentence).into());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let facts = runtime.block_on(Facts::gather(&host, daemon))?;
    let findings = cis::judge(&facts);
    match output {
        Output::Json => print(&format!("{:#}\n", as_json(&findings)))?,
        Output::Table => print(&as_table(&findings))?,
    }
    let failed = count(&findings, State::Fail);
    if failed > 0 && exit_code > 0 {
        return Err(Fault { sentence: format!("{failed} checks failed"), code: exit_code }.into());
    }
    Ok(())
}

/// Also before there is a cluster: then of the host alone.
pub fn host(which: &Which, output: Output, exit_code: u8) -> Result<()> {
    preflight::root("check")?;
    let host = which.resolve(&Shape::default())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let findings = diagnosis::judge(&runtime.block_on(diagnosis::facts::Facts::gather(&host)));
    match output {
        Output::Json => print(&format!("{:#}\n", json!({"findings": findings})))?,
        Output::Table => print(&as_list(&findings))?,
    }
    let faults = findings.iter().filter(|finding| finding.state == diagnosis::State::Fault).count();
    if faults > 0 && exit_code > 0 {
        let sentence = if faults == 1 { "one fault".to_owned() } else { format!("{faults} faults") };
        return Err(Fault { sentence, code: exit_code }.into());
    }
    Ok(())
}

fn as_list(findings: &[diagnosis::Finding]) -> String {
    let width = findings.iter().map(|finding| finding.what.len()).max().unwrap_or(0);
    let mut text = String::new();
    for f in findings {
        text += &format!(" {} {:<width$}  {}\n", f.state.mark(), f.what, f.why);
        if !f.cure.is_empty() {
            text += &format!("   {:<width$}  → {}\n", "", f.cure);
        }
    }
    text
}

fn count(findings: &[Finding], state: State) -> usize {
    findings.iter().filter(|finding| finding.state == state).count()
}

fn as_json(findings: &[Finding]) -> serde_json::Value {
    let totals = State::ALL.map(|state| (state.word(), count(findings, state)));
    let totals: std::collections::BTreeMap<_, _> = totals.into();
    json!({"benchmark": BENCHMARK, "totals": totals, "checks": findings})
}

fn as_table(findings: &[Finding]) -> String {
    let mut text = format!("{BENCHMARK}, by what each check means\n\n");
    for f in findings {
        text += &format!("{:<8} {:<7} {}\n", format!("[{}]", f.state.word()), f.id, f.title);
        text += &format!("{:17}{}\n", "", f.why);
        if !f.set.is_empty() {
            text += &format!("{:17}set: {}\n", "", f.set);
        }
    }
    let totals = State::ALL.map(|state| format!("{} {}", count(findings, state), state.word()));
    text + &format!("\n{}\n", totals.join(", "))
}
