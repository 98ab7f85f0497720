//! `cronjobs` of batch.

use jiff::Timestamp;
use meta::{FieldError, Path};
use serde_json::Value;

use crate::batch::job_validate::check_spec;
use crate::check::{Errors, not_negative, one_of};
use crate::core::pod_spec::defaults::spec_at;
use crate::core::pod_spec::warnings;
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, containers, name, selector, since, text_or};
use crate::value::{at, flag, items, text};

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
        .hooks(Hooks {
            row,
            default: |o| spec_at(o, "spec.jobTemplate.spec.template.spec"),
            validate: check,
            validate_update: check_update,
            warnings: |o, old| warnings::of_controller(o, old, "spec.jobTemplate.spec.template"),
            ..Hooks::NONE
        })
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

/// The controller appends the time to the name, and the result must fit a label.
const MAX_NAME: usize = 52;

/// Letters in one part of the name of a time zone.
const MAX_ZONE_PART: usize = 14;

fn check(job: &Value) -> Vec<FieldError> {
    let mut errors = check_cron(job, None);
    if text(job, "metadata.name").len() > MAX_NAME {
        let message = "must be no more than 52 characters";
        errors.push(FieldError::invalid("metadata.name", text(job, "metadata.name"), message));
    }
    errors
}

fn check_update(job: &Value, old: &Value) -> Vec<FieldError> {
    check_cron(job, Some(old))
}

fn check_cron(job: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    let spec = at(job, "spec").unwrap_or(&Value::Null);
    let was = old.and_then(|old| at(old, "spec"));
    schedule(&mut errors, path.child("schedule"), spec, was.is_some_and(|w| text(w, "schedule").contains("TZ")));
    for key in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        not_negative(&mut errors, &path, spec, key);
    }
    if was.is_none_or(|was| at(was, "timeZone") != at(spec, "timeZone")) {
        time_zone(&mut errors, path.child("timeZone"), at(spec, "timeZone"));
    }
    one_of(&mut errors, &path, spec, "concurrencyPolicy", &["Allow", "Forbid", "Replace"]);
    let template = path.child("jobTemplate");
    let job_path = template.child("spec");
    let job_spec = at(spec, "jobTemplate.spec").unwrap_or(&Value::Null);
    check_spec(&mut errors, job_path, job_spec);
    if let Some(selector) = at(job_spec, "selector") {
        let message = "`selector` will be auto-generated";
        errors.push(FieldError::invalid(job_path.child("selector"), selector.clone(), message));
    }
    if flag(job_spec, "manualSelector") {
        errors.push(FieldError::not_supported(job_path.child("manualSelector"), true, ["nil", "false"]));
    }
    errors
}

fn schedule(errors: &mut Errors, path: Path, spec: &Value, zoned_before: bool) {
    let schedule = text(spec, "schedule");
    if schedule.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    if let Err(problem) = super::schedule::check(schedule) {
        errors.push(FieldError::invalid(path, schedule, problem));
    }
    match (schedule.contains("TZ"), zoned_before) {
        (true, true) if at(spec, "timeZone").is_some() => {
            let message = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
            errors.push(FieldError::invalid(path, schedule, message));
        }
        (true, false) => {
            let message = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            errors.push(FieldError::invalid(path, schedule, message));
        }
        _ => {}
    }
}

fn time_zone(errors: &mut Errors, path: Path, zone: Option<&Value>) {
    let Some(Value::String(zone)) = zone else { return };
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_+".contains(c);
    let part = |part: &str| {
        let dots = part == "." || part == ".." || part.starts_with('-') || part.is_empty();
        !dots && part.len() <= MAX_ZONE_PART && part.chars().all(plain)
    };
    let problem = if zone.is_empty() {
        Some("timeZone must be nil or non-empty string".to_owned())
    } else if zone.eq_ignore_ascii_case("Local") {
        Some("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones".to_owned())
    } else if !zone.split('/').all(part) || jiff::tz::TimeZone::get(zone).is_err() {
        Some(format!("unknown time zone {zone}"))
    } else {
        None
    };
    errors.extend(problem.map(|problem| FieldError::invalid(path, zone.as_str(), problem)));
}
