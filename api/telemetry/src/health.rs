//! The pages of named health checks: `/livez`, `/readyz?verbose`, `/healthz/ping`. Texts are upstream's, as scripts
//! read them. Pure: a component runs its checks and hands the outcomes in.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All is well.
    Passed,
    /// Why; told to nobody but the log, as these pages are public.
    Failed(String),
    /// Left out at the caller's wish.
    Excluded,
}

/// What the caller wants of a page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// `?verbose`: a line a check, also when all is well.
    pub verbose: bool,
    /// `?exclude=NAME`: checks that are left out.
    pub excluded: Vec<String>,
}

impl Asked {
    /// From the query's parameters: `verbose`, and `exclude` any number of times.
    pub fn new<'a>(parameters: impl Iterator<Item = (&'a str, &'a str)>) -> Asked {
        let mut asked = Asked::default();
        for (name, value) in parameters {
            match name {
                "verbose" => asked.verbose = true,
                "exclude" => asked.excluded.push(value.to_owned()),
                _ => {}
            }
        }
        asked
    }

    /// Whether a check is left out.
    pub fn excludes(&self, check: &str) -> bool {
        self.excluded.iter().any(|name| name == check)
    }
}

/// The status code and text of an endpoint (`livez`) with all its checks.
pub fn page(endpoint: &str, checks: &[(&str, Outcome)], asked: &Asked) -> (u16, String) {
    let mut text = String::new();
    for (name, outcome) in checks {
        text += &match outcome {
            Outcome::Passed => format!("[+]{name} ok\n"),
            Outcome::Excluded => format!("[+]{name} excluded: ok\n"),
            Outcome::Failed(_) => format!("[-]{name} failed: reason withheld\n"),
        };
    }
    let unknown = asked.excluded.iter().filter(|wanted| !checks.iter().any(|(name, _)| name == wanted));
    let unknown: Vec<String> = unknown.map(|name| format!("{name:?}")).collect();
    if !unknown.is_empty() {
        let names = unknown.join(",");
        text += &format!("warn: some health checks cannot be excluded: no matches for {names}\n");
    }
    if checks.iter().any(|(_, outcome)| matches!(outcome, Outcome::Failed(_))) {
        return (500, format!("{text}{endpoint} check failed\n"));
    }
    match asked.verbose {
        true => (200, format!("{text}{endpoint} check passed\n")),
        false => (200, "ok".to_owned()),
    }
}

/// The status code and text of one check.
pub fn single(outcome: &Outcome) -> (u16, String) {
    match outcome {
        Outcome::Failed(why) => (500, format!("internal server error: {why}\n")),
        _ => (200, "ok".to_owned()),
    }
}

/// How checks ended so far: what `/metrics/slis` shows.
#[derive(Debug, Default)]
pub struct Record(Mutex<BTreeMap<(String, &'static str), Ended>>);

#[derive(Debug, Default)]
struct Ended {
    healthy: bool,
    passed: u64,
    failed: u64,
}

impl Record {
    /// Notes how a check of an endpoint ended; what was excluded was not run.
    pub fn note(&self, check: &str, endpoint: &'static str, outcome: &Outcome) {
        if *outcome == Outcome::Excluded {
            return;
        }
        let mut all = self.0.lock();
        let ended = all.entry((check.to_owned(), endpoint)).or_default();
        ended.healthy = *outcome == Outcome::Passed;
        *(if ended.healthy { &mut ended.passed } else { &mut ended.failed }) += 1;
    }

    /// The page.
    pub fn text(&self) -> String {
        let mut now = "# HELP kubernetes_healthcheck How the check ended last: 1 is well.\n\
                       # TYPE kubernetes_healthcheck gauge\n"
            .to_owned();
        let mut total = "# HELP kubernetes_healthchecks_total How often the check ended so.\n\
                         # TYPE kubernetes_healthchecks_total counter\n"
            .to_owned();
        for ((name, kind), ended) in self.0.lock().iter() {
            let healthy = u8::from(ended.healthy);
            now += &format!("kubernetes_healthcheck{{name=\"{name}\",type=\"{kind}\"}} {healthy}\n");
            for (status, count) in [("error", ended.failed), ("success", ended.passed)].iter().filter(|(_, c)| *c > 0) {
                total += &format!(
                    "kubernetes_healthchecks_total{{name=\"{name}\",status=\"{status}\",type=\"{kind}\"}} {count}\n"
                );
            }
        }
        now + &total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &[(&str, &str)]) -> Asked {
        Asked::new(query.iter().copied())
    }

    #[test]
    fn pages_are_upstreams() {
        let mut checks = vec![("ping", Outcome::Passed), ("etcd", Outcome::Passed)];
        assert_eq!(page("livez", &checks, &asked(&[])), (200, "ok".into()));
        let verbose = "[+]ping ok\n[+]etcd ok\nlivez check passed\n";
        assert_eq!(page("livez", &checks, &asked(&[("verbose", "")])), (200, verbose.into()));
        checks[1].1 = Outcome::Failed("dial tcp".into());
        let failed = "[+]ping ok\n[-]etcd failed: reason withheld\nlivez check failed\n";
        assert_eq!(page("livez", &checks, &asked(&[])), (500, failed.into()));
        assert_eq!(single(&checks[1].1), (500, "internal server error: dial tcp\n".into()));
        assert_eq!(single(&checks[0].1), (200, "ok".into()));
        checks[1].1 = Outcome::Excluded;
        let excluded = "[+]ping ok\n[+]etcd excluded: ok\nwarn: some health checks cannot be excluded: \
                        no matches for \"foo\"\nreadyz check passed\n";
        let query = asked(&[("exclude", "etcd"), ("exclude", "foo"), ("verbose", "true")]);
        assert!(query.excludes("etcd"));
        assert_eq!(page("readyz", &checks, &query), (200, excluded.into()));
    }

    #[test]
    fn checks_are_counted_by_endpoint() {
        let record = Record::default();
        record.note("etcd", "livez", &Outcome::Passed);
        record.note("etcd", "livez", &Outcome::Failed("gone".into()));
        record.note("etcd", "readyz", &Outcome::Excluded);
        let text = record.text();
        assert!(text.contains("kubernetes_healthcheck{name=\"etcd\",type=\"livez\"} 0\n"), "{text}");
        assert!(text.contains("kubernetes_healthchecks_total{name=\"etcd\",status=\"success\",type=\"livez\"} 1\n"));
        assert!(!text.contains("readyz"), "{text}");
    }
}
