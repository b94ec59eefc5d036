//! Spans in few words, and what the linker made of them.

#![expect(
    clippy::panic,
    reason = "a test that does not find its span fails by panicking"
)]

use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::trace::v1::Span as OtlpSpan;
use pipeline::Batch;
use pipeline::clock::Monotonic;
use pipeline::otlp::encode;
use span_linker::{Config, SpanLinker};
use span_model::{
    LinkFacts, Opening, ProcessKey, Resource, Span, SpanId, SpanKind, Status, ToldBy, TraceId,
    WireContext, semconv,
};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Ids are small numbers in tests.
pub fn id(number: u64) -> SpanId {
    SpanId::from_hash(number)
}

/// A trace id that some other tracer made.
pub fn foreign_trace(number: u64) -> TraceId {
    TraceId::of_root(SpanId::from_hash(number << 32))
}

/// A span to be; times in microseconds.
#[derive(Clone, Debug)]
pub struct Seen {
    pub id: u64,
    pub name: &'static str,
    pub kind: SpanKind,
    pub pid: i64,
    pub host: &'static str,
    pub times: Range<u64>,
    pub facts: LinkFacts,
    pub incomplete: bool,
}

/// A request that process `pid` served.
pub fn server(id: u64, pid: i64, times: Range<u64>) -> Seen {
    let facts = LinkFacts::default();
    Seen {
        id,
        name: "GET",
        kind: SpanKind::Server,
        pid,
        host: "h",
        times,
        facts,
        incomplete: false,
    }
}

/// A request that process `pid` made.
pub fn client(id: u64, pid: i64, times: Range<u64>) -> Seen {
    Seen {
        kind: SpanKind::Client,
        ..server(id, pid, times)
    }
}

impl Seen {
    pub fn caller(mut self, span: u64) -> Self {
        self.facts.caller = Some(id(span));
        self
    }
    pub fn after(mut self, span: u64) -> Self {
        self.facts.after = Some(id(span));
        self
    }
    /// The response that `after` names was read on the connection this request went out on.
    pub fn freed(mut self) -> Self {
        self.facts.freed = true;
        self
    }
    pub fn connected_after(mut self, span: u64) -> Self {
        self.facts.connected.get_or_insert_default().after = Some(id(span));
        self
    }
    pub fn serving(mut self, span: u64) -> Self {
        self.facts.serving = Some(id(span));
        self
    }
    /// The thread had waited, until one woke it that had read this span's message last.
    pub fn woken_after(mut self, span: u64) -> Self {
        self.facts.woken_after = Some(id(span));
        self.facts.woken_first = true;
        self
    }
    /// The waker had woken others before.
    pub fn woken_later(mut self) -> Self {
        self.facts.woken_first = false;
        self
    }
    /// What goroutines tell: `after` in the same time slice, `serving` by who reads or starts.
    pub fn of_goroutine(mut self) -> Self {
        self.facts.told_by = ToldBy::Goroutine;
        self
    }
    /// `serving` is whose turn it was in the scheduler's queue.
    pub fn in_turn(mut self) -> Self {
        self.facts.told_by = ToldBy::Turn;
        self
    }
    pub fn token(mut self, token: u64) -> Self {
        self.facts.tokens.push(token);
        self
    }
    pub fn tids(mut self, request: u32, response: u32) -> Self {
        self.facts.request_tid = request;
        self.facts.response_tid = response;
        self
    }
    pub fn tid(self, tid: u32) -> Self {
        self.tids(tid, tid)
    }
    pub fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }
    pub fn context(mut self, trace: u64, parent: u64) -> Self {
        self.facts.context = Some(WireContext {
            trace_id: foreign_trace(trace),
            parent_span_id: Some(id(parent)),
            sampled: Some(true),
        });
        self
    }
    pub fn host(mut self, host: &'static str) -> Self {
        self.host = host;
        self
    }
    pub fn incomplete(mut self) -> Self {
        self.incomplete = true;
        self
    }

    pub fn opening(&self) -> Opening {
        let mut facts = self.facts.clone();
        facts.response_tid = 0;
        Opening {
            span_id: id(self.id),
            kind: self.kind,
            process: ProcessKey::new(self.host, self.pid),
            start_unix_ns: self.times.start * 1000,
            facts,
        }
    }

    pub fn span(&self) -> Span {
        let attributes = vec![
            (semconv::HOST_ID.into(), self.host.into()),
            (semconv::PROCESS_PID.into(), self.pid.into()),
            (
                semconv::SERVICE_NAME.into(),
                format!("service-{}", self.pid).into(),
            ),
        ];
        let incomplete = self
            .incomplete
            .then(|| (semconv::DEEPTRACE_INCOMPLETE.into(), "timeout".into()));
        Span {
            trace_id: None,
            span_id: id(self.id),
            parent_span_id: None,
            kind: self.kind,
            name: self.name.into(),
            start_unix_ns: self.times.start * 1000,
            end_unix_ns: self.times.end * 1000,
            status: Status::Unset,
            attributes: incomplete.into_iter().collect(),
            resource: Arc::new(Resource { attributes }),
            link: self.facts.clone(),
        }
    }
}

/// Finished spans as a batch.
pub fn finished(seen: &[Seen]) -> Batch {
    let spans = seen.iter().map(Seen::span).collect();
    Batch::new(encode(spans, "0"))
}

/// Requests that began as a batch.
pub fn began(seen: &[Seen]) -> Batch {
    let mut batch = Batch::default();
    batch.openings = seen.iter().map(Seen::opening).collect();
    batch
}

/// A linker and its clock.
pub struct Stage {
    pub linker: SpanLinker,
    out: Vec<Batch>,
}

impl Stage {
    pub fn new(config: Config) -> Self {
        Self {
            linker: SpanLinker::new(config),
            out: Vec::new(),
        }
    }

    pub fn at(&mut self, millis: u64, batch: Batch) -> &mut Self {
        let now = Monotonic::from_millis(millis);
        self.linker.process(batch, now, &mut self.out);
        self
    }

    pub fn tick(&mut self, millis: u64) -> &mut Self {
        let now = Monotonic::from_millis(millis);
        self.linker.tick(now, &mut self.out);
        self
    }

    /// What has left so far, without shutting down.
    pub fn left(&mut self) -> Linked {
        Linked::from_batches(std::mem::take(&mut self.out))
    }

    pub fn flush(&mut self) -> Linked {
        self.linker.flush(&mut self.out);
        self.left()
    }
}

/// Everything at once, decided after the delay.
pub fn link(seen: &[Seen]) -> Linked {
    Stage::new(Config {
        timing: false,
        ..Config::default()
    })
    .at(0, finished(seen))
    .tick(2000)
    .left()
}

/// Linked spans by id.
#[derive(Clone, Debug, PartialEq)]
pub struct Linked(pub BTreeMap<SpanId, OtlpSpan>);

impl Linked {
    pub fn from_batches(batches: Vec<Batch>) -> Self {
        let resources = batches
            .into_iter()
            .flat_map(|mut batch| batch.take_resource_spans());
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        let spans = scopes.flat_map(|scope| scope.spans);
        let mut linked = BTreeMap::new();
        for span in spans {
            let id = SpanId::from_bytes(span.span_id.as_slice().try_into().unwrap_or_default());
            let twice = id.and_then(|id| linked.insert(id, span));
            assert_eq!(twice, None, "a span left twice");
        }
        Self(linked)
    }

    pub fn get(&self, number: u64) -> &OtlpSpan {
        self.0
            .get(&id(number))
            .unwrap_or_else(|| panic!("span {number} has not left"))
    }

    pub fn parent(&self, number: u64) -> Option<SpanId> {
        SpanId::from_bytes(self.get(number).parent_span_id.as_slice().try_into().ok()?)
    }

    pub fn trace(&self, number: u64) -> TraceId {
        let bytes = self
            .get(number)
            .trace_id
            .as_slice()
            .try_into()
            .unwrap_or_default();
        TraceId::from_bytes(bytes).unwrap_or_else(|| panic!("span {number} has no trace"))
    }

    pub fn text(&self, number: u64, key: &str) -> &str {
        match self.value(number, key) {
            Some(AnyValue::StringValue(text)) => text,
            other => panic!("{key} of span {number}: {other:?}"),
        }
    }

    pub fn value(&self, number: u64, key: &str) -> Option<&AnyValue> {
        let attribute = self
            .get(number)
            .attributes
            .iter()
            .find(|attribute| attribute.key == key)?;
        attribute.value.as_ref()?.value.as_ref()
    }

    pub fn confidence(&self, number: u64) -> f64 {
        match self.value(number, "deeptrace.link.confidence") {
            Some(AnyValue::DoubleValue(confidence)) => *confidence,
            other => panic!("confidence of span {number}: {other:?}"),
        }
    }

    /// Parent and method of a linked span.
    pub fn assert_linked(&self, child: u64, parent: u64, method: &str) {
        assert_eq!(
            self.parent(child),
            Some(id(parent)),
            "parent of {child}: {:?}",
            self.get(child)
        );
        assert_eq!(
            self.text(child, "deeptrace.link.method"),
            method,
            "method of {child}"
        );
    }

    /// No parent, and why.
    pub fn assert_unlinked(&self, span: u64, reason: &str) {
        assert_eq!(
            self.parent(span),
            None,
            "parent of {span}: {:?}",
            self.get(span)
        );
        assert_eq!(self.text(span, "deeptrace.link.method"), "none");
        assert_eq!(
            self.text(span, "deeptrace.link.reason"),
            reason,
            "reason of {span}"
        );
    }

    pub fn assert_same_trace(&self, spans: &[u64]) {
        for pair in spans.windows(2) {
            if let [one, other] = pair {
                assert_eq!(
                    self.trace(*one),
                    self.trace(*other),
                    "traces of {one} and {other}"
                );
            }
        }
    }
}
