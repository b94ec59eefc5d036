//! `sending_queue::storage`: what waits outlives the process, whatever ends it.

use crate::support::peer::{Answer, Peer};
use crate::support::{FACTORIES, lost, one_pipeline, run, run_until, service, total, wait_for};
use pipeline::Config;
use pipeline::proto::collector::trace::v1::ExportTraceServiceRequest;
use pipeline::telemetry::{Metrics, Sample};
use prost::Message;
use std::fs;
use std::path::Path;

fn ok() -> Answer {
    Answer {
        status: 200,
        ..Answer::default()
    }
}

fn away() -> Answer {
    Answer {
        status: 503,
        ..Answer::default()
    }
}

/// One request at a time and none joined, so that their order shows; retries come at once.
const IN_ORDER: &str = "num_consumers: 1, batch: null";

fn yaml(receiver: &str, port: u16, directory: &Path, queue: &str) -> String {
    let exporter = format!(
        "{{endpoint: 'http://127.0.0.1:{port}', compression: none, \
         retry_on_failure: {{initial_interval: 10ms, max_interval: 10ms, max_elapsed_time: 0}}, \
         sending_queue: {{storage: file_storage/disk, {queue}}}}}"
    );
    let yaml = one_pipeline(receiver, "", &exporter, "otlp_http/backend");
    let service = "service:\n  extensions: [file_storage/disk]\n";
    format!(
        "extensions: {{file_storage/disk: {{directory: '{}', create_directory: true}}}}\n{}",
        directory.display(),
        yaml.replace("service:\n", service)
    )
}

/// The numbers of the batches that a peer got, from the trace ids of their spans.
fn batches_of(peer: &Peer) -> Vec<u64> {
    let mut batches = Vec::new();
    for seen in peer.seen() {
        let request = ExportTraceServiceRequest::decode(seen.body).unwrap();
        let scopes = request
            .resource_spans
            .iter()
            .flat_map(|resource| &resource.scope_spans);
        for scope in scopes {
            let id = scope.spans[0].trace_id[8..].try_into().unwrap();
            batches.push(u64::from_be_bytes(id) - 1);
        }
    }
    batches
}

fn sent(samples: &[Sample]) -> u64 {
    total(samples, "otelcol_exporter_sent_spans")
}

fn accepted(samples: &[Sample], count: u64) -> bool {
    total(samples, "otelcol_receiver_accepted_spans") == count
}

fn queued(samples: &[Sample]) -> u64 {
    total(samples, "otelcol_exporter_queue_size")
}

#[tokio::test]
async fn what_waits_is_sent_after_a_crash_in_the_order_of_arrival() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, image) = (dir.path().join("disk"), dir.path().join("image"));
    let first = Peer::http(vec![away()]).await;
    let config = yaml("{batches: 20, spans: 3}", first.port, &disk, IN_ORDER);
    run(&config, |metrics| async move {
        wait_for(|| queued(&metrics.samples()) == 20 && !first.seen().is_empty()).await;
        // As a kill would leave it: one request is under way, and nothing has been closed. A
        // copy into which the storage wrote would be of no moment at all.
        fs::create_dir(&image).unwrap();
        let name = "exporter_otlp_http_backend";
        wait_for(|| {
            let copy = fs::read(disk.join(name)).unwrap();
            fs::write(image.join(name), &copy).unwrap();
            fs::read(disk.join(name)).unwrap() == copy
        })
        .await;
    })
    .await;

    let second = Peer::http(vec![ok()]).await;
    let image = dir.path().join("image");
    let config = yaml("{batches: 0}", second.port, &image, IN_ORDER);
    run_until(&config, |samples| sent(samples) == 60).await;
    assert_eq!(batches_of(&second), (0..20).collect::<Vec<_>>());

    let third = Peer::http(vec![ok()]).await;
    let config = yaml("{batches: 1, spans: 1}", third.port, &image, IN_ORDER);
    run_until(&config, |samples| sent(samples) == 1).await;
    assert_eq!(third.seen().len(), 1, "what was sent came back");
}

#[tokio::test]
async fn a_stop_loses_nothing_while_the_backend_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let peer = Peer::http(vec![away()]).await;
    let config = yaml("{batches: 30, spans: 2}", peer.port, dir.path(), IN_ORDER);
    let summary = run_until(&config, |samples| accepted(samples, 60)).await;
    let samples = &summary.samples;
    assert_eq!(total(samples, "deeptrace_lost_spans"), 0);
    assert_eq!(total(samples, "otelcol_exporter_send_failed_spans"), 0);

    let peer = Peer::http(vec![ok()]).await;
    let config = yaml("{batches: 0}", peer.port, dir.path(), "num_consumers: 3");
    let summary = run_until(&config, |samples| sent(samples) == 60).await;
    assert_eq!(queued(&summary.samples), 0);
}

#[tokio::test]
async fn a_stop_sends_what_is_stored_while_the_backend_answers() {
    let dir = tempfile::tempdir().unwrap();
    let peer = Peer::http(vec![ok()]).await;
    let queue = "batch: {flush_timeout: 1h, min_size: 1000000}";
    let config = yaml("{batches: 30, spans: 2}", peer.port, dir.path(), queue);
    let summary = run_until(&config, |samples| queued(samples) == 30).await;
    assert_eq!(sent(&summary.samples), 60);
    assert_eq!(peer.seen().len(), 1, "joined");
}

#[tokio::test]
async fn more_than_is_kept_in_memory_comes_back_from_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    // 20 batches of more than a MiB each, of which 16 MiB stay in memory.
    let peer = Peer::http([vec![away(); 20], vec![ok()]].concat()).await;
    let config = yaml(
        "{batches: 20, spans: 20000}",
        peer.port,
        dir.path(),
        IN_ORDER,
    );
    let summary = run_until(&config, |samples| sent(samples) == 400_000).await;
    assert_eq!(total(&summary.samples, "deeptrace_lost_spans"), 0);
    let mut batches = batches_of(&peer);
    batches.dedup();
    assert_eq!(batches, (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_room_is_limited_on_the_disk_too_and_counts_what_is_under_way() {
    for (sizer, size, kept) in [("requests", 4, 4), ("items", 10, 3), ("bytes", 500, 2)] {
        let dir = tempfile::tempdir().unwrap();
        let peer = Peer::http(vec![away()]).await;
        let queue = format!("{IN_ORDER}, sizer: {sizer}, queue_size: {size}");
        let config = yaml("{batches: 20, spans: 3}", peer.port, dir.path(), &queue);
        let refused = (20 - kept) * 3;
        let failed = "otelcol_exporter_enqueue_failed_spans";
        let summary = run_until(&config, |samples| total(samples, failed) == refused).await;
        assert_eq!(lost(&summary.samples, "queue_full"), refused, "{sizer}");
        let peer = Peer::http(vec![ok()]).await;
        let config = yaml("{batches: 0}", peer.port, dir.path(), &queue);
        run_until(&config, |samples| sent(samples) == kept * 3).await;
    }
}

#[tokio::test]
async fn a_full_queue_on_the_disk_can_hold_up_the_receiver_instead() {
    let dir = tempfile::tempdir().unwrap();
    let peer = Peer::http(vec![ok()]).await;
    let queue = format!("{IN_ORDER}, queue_size: 2, block_on_overflow: true");
    let config = yaml("{batches: 50, spans: 3}", peer.port, dir.path(), &queue);
    let summary = run_until(&config, |samples| sent(samples) == 150).await;
    assert_eq!(total(&summary.samples, "deeptrace_lost_spans"), 0);
    assert_eq!(batches_of(&peer), (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn damage_is_counted_in_spans_and_the_rest_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let peer = Peer::http(vec![away()]).await;
    let config = yaml("{batches: 10, spans: 7}", peer.port, dir.path(), IN_ORDER);
    run_until(&config, |samples| {
        accepted(samples, 70) && queued(samples) == 10
    })
    .await;
    let path = dir.path().join("exporter_otlp_http_backend");
    let mut bytes = fs::read(&path).unwrap();
    // The trace id of the fifth batch, as often as it is there.
    let id = [5_u128.to_be_bytes().as_slice(), &[0x12]].concat();
    let places: Vec<usize> = (0..bytes.len() - id.len())
        .filter(|at| bytes[*at..].starts_with(&id))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at] ^= 1;
    }
    fs::write(&path, bytes).unwrap();

    let peer = Peer::http(vec![ok()]).await;
    let config = yaml("{batches: 0}", peer.port, dir.path(), IN_ORDER);
    let summary = run_until(&config, |samples| sent(samples) == 63).await;
    assert_eq!(batches_of(&peer), [0, 1, 2, 3, 5, 6, 7, 8, 9]);
    assert_eq!(lost(&summary.samples, "damaged"), 7);
    assert_eq!(
        total(&summary.samples, "deeptrace_storage_damaged_records"),
        1
    );
    assert_eq!(
        total(&summary.samples, "deeptrace_storage_damaged_files"),
        1
    );
}

#[tokio::test]
async fn a_directory_that_is_not_there_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let yaml = yaml("{}", 9, &dir.path().join("no"), IN_ORDER);
    let yaml = yaml.replace("create_directory: true", "create_directory: false");
    let error = service(&yaml, &Metrics::default())
        .run(std::future::pending())
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot start extension file_storage/disk"
    );
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        source.ends_with("/no: make it, or set create_directory: true"),
        "{source}"
    );
}

#[test]
fn a_storage_must_be_there_and_switched_on() {
    let good = yaml("{}", 9, Path::new("/nowhere"), IN_ORDER);
    for (from, to, expected) in [
        (
            "extensions: [file_storage/disk]",
            "extensions: []",
            "test.yaml:4: exporters::otlp_http/backend::sending_queue::storage: references \
             extension \"file_storage/disk\" which is not in service::extensions: name it there, \
             and configure it under extensions",
        ),
        (
            "storage: file_storage/disk",
            "storage: file_storage/disc",
            "test.yaml:4: exporters::otlp_http/backend::sending_queue::storage: references \
             extension \"file_storage/disc\" which is not in service::extensions, did you mean \
             \"file_storage/disk\"?",
        ),
        (
            "batch: null",
            "wait_for_result: true",
            "test.yaml:4: exporters::otlp_http/backend::sending_queue::wait_for_result: cannot go \
             with storage, which has the result outlive the process",
        ),
    ] {
        let yaml = good.replace(from, to);
        let error = Config::parse(&[("test.yaml", &yaml)], &FACTORIES, &|_| None).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn what_is_no_storage_stores_nothing() {
    let yaml = yaml("{}", 9, Path::new("/nowhere"), IN_ORDER)
        .replace("storage: file_storage/disk", "storage: health_check")
        .replace("extensions: {", "extensions: {health_check: , ")
        .replace("extensions: [", "extensions: [health_check, ");
    let config = Config::parse(&[("test.yaml", &yaml)], &FACTORIES, &|_| None).unwrap();
    let error = pipeline::Service::build(&config, Metrics::default())
        .err()
        .unwrap();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(
        source,
        "sending_queue::storage: health_check stores nothing, name a file_storage"
    );
}
