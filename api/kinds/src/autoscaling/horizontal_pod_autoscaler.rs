//! `horizontalpodautoscalers` of autoscaling.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, count, name};
use crate::value::{at, at_mut, default_to, int, items, set, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
        .short(&["hpa"])
        .category("all")
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Reference"),
            Column::text("Targets"),
            Column::text("MinPods"),
            Column::text("MaxPods"),
            Column::text("Replicas"),
            Column::text("Age"),
        ])
        .generations()
        .hooks(Hooks { row, default, ..Hooks::NONE })
}

/// Metrics shown before the rest is counted.
const SHOWN: usize = 2;

pub(crate) fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let target = format!("{}/{}", text(object, "spec.scaleTargetRef.kind"), text(object, "spec.scaleTargetRef.name"));
    let min = int(object, "spec.minReplicas").map_or_else(|| "<unset>".to_owned(), |n| n.to_string());
    vec![
        name(object),
        target.into(),
        metrics(object).into(),
        min.into(),
        count(object, "spec.maxReplicas"),
        count(object, "status.currentReplicas"),
        age(object, now),
    ]
}

fn metrics(object: &Value) -> String {
    let specs = items(object, "spec.metrics");
    if specs.is_empty() {
        return "<none>".to_owned();
    }
    let current = items(object, "status.currentMetrics");
    let list: Vec<String> = specs
        .iter()
        .enumerate()
        .take(SHOWN)
        .map(|(i, spec)| metric(spec, current.get(i).unwrap_or(&Value::Null)))
        .collect();
    let shown = list.join(", ");
    if specs.len() > SHOWN { format!("{shown} + {} more...", specs.len() - SHOWN) } else { shown }
}

/// `current/target` of one metric; `status` is null when nothing was measured.
fn metric(spec: &Value, status: &Value) -> String {
    let (key, named) = match text(spec, "type") {
        "External" => ("external", false),
        "Pods" => ("pods", false),
        "Object" => ("object", false),
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        _ => return "<unknown type>".to_owned(),
    };
    let source = at(spec, key).unwrap_or(&Value::Null);
    let now = at(status, key).and_then(|s| at(s, "current"));
    let quantity = |field: &str| match now.map(|c| text(c, field)) {
        None => "<unknown>".to_owned(),
        Some("") if field == "averageValue" && !named && key != "pods" => "<unknown>".to_owned(),
        Some("") => "0".to_owned(),
        Some(found) => found.to_owned(),
    };
    let percent = |value: Option<i64>, missing: &str| value.map_or_else(|| missing.to_owned(), |n| format!("{n}%"));
    let average = text(source, "target.averageValue");
    match (named, average) {
        (true, "") => {
            let current = percent(now.and_then(|c| int(c, "averageUtilization")), "<unknown>");
            let target = percent(int(source, "target.averageUtilization"), "<auto>");
            format!("{}: {current}/{target}", text(source, "name"))
        }
        (true, average) => format!("{}: {}/{average}", text(source, "name"), quantity("averageValue")),
        (false, average) if key == "pods" => format!("{}/{average}", quantity("averageValue")),
        (false, "") => format!("{}/{}", quantity("value"), text(source, "target.value")),
        (false, average) => format!("{}/{average} (avg)", quantity("averageValue")),
    }
}

/// Without metrics a target scales by CPU; a given behaviour is completed.
pub(crate) fn default(hpa: &mut Value) {
    if at(hpa, "spec").is_some() && items(hpa, "spec.metrics").is_empty() {
        let target = json!({"type": "Utilization", "averageUtilization": super::DEFAULT_CPU_PERCENT});
        set(hpa, "spec.metrics", json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]));
    }
    if let Some(Value::Object(behavior)) = at_mut(hpa, "spec.behavior") {
        let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
        let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
        let up = json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [pods, percent]});
        let down = json!({"selectPolicy": "Max", "policies": [percent]});
        for (side, defaults) in [("scaleUp", up), ("scaleDown", down)] {
            default_to(behavior, side, json!({}));
            if let (Some(Value::Object(rules)), Value::Object(defaults)) = (behavior.get_mut(side), defaults) {
                defaults.into_iter().for_each(|(key, value)| default_to(rules, &key, value));
            }
        }
    }
}
