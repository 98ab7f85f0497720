//! What is asked of a cluster that runs with something else: one sentence, whatever the setting. Pure. Called before a
//! cluster is started.

use serde_json::Value;

use super::Cluster;
use super::options::NAMES;

/// The settings that stand in `cluster.json` by themselves, with their flags.
const OWN: [(&str, &str); 6] = [
    ("apiPort", "--api-port"),
    ("podCidr", "--pod-cidr"),
    ("serviceCidr", "--service-cidr"),
    ("hardened", "--hardened"),
    ("openFirewall", "--open-firewall"),
    ("nodeIp", "nodeIP of --config"),
];

/// The first setting of a running cluster that is another than what is asked for: its flag, what runs, what to do.
pub fn differs(runs: &Cluster, asked: &Cluster) -> Option<String> {
    let (Ok(Value::Object(runs)), Ok(Value::Object(asked))) = (serde_json::to_value(runs), serde_json::to_value(asked))
    else {
        return None;
    };
    let keys = asked.keys().chain(runs.keys().filter(|key| !asked.contains_key(*key)));
    let (key, now) = keys.map(|key| (key, runs.get(key))).find(|(key, now)| *now != asked.get(*key))?;
    let flag = OWN.iter().chain(&NAMES).find(|(name, _)| name == key);
    let flag = flag.map_or_else(|| format!("{key} of --config"), |(_, flag)| (*flag).to_owned());
    let (now, then) = (shown(now), shown(asked.get(key)));
    Some(format!("the cluster runs with {flag} {now}, not {then}: `ferrokube down` first, then `up` takes it"))
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "as by default".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(list)) if list.is_empty() => "empty".to_owned(),
        Some(Value::Array(list)) => list.iter().map(|one| shown(Some(one))).collect::<Vec<_>>().join(","),
        Some(Value::Object(map)) => {
            map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
        }
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Options;

    /// `up --api-port 7443` on a cluster that ran on 6443 said that the cluster runs already, and no more.
    #[test]
    fn whatever_differs_from_what_runs_is_told_with_its_flag() {
        let runs = crate::config::tests::cluster(Path::new("/d"));
        let says = |asked: Cluster| differs(&runs, &asked).unwrap_or_default();
        assert_eq!(differs(&runs, &runs.clone()), None);
        let port = says(Cluster { api_port: 7443, ..runs.clone() });
        let sentence = "the cluster runs with --api-port 6443, not 7443: `ferrokube down` first, then `up` takes it";
        assert_eq!(port, sentence);
        assert!(says(Cluster { hardened: true, ..runs.clone() }).contains("--hardened false, not true"));
        let named = says(Cluster { node_name: "n2".into(), ..runs.clone() });
        assert!(named.contains("nodeName of --config node, not n2"), "{named}");
        let san = Options { tls_san: Some(vec!["a".into(), "b".into()]), ..Options::default() };
        let with = Cluster { options: san, ..runs.clone() };
        assert!(says(with.clone()).contains("--tls-san as by default, not a,b"));
        assert!(differs(&with, &runs).is_some_and(|said| said.contains("--tls-san a,b, not as by default")));
        let gates = Options { feature_gates: "A=true".parse().ok(), ..Options::default() };
        assert!(says(Cluster { options: gates, ..runs.clone() }).contains("--feature-gates as by default, not A=true"));
    }
}
