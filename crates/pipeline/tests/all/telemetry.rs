//! What the process tells of itself: over OTLP, at each level, and as the manual says.

use crate::support::peer::{Answer, Peer, Seen};
use crate::support::{config_with, run, service, total, wait_for};
use pipeline::proto::collector::metrics::v1::ExportMetricsServiceRequest;
use pipeline::proto::collector::trace::v1::ExportTraceServiceRequest;
use pipeline::proto::common::v1::{KeyValue, any_value::Value};
use pipeline::proto::resource::v1::Resource;
use pipeline::telemetry::{Identity, Metrics};
use prost::Message;
use std::collections::BTreeSet;

fn ok(grpc: bool) -> Answer {
    if !grpc {
        return Answer {
            status: 200,
            headers: vec![("content-type", "application/x-protobuf".to_owned())],
            ..Answer::default()
        };
    }
    Answer {
        status: 200,
        headers: vec![("content-type", "application/grpc".to_owned())],
        body: vec![0; 5].into(),
        trailers: vec![("grpc-status", "0".to_owned())],
        ..Answer::default()
    }
}

fn yaml(backend: u16, own: u16, protocol: &str) -> String {
    let otlp = format!(
        "{{otlp: {{protocol: {protocol}, endpoint: 'http://127.0.0.1:{own}', \
         headers: [{{name: x-tenant, value: own}}]}}}}"
    );
    format!(
        "receivers: {{feed: {{batches: 20, pause: 20ms}}}}\n\
         processors: {{hold: {{hold: 10ms}}}}\n\
         exporters: {{otlp_http: {{endpoint: 'http://127.0.0.1:{backend}'}}}}\n\
         service:\n  telemetry:\n    resource: {{service.namespace: shop, service.version: null}}\n    \
         metrics: {{level: detailed, readers: [{{periodic: {{interval: 100, exporter: {otlp}}}}}]}}\n    \
         traces: {{processors: [{{batch: {{schedule_delay: 100, exporter: {otlp}}}}}]}}\n  \
         pipelines:\n    traces: {{receivers: [feed], processors: [hold], exporters: [otlp_http]}}\n"
    )
}

/// The message of a request; gRPC puts five bytes before it.
fn message<M: Message + Default>(seen: &Seen, grpc: bool) -> M {
    M::decode(seen.body.slice(if grpc { 5 } else { 0 }..)).unwrap()
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

fn check_resource(resource: Option<&Resource>) {
    let attributes = &resource.unwrap().attributes;
    assert_eq!(text(attributes, "service.name"), Some("tester"));
    assert_eq!(text(attributes, "service.namespace"), Some("shop"));
    assert_eq!(
        text(attributes, "service.version"),
        None,
        "null takes it away"
    );
    assert!(text(attributes, "service.instance.id").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_metrics_and_spans_are_sent_over_otlp() {
    for (protocol, grpc) in [("http/protobuf", false), ("grpc", true)] {
        let backend = Peer::http(vec![ok(false)]).await;
        let own = if grpc {
            Peer::grpc(vec![ok(true)]).await
        } else {
            Peer::http(vec![ok(false)]).await
        };
        let (metrics_path, spans_path) = if grpc {
            (
                "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
                "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            )
        } else {
            ("/v1/metrics", "/v1/traces")
        };
        let metrics = Metrics::default();
        let service = service(&yaml(backend.port, own.port, protocol), &metrics);
        let until = async {
            wait_for(|| total(&metrics.samples(), "otelcol_exporter_sent_spans") == 20).await;
        };
        let named = service.named(Identity::new("tester", "1"));
        let summary = named.run(until).await.unwrap();
        assert_eq!(
            total(&summary.samples, "otelcol_receiver_accepted_spans"),
            20
        );
        let seen = own.seen();
        assert!(seen.iter().all(|seen| seen.headers["x-tenant"] == "own"));

        let last = seen.iter().rfind(|seen| seen.path == metrics_path).unwrap();
        let request: ExportMetricsServiceRequest = message(last, grpc);
        let resource = &request.resource_metrics[0];
        check_resource(resource.resource.as_ref());
        let sent = resource
            .scope_metrics
            .iter()
            .flat_map(|scope| &scope.metrics);
        let names: BTreeSet<_> = sent.map(|metric| metric.name.as_str()).collect();
        for name in [
            "otelcol_exporter_sent_spans",
            "otelcol_exporter_queue_size",
            "otelcol_exporter_queue_batch_send_size_count",
            "otelcol_processor_incoming_items",
            "otelcol_process_uptime",
        ] {
            assert!(names.contains(name), "{name} is not among {names:?}");
        }

        let mut spans = Vec::new();
        for seen in seen.iter().filter(|seen| seen.path == spans_path) {
            let request: ExportTraceServiceRequest = message(seen, grpc);
            for resource in request.resource_spans {
                check_resource(resource.resource.as_ref());
                let scopes = resource.scope_spans.into_iter();
                spans.extend(scopes.flat_map(|scope| scope.spans));
            }
        }
        // Its own sending makes no span; other tests of this process may.
        let requests = backend.seen().len();
        let named = |name: &str| spans.iter().filter(|span| span.name == name).count();
        assert!(named("exporter/otlp_http/traces") >= requests, "{requests}");
    }
}

#[test]
fn targets_that_cannot_work_are_refused() {
    let cases = [
        (
            "http://127.0.0.1:",
            "https://127.0.0.1:",
            "TLS is not built in here",
        ),
        ("grpc", "udp", "is not one of"),
        ("name: x-tenant", "name: 'x tenant'", "is no header"),
        ("interval: 100", "interval: 0", "must be above 0"),
        (
            "schedule_delay",
            "max_export_batch_size: 0, schedule_delay",
            "must be from 1",
        ),
        (
            "periodic: {interval: 100, exporter",
            "pull: {exporter",
            "unknown key",
        ),
    ];
    for (good, bad, expected) in cases {
        let yaml = yaml(1, 2, "grpc");
        assert!(yaml.contains(good), "{good}");
        let error = config_with(&yaml.replace(good, bad), &crate::support::FACTORIES);
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{bad}: {error}");
    }
}

#[tokio::test]
async fn every_level_shows_more_than_the_one_before() {
    let mut before = BTreeSet::new();
    for level in ["basic", "normal", "detailed"] {
        let yaml = format!(
            "receivers: {{feed: {{}}}}\nprocessors: {{hold: {{hold: 0s}}}}\n\
             exporters: {{otlp_http: {{endpoint: 'http://127.0.0.1:1'}}}}\n\
             service:\n  telemetry: {{metrics: {{level: {level}, readers: []}}}}\n  pipelines:\n    \
             traces: {{receivers: [feed], processors: [hold], exporters: [otlp_http]}}\n  \
             shutdown_timeout: 100ms\n"
        );
        let summary = run(&yaml, |metrics| async move {
            wait_for(|| total(&metrics.samples(), "otelcol_receiver_accepted_spans") == 1).await;
        })
        .await;
        let names: BTreeSet<_> = summary
            .samples
            .into_iter()
            .map(|sample| sample.name)
            .collect();
        assert!(
            names.is_superset(&before) && names.len() > before.len(),
            "{level}: {names:?}"
        );
        before = names;
    }
}
