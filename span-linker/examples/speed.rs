//! Prints what linking costs on one core:
//! `cargo run --release -p span-linker --example speed`.
//!
//! A trace is a request to one process, which visits others: each visit goes through two more
//! processes and ends in a call to somebody who is not traced. All links are exact, by the
//! connection between processes and by tokens inside. 64 visits are under way at a time,
//! 60,000 spans end in a second, and the linker has its default settings, so the window is full
//! from the 200,000th span on. Time is what this thread has worked, without making the input.

use pipeline::Batch;
use pipeline::clock::Monotonic;
use pipeline::otlp::encode;
use rustix::time::{ClockId, clock_gettime};
use span_linker::{Config, SpanLinker};
use span_model::{LinkFacts, Resource, Span, SpanId, SpanKind, Status, Value, semconv};
use std::sync::Arc;
use std::time::Duration;
use tikv_jemallocator::Jemalloc;

/// As in the binary.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// ns between the beginnings of two visits.
const STEP_NS: u64 = 100_000;
/// How long a visit lasts.
const VISIT_NS: u64 = 64 * STEP_NS;
/// Spans of a visit; the request that makes it is one more.
const SPANS_OF_A_VISIT: u64 = 5;
/// Visits whose spans are handed in together.
const BATCH: u64 = 100;

fn main() {
    println!("What does a span cost in memory?");
    memory();
    let usual = Load {
        visits: 80_000,
        visits_of_a_trace: 1,
        processes: 10,
    };
    println!("\nDoes time grow with spans alone?");
    for spans in [1_000, 10_000, 100_000, 1_000_000, 10_000_000] {
        let visits = spans / (SPANS_OF_A_VISIT + 1);
        row("spans", spans, &Load { visits, ..usual });
    }
    println!("\nWith processes?");
    for processes in [10, 100, 1_000, 10_000] {
        row("processes", processes, &Load { processes, ..usual });
    }
    println!("\nWith traces?");
    for traces in [80_000, 8_000, 800, 80] {
        let visits_of_a_trace = usual.visits / traces;
        let load = Load {
            visits_of_a_trace,
            ..usual
        };
        row("traces", traces, &load);
    }
}

/// What is put in.
#[derive(Clone, Copy)]
struct Load {
    visits: u64,
    visits_of_a_trace: u64,
    processes: u64,
}

fn row(question: &str, value: u64, load: &Load) {
    // Short ones are repeated, each with a new linker.
    let times = (20_000 / load.visits).max(1);
    let (mut spans, mut busy) = (0, Duration::ZERO);
    for _ in 0..times {
        let (linked, worked) = link(load);
        spans += linked;
        busy += worked;
    }
    let each_ns = busy.as_nanos() / u128::from(spans.max(1));
    let per_second = 1_000_000_000 / each_ns.max(1);
    println!("{value:>10} {question:<10} {per_second:>8} spans/s {each_ns:>6} ns a span");
}

/// Spans that came out with a trace, and the time it took.
fn link(load: &Load) -> (u64, Duration) {
    let services: Vec<_> = (0..load.processes).map(service).collect();
    let mut linker = SpanLinker::new(Config::default());
    let mut out = Vec::new();
    let (mut left, mut busy) = (0, Duration::ZERO);
    for first in (0..load.visits).step_by(usize::try_from(BATCH).unwrap_or(1)) {
        let batch = batch(first, load, &services);
        let now = Monotonic::default() + Duration::from_nanos(first * STEP_NS);
        let began = worked();
        linker.process(batch, now, &mut out);
        linker.tick(now, &mut out);
        busy += worked().saturating_sub(began);
        left += out.drain(..).map(|batch| batch.span_count()).sum::<usize>();
    }
    let began = worked();
    linker.flush(&mut out);
    busy += worked().saturating_sub(began);
    left += out.iter().map(Batch::span_count).sum::<usize>();
    (u64::try_from(left).unwrap_or(0), busy)
}

/// Prints what a span costs in memory, by how much the process grows.
fn memory() {
    let load = Load {
        visits: 60_000,
        visits_of_a_trace: 1,
        processes: 10,
    };
    let services: Vec<_> = (0..load.processes).map(service).collect();
    // The room that the input takes for a moment is there already, and not counted.
    drop(batch(0, &load, &services));
    for (stage, wait) in [("remembered", 0), ("waiting", u64::MAX)] {
        let mut linker = SpanLinker::new(Config {
            max_spans: usize::MAX,
            decision_wait: Duration::from_millis(wait),
            ..Config::default()
        });
        let before = resident();
        for first in (0..load.visits).step_by(usize::try_from(BATCH).unwrap_or(1)) {
            let now = Monotonic::default() + Duration::from_nanos(first * STEP_NS);
            linker.process(batch(first, &load, &services), now, &mut Vec::new());
        }
        let grown = resident().saturating_sub(before);
        let each = grown / linker.known_spans().max(1);
        println!(
            "{:>10} {stage:<10} {each:>8} bytes a span",
            linker.known_spans()
        );
    }
}

/// What this thread has worked.
fn worked() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Resident memory of this process in bytes; 0 where the system does not tell.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0_usize) * 1024
}

fn service(number: u64) -> Arc<Resource> {
    let pid = Value::Int(i64::try_from(number).unwrap_or(0) + 1);
    Arc::new(Resource {
        attributes: vec![
            (semconv::HOST_ID.into(), "host".into()),
            (semconv::PROCESS_PID.into(), pid),
            (
                semconv::SERVICE_NAME.into(),
                format!("service-{number}").into(),
            ),
        ],
    })
}

/// The next visits, and the requests whose last visit is among them.
fn batch(first: u64, load: &Load, services: &[Arc<Resource>]) -> Batch {
    let mut spans = Vec::new();
    for visit in first..load.visits.min(first + BATCH) {
        spans_of(visit, load, services, &mut spans);
    }
    Batch::new(encode(spans, "0"))
}

/// ```text
/// request |---------------------|   of all visits of the trace
///  call    |-------------------|    of this visit
///   served  |-----------------|
///    call    |---------------|
///     served  |-------------|
///      call    |-----------|
/// ```
fn spans_of(visit: u64, load: &Load, services: &[Arc<Resource>], spans: &mut Vec<Span>) {
    let id = |visit: u64, place: u64| SpanId::from_hash(visit * 8 + place + 1);
    let nth = |number: u64| {
        let place = usize::try_from(number % load.processes).unwrap_or(0);
        services.get(place).map(Arc::clone).unwrap_or_default()
    };
    let first = visit - visit % load.visits_of_a_trace;
    let last = first + load.visits_of_a_trace - 1;
    let begins = visit * STEP_NS + 1000;
    for place in 1..=SPANS_OF_A_VISIT {
        let inside = place * 1000;
        let times = begins + inside..begins + VISIT_NS - inside;
        // The request that makes the visit, and what it calls, go by the trace's token.
        let (token, served) = match place {
            1 => (first, id(first, 0)),
            _ => (visit, id(visit, place - 1)),
        };
        let kind = if place % 2 == 0 {
            SpanKind::Server
        } else {
            SpanKind::Client
        };
        let facts = facts(kind, token * 2 + u64::from(place > 1), served);
        let service = nth(first + place / 2);
        spans.push(span(id(visit, place), kind, times, facts, service));
    }
    if visit == last {
        let times = first * STEP_NS + 1000..begins + VISIT_NS;
        let facts = LinkFacts {
            caller: None,
            ..facts(SpanKind::Server, first * 2, id(first, 0))
        };
        spans.push(span(
            id(first, 0),
            SpanKind::Server,
            times,
            facts,
            nth(first),
        ));
    }
}

/// `above` is who called a server span, and what a client span's thread had read.
fn facts(kind: SpanKind, token: u64, above: SpanId) -> LinkFacts {
    let read = (kind == SpanKind::Client).then_some(above);
    LinkFacts {
        caller: (kind == SpanKind::Server).then_some(above),
        after: read,
        serving: read,
        tokens: vec![token],
        request_tid: 1,
        response_tid: 1,
        ..LinkFacts::default()
    }
}

fn span(
    span_id: SpanId,
    kind: SpanKind,
    times: std::ops::Range<u64>,
    link: LinkFacts,
    resource: Arc<Resource>,
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
        resource,
        link,
    }
}
