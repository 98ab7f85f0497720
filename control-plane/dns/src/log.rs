//! Lines about questions, as `log` and `errors` ask for them. Does I/O: writes to the log.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::corefile::values::{is_below, rcode_name, type_name};
use crate::corefile::{Class, Log};
use crate::wire::{self, Name, Question, code, flag};

/// A question and its answer.
#[derive(Clone, Copy, Debug)]
pub struct Told<'t> {
    pub message: &'t [u8],
    pub question: &'t Question,
    pub answer: &'t [u8],
    pub peer: SocketAddr,
    pub local: SocketAddr,
    pub udp: bool,
    pub took: Duration,
}

/// Writes a line by the first `log` that wants this question.
pub fn tell(logs: &[Log], told: &Told<'_>) {
    if told.answer.len() < wire::HEADER {
        return;
    }
    let name = told.question.name();
    let wants = |log: &&Log| {
        let zone = log.zones.is_empty() || log.zones.iter().any(|zone| is_below(name, zone.as_bytes()));
        zone && (log.classes.is_empty() || log.classes.contains(&class(told.answer)))
    };
    if let Some(log) = logs.iter().find(wants) {
        tracing::info!(target: "dns", "{}", line(&log.format, told));
    }
}

fn class(answer: &[u8]) -> Class {
    match (answer[3] & 0xf, wire::u16_at(answer, 6)) {
        (code::NXDOMAIN, _) | (code::NOERROR, Some(0)) => Class::Denial,
        (code::NOERROR, _) => Class::Success,
        _ => Class::Error,
    }
}

/// The format with its places filled in; a place that is not known is a dash, as upstream's.
fn line(format: &str, told: &Told<'_>) -> String {
    let mut out = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let Some((place, after)) = after.split_once('}') else {
            out.push('{');
            rest = after;
            break;
        };
        out.push_str(&value(place, told));
        rest = after;
    }
    out.push_str(rest);
    out
}

fn value(place: &str, told: &Told<'_>) -> String {
    let question = told.question;
    let bracketed = |ip: IpAddr| if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
    match place {
        "type" => type_name(question.kind),
        "name" => Name::from_wire(question.name()).map(|n| n.to_string()).unwrap_or_default(),
        "class" => if question.class == 1 { "IN" } else { "OTHER" }.to_owned(),
        "proto" => if told.udp { "udp" } else { "tcp" }.to_owned(),
        "remote" => bracketed(told.peer.ip()),
        "local" => bracketed(told.local.ip()),
        "port" => told.peer.port().to_string(),
        "size" => told.message.len().to_string(),
        "rsize" => told.answer.len().to_string(),
        "rcode" => rcode_name(told.answer[3] & 0xf).to_owned(),
        "duration" => format!("{:.9}s", told.took.as_secs_f64()),
        ">id" => question.id.to_string(),
        ">opcode" => "0".to_owned(),
        ">do" => question.edns.is_some_and(|e| e.secure).to_string(),
        ">bufsize" => question.edns.map_or(512, |e| e.size).to_string(),
        ">rflags" => flags(told.answer),
        _ => "-".to_owned(),
    }
}

fn flags(answer: &[u8]) -> String {
    let known = [
        (2, flag::QR, "qr"),
        (2, flag::AA, "aa"),
        (2, flag::TC, "tc"),
        (2, flag::RD, "rd"),
        (3, flag::RA, "ra"),
        (3, 0x20, "ad"),
        (3, flag::CD, "cd"),
    ];
    let set: Vec<&str> = known.iter().filter(|(at, bit, _)| answer[*at] & bit != 0).map(|(_, _, name)| *name).collect();
    set.join(",")
}

/// When the last failure was told, and how many were not told since.
static FAILURES: Mutex<(Option<Instant>, u64)> = Mutex::new((None, 0));

/// A failure, as `errors` tells it: one a second, however many there are.
pub fn error(question: &Question, what: &str) {
    let mut failures = FAILURES.lock();
    if failures.0.is_some_and(|at| at.elapsed() < Duration::from_secs(1)) {
        failures.1 += 1;
        return;
    }
    let untold = std::mem::take(&mut failures.1);
    failures.0 = Some(Instant::now());
    drop(failures);
    let name = Name::from_wire(question.name()).map(|n| n.to_string()).unwrap_or_default();
    tracing::warn!(target: "dns", untold, "{name} {}: {what}", type_name(question.kind));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_upstreams() {
        let mut message = vec![0x71, 0x50, flag::RD, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(Name::parse("example.org").unwrap().as_bytes());
        message.extend_from_slice(&[0, 1, 0, 1]);
        let question = Question::parse(&message).unwrap();
        let mut answer = message.clone();
        answer[2] |= flag::QR;
        answer[3] |= flag::RA | code::NXDOMAIN;
        let told = Told {
            message: &message,
            question: &question,
            answer: &answer,
            peer: "[::1]:50759".parse().unwrap(),
            local: "127.0.0.1:53".parse().unwrap(),
            udp: true,
            took: Duration::from_micros(37),
        };
        let format = "{remote}:{port} - {>id} \"{type} {class} {name} {proto} {size} {>do} {>bufsize}\" {rcode} {>rflags} \
                      {rsize} {duration} {what";
        let expected =
            "[::1]:50759 - 29008 \"A IN example.org. udp 29 false 512\" NXDOMAIN qr,rd,ra 29 0.000037000s {what";
        assert_eq!(line(format, &told), expected);
        assert_eq!(class(&answer), Class::Denial);
    }
}
