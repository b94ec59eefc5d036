//! Counters and gauges of the process itself, and the Prometheus text of them.
//!
//! By hand rather than by `prometheus-client`: that crate appends `_total` to every
//! counter, while the Collector's dashboards know `otelcol_exporter_sent_spans`,
//! and it cannot read values back for the final summary.

use super::histogram::Histogram;
use super::settings::Level;
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Label sets that one name may have; what comes later shares one series.
const MAX_SERIES: usize = 1_000;
/// The label of the shared series, as the OpenTelemetry specification calls it.
const OVERFLOW: (&str, &str) = ("otel_metric_overflow", "true");
/// Labels that only the level `detailed` shows.
const DETAILS: [&str; 2] = ["error_type", "error_permanent"];

/// Counts up; a clone counts in the same place.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Some more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// As many more as a length says.
    pub fn add_len(&self, count: usize) {
        self.add(count as u64);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Goes up and down; a clone is the same gauge.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Sets the value to a length.
    pub fn set_len(&self, value: usize) {
        self.set(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// Changes the value.
    pub fn add(&self, change: i64) {
        self.0.fetch_add(change, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Label names and values, in the order they were given.
pub type Labels = Vec<(String, String)>;

#[derive(Clone)]
enum Series {
    Counter(Counter),
    Gauge(Gauge),
    Polled(Arc<dyn Fn() -> f64 + Send + Sync>),
    Histogram(Histogram),
}

impl Series {
    fn samples(&self, name: &str, labels: &Labels) -> Vec<Sample> {
        #[expect(clippy::cast_precision_loss, reason = "Prometheus has only doubles")]
        let value = match self {
            Self::Counter(counter) => counter.get() as f64,
            Self::Gauge(gauge) => gauge.get() as f64,
            Self::Polled(poll) => poll(),
            Self::Histogram(histogram) => return histogram.samples(name, labels),
        };
        vec![Sample {
            name: name.to_owned(),
            labels: labels.clone(),
            value,
        }]
    }
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values by size.
    Histogram,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

struct Family {
    help: String,
    kind: Kind,
    /// The lowest level that shows it.
    from: Level,
    series: BTreeMap<Labels, Series>,
}

impl Family {
    /// Its values; without details, series that differ in those alone are added up.
    fn samples(&self, name: &str, level: Level) -> Vec<Sample> {
        let series = self.series.iter();
        let all = series.flat_map(|(labels, series)| series.samples(name, labels));
        if level == Level::Detailed || self.kind != Kind::Counter {
            return all.collect();
        }
        let mut sums: BTreeMap<Labels, f64> = BTreeMap::new();
        for mut sample in all {
            sample
                .labels
                .retain(|(key, _)| !DETAILS.contains(&key.as_str()));
            *sums.entry(sample.labels).or_default() += sample.value;
        }
        let sums = sums.into_iter().map(|(labels, value)| Sample {
            name: name.to_owned(),
            labels,
            value,
        });
        sums.collect()
    }
}

/// All values of one metric.
pub(crate) struct Metric {
    pub name: String,
    pub help: String,
    pub kind: Kind,
    pub samples: Vec<Sample>,
}

#[derive(Default)]
struct Registry {
    families: BTreeMap<String, Family>,
    level: Level,
}

/// All metrics of the process; a clone is the same registry.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    /// The lowest level that shows what is made here.
    from: Level,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            registry: Arc::default(),
            from: Level::Basic,
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// The same registry, for metrics that are shown from this level on.
    #[must_use]
    pub fn at(&self, from: Level) -> Self {
        let registry = Arc::clone(&self.registry);
        Self { registry, from }
    }

    /// Shows metrics up to this level from now on; all are always counted.
    pub(crate) fn set_level(&self, level: Level) {
        self.lock().level = level;
    }

    /// The counter of this name and these labels, made at the first call. Look it up
    /// once and keep it: counting is one atomic addition then.
    pub fn counter(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Counter {
        let made = || Series::Counter(Counter::default());
        match self.series(name, help, Kind::Counter, labels, made) {
            Series::Counter(counter) => counter,
            // Named as a gauge before: a programming slip must not stop the process.
            _ => Counter::default(),
        }
    }

    /// The gauge of this name and these labels, made at the first call.
    pub fn gauge(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Gauge {
        let made = || Series::Gauge(Gauge::default());
        match self.series(name, help, Kind::Gauge, labels, made) {
            Series::Gauge(gauge) => gauge,
            _ => Gauge::default(),
        }
    }

    /// The histogram of this name and these labels, made at the first call.
    pub fn histogram(
        &self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        bounds: &'static [f64],
    ) -> Histogram {
        let made = || Series::Histogram(Histogram::new(bounds));
        match self.series(name, help, Kind::Histogram, labels, made) {
            Series::Histogram(histogram) => histogram,
            _ => Histogram::new(bounds),
        }
    }

    /// A counter whose value stands elsewhere (a BPF map, a kernel file) and is read when asked for.
    pub fn poll_counter(
        &self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        let read: Arc<dyn Fn() -> f64 + Send + Sync> = Arc::new(read);
        self.series(name, help, Kind::Counter, labels, || Series::Polled(read));
    }

    /// A gauge whose value stands elsewhere and is read when asked for.
    pub fn poll_gauge(
        &self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        let read: Arc<dyn Fn() -> f64 + Send + Sync> = Arc::new(read);
        self.series(name, help, Kind::Gauge, labels, || Series::Polled(read));
    }

    /// A gauge of 1 that says something by its labels; what it said before is gone.
    pub(crate) fn info(&self, name: &str, help: &str, labels: Labels) {
        let one = Gauge::default();
        one.set(1);
        let family = Family {
            help: help.to_owned(),
            kind: Kind::Gauge,
            from: self.from,
            series: BTreeMap::from([(labels, Series::Gauge(one))]),
        };
        self.lock().families.insert(name.to_owned(), family);
    }

    /// Shows no gauge any more that has this label: what it measured is gone.
    pub(crate) fn forget_gauges(&self, label: (&str, &str)) {
        let has_it = |(key, value): &(String, String)| (key.as_str(), value.as_str()) == label;
        let mut registry = self.lock();
        for family in registry.families.values_mut() {
            if family.kind == Kind::Gauge {
                family.series.retain(|labels, _| !labels.iter().any(has_it));
            }
        }
    }

    fn series(
        &self,
        name: &str,
        help: &str,
        kind: Kind,
        labels: &[(&str, &str)],
        make: impl FnOnce() -> Series,
    ) -> Series {
        let mut registry = self.lock();
        let families = &mut registry.families;
        let family = families.entry(name.to_owned()).or_insert_with(|| Family {
            help: help.to_owned(),
            kind,
            from: self.from,
            series: BTreeMap::new(),
        });
        let mut labels = owned(labels);
        if family.series.len() >= MAX_SERIES && !family.series.contains_key(&labels) {
            labels = owned(&[OVERFLOW]);
        }
        family.series.entry(labels).or_insert_with(make).clone()
    }

    /// The Prometheus text format, version 0.0.4.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for metric in self.all() {
            let (name, kind) = (&metric.name, metric.kind.as_str());
            let help = metric.help.replace('\\', "\\\\").replace('\n', "\\n");
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for sample in &metric.samples {
                let _ = writeln!(out, "{sample}");
            }
        }
        out
    }

    /// All values as they are now, ordered by name and labels.
    pub fn samples(&self) -> Vec<Sample> {
        let all = self.all().into_iter();
        all.flat_map(|metric| metric.samples).collect()
    }

    /// What the level shows, ordered by name. `none` has no endpoint, but a summary at the end.
    pub(crate) fn all(&self) -> Vec<Metric> {
        let registry = self.lock();
        let level = match registry.level {
            Level::None => Level::Normal,
            level => level,
        };
        let families = registry.families.iter();
        let shown = families.filter(|(_, family)| family.from <= level);
        let metric = |(name, family): (&String, &Family)| Metric {
            name: name.clone(),
            help: family.help.clone(),
            kind: family.kind,
            samples: family.samples(name, level),
        };
        shown
            .map(metric)
            .filter(|metric| !metric.samples.is_empty())
            .collect()
    }

    /// The values of one metric.
    pub(crate) fn of(&self, name: &str) -> Vec<Sample> {
        let registry = self.lock();
        let family = registry.families.get(name);
        family.map_or_else(Vec::new, |family| family.samples(name, registry.level))
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn owned(labels: &[(&str, &str)]) -> Labels {
    labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// One value, read back.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The metric's name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its value at that time.
    pub value: f64,
}

impl Sample {
    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// As a line of the Prometheus text.
impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (index, (key, value)) in self.labels.iter().enumerate() {
            let value = value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            write!(f, "{}{key}=\"{value}\"", if index == 0 { "{" } else { "," })?;
        }
        if !self.labels.is_empty() {
            f.write_str("}")?;
        }
        write!(f, " {}", self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_appear_exactly_as_given() {
        let metrics = Metrics::default();
        metrics
            .counter(
                "otelcol_exporter_sent_spans",
                "Spans sent.",
                &[("exporter", "debug")],
            )
            .add(3);
        metrics
            .gauge("otelcol_exporter_queue_size", "Waiting.", &[])
            .set(2);
        metrics.poll_gauge("uptime", "Seconds.", &[], || 1.5);
        let expected = "# HELP otelcol_exporter_queue_size Waiting.\n\
            # TYPE otelcol_exporter_queue_size gauge\n\
            otelcol_exporter_queue_size 2\n\
            # HELP otelcol_exporter_sent_spans Spans sent.\n\
            # TYPE otelcol_exporter_sent_spans counter\n\
            otelcol_exporter_sent_spans{exporter=\"debug\"} 3\n\
            # HELP uptime Seconds.\n\
            # TYPE uptime gauge\n\
            uptime 1.5\n";
        assert_eq!(metrics.text(), expected);
    }

    #[test]
    fn the_same_name_and_labels_are_the_same_counter() {
        let metrics = Metrics::default();
        for _ in 0..2 {
            metrics.counter("c", "", &[("k", "a\"b")]).inc();
        }
        assert_eq!(
            metrics
                .samples()
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            ["c{k=\"a\\\"b\"} 2"]
        );
    }

    #[test]
    fn too_many_label_sets_share_one_series() {
        let metrics = Metrics::default();
        for index in 0..MAX_SERIES + 5 {
            metrics.counter("c", "", &[("k", &index.to_string())]).inc();
        }
        let samples = metrics.samples();
        assert_eq!(samples.len(), MAX_SERIES + 1);
        let shared = samples
            .iter()
            .find(|sample| sample.label(OVERFLOW.0).is_some());
        assert_eq!(shared.map(|sample| sample.value), Some(5.0));
    }

    #[test]
    fn a_level_shows_what_belongs_to_it_and_adds_up_the_rest() {
        let metrics = Metrics::default();
        metrics.counter("basic", "", &[]).inc();
        metrics.at(Level::Normal).counter("normal", "", &[]).inc();
        metrics
            .at(Level::Detailed)
            .counter("detailed", "", &[])
            .inc();
        for (error, count) in [("a", 1), ("b", 2)] {
            let labels = [("exporter", "x"), ("error_type", error)];
            metrics.counter("failed", "", &labels).add(count);
        }
        let shown = |level| {
            metrics.set_level(level);
            let samples = metrics.samples().into_iter();
            let lines: Vec<_> = samples.map(|sample| sample.to_string()).collect();
            lines.join("; ")
        };
        let sum = "failed{exporter=\"x\"} 3";
        let apart = "failed{exporter=\"x\",error_type=\"a\"} 1; \
             failed{exporter=\"x\",error_type=\"b\"} 2";
        assert_eq!(shown(Level::Basic), format!("basic 1; {sum}"));
        assert_eq!(shown(Level::Normal), format!("basic 1; {sum}; normal 1"));
        assert_eq!(
            shown(Level::Detailed),
            format!("basic 1; detailed 1; {apart}; normal 1")
        );
    }

    #[test]
    fn gauges_of_what_is_gone_are_not_shown() {
        let metrics = Metrics::default();
        for exporter in ["a", "b"] {
            let label = [("exporter", exporter)];
            metrics.gauge("size", "", &label).set(1);
            metrics.counter("sent", "", &label).inc();
        }
        metrics.forget_gauges(("exporter", "a"));
        let samples = metrics.samples().into_iter();
        let lines: Vec<_> = samples.map(|sample| sample.to_string()).collect();
        let expected = [
            "sent{exporter=\"a\"} 1",
            "sent{exporter=\"b\"} 1",
            "size{exporter=\"b\"} 1",
        ];
        assert_eq!(lines, expected);
    }
}
