//! `prioritylevelconfigurations` of flowcontrol.apiserver.k8s.io.

use jiff::Timestamp;
use meta::{FieldError, Path};
use serde_json::Value;

use crate::check::{Errors, among};
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, name};
use crate::value::{at, int, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("flowcontrol.apiserver.k8s.io", "v1", "PriorityLevelConfiguration", "prioritylevelconfigurations")
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Type"),
            Column::text("NominalConcurrencyShares"),
            Column::text("Queues"),
            Column::text("HandSize"),
            Column::text("QueueLengthLimit"),
            Column::text("Age"),
        ])
        .generations()
        .fixed_status_metadata()
        .hooks(Hooks {
            row,
            validate,
            validate_update: |o, _| validate(o),
            validate_status: |o, _| super::conditions(o),
            ..Hooks::NONE
        })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let limited = |path: &str| at(object, "spec.limited").and_then(|l| at(l, path)).cloned().unwrap_or("<none>".into());
    vec![
        name(object),
        text(object, "spec.type").into(),
        limited("nominalConcurrencyShares"),
        limited("limitResponse.queuing.queues"),
        limited("limitResponse.queuing.handSize"),
        limited("limitResponse.queuing.queueLengthLimit"),
        age(object, now),
    ]
}

/// Most queues of a level.
const MOST_QUEUES: i64 = 10_000_000;
/// Bits of entropy that dealing a hand of queues may take.
const ENTROPY: i32 = 60;

fn validate(level: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    let spec = at(level, "spec").unwrap_or(&Value::Null);
    let kinds = [("Exempt", "exempt", "Limited", "limited"), ("Limited", "limited", "Exempt", "exempt")];
    let Some((_, key, _, other)) = kinds.into_iter().find(|(kind, ..)| *kind == text(spec, "type")) else {
        among(&mut errors, path.child("type"), text(spec, "type"), &["Exempt", "Limited"]);
        return errors;
    };
    if at(spec, other).is_some() {
        let message = format!("must be nil if the type is {}", text(spec, "type"));
        errors.push(FieldError::forbidden(path.child(other), message));
    }
    match at(spec, key) {
        Some(part) if key == "limited" => limited(&mut errors, path.child(key), part),
        Some(part) => shares(&mut errors, path.child(key), part),
        None if key == "limited" => {
            errors.push(FieldError::required(path.child(key), "must not be empty when type is Limited"));
        }
        None => {}
    }
    errors
}

fn shares(errors: &mut Errors, path: Path, part: &Value) {
    if let Some(shares) = int(part, "nominalConcurrencyShares").filter(|n| *n < 0) {
        let message = "must be a non-negative integer";
        errors.push(FieldError::invalid(path.child("nominalConcurrencyShares"), shares, message));
    }
    if let Some(percent) = int(part, "lendablePercent").filter(|n| !(0..=100).contains(n)) {
        let message = "must be between 0 and 100, inclusive";
        errors.push(FieldError::invalid(path.child("lendablePercent"), percent, message));
    }
}

fn limited(errors: &mut Errors, path: Path, part: &Value) {
    shares(errors, path, part);
    if let Some(percent) = int(part, "borrowingLimitPercent").filter(|n| *n < 0) {
        let message = "if specified, must be a non-negative integer";
        errors.push(FieldError::invalid(path.child("borrowingLimitPercent"), percent, message));
    }
    let response = path.child("limitResponse");
    let queuing = at(part, "limitResponse.queuing");
    match text(part, "limitResponse.type") {
        "Reject" if queuing.is_some() => {
            let message = "must be nil if limited.limitResponse.type is not Limited";
            errors.push(FieldError::forbidden(response.child("queuing"), message));
        }
        "Reject" => {}
        "Queue" => match queuing {
            Some(queuing) => queues(errors, response.child("queuing"), queuing),
            None => {
                let message = "must not be empty if limited.limitResponse.type is Limited";
                errors.push(FieldError::required(response.child("queuing"), message));
            }
        },
        other => among(errors, response.child("type"), other, &["Queue", "Reject"]),
    }
}

fn queues(errors: &mut Errors, path: Path, queuing: &Value) {
    let number = |key: &str| int(queuing, key).unwrap_or(0);
    let (queues, hand) = (number("queues"), number("handSize"));
    if number("queueLengthLimit") <= 0 {
        errors.push(FieldError::invalid(
            path.child("queueLengthLimit"),
            number("queueLengthLimit"),
            "must be positive",
        ));
    }
    if queues <= 0 {
        errors.push(FieldError::invalid(path.child("queues"), queues, "must be positive"));
    } else if queues > MOST_QUEUES {
        let message = format!("must not be greater than {MOST_QUEUES}");
        errors.push(FieldError::invalid(path.child("queues"), queues, message));
    }
    if hand <= 0 {
        errors.push(FieldError::invalid(path.child("handSize"), hand, "must be positive"));
    } else if queues > 0 {
        if hand > queues {
            let message = format!("should not be greater than queues ({queues})");
            errors.push(FieldError::invalid(path.child("handSize"), hand, message));
        }
        let bits = entropy(queues, hand);
        if bits > ENTROPY {
            let message = format!(
                "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {ENTROPY}"
            );
            errors.push(FieldError::invalid(path.child("handSize"), hand, message));
        }
    }
}

/// Bits that it takes to choose a hand out of so many queues, in order.
fn entropy(queues: i64, hand: i64) -> i32 {
    let choices = (0..hand.min(queues)).map(|taken| ((queues - taken) as f64).log2());
    choices.sum::<f64>().ceil() as i32
}
