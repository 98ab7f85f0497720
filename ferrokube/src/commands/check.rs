//! `check --cis`: the checks of the CIS benchmark by what they mean, asked of the running cluster.

use anyhow::Result;
use serde_json::json;

use crate::cis::{self, Finding, State, facts::Facts};
use crate::cli::Output;
use crate::commands::misc::{no_cluster, print};
use crate::config::Which;
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
