//! Running a configuration until a signal, and what is said at the end.

use super::{CliError, complain};
use crate::config::Config;
use crate::service::{Service, Summary};
use crate::telemetry::{Metrics, Sample, init_logs};
use std::io;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

/// Runs until SIGTERM, SIGINT or SIGHUP, then drains.
pub fn serve(config: &Config) -> Result<(), CliError> {
    init_logs(&config.telemetry.logs)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = runtime::Builder::new_multi_thread().enable_all().build();
    let summary = runtime.map_err(CliError::Runtime)?.block_on(run(config))?;
    print_summary(&summary.samples);
    summary
        .failure
        .map_or(Ok(()), |failure| Err(failure.into()))
}

async fn run(config: &Config) -> Result<Summary, CliError> {
    let service = Service::build(config, Metrics::default())?;
    let until = told_to_stop().map_err(CliError::Runtime)?;
    Ok(service.run(until).await?)
}

fn told_to_stop() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // The terminal went away: a stop like any other.
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// Counters of things lost: what an operator looks at first.
const LOSSES: [&str; 5] = [
    "deeptrace_kernel_lost",
    "deeptrace_dropped",
    "deeptrace_unpaired",
    "deeptrace_lost_spans",
    "otelcol_exporter_send_failed_spans",
];

/// Spans, traces and losses in a few lines, then every counter that is not zero.
fn print_summary(samples: &[Sample]) {
    let sum = |name: &str| -> f64 {
        let named = samples.iter().filter(|sample| sample.name == name);
        // Not `sum`, which is -0 of nothing.
        named.fold(0.0, |sum, sample| sum + sample.value)
    };
    let spans = sum("otelcol_receiver_accepted_spans");
    let roots = sum("deeptrace_unlinked_spans");
    complain(format_args!("summary: {spans} spans in {roots} traces"));
    let lost = |sample: &&Sample| sample.value != 0.0 && LOSSES.contains(&sample.name.as_str());
    if samples.iter().any(|sample| lost(&sample)) {
        complain(format_args!("lost, by reason:"));
    } else {
        complain(format_args!("lost: nothing"));
    }
    for sample in samples.iter().filter(lost) {
        complain(format_args!("  {sample}"));
    }
    complain(format_args!("counters:"));
    for sample in samples
        .iter()
        .filter(|sample| sample.value != 0.0 && !lost(sample))
    {
        complain(format_args!("  {sample}"));
    }
}
