//! `horizontalpodautoscalers` of autoscaling/v1: an older view of v2, which is how they are stored. What v1 has no field
//! for travels in annotations, as JSON of v1's own shapes.

use jiff::Timestamp;
use meta::Gvk;
use serde_json::{Map, Value, json};

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::value::{at, ensure_map, int, remove, set, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("autoscaling", "v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
        .short(&["hpa"])
        .category("all")
        .stored_as(Gvk::new("autoscaling", "v2", "HorizontalPodAutoscaler"))
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
        .hooks(Hooks { row, to_storage, from_storage, ..Hooks::NONE })
}

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// Where v1 and v2 keep the same thing, by metric source: (source, v1 path, v2 path).
const SPEC_PATHS: [(&str, &str, &str); 17] = [
    ("resource", "name", "name"),
    ("resource", "targetAverageUtilization", "target.averageUtilization"),
    ("resource", "targetAverageValue", "target.averageValue"),
    ("containerResource", "name", "name"),
    ("containerResource", "container", "container"),
    ("containerResource", "targetAverageUtilization", "target.averageUtilization"),
    ("containerResource", "targetAverageValue", "target.averageValue"),
    ("pods", "metricName", "metric.name"),
    ("pods", "selector", "metric.selector"),
    ("pods", "targetAverageValue", "target.averageValue"),
    ("object", "target", "describedObject"),
    ("object", "metricName", "metric.name"),
    ("object", "selector", "metric.selector"),
    ("object", "targetValue", "target.value"),
    ("object", "averageValue", "target.averageValue"),
    ("external", "metricName", "metric.name"),
    ("external", "metricSelector", "metric.selector"),
];
const EXTERNAL_TARGETS: [(&str, &str, &str); 2] =
    [("external", "targetValue", "target.value"), ("external", "targetAverageValue", "target.averageValue")];

/// The same for measured values.
const STATUS_PATHS: [(&str, &str, &str); 19] = [
    ("resource", "name", "name"),
    ("resource", "currentAverageUtilization", "current.averageUtilization"),
    ("resource", "currentAverageValue", "current.averageValue"),
    ("containerResource", "name", "name"),
    ("containerResource", "container", "container"),
    ("containerResource", "currentAverageUtilization", "current.averageUtilization"),
    ("containerResource", "currentAverageValue", "current.averageValue"),
    ("pods", "metricName", "metric.name"),
    ("pods", "selector", "metric.selector"),
    ("pods", "currentAverageValue", "current.averageValue"),
    ("object", "target", "describedObject"),
    ("object", "metricName", "metric.name"),
    ("object", "selector", "metric.selector"),
    ("object", "currentValue", "current.value"),
    ("object", "averageValue", "current.averageValue"),
    ("external", "metricName", "metric.name"),
    ("external", "metricSelector", "metric.selector"),
    ("external", "currentValue", "current.value"),
    ("external", "currentAverageValue", "current.averageValue"),
];

fn to_storage(hpa: &mut Value) {
    let cpu = remove(hpa, "spec.targetCPUUtilizationPercentage").filter(|v| !v.is_null());
    let measured = remove(hpa, "status.currentCPUUtilizationPercentage").filter(|v| !v.is_null());
    let mut metrics: Vec<Value> = take_list(hpa, METRICS).iter().map(spec_from_v1).collect();
    if let Some(percent) = cpu {
        metrics.push(cpu_metric(percent));
    }
    if metrics.is_empty() {
        metrics.push(cpu_metric(json!(super::DEFAULT_CPU_PERCENT)));
    }
    set(hpa, "spec.metrics", metrics);
    if let Some(behavior) = take_annotation(hpa, BEHAVIOR).filter(|b| b.as_object().is_some_and(|b| !b.is_empty())) {
        set(hpa, "spec.behavior", behavior);
    }
    let current: Vec<Value> =
        take_list(hpa, CURRENT_METRICS).iter().map(|m| convert(m, &STATUS_PATHS, Way::FromV1)).collect();
    if !current.is_empty() {
        set(hpa, "status.currentMetrics", current);
    } else if let Some(percent) = measured {
        let metric =
            json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}});
        set(hpa, "status.currentMetrics", vec![metric]);
    }
    let conditions = take_list(hpa, CONDITIONS);
    if !conditions.is_empty() {
        set(hpa, "status.conditions", conditions);
    }
}

fn from_storage(hpa: &mut Value) {
    let metrics = remove(hpa, "spec.metrics").and_then(into_list).unwrap_or_default();
    let behavior = remove(hpa, "spec.behavior").filter(|b| !b.is_null());
    let current = remove(hpa, "status.currentMetrics").and_then(into_list).unwrap_or_default();
    let conditions = remove(hpa, "status.conditions").and_then(into_list).unwrap_or_default();
    let (cpu, others): (Vec<Value>, Vec<Value>) = metrics.into_iter().partition(|m| cpu_percent(m, "target").is_some());
    if let Some(percent) = cpu.first().and_then(|m| cpu_percent(m, "target")) {
        set(hpa, "spec.targetCPUUtilizationPercentage", percent);
    }
    if let Some(percent) = current.iter().filter_map(|m| cpu_percent(m, "current")).next_back() {
        set(hpa, "status.currentCPUUtilizationPercentage", percent);
    }
    let to_v1 = |list: Vec<Value>, paths: &[(&str, &str, &str)]| -> Vec<Value> {
        list.iter().map(|m| convert(m, paths, Way::ToV1)).collect()
    };
    let paths: Vec<_> = SPEC_PATHS.into_iter().chain(EXTERNAL_TARGETS).collect();
    annotate(hpa, METRICS, to_v1(others, &paths));
    annotate(hpa, CURRENT_METRICS, to_v1(current, &STATUS_PATHS));
    annotate(hpa, CONDITIONS, conditions);
    if let Some(behavior) = behavior {
        ensure_map(hpa, "metadata.annotations").insert(BEHAVIOR.to_owned(), behavior.to_string().into());
    }
}

fn cpu_metric(percent: Value) -> Value {
    let target = json!({"type": "Utilization", "averageUtilization": percent});
    json!({"type": "Resource", "resource": {"name": "cpu", "target": target}})
}

/// The utilisation of a CPU resource metric; `side` is `target` or `current`.
fn cpu_percent(metric: &Value, side: &str) -> Option<i64> {
    let cpu = text(metric, "type") == "Resource" && text(metric, "resource.name") == "cpu";
    at(metric, "resource").and_then(|r| at(r, side)).and_then(|t| int(t, "averageUtilization")).filter(|_| cpu)
}

fn into_list(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(list) => Some(list),
        _ => None,
    }
}

fn take_annotation(hpa: &mut Value, key: &str) -> Option<Value> {
    let annotations = hpa.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()?;
    // What can't be read stays as it is written; it is not dropped.
    let parsed = annotations.get(key)?.as_str().and_then(|text| serde_json::from_str(text).ok())?;
    annotations.remove(key);
    if annotations.is_empty() {
        remove(hpa, "metadata.annotations");
    }
    Some(parsed)
}

fn take_list(hpa: &mut Value, key: &str) -> Vec<Value> {
    take_annotation(hpa, key).and_then(into_list).unwrap_or_default()
}

fn annotate(hpa: &mut Value, key: &str, list: Vec<Value>) {
    if !list.is_empty() {
        ensure_map(hpa, "metadata.annotations").insert(key.to_owned(), Value::Array(list).to_string().into());
    }
}

#[derive(Clone, Copy)]
enum Way {
    ToV1,
    FromV1,
}

fn convert(metric: &Value, paths: &[(&str, &str, &str)], way: Way) -> Value {
    let mut out = Value::Object(Map::new());
    set(&mut out, "type", text(metric, "type"));
    for (source, v1, v2) in paths {
        let (from, to) = match way {
            Way::ToV1 => (v2, v1),
            Way::FromV1 => (v1, v2),
        };
        if let Some(value) = at(metric, source).and_then(|s| at(s, from)) {
            set(&mut out, &format!("{source}.{to}"), value.clone());
        }
    }
    out
}

/// v1 has no target type: it follows from which target is set.
fn spec_from_v1(metric: &Value) -> Value {
    let paths: Vec<_> = SPEC_PATHS.into_iter().chain(EXTERNAL_TARGETS).collect();
    let mut out = convert(metric, &paths, Way::FromV1);
    for source in ["resource", "containerResource", "pods", "object", "external"] {
        let Some(target) = at(&out, &format!("{source}.target")) else { continue };
        let kind = if at(target, "averageUtilization").is_some() {
            "Utilization"
        } else if at(target, "averageValue").is_some() {
            "AverageValue"
        } else {
            "Value"
        };
        set(&mut out, &format!("{source}.target.type"), kind);
    }
    out
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut stored = object.clone();
    to_storage(&mut stored);
    super::horizontal_pod_autoscaler::row(&stored, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_target_is_a_field_in_v1() {
        let mut hpa = json!({"spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 60}});
        to_storage(&mut hpa);
        assert_eq!(hpa["spec"]["metrics"], json!([cpu_metric(json!(60))]));
        from_storage(&mut hpa);
        assert_eq!(hpa, json!({"spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 60}}));
    }

    #[test]
    fn other_metrics_travel_in_annotations() {
        let stored = json!({"metadata": {}, "status": {}, "spec": {"metrics": [
            {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "5"}}}]}});
        let mut hpa = stored.clone();
        from_storage(&mut hpa);
        let want = r#"[{"pods":{"metricName":"m","targetAverageValue":"5"},"type":"Pods"}]"#;
        assert_eq!(hpa["metadata"]["annotations"][METRICS], want);
        to_storage(&mut hpa);
        assert_eq!(hpa, stored);
    }
}
