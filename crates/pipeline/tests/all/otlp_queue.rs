//! The sending queue: joins, overflows and drains as configured.

use crate::support::peer::{Answer, Peer};
use crate::support::{lost, one_pipeline, run, run_until, total, wait_for};
use pipeline::proto::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use std::time::{Duration, Instant};

fn ok() -> Answer {
    Answer {
        status: 200,
        ..Answer::default()
    }
}

fn stuck() -> Answer {
    Answer {
        delay: Duration::from_mins(1),
        ..ok()
    }
}

fn yaml(receiver: &str, port: u16, more: &str) -> String {
    let settings = format!("{{endpoint: 'http://127.0.0.1:{port}', compression: none, {more}}}");
    one_pipeline(receiver, "", &settings, "otlp_http")
}

fn spans_of(peer: &Peer) -> Vec<usize> {
    let requests = peer
        .seen()
        .into_iter()
        .map(|seen| ExportTraceServiceRequest::decode(seen.body).unwrap());
    let spans = |request: ExportTraceServiceRequest| {
        let scopes = request
            .resource_spans
            .into_iter()
            .flat_map(|spans| spans.scope_spans);
        scopes.map(|scope| scope.spans.len()).sum()
    };
    requests.map(spans).collect()
}

#[tokio::test]
async fn small_batches_leave_as_one_request() {
    let peer = Peer::http(vec![ok()]).await;
    let yaml = yaml(
        "{batches: 50, spans: 2}",
        peer.port,
        "sending_queue: {batch: {flush_timeout: 300ms}}",
    );
    run_until(&yaml, |samples| {
        total(samples, "otelcol_exporter_sent_spans") == 100
    })
    .await;
    assert_eq!(spans_of(&peer), [100]);
}

#[tokio::test]
async fn enough_spans_leave_at_once() {
    let peer = Peer::http(vec![ok()]).await;
    let queue = "sending_queue: {num_consumers: 1, batch: {flush_timeout: 1h, min_size: 20}}";
    let yaml = yaml("{batches: 10, spans: 8}", peer.port, queue);
    run_until(&yaml, |samples| {
        total(samples, "otelcol_exporter_sent_spans") == 72
    })
    .await;
    assert_eq!(
        spans_of(&peer),
        [24, 24, 24, 8],
        "the last when the service stopped"
    );
}

#[tokio::test]
async fn joining_can_be_switched_off() {
    let peer = Peer::http(vec![ok()]).await;
    let yaml = yaml(
        "{batches: 5, spans: 2}",
        peer.port,
        "sending_queue: {batch: null}",
    );
    run_until(&yaml, |samples| {
        total(samples, "otelcol_exporter_sent_spans") == 10
    })
    .await;
    assert_eq!(spans_of(&peer), [2; 5]);
}

#[tokio::test]
async fn without_a_queue_the_pipeline_sends_itself() {
    let peer = Peer::http(vec![ok()]).await;
    let yaml = yaml(
        "{batches: 5, spans: 2}",
        peer.port,
        "sending_queue: {enabled: false}",
    );
    run_until(&yaml, |samples| {
        total(samples, "otelcol_exporter_sent_spans") == 10
    })
    .await;
    assert_eq!(spans_of(&peer), [2; 5]);
}

#[tokio::test]
async fn what_has_no_room_is_counted() {
    for (sizer, size, kept) in [("requests", 4, 4 * 3), ("items", 10, 3 * 3)] {
        let peer = Peer::http(vec![stuck()]).await;
        let queue = format!(
            "sending_queue: {{num_consumers: 1, queue_size: {size}, sizer: {sizer}, batch: {{flush_timeout: 1h}}}}"
        );
        let yaml = format!(
            "{}  shutdown_timeout: 200ms\n",
            yaml("{batches: 20, spans: 3}", peer.port, &queue)
        );
        let dropped = 60 - kept;
        let summary = run_until(&yaml, |samples| {
            let queued = total(samples, "otelcol_exporter_queue_size") > 0;
            queued && total(samples, "otelcol_exporter_enqueue_failed_spans") == dropped
        })
        .await;
        let samples = &summary.samples;
        assert_eq!(total(samples, "otelcol_exporter_queue_capacity"), size);
        assert_eq!(total(samples, "otelcol_exporter_queue_size"), 0);
        assert_eq!(lost(samples, "queue_full"), dropped, "{sizer}");
        assert_eq!(lost(samples, "shutdown"), kept, "{sizer}");
    }
}

#[tokio::test]
async fn a_full_queue_can_hold_up_the_receiver_instead() {
    let peer = Peer::http(vec![Answer {
        delay: Duration::from_millis(20),
        ..ok()
    }])
    .await;
    let queue =
        "sending_queue: {num_consumers: 1, queue_size: 1, block_on_overflow: true, batch: null}";
    let yaml = yaml("{batches: 20, spans: 3}", peer.port, queue);
    let summary = run_until(&yaml, |samples| {
        total(samples, "otelcol_exporter_sent_spans") == 60
    })
    .await;
    assert_eq!(
        total(&summary.samples, "otelcol_exporter_enqueue_failed_spans"),
        0
    );
}

#[tokio::test]
async fn a_stop_drains_the_queue() {
    let peer = Peer::http(vec![Answer {
        delay: Duration::from_millis(100),
        ..ok()
    }])
    .await;
    let yaml = yaml(
        "{batches: 30, spans: 2}",
        peer.port,
        "sending_queue: {batch: {flush_timeout: 1h}}",
    );
    let accepted = |samples: &[_]| total(samples, "otelcol_receiver_accepted_spans") == 60;
    let summary = run_until(&yaml, accepted).await;
    assert_eq!(total(&summary.samples, "otelcol_exporter_sent_spans"), 60);
}

#[tokio::test]
async fn a_stop_ends_at_the_deadline_and_counts_what_is_left() {
    let peer = Peer::http(vec![stuck()]).await;
    let base = yaml(
        "{batches: 30, spans: 2}",
        peer.port,
        "sending_queue: {num_consumers: 2, batch: null}",
    );
    let yaml = format!("{base}  shutdown_timeout: 300ms\n");
    let begun = Instant::now();
    let summary = run(&yaml, |_| async {
        wait_for(|| peer.seen().len() == 2).await;
    })
    .await;
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(lost(&summary.samples, "shutdown"), 60);
    assert_eq!(
        total(&summary.samples, "otelcol_exporter_send_failed_spans"),
        60
    );
}

#[tokio::test]
async fn a_stop_does_not_wait_when_the_next_attempt_would_come_too_late() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let base = yaml(
        "{batches: 30, spans: 2}",
        free,
        "sending_queue: {batch: null}",
    );
    // The second attempt comes after 2.5 s at the earliest.
    let yaml = format!("{base}  shutdown_timeout: 2s\n");
    let begun = Instant::now();
    let accepted = |samples: &[_]| total(samples, "otelcol_receiver_accepted_spans") == 60;
    let summary = run_until(&yaml, accepted).await;
    assert!(
        begun.elapsed() < Duration::from_millis(1_500),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(lost(&summary.samples, "shutdown"), 60);
}

#[tokio::test]
async fn a_stop_gives_a_waiting_request_one_last_attempt() {
    let down = Answer {
        status: 503,
        ..Answer::default()
    };
    let peer = Peer::http(vec![down, ok()]).await;
    let yaml = yaml("{spans: 2}", peer.port, "sending_queue: {batch: null}");
    let summary = run(&yaml, |_| async {
        wait_for(|| peer.seen().len() == 1).await;
    })
    .await;
    assert_eq!(total(&summary.samples, "otelcol_exporter_sent_spans"), 2);
}

#[tokio::test]
async fn a_request_is_no_larger_than_asked_for() {
    for (receiver, batch, expected) in [
        // Three batches join, since a fourth would be too much.
        (
            "{batches: 7, spans: 3}",
            "{min_size: 10, max_size: 11, flush_timeout: 50ms}",
            vec![9, 9, 3],
        ),
        // One batch is too much by itself.
        (
            "{batches: 1, spans: 20}",
            "{min_size: 1, max_size: 8, flush_timeout: 50ms}",
            vec![8, 8, 4],
        ),
        (
            "{batches: 4, spans: 1}",
            "{min_size: 150, max_size: 200, sizer: bytes, flush_timeout: 50ms}",
            vec![2, 2],
        ),
    ] {
        let peer = Peer::http(vec![ok()]).await;
        let queue = format!("sending_queue: {{num_consumers: 1, batch: {batch}}}");
        let yaml = yaml(receiver, peer.port, &queue);
        let all: usize = expected.iter().sum();
        run_until(&yaml, |samples| {
            total(samples, "otelcol_exporter_sent_spans") == all as u64
        })
        .await;
        assert_eq!(spans_of(&peer), expected, "{batch}");
    }
}

#[tokio::test]
async fn the_pipeline_can_wait_for_the_result() {
    let refused = Answer {
        status: 400,
        ..Answer::default()
    };
    let peer = Peer::http(vec![ok(), refused, ok()]).await;
    let queue = "sending_queue: {wait_for_result: true, batch: {flush_timeout: 1ms}}";
    let yaml = yaml("{batches: 3, spans: 2}", peer.port, queue);
    let summary = run_until(&yaml, |samples| {
        total(samples, "otelcol_exporter_sent_spans") == 4
    })
    .await;
    assert_eq!(spans_of(&peer), [2, 2, 2], "one after the other");
    assert_eq!(lost(&summary.samples, "refused"), 2, "counted once");
}

#[tokio::test]
async fn a_dead_backend_does_not_hold_up_the_others() {
    let (dead, alive) = (
        Peer::http(vec![stuck()]).await,
        Peer::http(vec![ok()]).await,
    );
    let exporter = |port: u16| {
        format!(
            "{{endpoint: 'http://127.0.0.1:{port}', compression: none, sending_queue: {{queue_size: 2, num_consumers: 1, batch: null}}}}"
        )
    };
    let yaml = format!(
        "receivers: {{feed: {{batches: 30, spans: 2}}}}\n\
         exporters: {{otlp_http/dead: {}, otlp_http/alive: {}}}\n\
         service:\n  telemetry: {{metrics: {{level: none}}}}\n  shutdown_timeout: 200ms\n  pipelines:\n    \
         traces: {{receivers: [feed], exporters: [otlp_http/dead, otlp_http/alive]}}\n",
        exporter(dead.port),
        exporter(alive.port).replace("queue_size: 2", "queue_size: 100")
    );
    let summary = run_until(&yaml, |samples| {
        total(samples, "otelcol_exporter_sent_spans") == 60
    })
    .await;
    assert_eq!(spans_of(&alive).iter().sum::<usize>(), 60);
    let samples = &summary.samples;
    assert_eq!(lost(samples, "queue_full") + lost(samples, "shutdown"), 60);
}
