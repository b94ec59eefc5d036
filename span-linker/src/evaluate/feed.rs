//! Feeds a recording to the linker as a collector would, and reads its answers.
//!
//! Every request is announced when it begins and handed in when it has ended, at the time
//! of the recording, with the facts that a collector derives from threads.

use super::Answer;
use super::recording::{Polls, Recorded, Recording};
use crate::clock::worked;
use crate::config::{BelowFloor, Config};
use crate::processor::SpanLinker;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::trace::v1::Span as OtlpSpan;
use pipeline::Batch;
use pipeline::clock::Monotonic;
use pipeline::otlp::encode;
use span_model::{
    Connected, LinkFacts, Opening, ProcessKey, Resource, Span, SpanId, SpanKind, Status, semconv,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How often the linker is called: events of so many ns go in together.
const DRAIN_NS: u64 = 10_000_000;
/// Between a recording that is learned and the next one.
const PAUSE_NS: u64 = 10_000_000_000;

/// A linker in use.
pub struct Feed {
    linker: SpanLinker,
    clock_ns: u64,
    next_id: u64,
    /// Time spent in the linker, and spans that went through it.
    pub busy: Duration,
    pub spans: usize,
    resources: HashMap<String, Arc<Resource>>,
}

/// What the linker did with one recording.
pub struct Linked {
    pub answers: Vec<Option<Answer>>,
    /// Roots without a guess, and links, by reason and method.
    pub methods: Vec<String>,
}

impl Feed {
    /// How much of their share decoys got, since it knows something.
    pub fn decoys(&self) -> Option<f32> {
        self.linker.decoys()
    }

    /// A linker that knows nothing.
    pub fn new(floor: f64, wait: Duration) -> Self {
        Self {
            linker: SpanLinker::new(Config {
                max_spans: 4_000_000,
                confidence_floor: floor,
                decision_wait: wait,
                below_floor: BelowFloor::Link,
                ..Config::default()
            }),
            clock_ns: 0,
            next_id: 1,
            busy: Duration::ZERO,
            spans: 0,
            resources: HashMap::new(),
        }
    }

    /// Links a recording; `exact` is the share of calls whose parent is given away.
    pub fn link(&mut self, recording: &Recording, exact: f64) -> Linked {
        let first_id = self.next_id;
        self.next_id += recording.spans.len() as u64;
        let id = |index: usize| SpanId::from_hash(first_id + index as u64);
        let facts = facts(recording, exact, &id);
        let shift = self.clock_ns + PAUSE_NS;
        let first = recording.spans.iter().map(|span| span.start_ns).min();
        let first = first.unwrap_or(0);
        let at = |time: u64| time - first + shift;
        let mut events: Vec<(u64, bool, usize)> = Vec::new();
        for (index, span) in recording.spans.iter().enumerate() {
            events.push((at(span.start_ns), false, index));
            events.push((at(span.end_ns), true, index));
        }
        events.sort_unstable();
        let mut out = Vec::new();
        for drain in events.chunk_by(|a, b| a.0 / DRAIN_NS == b.0 / DRAIN_NS) {
            let mut openings = Vec::new();
            let mut ended = Vec::new();
            for (time, has_ended, index) in drain {
                self.clock_ns = *time;
                let (Some(span), Some(facts)) = (recording.spans.get(*index), facts.get(*index))
                else {
                    continue;
                };
                let name = recording.processes.get(span.process as usize);
                let process = name.map_or("", String::as_str);
                let times = (at(span.start_ns), at(span.end_ns));
                if *has_ended {
                    let resource = self.resource(process);
                    ended.push(finished(id(*index), span, facts, times, resource));
                } else {
                    openings.push(opening(id(*index), span, facts, times, process));
                }
            }
            let mut batch = Batch::new(encode(ended, "0"));
            batch.openings = openings;
            let now = Monotonic::default() + Duration::from_nanos(self.clock_ns);
            let began = worked();
            self.linker.process(batch, now, &mut out);
            self.linker.tick(now, &mut out);
            self.busy += worked().saturating_sub(began);
        }
        self.spans += recording.spans.len();
        let began = worked();
        self.linker.flush(&mut out);
        self.busy += worked().saturating_sub(began);
        read(out, first_id, recording.spans.len())
    }

    fn resource(&mut self, process: &str) -> Arc<Resource> {
        let known = self.resources.entry(process.to_owned());
        let resource = known.or_insert_with(|| {
            Arc::new(Resource {
                attributes: vec![
                    (semconv::HOST_ID.into(), process.to_owned().into()),
                    (semconv::PROCESS_PID.into(), 1_i64.into()),
                    (semconv::SERVICE_NAME.into(), process.to_owned().into()),
                ],
            })
        });
        Arc::clone(resource)
    }
}

fn kind(span: &Recorded) -> SpanKind {
    if span.ingress {
        SpanKind::Server
    } else {
        SpanKind::Client
    }
}

fn opening(
    span_id: SpanId,
    span: &Recorded,
    facts: &LinkFacts,
    (start_unix_ns, _): (u64, u64),
    process: &str,
) -> Opening {
    let mut facts = facts.clone();
    facts.response_tid = 0;
    Opening {
        span_id,
        kind: kind(span),
        process: ProcessKey::new(process, 1),
        start_unix_ns,
        facts,
    }
}

fn finished(
    span_id: SpanId,
    span: &Recorded,
    facts: &LinkFacts,
    (start_unix_ns, end_unix_ns): (u64, u64),
    resource: Arc<Resource>,
) -> Span {
    Span {
        trace_id: None,
        span_id,
        parent_span_id: None,
        kind: kind(span),
        name: span.operation.clone().into(),
        start_unix_ns,
        end_unix_ns,
        status: Status::Unset,
        attributes: vec![(semconv::SERVER_ADDRESS.into(), span.peer.clone().into())],
        resource,
        link: facts.clone(),
    }
}

/// What a collector would know of each span.
fn facts(recording: &Recording, exact: f64, id: &dyn Fn(usize) -> SpanId) -> Vec<LinkFacts> {
    let spans = &recording.spans;
    let mut facts: Vec<LinkFacts> = spans
        .iter()
        .map(|span| LinkFacts {
            caller: span
                .above
                .filter(|_| span.ingress)
                .map(|above| id(above as usize)),
            tokens: span.token.into_iter().collect(),
            request_tid: span.tids.0,
            response_tid: span.tids.1,
            ..LinkFacts::default()
        })
        .collect();
    for (index, span) in spans.iter().enumerate() {
        let above = span
            .above
            .filter(|_| !span.ingress && recording.is_chosen(index, exact));
        for place in above.into_iter().flat_map(|above| [above as usize, index]) {
            let token = u64::from(above.unwrap_or(0)) << 1 | 1;
            if let Some(facts) = facts.get_mut(place)
                && !facts.tokens.contains(&token)
            {
                facts.tokens.push(token);
            }
        }
    }
    threads(recording, &mut facts, id);
    recorded(recording, &mut facts, id);
    facts
}

/// What was recorded of threads stands in for what can be derived.
fn recorded(recording: &Recording, facts: &mut [LinkFacts], id: &dyn Fn(usize) -> SpanId) {
    let names = recording.spans.iter().enumerate();
    let names: HashMap<&str, usize> = names.map(|(index, span)| (&*span.id, index)).collect();
    let named = |name: &Option<String>| names.get(name.as_deref()?).map(|index| id(*index));
    for (span, facts) in recording.spans.iter().zip(facts) {
        if let Some(seen) = &span.seen {
            facts.after = named(&seen.after);
            facts.serving = named(&seen.serving);
            facts.told_by = seen.told_by;
            facts.freed = seen.freed;
            facts.woken_after = named(&seen.woken_after);
            facts.woken_first = seen.woken_first;
            let Polls(request, response, connected) = seen.polls;
            (facts.request_polls, facts.response_polls) = (request, response);
            facts.connected = named(&seen.connected_after).map(|after| {
                Box::new(Connected {
                    after: Some(after),
                    polls: connected,
                    before_ns: seen.connected_before_ns,
                })
            });
        }
    }
}

/// What a thread did last.
#[derive(Default)]
struct Thread {
    read: Option<SpanId>,
    serving: Option<SpanId>,
}

fn threads(recording: &Recording, facts: &mut [LinkFacts], id: &dyn Fn(usize) -> SpanId) {
    let mut events = Vec::new();
    for (index, span) in recording.spans.iter().enumerate() {
        if span.tids != (0, 0) {
            events.push((span.start_ns, index, true));
            events.push((span.end_ns, index, false));
        }
    }
    events.sort_unstable();
    let mut threads: HashMap<(u32, u32), Thread> = HashMap::new();
    let mut readers: HashMap<SpanId, (u32, u32)> = HashMap::new();
    for (_, index, begins) in events {
        let Some(span) = recording.spans.get(index) else {
            continue;
        };
        let tid = if begins { span.tids.0 } else { span.tids.1 };
        let key = (span.process, tid);
        match (span.ingress, begins) {
            (true, true) => {
                let thread = threads.entry(key).or_default();
                (thread.read, thread.serving) = (Some(id(index)), Some(id(index)));
                readers.insert(id(index), key);
            }
            (true, false) => {
                let reader = readers.remove(&id(index));
                if let Some(thread) = reader.and_then(|key| threads.get_mut(&key))
                    && thread.serving == Some(id(index))
                {
                    thread.serving = None;
                }
            }
            (false, true) => {
                let thread = threads.entry(key).or_default();
                if let Some(facts) = facts.get_mut(index) {
                    (facts.after, facts.serving) = (thread.read, thread.serving);
                }
            }
            (false, false) => threads.entry(key).or_default().read = Some(id(index)),
        }
    }
}

/// Reads the linker's answers off its spans.
fn read(out: Vec<Batch>, first_id: u64, count: usize) -> Linked {
    let mut linked = Linked {
        answers: vec![None; count],
        methods: vec![String::new(); count],
    };
    let index = |bytes: &[u8]| {
        let number = u64::from_be_bytes(bytes.try_into().ok()?);
        let index = usize::try_from(number.checked_sub(first_id)?).ok()?;
        (index < count).then_some(index)
    };
    let resources = out
        .into_iter()
        .flat_map(|mut batch| batch.take_resource_spans());
    let scopes = resources.flat_map(|resource| resource.scope_spans);
    for span in scopes.flat_map(|scope| scope.spans) {
        let Some(own) = index(&span.span_id) else {
            continue;
        };
        let parent = index(&span.parent_span_id);
        let unsure = span
            .links
            .first()
            .filter(|link| !link.attributes.is_empty());
        let answer = match (parent, unsure) {
            (Some(parent), _) => Some((parent, confidence(&span.attributes), true)),
            (None, Some(link)) => {
                let parent = index(&link.span_id);
                parent.map(|parent| (parent, confidence(&link.attributes), false))
            }
            (None, None) => None,
        };
        let answer = answer.map(|(parent, confidence, given)| Answer {
            parent: u32::try_from(parent).unwrap_or(u32::MAX),
            confidence,
            given,
        });
        if let Some(place) = linked.answers.get_mut(own) {
            *place = answer;
        }
        if let Some(place) = linked.methods.get_mut(own) {
            *place = method(&span);
        }
    }
    linked
}

fn method(span: &OtlpSpan) -> String {
    let text = |key: &str| {
        let attribute = span
            .attributes
            .iter()
            .find(|attribute| attribute.key == key)?;
        match attribute.value.as_ref()?.value.as_ref()? {
            AnyValue::StringValue(text) => Some(text.clone()),
            _ => None,
        }
    };
    let reason = text("deeptrace.link.reason").map(|reason| format!("none: {reason}"));
    reason
        .or_else(|| text(span_model::METHOD))
        .unwrap_or_default()
}

fn confidence(attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue]) -> f64 {
    let attribute = attributes.iter().find(|a| a.key == span_model::CONFIDENCE);
    match attribute.and_then(|a| a.value.as_ref()?.value.as_ref()) {
        Some(AnyValue::DoubleValue(confidence)) => *confidence,
        _ => 0.0,
    }
}
