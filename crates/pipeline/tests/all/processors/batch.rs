//! `batch`: when spans leave, and in batches of which size.

use super::bench::{Bench, Build, batch, findings, lines, span};
use pipeline::Batch;

/// Spans named by their numbers.
fn numbered(numbers: std::ops::Range<u64>) -> Batch {
    batch(
        numbers
            .map(|n| span(&n.to_string()).of_trace(n + 1))
            .collect(),
    )
}

fn sizes(batches: &[Batch]) -> Vec<usize> {
    batches.iter().map(Batch::span_count).collect()
}

#[test]
fn spans_leave_when_they_are_enough_or_have_waited() {
    let mut bench = Bench::new("batch", "{send_batch_size: 10, timeout: 100ms}");
    assert_eq!(sizes(&bench.process(numbered(0..4))), [0; 0]);
    assert_eq!(sizes(&bench.wait(60)), [0; 0]);
    assert_eq!(sizes(&bench.process(numbered(4..12))), [12]);
    assert_eq!(sizes(&bench.process(numbered(0..3))), [0; 0]);
    assert_eq!(sizes(&bench.wait(99)), [0; 0]);
    assert_eq!(sizes(&bench.process(numbered(3..5))), [0; 0]);
    assert_eq!(sizes(&bench.wait(1)), [5]);
    assert_eq!(sizes(&bench.wait(1_000)), [0; 0]);
    assert_eq!(sizes(&bench.process(numbered(0..2))), [0; 0]);
    assert_eq!(sizes(&bench.flush()), [2]);
    let size = bench.counts("otelcol_processor_batch_batch_size_trigger_send");
    let timeout = bench.counts("otelcol_processor_batch_timeout_trigger_send");
    assert_eq!(
        (size, timeout),
        (vec!["1".to_owned()], vec!["1".to_owned()])
    );
}

#[test]
fn a_batch_has_so_many_spans_at_most_and_none_is_lost_or_moved() {
    let settings = "{send_batch_size: 4, send_batch_max_size: 5, timeout: 100ms}";
    let mut bench = Bench::new("batch", settings);
    let mut out = bench.process(numbered(0..3));
    out.extend(bench.process(numbered(3..19)));
    assert_eq!(sizes(&out), [5, 5, 5, 4]);
    out.extend(bench.process(numbered(19..21)));
    out.extend(bench.wait(100));
    assert_eq!(sizes(&out), [5, 5, 5, 4, 2]);
    let names: Vec<String> = out.iter().flat_map(lines).collect();
    let expected: Vec<String> = (0..21).map(|n| n.to_string()).collect();
    assert_eq!(names, expected);
    for batch in &out {
        for resource in batch.resource_spans().iter() {
            assert_eq!(resource.resource.as_ref().unwrap().attributes.len(), 1);
            let scope = resource.scope_spans[0].scope.as_ref().unwrap();
            assert_eq!(scope.name, "deeptrace");
        }
    }
}

#[test]
fn without_a_timeout_nothing_waits() {
    let mut bench = Bench::new("batch", "{send_batch_size: 10, timeout: 0}");
    assert_eq!(sizes(&bench.process(numbered(0..3))), [3]);
    let settings = "{send_batch_size: 2, send_batch_max_size: 2, timeout: 0}";
    let mut bench = Bench::new("batch", settings);
    assert_eq!(sizes(&bench.process(numbered(0..5))), [2, 2, 1]);
}

#[test]
fn it_warns_that_it_is_deprecated_and_refuses_what_cannot_work() {
    let deprecated =
        ": \"batch\" is deprecated: exporters join batches themselves (sending_queue::batch)";
    assert_eq!(findings("batch", "{timeout: 1s}"), [deprecated]);
    let cases = [
        (
            "{send_batch_size: 9, send_batch_max_size: 8}",
            "send_batch_max_size: must be 0 or at least send_batch_size",
        ),
        (
            "{metadata_keys: [tenant]}",
            "metadata_keys: not supported: what a client sent beside its spans is not kept",
        ),
    ];
    for (settings, finding) in cases {
        let found = findings("batch", settings);
        assert!(
            found.iter().any(|found| found == finding),
            "{settings}: {found:?}"
        );
    }
}
