//! Which of several classes is the default. Pure; the plugins that fill in classes of storage and of ingresses call it.

use serde_json::Value;

/// The name of the class that an annotation makes the default; of several the newest, then the first by name.
pub(super) fn newest_default(classes: Vec<Value>, annotations: &[&str]) -> Option<String> {
    let marked = |class: &Value| annotations.iter().any(|key| class["metadata"]["annotations"][key] == "true");
    let of = |class: &Value, field: &str| class["metadata"][field].as_str().unwrap_or_default().to_owned();
    let mut defaults: Vec<(String, String)> = classes
        .iter()
        .filter(|class| marked(class))
        .map(|class| (of(class, "creationTimestamp"), of(class, "name")))
        .collect();
    defaults.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    defaults.into_iter().next().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_newest_default_class_wins() {
        let class = |name: &str, created: &str, default: &str| json!({"metadata": {"name": name, "creationTimestamp": created, "annotations": {"k": default}}});
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let classes =
            vec![class("d", new, "false"), class("c", new, "true"), class("b", new, "true"), class("a", old, "true")];
        assert_eq!(newest_default(classes, &["k"]), Some("b".to_owned()));
        assert_eq!(newest_default(vec![class("a", old, "false")], &["k"]), None);
    }
}
