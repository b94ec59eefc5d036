//! Batches from a receiver through processors to exporters, and what happens at the end.

use crate::support::{batch_of, config, lost, one_pipeline, run, run_until, service, total};
use pipeline::telemetry::Metrics;

fn file_pipeline(
    receiver: &str,
    processors: &str,
) -> (tempfile::TempDir, std::path::PathBuf, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spans.jsonl");
    let exporter = format!("{{path: {:?}}}", path.display().to_string());
    let yaml = one_pipeline(receiver, processors, &exporter, "file");
    (dir, path, yaml)
}

#[tokio::test]
async fn spans_arrive_in_the_file_as_otlp_json() {
    let (_dir, path, yaml) = file_pipeline("{batches: 2}", "");
    let summary = run_until(&yaml, |samples| {
        total(samples, "otelcol_exporter_sent_spans") == 2
    })
    .await;
    assert!(summary.failure.is_none());
    let text = std::fs::read_to_string(path).unwrap();
    let expected = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},"scopeSpans":[{"spans":[{"traceId":"00000000000000000000000000000001","spanId":"0000000000000001","name":"GET 0","kind":2,"startTimeUnixNano":"1700000000000000000","endTimeUnixNano":"1700000000005000000"}]}]}]}"#;
    assert_eq!(text.lines().next(), Some(expected));
    assert_eq!(text.lines().count(), 2);
    assert_eq!(
        total(&summary.samples, "otelcol_receiver_accepted_spans"),
        2
    );
}

#[tokio::test]
async fn a_processor_lets_go_at_its_tick() {
    let (_dir, _path, yaml) = file_pipeline("{batches: 3, spans: 2}", "hold");
    let yaml = yaml.replace("hold: {}", "hold: {hold: 50ms}");
    run_until(&yaml, |samples| {
        total(samples, "otelcol_exporter_sent_spans") == 6
    })
    .await;
}

#[tokio::test]
async fn a_stop_flushes_processors_and_drains_to_the_exporters() {
    let (_dir, path, yaml) = file_pipeline("{batches: 30, spans: 2}", "hold");
    let accepted = |samples: &[_]| total(samples, "otelcol_receiver_accepted_spans") == 60;
    let summary = run_until(&yaml, accepted).await;
    assert_eq!(total(&summary.samples, "otelcol_exporter_sent_spans"), 60);
    assert_eq!(total(&summary.samples, "deeptrace_pipeline_spans"), 0);
    assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_processor_still_works_on_at_the_deadline_is_counted_as_lost() {
    let (_dir, path, yaml) = file_pipeline("{batches: 30, spans: 2}", "hold");
    let yaml = yaml
        .replace("hold: {}", "hold: {flush_takes: 1s}")
        .replace("service:\n", "service:\n  shutdown_timeout: 200ms\n");
    let accepted = |samples: &[_]| total(samples, "otelcol_receiver_accepted_spans") == 60;
    let summary = run_until(&yaml, accepted).await;
    assert_eq!(lost(&summary.samples, "shutdown"), 60);
    assert_eq!(std::fs::read_to_string(path).unwrap(), "");
}

#[tokio::test]
async fn a_receiver_that_fails_stops_the_service_but_loses_nothing() {
    let (_dir, _path, yaml) = file_pipeline("{batches: 3, fail: true}", "hold");
    let summary = run(&yaml, |_| std::future::pending()).await;
    let failure = summary.failure.unwrap();
    assert_eq!(failure.to_string(), "receiver feed failed");
    assert_eq!(total(&summary.samples, "otelcol_exporter_sent_spans"), 3);
}

#[tokio::test]
async fn a_receiver_in_two_pipelines_feeds_both() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        format!(
            "{{path: {:?}}}",
            dir.path().join(name).display().to_string()
        )
    };
    let yaml = format!(
        "receivers: {{feed: {{batches: 5}}}}\nexporters: {{file/a: {}, file/b: {}}}\nservice:\n  \
         telemetry: {{metrics: {{level: none}}}}\n  pipelines:\n    \
         traces/a: {{receivers: [feed], exporters: [file/a]}}\n    \
         traces/b: {{receivers: [feed], exporters: [file/a, file/b]}}\n",
        file("a"),
        file("b")
    );
    let summary = run_until(&yaml, |samples| {
        total(samples, "otelcol_exporter_sent_spans") == 15
    })
    .await;
    let sent = summary
        .samples
        .iter()
        .filter(|sample| sample.name == "otelcol_exporter_sent_spans");
    let sent: Vec<_> = sent
        .map(|sample| (sample.label("exporter").unwrap().to_owned(), sample.value))
        .collect();
    assert_eq!(
        sent,
        [("file/a".to_owned(), 10.0), ("file/b".to_owned(), 5.0)]
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_stops_the_start() {
    let yaml = one_pipeline("{}", "", "{path: /no/such/dir/x}", "file");
    let error = service(&yaml, &Metrics::default())
        .run(std::future::pending())
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "cannot start exporter file");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.starts_with("cannot open /no/such/dir/x"), "{source}");
}

#[tokio::test]
async fn a_full_disk_is_counted() {
    let yaml = one_pipeline("{batches: 2, spans: 3}", "", "{path: /dev/full}", "file");
    let summary = run_until(&yaml, |samples| lost(samples, "unwritable") == 6).await;
    assert_eq!(total(&summary.samples, "otelcol_exporter_sent_spans"), 0);
    assert_eq!(
        total(&summary.samples, "otelcol_exporter_send_failed_spans"),
        6
    );
}

#[tokio::test]
async fn metrics_are_served_and_a_taken_port_is_a_clear_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let (_dir, _path, yaml) = file_pipeline("{}", "");
    let yaml = yaml.replace(
        "metrics: {level: none}",
        &format!("metrics: {{readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {port}}}}}}}}}]}}"),
    );
    let error = service(&yaml, &Metrics::default())
        .run(std::future::pending())
        .await
        .unwrap_err();
    let expected =
        format!("cannot serve metrics on 127.0.0.1:{port} (service::telemetry::metrics::readers)");
    assert_eq!(error.to_string(), expected);
    drop(taken);
    run(&yaml, |_| async move {
        let text = scrape(port).await;
        assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
        assert!(
            text.contains("\r\ncontent-type: text/plain; version=0.0.4"),
            "{text}"
        );
        assert!(
            text.contains("\notelcol_exporter_sent_spans{exporter=\"file\"}"),
            "{text}"
        );
    })
    .await;
}

async fn scrape(port: u16) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[test]
fn the_default_endpoint_is_the_collectors() {
    let (_dir, _path, yaml) = file_pipeline("{}", "");
    let endpoints = |yaml: &str| config(yaml).telemetry.metrics.endpoints();
    assert_eq!(endpoints(&yaml), []);
    assert_eq!(
        endpoints(&yaml.replace("level: none", "level: normal")),
        [("localhost".to_owned(), 8888)]
    );
}

#[tokio::test]
async fn what_is_no_line_stands_behind_its_length_in_the_file() {
    use pipeline::proto::collector::trace::v1::ExportTraceServiceRequest;
    use prost::Message;
    for (more, zstd, json) in [
        ("format: proto", false, false),
        ("format: proto, compression: zstd", true, false),
        ("compression: zstd", true, true),
    ] {
        let (_dir, path, yaml) = file_pipeline("{batches: 3, spans: 2}", "");
        let yaml = yaml.replace("{path: ", &format!("{{{more}, path: "));
        run_until(&yaml, |samples| {
            total(samples, "otelcol_exporter_sent_spans") == 6
        })
        .await;
        let file = std::fs::read(path).unwrap();
        let mut rest = file.as_slice();
        for batch in 0..3 {
            let (length, behind) = rest.split_first_chunk().unwrap();
            let (message, behind) = behind.split_at(u32::from_be_bytes(*length) as usize);
            rest = behind;
            let message = if zstd {
                zstd::bulk::decompress(message, 1 << 20).unwrap()
            } else {
                message.to_vec()
            };
            let request: ExportTraceServiceRequest = if json {
                serde_json::from_slice(&message).unwrap()
            } else {
                ExportTraceServiceRequest::decode(message.as_slice()).unwrap()
            };
            let expected = batch_of(batch, 2);
            assert_eq!(request.resource_spans, *expected.resource_spans(), "{more}");
        }
        assert!(rest.is_empty());
    }
}

#[tokio::test]
async fn a_chain_of_processors_works_as_one_and_accounts_for_every_span() {
    // 10 batches of `GET 0` to `GET 3`, each batch a trace.
    let processors = "memory_limiter, tail_sampling, filter, attributes, resource, redaction";
    let (_dir, path, yaml) = file_pipeline("{batches: 10, spans: 4}", processors);
    let yaml = yaml.replace(
        "hold: {}",
        "memory_limiter: {check_interval: 1s, limit_mib: 1000000}, \
         tail_sampling: {decision_wait: 20ms, policies: [{name: a, type: span_count, span_count: {min_spans: 4}}]}, \
         filter: {trace_conditions: ['span.name == \"GET 3\"']}, \
         attributes: {actions: [{key: secret, action: insert, value: 12}, {key: other, action: insert, value: a}]}, \
         resource: {attributes: [{key: host, action: insert, value: b}]}, \
         redaction: {allowed_keys: [service.name, host, secret], redact_all_types: true, blocked_values: ['2']}",
    );
    let summary = run_until(&yaml, |samples| {
        total(samples, "otelcol_exporter_sent_spans") == 30
    })
    .await;
    let total = |name| total(&summary.samples, name);
    assert_eq!(total("otelcol_receiver_accepted_spans"), 40);
    assert_eq!(total("otelcol_processor_filter_spans_filtered"), 10);
    assert_eq!(total("deeptrace_lost_spans"), 0);
    let text = std::fs::read_to_string(path).unwrap();
    let count = |part: &str| text.matches(part).count();
    assert_eq!(count(r#""name":"GET "#), 30);
    assert_eq!(
        count(r#"{"key":"secret","value":{"stringValue":"1****"}}"#),
        30
    );
    assert_eq!(count(r#""key":"other""#), 0);
    assert_eq!(count(r#""key":"host""#), count(r#""key":"service.name""#));
}
