//! What the process costs, read from the kernel when asked for.

use super::memory::resident_bytes;
use super::metrics::Metrics;
use crate::clock::Monotonic;
use std::fs;

/// Clock ticks a second in `/proc/self/stat`: 100 in the ABI of every Linux (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Registers uptime, CPU time and memory as the Collector names them.
pub(crate) fn register(metrics: &Metrics) {
    let begun = Monotonic::now();
    let uptime = move || Monotonic::now().since(begun).as_secs_f64();
    metrics.poll_counter(
        "otelcol_process_uptime",
        "Seconds since the start.",
        &[],
        uptime,
    );
    let cpu = || cpu_seconds().unwrap_or(0.0);
    metrics.poll_counter(
        "otelcol_process_cpu_seconds",
        "CPU time, user and system.",
        &[],
        cpu,
    );
    #[expect(clippy::cast_precision_loss, reason = "Prometheus has only doubles")]
    let rss = || resident_bytes().unwrap_or(0) as f64;
    metrics.poll_gauge("otelcol_process_memory_rss", "Resident bytes.", &[], rss);
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name in the second field may have spaces; the fields behind it do not.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(11);
    let user: f64 = times.next()?.parse().ok()?;
    let system: f64 = times.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_what_the_process_costs() {
        assert!(cpu_seconds().unwrap() >= 0.0);
    }
}
