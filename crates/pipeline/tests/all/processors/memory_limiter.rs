//! A pipeline whose process always has more memory than it may: it has 1 MiB at most.

use crate::support::{config, run_until, total};

/// Sends a batch of two spans 60 times.
fn yaml(receiver: &str, processors: &str) -> String {
    format!(
        "receivers: {{feed: {{batches: 60, spans: 2, pause: 2ms, {receiver}}}}}\n\
         processors: {{hold: {{}}, memory_limiter: {{check_interval: 5ms, limit_mib: 1}}}}\n\
         exporters: {{debug: {{output_paths: [/dev/null]}}}}\n\
         service:\n  telemetry: {{metrics: {{level: none}}}}\n  pipelines:\n    traces: \
         {{receivers: [feed], processors: [{processors}], exporters: [debug]}}\n"
    )
}

#[tokio::test]
async fn a_receiver_that_can_refuse_does_and_every_span_is_counted() {
    let refused = "otelcol_receiver_refused_spans";
    let yaml = yaml("impatient: true", "memory_limiter");
    let summary = run_until(&yaml, |samples| {
        let accepted = total(samples, "otelcol_receiver_accepted_spans");
        total(samples, refused) > 0 && total(samples, refused) + accepted == 120
    })
    .await;
    let total = |name| total(&summary.samples, name);
    let accepted = total("otelcol_receiver_accepted_spans");
    let let_in = total("otelcol_processor_memory_limiter_accepted_spans");
    let sent_away = total("otelcol_processor_memory_limiter_refused_spans");
    assert_eq!((let_in, sent_away), (accepted, total(refused)));
    assert_eq!(total("otelcol_exporter_sent_spans"), accepted);
}

#[tokio::test]
async fn a_receiver_that_waits_is_let_in_at_the_stop_and_loses_nothing() {
    let summary = run_until(&yaml("", "memory_limiter"), |samples| {
        total(samples, "deeptrace_memory_limiter_refusing") == 1
    })
    .await;
    let total = |name| total(&summary.samples, name);
    assert_eq!(total("otelcol_receiver_accepted_spans"), 120);
    assert_eq!(total("otelcol_receiver_refused_spans"), 0);
    assert_eq!(total("otelcol_exporter_sent_spans"), 120);
}

#[test]
fn it_should_be_the_first_of_its_pipeline() {
    let warnings = |processors| {
        let config = config(&yaml("", processors));
        let warnings = config.warnings.iter().map(ToString::to_string);
        warnings.collect::<Vec<_>>()
    };
    assert_eq!(warnings("memory_limiter, hold"), [""; 0]);
    assert_eq!(
        warnings("hold, memory_limiter"),
        [
            "test.yaml:7: service::pipelines::traces::processors: \"memory_limiter\" should be the first processor"
        ]
    );
}
