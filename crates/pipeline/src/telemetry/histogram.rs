//! How often values of some size came, by fixed bounds.

use super::metrics::{Labels, Sample};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bounds for numbers of spans, as the Collector has them for batches.
pub const SPAN_BOUNDS: &[f64] = &[
    10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1e3, 2e3, 3e3, 4e3, 5e3, 6e3, 7e3, 8e3,
    9e3, 1e4, 2e4, 3e4, 5e4, 1e5,
];
/// Bounds for bytes of a request; the last is the largest there may be.
pub const BYTE_BOUNDS: &[f64] = &[1e3, 1e4, 1e5, 1e6, 4e6, 16e6, 67_108_864.0];
/// Bounds for seconds of work on a batch.
pub const SECOND_BOUNDS: &[f64] = &[1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0];

/// Counts values; a clone counts in the same place.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    bounds: &'static [f64],
    /// One for each bound, and one for what is above all.
    buckets: Vec<AtomicU64>,
    /// The bits of a double.
    sum: AtomicU64,
}

impl Histogram {
    /// Nothing counted. `bounds` rise; a value belongs to the first that is not below it.
    pub fn new(bounds: &'static [f64]) -> Self {
        Self(Arc::new(Counts {
            bounds,
            buckets: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0.0_f64.to_bits()),
        }))
    }

    /// Counts a value.
    pub fn record(&self, value: f64) {
        let bucket = self.0.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.0.buckets.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        // Always added: the function never gives None.
        let _ = self.0.sum.fetch_update(set, fetch, add);
    }

    /// Counts a length.
    pub fn record_len(&self, length: usize) {
        #[expect(clippy::cast_precision_loss, reason = "Prometheus has only doubles")]
        self.record(length as f64);
    }

    /// As Prometheus writes it: counts up to each bound, their sum, their number.
    pub(super) fn samples(&self, name: &str, labels: &Labels) -> Vec<Sample> {
        let sample = |suffix: &str, labels: Labels, value: f64| Sample {
            name: format!("{name}_{suffix}"),
            labels,
            value,
        };
        let bounds = self.0.bounds.iter().map(ToString::to_string);
        let mut total = 0;
        let mut samples = Vec::new();
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(&self.0.buckets) {
            total += count.load(Ordering::Relaxed);
            let labels = [labels.as_slice(), &[("le".to_owned(), bound)]].concat();
            samples.push(sample("bucket", labels, exact(total)));
        }
        let sum = f64::from_bits(self.0.sum.load(Ordering::Relaxed));
        samples.push(sample("sum", labels.clone(), sum));
        samples.push(sample("count", labels.clone(), exact(total)));
        samples
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has only doubles")]
fn exact(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_count_up_to_their_bounds() {
        let histogram = Histogram::new(&[1.0, 10.0]);
        for value in [0.5, 1.0, 5.0, 100.0] {
            histogram.record(value);
        }
        let labels = vec![("k".to_owned(), "v".to_owned())];
        let samples = histogram.samples("h", &labels);
        let lines: Vec<_> = samples.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "h_bucket{k=\"v\",le=\"1\"} 2",
                "h_bucket{k=\"v\",le=\"10\"} 3",
                "h_bucket{k=\"v\",le=\"+Inf\"} 4",
                "h_sum{k=\"v\"} 106.5",
                "h_count{k=\"v\"} 4",
            ]
        );
    }
}
