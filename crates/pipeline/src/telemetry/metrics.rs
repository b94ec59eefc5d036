//! Counters and gauges of the process itself, and the Prometheus text of them.
//!
//! By hand rather than by `prometheus-client`: that crate appends `_total` to every
//! counter, while the Collector's dashboards know `otelcol_exporter_sent_spans`,
//! and it cannot read values back for the final summary.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Label sets that one name may have; what comes later shares one series.
const MAX_SERIES: usize = 1_000;
/// The label of the shared series, as the OpenTelemetry specification calls it.
const OVERFLOW: (&str, &str) = ("otel_metric_overflow", "true");

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
}

impl Series {
    fn value(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "Prometheus has only doubles")]
        match self {
            Self::Counter(counter) => counter.get() as f64,
            Self::Gauge(gauge) => gauge.get() as f64,
            Self::Polled(poll) => poll(),
        }
    }
}

struct Family {
    help: String,
    is_counter: bool,
    series: BTreeMap<Labels, Series>,
}

/// All metrics of the process; a clone is the same registry.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Mutex<BTreeMap<String, Family>>>);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// The counter of this name and these labels, made at the first call. Look it up
    /// once and keep it: counting is one atomic addition then.
    pub fn counter(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Counter {
        let made = || Series::Counter(Counter::default());
        match self.series(name, help, true, labels, made) {
            Series::Counter(counter) => counter,
            // Named as a gauge before: a programming slip must not stop the process.
            _ => Counter::default(),
        }
    }

    /// The gauge of this name and these labels, made at the first call.
    pub fn gauge(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Gauge {
        match self.series(
            name,
            help,
            false,
            labels,
            || Series::Gauge(Gauge::default()),
        ) {
            Series::Gauge(gauge) => gauge,
            _ => Gauge::default(),
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
        self.series(name, help, true, labels, || Series::Polled(read));
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
        self.series(name, help, false, labels, || Series::Polled(read));
    }

    fn series(
        &self,
        name: &str,
        help: &str,
        is_counter: bool,
        labels: &[(&str, &str)],
        make: impl FnOnce() -> Series,
    ) -> Series {
        let mut families = self.lock();
        let family = families.entry(name.to_owned()).or_insert_with(|| Family {
            help: help.to_owned(),
            is_counter,
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
        for (name, family) in self.lock().iter() {
            let kind = if family.is_counter {
                "counter"
            } else {
                "gauge"
            };
            let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, series) in &family.series {
                let _ = writeln!(
                    out,
                    "{}",
                    Sample {
                        name: name.clone(),
                        labels: labels.clone(),
                        value: series.value()
                    }
                );
            }
        }
        out
    }

    /// All values as they are now, ordered by name and labels.
    pub fn samples(&self) -> Vec<Sample> {
        let families = self.lock();
        let samples = families.iter().flat_map(|(name, family)| {
            let series = family.series.iter();
            series.map(|(labels, series)| Sample {
                name: name.clone(),
                labels: labels.clone(),
                value: series.value(),
            })
        });
        samples.collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Family>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
}
