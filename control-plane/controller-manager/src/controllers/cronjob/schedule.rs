//! Cron schedules as upstream reads them: five fields with ranges, steps, lists and names, the `@` words, `@every`,
//! in a time zone. Pure.

use std::time::Duration;

use jiff::civil::{DateTime, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan};

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A schedule that never comes (30 February) is given up after as many years, as upstream does.
const MOST_YEARS: i16 = 5;

/// Times looked at to find the last of many missed ones; beyond, the last is sought near the present.
const MOST_MISSED: usize = 10_000;

#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    Every(Duration),
    Fields(Box<Fields>),
}

/// Bits of allowed values.
#[derive(Debug, Clone, PartialEq)]
pub struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// A star in one of the day fields makes the other alone decide.
    any_day: bool,
    zone: TimeZone,
}

/// The time zone of this name; without one, as upstream, UTC.
pub fn zone(name: Option<&str>) -> Result<TimeZone, String> {
    match name.filter(|z| !z.is_empty()) {
        Some(name) => TimeZone::get(name).map_err(|_| format!("unknown time zone {name}")),
        None => Ok(TimeZone::UTC),
    }
}

/// RFC 3339 in a time zone, as Go writes it: `Z` wherever the clock is that of UTC.
pub fn written(time: Timestamp, zone: &TimeZone) -> String {
    let there = time.to_zoned(zone.clone());
    let form = if there.offset().is_zero() { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" };
    there.strftime(form).to_string()
}

impl Schedule {
    /// The error is one sentence.
    pub fn parse(text: &str, zone: Option<&str>) -> Result<Schedule, String> {
        let text = match text.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        if let Some(every) = text.strip_prefix("@every ") {
            return Ok(Schedule::Every(period(every)?));
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.as_slice() else {
            return Err(format!("expected exactly 5 fields, found {}: {text}", fields.len()));
        };
        let zone = self::zone(zone)?;
        let star = |f: &str| f.starts_with('*') || f == "?";
        // Sunday is 0 and 7.
        let weekdays_bits = field(weekdays, 0, 7, DAYS)?;
        let weekdays_bits = (weekdays_bits | (weekdays_bits >> 7 & 1)) & 0x7f;
        Ok(Schedule::Fields(Box::new(Fields {
            minutes: field(minutes, 0, 59, &[])?,
            hours: field(hours, 0, 23, &[])?,
            days: field(days, 1, 31, &[])?,
            months: field(months, 1, 12, MONTHS)?,
            weekdays: weekdays_bits,
            any_day: star(days) || star(weekdays),
            zone,
        })))
    }

    /// The first time after `after`.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Schedule::Every(every) => {
                let seconds = i64::try_from(every.as_secs()).ok()?.max(1);
                Timestamp::from_second(after.as_second() + seconds).ok()
            }
            Schedule::Fields(fields) => fields.next(after),
        }
    }

    /// The last time after `since`, up to `now`.
    pub fn last_between(&self, since: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let mut last = None;
        let mut at = since;
        for _ in 0..MOST_MISSED {
            match self.next(at).filter(|t| *t <= now) {
                Some(next) => (last, at) = (Some(next), next),
                None => return last,
            }
        }
        // Very many were missed: the last is within the last day, or was the last seen.
        let near = Timestamp::from_second(now.as_second() - 86_400).ok().filter(|n| *n > at)?;
        self.last_between(near, now).or(last)
    }
}

impl Fields {
    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let start = after.to_zoned(self.zone.clone()).datetime();
        let mut at = start.with().second(0).subsec_nanosecond(0).build().ok()?.checked_add(1.minute()).ok()?;
        let last_year = at.year() + MOST_YEARS;
        while at.year() <= last_year {
            at = match self.step(at)? {
                Ok(found) => {
                    let found = self.zone.to_timestamp(found).ok()?;
                    // A clock that goes back repeats an hour.
                    if found > after {
                        return Some(found);
                    }
                    at.checked_add(1.minute()).ok()?
                }
                Err(later) => later,
            };
        }
        None
    }

    /// The time itself if it fits, else the next one worth looking at.
    fn step(&self, at: DateTime) -> Option<Result<DateTime, DateTime>> {
        let has = |bits: u64, n: i8| bits >> n & 1 == 1;
        let skip = |span: Span, from: DateTime| from.checked_add(span).ok().map(Err);
        let day = at.with().hour(0).minute(0).build().ok()?;
        if !has(self.months, at.month()) {
            return skip(1.month(), day.with().day(1).build().ok()?);
        }
        if !self.on_day(at) {
            return skip(1.day(), day);
        }
        if !has(self.hours, at.hour()) {
            return skip(1.hour(), at.with().minute(0).build().ok()?);
        }
        if has(self.minutes, at.minute()) { Some(Ok(at)) } else { skip(1.minute(), at) }
    }

    fn on_day(&self, at: DateTime) -> bool {
        let of_month = self.days >> at.day() & 1 == 1;
        let of_week = self.weekdays >> Weekday::to_sunday_zero_offset(at.weekday()) & 1 == 1;
        if self.any_day { of_month && of_week } else { of_month || of_week }
    }
}

fn field(text: &str, least: u32, most: u32, names: &[&str]) -> Result<u64, String> {
    let mut bits = 0;
    for part in text.split(',') {
        bits |= range(part, least, most, names)?;
    }
    Ok(bits)
}

fn range(part: &str, least: u32, most: u32, names: &[&str]) -> Result<u64, String> {
    let wrong = || format!("failed to parse {part:?}: expected a number, range or step within {least}-{most}");
    let (span, step) = part.split_once('/').map_or((part, None), |(span, step)| (span, Some(step)));
    let step = step.map_or(Ok(1), |s| s.parse::<u32>().map_err(|_| wrong()))?;
    let value = |text: &str| -> Result<u32, String> {
        let named = names.iter().position(|n| n.eq_ignore_ascii_case(text)).map(|n| n as u32);
        // Months count from one.
        let named = named.map(|n| if names.len() == MONTHS.len() { n + 1 } else { n });
        named.map_or_else(|| text.parse().map_err(|_| wrong()), Ok)
    };
    let (from, to) = match span.split_once('-') {
        _ if span == "*" || span == "?" => (least, most),
        Some((from, to)) => (value(from)?, value(to)?),
        // `5/10` means from five on.
        None if part.contains('/') => (value(span)?, most),
        None => (value(span)?, value(span)?),
    };
    if from < least || to > most || from > to || step == 0 {
        return Err(wrong());
    }
    Ok((from..=to).step_by(step as usize).fold(0, |bits, n| bits | 1 << n))
}

/// Whole seconds, one at least.
fn period(text: &str) -> Result<Duration, String> {
    let nanos =
        meta::duration::parse_nanos(text).map_err(|e| format!("failed to parse duration @every {text}: {e}"))?;
    Ok(Duration::from_secs(u64::try_from(nanos / 1_000_000_000).unwrap_or(0).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, zone: Option<&str>, after: &str) -> String {
        let schedule = Schedule::parse(schedule, zone).unwrap();
        schedule.next(after.parse().unwrap()).map(|t| t.to_string()).unwrap_or_default()
    }

    #[test]
    fn schedules_come_when_they_should() {
        for (schedule, after, wanted) in [
            ("* * * * *", "2026-01-01T00:00:30Z", "2026-01-01T00:01:00Z"),
            ("*/15 * * * *", "2026-01-01T00:15:00Z", "2026-01-01T00:30:00Z"),
            ("30 4 1,15 * 5", "2026-01-03T00:00:00Z", "2026-01-09T04:30:00Z"),
            ("0 0 * * sun", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("0 0 * * 7", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("0 12 31 * *", "2026-02-01T00:00:00Z", "2026-03-31T12:00:00Z"),
            ("0 0 29 feb *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 30 2 *", "2026-01-01T00:00:00Z", ""),
            ("@hourly", "2026-01-01T00:10:00Z", "2026-01-01T01:00:00Z"),
            ("@every 1h30m", "2026-01-01T00:10:00Z", "2026-01-01T01:40:00Z"),
            ("@every 1.5h", "2026-01-01T00:10:00Z", "2026-01-01T01:40:00Z"),
            ("@every 10ms", "2026-01-01T00:10:00Z", "2026-01-01T00:10:01Z"),
        ] {
            assert_eq!(next(schedule, None, after), wanted, "{schedule} after {after}");
        }
    }

    #[test]
    fn a_time_zone_moves_the_hour() {
        if TimeZone::get("Europe/Berlin").is_ok() {
            assert_eq!(next("0 8 * * *", Some("Europe/Berlin"), "2026-07-01T00:00:00Z"), "2026-07-01T06:00:00Z");
        }
        for (name, month, wanted) in [
            (None, "07", "2026-07-01T22:30:00Z"),
            (Some("Etc/UTC"), "07", "2026-07-01T22:30:00Z"),
            (Some("Europe/London"), "01", "2026-01-01T22:30:00Z"),
            (Some("Europe/Berlin"), "07", "2026-07-02T00:30:00+02:00"),
            (Some("America/St_Johns"), "01", "2026-01-01T19:00:00-03:30"),
        ] {
            let Ok(zone) = zone(name) else { continue };
            assert_eq!(written(format!("2026-{month}-01T22:30:00Z").parse().unwrap(), &zone), wanted);
        }
        assert!(Schedule::parse("0 8 * * *", Some("Mars/Olympus")).unwrap_err().contains("Mars/Olympus"));
    }

    #[test]
    fn wrong_schedules_say_what_is_wrong() {
        for text in [
            "",
            "* * * *",
            "60 * * * *",
            "* * 0 * *",
            "5-1 * * * *",
            "*/0 * * * *",
            "a * * * *",
            "@every x",
            "@every 9235602471501206h",
        ] {
            assert!(Schedule::parse(text, None).is_err(), "{text}");
        }
    }

    #[test]
    fn the_last_of_many_missed_times_is_found() {
        let schedule = Schedule::parse("* * * * *", None).unwrap();
        let last =
            schedule.last_between("2026-01-01T00:00:00Z".parse().unwrap(), "2026-03-01T00:00:30Z".parse().unwrap());
        assert_eq!(last.unwrap().to_string(), "2026-03-01T00:00:00Z");
    }
}
