//! `cronjobs` of batch.

use jiff::Timestamp;
use serde_json::Value;

use crate::core::pod_spec::defaults::spec_at;
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, containers, name, selector, since, text_or};
use crate::value::{at, items, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("batch", "v1", "CronJob", "cronjobs")
        .short(&["cj"])
        .category("all")
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Schedule"),
            Column::text("Timezone"),
            Column::boolean("Suspend"),
            Column::int("Active"),
            Column::text("Last Schedule"),
            Column::text("Age"),
            Column::text("Containers").wide(),
            Column::text("Images").wide(),
            Column::text("Selector").wide(),
        ])
        .generations()
        .hooks(Hooks { row, default: |o| spec_at(o, "spec.jobTemplate.spec.template.spec"), ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(object, "spec.jobTemplate.spec.template.spec");
    let last = match at(object, "status.lastScheduleTime") {
        Some(_) => since(object, "status.lastScheduleTime", now),
        None => "<none>".to_owned(),
    };
    let suspend = match at(object, "spec.suspend").and_then(Value::as_bool) {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    };
    vec![
        name(object),
        text(object, "spec.schedule").into(),
        text_or(object, "spec.timeZone", "<none>"),
        suspend.into(),
        items(object, "status.active").len().into(),
        last.into(),
        age(object, now),
        names,
        images,
        selector(object, "spec.jobTemplate.spec.selector"),
    ]
}
