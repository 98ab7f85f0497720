//! Families of metrics by label values, and the page that they make together. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rustc_hash::{FxHashMap, FxHasher};

use crate::metric::{Counter, Gauge, Histogram, Metric, sample};

/// Series of one family. More than any cluster's resources times verbs make; beyond it a label carries what clients
/// choose, and what is new is not counted.
const MAX_SERIES: usize = 20_000;

type Series<M, const N: usize> = Vec<([Box<str>; N], M)>;

struct Inner<M, const N: usize> {
    labels: [&'static str; N],
    buckets: &'static [f64],
    /// By hash of the label values, so that looking one up copies nothing.
    series: RwLock<FxHashMap<u64, Series<M, N>>>,
}

/// Metrics of one name, one for each combination of label values. Cloning shares it.
pub struct Family<M, const N: usize>(Arc<Inner<M, N>>);

impl<M, const N: usize> Clone for Family<M, N> {
    fn clone(&self) -> Self {
        Family(self.0.clone())
    }
}

impl<M, const N: usize> std::fmt::Debug for Family<M, N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Family").field("labels", &self.0.labels).finish_non_exhaustive()
    }
}

fn hash<const N: usize>(values: &[&str; N]) -> u64 {
    let mut hasher = FxHasher::default();
    values.hash(&mut hasher);
    hasher.finish()
}

fn equal<const N: usize>(known: &[Box<str>; N], values: &[&str; N]) -> bool {
    known.iter().zip(values).all(|(known, value)| **known == **value)
}

impl<M: Metric, const N: usize> Family<M, N> {
    /// The metric with these label values, in the order of the declaration; made when it is new.
    pub fn with(&self, values: [&str; N]) -> M {
        let hash = hash(&values);
        let find = |series: &FxHashMap<u64, Series<M, N>>| {
            let (_, metric) = series.get(&hash)?.iter().find(|(known, _)| equal(known, &values))?;
            Some(metric.clone())
        };
        if let Some(metric) = find(&self.0.series.read()) {
            return metric;
        }
        let mut series = self.0.series.write();
        if let Some(metric) = find(&series) {
            return metric;
        }
        let metric = M::new(self.0.buckets);
        if series.len() < MAX_SERIES {
            series.entry(hash).or_default().push((values.map(Into::into), metric.clone()));
        }
        metric
    }

    /// Takes out all metrics whose label has this value: of what there is no more, where new ones come again and again.
    /// Who still holds one counts for nobody.
    pub fn remove(&self, label: &str, value: &str) {
        let Some(at) = self.0.labels.iter().position(|known| *known == label) else { return };
        let mut series = self.0.series.write();
        series.retain(|_, same| {
            same.retain(|(values, _)| values.get(at).is_none_or(|known| **known != *value));
            !same.is_empty()
        });
    }
}

impl<M: Metric, const N: usize> Source for Family<M, N> {
    fn kind(&self) -> &'static str {
        M::KIND
    }

    fn write(&self, name: &str, out: &mut String) {
        let series = self.0.series.read();
        let mut all: Vec<&([Box<str>; N], M)> = series.values().flatten().collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (values, metric) in all {
            let values = values.each_ref().map(|value| &**value);
            metric.write(name, &label_text(&self.0.labels, &values), out);
        }
    }
}

fn label_text<const N: usize>(names: &[&str; N], values: &[&str; N]) -> String {
    let mut text = String::new();
    for (at, (name, value)) in names.iter().zip(values).enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let value = value.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"");
        let _ = write!(text, "{comma}{name}=\"{value}\"");
    }
    text
}

/// Something that has samples when the page is made.
trait Source: Send + Sync {
    fn kind(&self) -> &'static str;
    fn write(&self, name: &str, out: &mut String);
}

/// Takes samples that are read when the page is made.
pub struct Samples<'a> {
    name: &'a str,
    out: &'a mut String,
}

impl Samples<'_> {
    /// One sample; its labels in alphabetical order, as they are printed.
    pub fn add<const N: usize>(&mut self, names: [&str; N], values: [&str; N], value: f64) {
        sample(self.out, self.name, &label_text(&names, &values), value);
    }
}

struct Collected<F> {
    kind: &'static str,
    read: F,
}

impl<F: Fn(&mut Samples<'_>) + Send + Sync> Source for Collected<F> {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn write(&self, name: &str, out: &mut String) {
        (self.read)(&mut Samples { name, out });
    }
}

/// What is said of a family, and where its samples come from.
type Declared = (&'static str, Box<dyn Source>);

/// All metrics of a component, by name.
#[derive(Default)]
pub struct Registry(Mutex<BTreeMap<&'static str, Declared>>);

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.lock().keys()).finish()
    }
}

impl Registry {
    fn family<M: Metric, const N: usize>(
        &self,
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
        buckets: &'static [f64],
    ) -> Family<M, N> {
        let inner = Inner { labels, buckets, series: RwLock::default() };
        let family = Family(Arc::new(inner));
        self.0.lock().insert(name, (help, Box::new(family.clone())));
        family
    }

    /// Declares counters. Label names in alphabetical order, as they are printed.
    pub fn counter<const N: usize>(
        &self,
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
    ) -> Family<Counter, N> {
        self.family(name, help, labels, &[])
    }

    /// Declares gauges. Label names in alphabetical order.
    pub fn gauge<const N: usize>(
        &self,
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
    ) -> Family<Gauge, N> {
        self.family(name, help, labels, &[])
    }

    /// Declares histograms with these upper bounds; the infinite one is added.
    pub fn histogram<const N: usize>(
        &self,
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
        buckets: &'static [f64],
    ) -> Family<Histogram, N> {
        self.family(name, help, labels, buckets)
    }

    /// Declares a metric whose samples are read when the page is made; `kind` is counter or gauge.
    pub fn collect(
        &self,
        name: &'static str,
        help: &'static str,
        kind: &'static str,
        read: impl Fn(&mut Samples<'_>) + Send + Sync + 'static,
    ) {
        self.0.lock().insert(name, (help, Box::new(Collected { kind, read })));
    }

    /// The page; a family without samples is left out.
    pub fn text(&self) -> String {
        let mut page = String::new();
        let mut samples = String::new();
        for (name, (help, source)) in self.0.lock().iter() {
            samples.clear();
            source.write(name, &mut samples);
            if !samples.is_empty() {
                let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {}", source.kind());
                page.push_str(&samples);
            }
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_taken_out_by_its_label() {
        let registry = Registry::default();
        let said = registry.counter("said_total", "Said.", ["kind", "who"]);
        for (kind, who) in [("a", "one"), ("b", "one"), ("a", "two")] {
            said.with([kind, who]).inc();
        }
        said.remove("who", "one");
        said.remove("nothing", "two");
        let text = registry.text();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines, ["said_total{kind=\"a\",who=\"two\"} 1"]);
        said.with(["a", "one"]).inc();
        assert!(registry.text().contains("who=\"one\"} 1"), "it begins anew");
    }

    #[test]
    fn a_page_is_what_prometheus_reads() {
        let registry = Registry::default();
        let requests = registry.counter("requests_total", "Requests.", ["code", "verb"]);
        requests.with(["200", "GET"]).inc();
        requests.with(["200", "GET"]).add(2);
        requests.with(["404", "a\"b\\\n"]).inc();
        let took = registry.histogram("took_seconds", "Time.", [], &[0.5, 1.0]);
        for value in [0.25, 0.5, 0.75, 3.0] {
            took.with([]).observe(value);
        }
        registry.gauge("unused", "Nothing yet.", ["name"]);
        registry.collect("size", "Size.", "gauge", |out| out.add(["of"], ["x"], 2.0));
        let page = r#"# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{code="200",verb="GET"} 3
requests_total{code="404",verb="a\"b\\\n"} 1
# HELP size Size.
# TYPE size gauge
size{of="x"} 2
# HELP took_seconds Time.
# TYPE took_seconds histogram
took_seconds_bucket{le="0.5"} 2
took_seconds_bucket{le="1"} 3
took_seconds_bucket{le="+Inf"} 4
took_seconds_sum 4.5
took_seconds_count 4
"#;
        assert_eq!(registry.text(), page);
    }

    #[test]
    fn gauges_and_series_are_shared_by_all_handles() {
        let registry = Registry::default();
        let family = registry.gauge("inflight", "Now.", ["kind"]);
        let (one, same) = (family.with(["a"]), family.clone().with(["a"]));
        one.add(2.0);
        same.add(-1.0);
        assert_eq!(one.get(), 1.0);
        assert_eq!(family.with(["b"]).get(), 0.0);
    }

    #[test]
    fn a_flood_of_label_values_is_bounded() {
        let registry = Registry::default();
        let family = registry.counter("flood_total", "Chosen by clients.", ["name"]);
        for number in 0..MAX_SERIES + 10 {
            family.with([number.to_string().as_str()]).inc();
        }
        assert!(registry.text().lines().count() <= MAX_SERIES + 2);
    }
}
