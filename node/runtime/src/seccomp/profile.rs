//! Profiles in the JSON form of the OCI runtime specification. Pure.
//!
//! Names that this kernel doesn't have are skipped, as everywhere; an action or comparison that is not known is an error,
//! because a filter that is enforced in part protects nobody.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::compile::{Action, Compare, Condition, Policy, Rule, Section};
use super::syscalls::Arch;

/// The error number of SCMP_ACT_ERRNO without one: EPERM.
const DEFAULT_ERRNO: u32 = 1;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    default_action: String,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    syscalls: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    names: Vec<String>,
    action: String,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Argument>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// Reads a profile.
pub fn parse(json: &[u8]) -> Result<Policy, String> {
    let document: Document = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    let default = action(&document.default_action, document.default_errno_ret)?;
    let mut arches = vec![Arch::NATIVE];
    let listed = document.architectures.iter().filter_map(|name| Arch::by_oci_name(name));
    arches.extend(listed.filter(|a| Arch::all_here().contains(a)));
    arches.sort_unstable();
    arches.dedup();
    let mut sections: Vec<Section> =
        arches.into_iter().map(|arch| Section { arch, rules: BTreeMap::new(), unknown: None }).collect();
    for entry in &document.syscalls {
        let action = action(&entry.action, entry.errno_ret)?;
        let args = entry.args.as_deref().unwrap_or_default();
        let conditions = args.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
        for section in &mut sections {
            for number in entry.names.iter().filter_map(|name| section.arch.number(name)) {
                section.rules.entry(number).or_default().push(Rule { conditions: conditions.clone(), action });
            }
        }
    }
    Ok(Policy { default, sections })
}

fn action(name: &str, errno: Option<u32>) -> Result<Action, String> {
    let number = errno.unwrap_or(DEFAULT_ERRNO);
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::ALLOW,
        "SCMP_ACT_LOG" => Action::LOG,
        "SCMP_ACT_ERRNO" => Action::errno(number),
        "SCMP_ACT_TRAP" => Action::trap(),
        "SCMP_ACT_TRACE" => Action::trace(number),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => Action::KILL_PROCESS,
        other => return Err(format!("action {other:?} is not supported")),
    })
}

fn condition(argument: &Argument) -> Result<Condition, String> {
    if argument.index > 5 {
        return Err(format!("argument index {} is not 0 to 5", argument.index));
    }
    let (compare, value) = match argument.op.as_str() {
        "SCMP_CMP_EQ" => (Compare::Equal, argument.value),
        "SCMP_CMP_NE" => (Compare::NotEqual, argument.value),
        "SCMP_CMP_GT" => (Compare::Greater, argument.value),
        "SCMP_CMP_GE" => (Compare::GreaterEqual, argument.value),
        "SCMP_CMP_LT" => (Compare::Less, argument.value),
        "SCMP_CMP_LE" => (Compare::LessEqual, argument.value),
        // Here "value" is the mask and "valueTwo" what must be left.
        "SCMP_CMP_MASKED_EQ" => (Compare::Masked(argument.value), argument.value_two),
        other => return Err(format!("comparison {other:?} is not supported")),
    };
    Ok(Condition { argument: argument.index, compare, value })
}
