//! Prints how many spans a second one core links:
//! `cargo run --release -p span-linker --example speed`.
//!
//! Chains of four services with an event loop each, 64 requests in flight, one
//! in four requests with a token. Making the input is not counted.

use pipeline::Batch;
use pipeline::clock::Monotonic;
use pipeline::otlp::encode;
use span_linker::{Config, SpanLinker};
use span_model::{LinkFacts, Resource, Span, SpanId, SpanKind, Status, Value, semconv};
use std::sync::Arc;
use std::time::{Duration, Instant};

const TRACES: u64 = 40_000;
const DEPTH: u64 = 4;
const IN_FLIGHT: u64 = 64;
/// ns between two traces; a request lasts `IN_FLIGHT` of these.
const STEP_NS: u64 = 100_000;

fn main() {
    let services: Vec<_> = (0..DEPTH).map(service).collect();
    let mut linker = SpanLinker::new(Config {
        max_spans: 1_000_000,
        ..Config::default()
    });
    let epoch = Monotonic::default();
    let mut busy = Duration::ZERO;
    let mut out = Vec::new();
    let (mut sent, mut left) = (0, 0);
    for first in (0..TRACES).step_by(100) {
        let spans: Vec<_> = (first..first + 100)
            .flat_map(|trace| spans_of(trace, &services))
            .collect();
        sent += spans.len();
        let batch = Batch::new(encode(spans, "0"));
        let now = epoch + Duration::from_nanos(first * STEP_NS);
        let began = Instant::now();
        linker.process(batch, now, &mut out);
        linker.tick(now, &mut out);
        busy += began.elapsed();
        left += out.drain(..).map(|batch| batch.span_count()).sum::<usize>();
    }
    let known = linker.known_spans();
    let began = Instant::now();
    linker.flush(&mut out);
    busy += began.elapsed();
    left += out.iter().map(Batch::span_count).sum::<usize>();
    let each_ns = busy.as_nanos() / u128::try_from(left.max(1)).unwrap_or(1);
    println!(
        "{sent} spans in, {left} out, {known} known at the end, {busy:?}, {each_ns} ns a span"
    );
    println!("{} spans/s", 1_000_000_000 / each_ns.max(1));
    println!("{:?}", linker.stats());
}

fn service(number: u64) -> Arc<Resource> {
    let attributes = vec![
        (semconv::HOST_ID.into(), "host".into()),
        (
            semconv::PROCESS_PID.into(),
            Value::Int(i64::try_from(number).unwrap_or(0) + 1),
        ),
        (
            semconv::SERVICE_NAME.into(),
            format!("service-{number}").into(),
        ),
    ];
    Arc::new(Resource { attributes })
}

fn spans_of(trace: u64, services: &[Arc<Resource>]) -> Vec<Span> {
    let mut spans = Vec::new();
    let start = trace * STEP_NS;
    let length = IN_FLIGHT * STEP_NS;
    for (level, service) in (0..).zip(services) {
        let server = SpanId::from_hash((trace * DEPTH + level) * 2 + 1);
        let client = SpanId::from_hash((trace * DEPTH + level) * 2 + 2);
        let above = SpanId::from_hash((trace * DEPTH + level) * 2);
        let tokens = if trace.is_multiple_of(4) {
            vec![trace]
        } else {
            Vec::new()
        };
        let facts = LinkFacts {
            tokens,
            request_tid: 1,
            response_tid: 1,
            ..LinkFacts::default()
        };
        let (begins, ends) = (start + level * 10_000, start + length - level * 10_000);
        let caller = (level > 0).then_some(above);
        let served = LinkFacts {
            caller,
            ..facts.clone()
        };
        spans.push(span(
            server,
            SpanKind::Server,
            begins..ends,
            served,
            service,
        ));
        let made = LinkFacts {
            after: Some(server),
            serving: Some(server),
            ..facts
        };
        spans.push(span(
            client,
            SpanKind::Client,
            begins + 5000..ends - 5000,
            made,
            service,
        ));
    }
    spans
}

fn span(
    span_id: SpanId,
    kind: SpanKind,
    times: std::ops::Range<u64>,
    link: LinkFacts,
    resource: &Arc<Resource>,
) -> Span {
    Span {
        trace_id: None,
        span_id,
        parent_span_id: None,
        kind,
        name: "GET".into(),
        start_unix_ns: times.start,
        end_unix_ns: times.end,
        status: Status::Unset,
        attributes: vec![(semconv::HTTP_REQUEST_METHOD.into(), "GET".into())],
        resource: Arc::clone(resource),
        link,
    }
}
