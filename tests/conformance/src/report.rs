//! What upstream's test program reports, and what is told of it. I/O: reads its file.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// How a group of tests ended.
#[derive(Debug, Default)]
pub struct Report {
    pub passed: usize,
    /// Name and first words of why.
    pub failed: Vec<(String, String)>,
    /// Names of tests that did not run.
    pub skipped: Vec<String>,
}

impl Report {
    /// Reads ginkgo's JSON report.
    pub fn read(file: &Path) -> Result<Report> {
        let suites: Value = serde_json::from_slice(&std::fs::read(file)?)?;
        let specs = suites[0]["SpecReports"].as_array().context("the report has no tests")?;
        let mut report = Report::default();
        for spec in specs.iter().filter(|spec| spec["LeafNodeType"] == "It") {
            let parents = spec["ContainerHierarchyTexts"].as_array().into_iter().flatten();
            let words = parents.chain([&spec["LeafNodeText"]]).filter_map(Value::as_str);
            let name = words.collect::<Vec<_>>().join(" ");
            match spec["State"].as_str().unwrap_or_default() {
                "passed" => report.passed += 1,
                "skipped" | "pending" => report.skipped.push(name),
                _ => {
                    let why = spec["Failure"]["Message"].as_str().unwrap_or_default();
                    report.failed.push((name, why.lines().next().unwrap_or_default().to_owned()));
                }
            }
        }
        Ok(report)
    }
}

/// Lines of the list of what isn't there yet: a part of the names, and what is missing.
pub fn not_yet(list: &str) -> impl Iterator<Item = (&str, &str)> {
    list.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('\t'))
}

/// Prints the whole; true when nothing failed.
pub fn tell(reports: &[Report], list: &str) -> bool {
    let passed: usize = reports.iter().map(|report| report.passed).sum();
    let failed: Vec<_> = reports.iter().flat_map(|report| &report.failed).collect();
    println!("{passed} passed, {} failed", failed.len());
    for (name, why) in &failed {
        println!(" failed: {name}\n         {why}");
    }
    for (part, why) in not_yet(list) {
        let names = reports.first().map(|report| report.skipped.as_slice()).unwrap_or_default();
        let count = names.iter().filter(|name| name.contains("[Conformance]") && name.contains(part)).count();
        println!(" not yet: {count:>3} of {part:?}: {why}");
    }
    failed.is_empty()
}
