//! What is asked of a cluster that runs with something else: one sentence, whatever the setting. Pure. Called before a
//! cluster is started.

use serde_json::Value;

use super::Host;
use super::settings::{SETTINGS, Scope};

/// The first setting of a running cluster that is another than what is asked for: its flag, what runs, what to do.
pub fn differs(runs: &Host, asked: &Host) -> Option<String> {
    let (Ok(Value::Object(runs)), Ok(Value::Object(asked))) = (serde_json::to_value(runs), serde_json::to_value(asked))
    else {
        return None;
    };
    let keys = asked.keys().chain(runs.keys().filter(|key| !asked.contains_key(*key)));
    let (key, now) = keys.map(|key| (key, runs.get(key))).find(|(key, now)| *now != asked.get(*key))?;
    let setting = SETTINGS.iter().find(|setting| setting.key == *key);
    let flag = setting.and_then(|setting| setting.flag).map(str::to_owned);
    let flag = flag.unwrap_or_else(|| format!("{} of --config", setting.map_or(key.as_str(), |setting| setting.field)));
    let (now, then) = (shown(now), shown(asked.get(key)));
    let whose = match setting.map(|setting| setting.scope) {
        Some(Scope::Host) => "this host",
        _ => "the cluster",
    };
    Some(format!("{whose} runs with {flag} {now}, not {then}: `ferrokube down` first, then `up` takes it"))
}

/// The same, for who only writes down what a cluster is: a second family, which a cluster gets while it runs, is `up`'s to
/// give.
pub fn differs_until_up(runs: &Host, asked: &Host) -> Option<String> {
    let sentence = differs(runs, asked)?;
    if !runs.cluster.gains(&asked.cluster.pod_cidr, &asked.cluster.service_cidr)
        || differs(runs, &without_second(runs, asked)).is_some()
    {
        return Some(sentence);
    }
    let (had, pods, services) = (runs.cluster.pod_cidr, asked.cluster.pod_cidr, asked.cluster.service_cidr);
    Some(format!(
        "the cluster runs with --pod-cidr {had}, not {pods}: `ferrokube up --pod-cidr {pods} --service-cidr {services}` \
         first, which gives it the second family while it runs"
    ))
}

/// What is asked for, but for a second family.
pub fn without_second(runs: &Host, asked: &Host) -> Host {
    let mut rest = asked.clone();
    (rest.cluster.pod_cidr, rest.cluster.service_cidr) = (runs.cluster.pod_cidr, runs.cluster.service_cidr);
    rest
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
    use crate::config::Cluster;

    #[test]
    fn a_second_family_needs_up_and_no_down() {
        let runs = crate::config::tests::host(Path::new("/d"));
        let mut asked = runs.clone();
        asked.cluster.pod_cidr = format!("{},fd42::/56", runs.cluster.pod_cidr).parse().expect("ranges");
        asked.cluster.service_cidr = format!("{},fd43::/112", runs.cluster.service_cidr).parse().expect("ranges");
        let said = differs_until_up(&runs, &asked).expect("a sentence");
        let (pods, services) = (asked.cluster.pod_cidr, asked.cluster.service_cidr);
        assert!(said.contains(&format!("`ferrokube up --pod-cidr {pods} --service-cidr {services}`")), "{said}");
        assert!(!said.contains("down"), "{said}");
        // What can't change while it runs can't besides.
        asked.cluster.api_port = 7443;
        let said = differs_until_up(&runs, &asked).expect("a sentence");
        assert!(said.contains("`ferrokube down` first"), "{said}");
        assert_eq!(differs_until_up(&runs, &runs), None);
    }

    /// `up --api-port 7443` on a cluster that ran on 6443 said that the cluster runs already, and no more.
    #[test]
    fn whatever_differs_from_what_runs_is_told_with_its_flag() {
        let runs = crate::config::tests::host(Path::new("/d"));
        let says = |asked: Host| differs(&runs, &asked).unwrap_or_default();
        assert_eq!(differs(&runs, &runs.clone()), None);
        let shared = |set: &dyn Fn(&mut Cluster)| {
            let mut asked = runs.clone();
            set(&mut asked.cluster);
            asked
        };
        let port = says(shared(&|cluster| cluster.api_port = 7443));
        let sentence = "the cluster runs with --api-port 6443, not 7443: `ferrokube down` first, then `up` takes it";
        assert_eq!(port, sentence);
        assert!(says(shared(&|cluster| cluster.hardened = true)).contains("--hardened false, not true"));
        let named = says(Host { node_name: "n2".into(), ..runs.clone() });
        assert!(named.starts_with("this host runs with nodeName of --config node, not n2"), "{named}");
        let with = shared(&|cluster| cluster.options.tls_san = Some(vec!["a".into(), "b".into()]));
        assert!(says(with.clone()).contains("--tls-san as by default, not a,b"));
        assert!(differs(&with, &runs).is_some_and(|said| said.contains("--tls-san a,b, not as by default")));
        let gates = shared(&|cluster| cluster.options.feature_gates = "A=true".parse().ok());
        assert!(says(gates).contains("--feature-gates as by default, not A=true"));
        let address = says(Host { node_ip: "192.0.2.1".parse().ok(), ..runs.clone() });
        assert!(address.contains("nodeIP of --config as by default, not 192.0.2.1"), "{address}");
    }
}
