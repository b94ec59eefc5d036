//! The `span_linker` processor: OTLP spans in, linked OTLP spans out.
//!
//! ```text
//! process --> window (entries, at once)
//!         \-> held (OTLP spans) --decision_wait--> decode, assemble --> out
//! ```
//! Spans are held from their arrival, not from their end: clocks of other hosts
//! are not ours, and a span that comes late needs its time too. What is due is
//! decided in the order in which it ended.

use crate::assemble::{Late, find_caller_again, late, trace_of};
use crate::config::{BelowFloor, Config};
use crate::decode::Decoder;
use crate::otlp;
use crate::stats::Stats;
use crate::window::entry::{Entry, Moment, Side, Stage};
use crate::window::link::{Link, Reason, Trace};
use crate::window::{Admission, FastMap, Place, Window};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use pipeline::Batch;
use pipeline::clock::Monotonic;
use span_model::{Opening, ProcessKey, SpanId, SpanKind};
use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

/// Envelopes remembered; beyond, they are forgotten and grouping starts anew.
const MAX_ENVELOPES: usize = 4096;

/// Finds parents and joins spans into traces.
#[derive(Debug)]
pub struct SpanLinker {
    config: Config,
    decoder: Decoder,
    window: Window,
    /// What waits for its decision, at the places of the window's entries.
    held: Vec<Option<Box<Held>>>,
    /// Held spans in the order of their arrival.
    waiting: VecDeque<(Moment, Place)>,
    /// The last envelope of each process: what came in apart leaves together.
    envelopes: FastMap<ProcessKey, Arc<Envelope>>,
    stats: Stats,
    began: Option<Monotonic>,
    now: Moment,
}

/// A span that waits for its decision.
#[derive(Debug)]
struct Held {
    envelope: Arc<Envelope>,
    span: Span,
}

/// What a span came wrapped in.
#[derive(Debug)]
struct Envelope {
    resource: Option<Resource>,
    resource_schema: String,
    scope: Option<InstrumentationScope>,
    scope_schema: String,
}

impl SpanLinker {
    /// A linker with nothing in it.
    pub fn new(config: Config) -> Self {
        let decoder = Decoder::new(&config);
        Self {
            config,
            decoder,
            window: Window::default(),
            held: Vec::new(),
            waiting: VecDeque::new(),
            envelopes: FastMap::default(),
            stats: Stats::default(),
            began: None,
            now: Moment(0),
        }
    }

    /// Takes spans in, and gives out those whose decision is due.
    pub fn process(&mut self, mut batch: Batch, now: Monotonic, out: &mut Vec<Batch>) {
        self.advance(now);
        let mut leaving = Leaving::default();
        for opening in std::mem::take(&mut batch.openings) {
            self.open(opening);
        }
        for resource_spans in batch.take_resource_spans() {
            self.take(resource_spans, &mut leaving);
        }
        self.make_room(&mut leaving);
        self.release_due(&mut leaving);
        leaving.into_batch(out);
    }

    /// Gives out the spans whose decision is due.
    pub fn tick(&mut self, now: Monotonic, out: &mut Vec<Batch>) {
        self.advance(now);
        let mut leaving = Leaving::default();
        self.release_due(&mut leaving);
        leaving.into_batch(out);
        let before = |age: Duration| Moment(self.now.0.saturating_sub(millis(age)));
        let forgotten = self
            .window
            .expire(before(self.config.open_limit), before(self.config.remember));
        self.stats.forgotten_openings += forgotten;
        self.count_learning();
    }

    /// Decides and gives out everything, at shutdown.
    pub fn flush(&mut self, out: &mut Vec<Batch>) {
        let mut leaving = Leaving::default();
        self.release(usize::MAX, &mut leaving);
        leaving.into_batch(out);
        self.count_learning();
    }

    fn count_learning(&mut self) {
        let sequences = self.decoder.sequences();
        let queues = self.decoder.queues();
        let hops = self.decoder.all_hops();
        self.stats.forgotten_models = sequences.forgotten + queues.forgotten + hops.forgotten;
        self.stats.unaffordable = self.decoder.unaffordable();
        self.stats.refused_samples = sequences.refused() + queues.refused() + hops.refused();
    }

    /// How much of their share decoys got when timing was tested, over all processes known; none: it
    /// was not.
    pub fn decoys(&self) -> Option<f32> {
        self.decoder.decoys()
    }

    /// What was counted since the start.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Spans known: open, waiting and remembered.
    pub fn known_spans(&self) -> usize {
        self.window.len()
    }

    /// Spans that wait for their decision.
    pub fn held_spans(&self) -> usize {
        self.waiting.len()
    }

    fn advance(&mut self, now: Monotonic) {
        let began = *self.began.get_or_insert(now);
        let now = Moment(millis(now.since(began)));
        self.now = self.now.max(now);
    }
}

/// Taking in.
impl SpanLinker {
    fn open(&mut self, opening: Opening) {
        let side = match opening.kind {
            SpanKind::Server => Side::Ingress,
            SpanKind::Client => Side::Egress,
        };
        let entry = Entry::new(
            opening.span_id,
            side,
            opening.process,
            opening.start_unix_ns,
            opening.facts,
        );
        self.window.open(entry, self.now);
    }

    fn take(&mut self, resource_spans: ResourceSpans, leaving: &mut Leaving) {
        let ResourceSpans {
            resource,
            scope_spans,
            schema_url,
        } = resource_spans;
        let origin = otlp::origin(resource.as_ref());
        for ScopeSpans {
            scope,
            spans,
            schema_url: scope_schema,
        } in scope_spans
        {
            let envelope = self.envelope(
                origin.process,
                (&resource, &schema_url),
                (scope, scope_schema),
            );
            let mut linkable = false;
            for span in spans {
                if let Some(opening) = otlp::opening(&span) {
                    self.open(opening);
                    continue;
                }
                match otlp::span_id(&span) {
                    None => {
                        self.stats.malformed += 1;
                        leaving.push(&envelope, span);
                    }
                    Some(id) => linkable |= self.admit(id, span, &envelope, &origin, leaving),
                }
            }
            if linkable {
                self.learn_process(&origin);
            }
        }
    }

    /// The process's last envelope if it is the same, so that one drain gives one group a process.
    fn envelope(
        &mut self,
        process: ProcessKey,
        (resource, resource_schema): (&Option<Resource>, &String),
        (scope, scope_schema): (Option<InstrumentationScope>, String),
    ) -> Arc<Envelope> {
        if let Some(last) = self.envelopes.get(&process)
            && (&last.resource, &last.resource_schema) == (resource, resource_schema)
            && (&last.scope, &last.scope_schema) == (&scope, &scope_schema)
        {
            return Arc::clone(last);
        }
        if self.envelopes.len() >= MAX_ENVELOPES {
            self.envelopes.clear();
        }
        let envelope = Arc::new(Envelope {
            resource: resource.clone(),
            resource_schema: resource_schema.clone(),
            scope,
            scope_schema,
        });
        self.envelopes.insert(process, Arc::clone(&envelope));
        envelope
    }

    /// True if the span is ours to link.
    fn admit(
        &mut self,
        id: SpanId,
        mut span: Span,
        envelope: &Arc<Envelope>,
        origin: &otlp::Origin,
        leaving: &mut Leaving,
    ) -> bool {
        let trace_id = otlp::trace_id(&span);
        let mut entry = otlp::take_entry(&mut span, id, origin.process);
        if let Some(id) = trace_id {
            entry.side = Side::Foreign;
            entry.trace = Some(Trace {
                id,
                sampled: true,
                random: false,
            });
            self.window.remember(entry, self.now);
            self.stats.foreign += 1;
            leaving.push(envelope, span);
            return false;
        }
        let admission = self.window.hold(entry, self.now);
        let place = self
            .window
            .place(id)
            .filter(|_| admission != Admission::Duplicate);
        if admission != Admission::New {
            self.stats.duplicates += 1;
        }
        if let Some(place) = place {
            if admission == Admission::New {
                self.waiting.push_back((self.now, place));
            }
            let envelope = Arc::clone(envelope);
            self.keep(place, Held { envelope, span });
        }
        true
    }

    fn keep(&mut self, place: Place, held: Held) {
        let place = place as usize;
        if self.held.len() <= place {
            self.held.resize_with(place + 1, || None);
        }
        if let Some(slot) = self.held.get_mut(place) {
            *slot = Some(Box::new(held));
        }
    }

    fn learn_process(&mut self, origin: &otlp::Origin) {
        let clock = origin
            .clock
            .map(|id| foldhash::fast::FixedState::default().hash_one(id));
        let process = self.window.process_mut(origin.process);
        process.clock = clock.or(process.clock);
        if let Some(service) = origin.service
            && process.service.as_deref() != Some(service)
        {
            process.service = Some(service.into());
        }
    }

    /// Keeps the window within its limit: remembered spans go first, then the
    /// oldest waiting ones leave unlinked, then open ones are forgotten.
    fn make_room(&mut self, leaving: &mut Leaving) {
        while self.window.len() > self.config.max_spans {
            if self.window.forget_oldest(Stage::Exported) {
                continue;
            }
            if let Some((_, place)) = self.waiting.pop_front() {
                self.refuse(place, leaving);
            } else if self.window.forget_oldest(Stage::Open) {
                self.stats.forgotten_openings += 1;
            } else {
                break;
            }
        }
    }

    fn refuse(&mut self, place: Place, leaving: &mut Leaving) {
        if let Some(entry) = self.window.at(place)
            && entry.link.is_none()
        {
            self.window
                .set_link(entry.id, Link::None(Reason::WindowFull));
        }
        self.stats.refused += 1;
        self.leave(place, leaving);
    }
}

/// Giving out.
impl SpanLinker {
    fn release_due(&mut self, leaving: &mut Leaving) {
        let wait = millis(self.config.decision_wait);
        let due = self
            .waiting
            .partition_point(|(since, _)| since.0.saturating_add(wait) <= self.now.0);
        self.release(due, leaving);
    }

    fn release(&mut self, count: usize, leaving: &mut Leaving) {
        self.window.measure_returns();
        let count = count.min(self.waiting.len());
        let window = &self.window;
        let key = |place| {
            let entry = window.at(place)?;
            Some((entry.end_ns(), entry.start_ns, entry.id, place))
        };
        let mut due: Vec<_> = self
            .waiting
            .drain(..count)
            .filter_map(|(_, place)| key(place))
            .collect();
        due.sort_unstable();
        for (.., place) in due {
            self.leave(place, leaving);
        }
    }

    fn leave(&mut self, place: Place, leaving: &mut Leaving) {
        let held = self.held.get_mut(place as usize).and_then(Option::take);
        let id = self.window.at(place).map(|entry| entry.id);
        let (Some(held), Some(id)) = (held, id) else {
            return;
        };
        let Held { envelope, mut span } = *held;
        find_caller_again(&mut self.window, id, &mut self.decoder);
        let preferred = self.window.callee(id).and_then(|callee| callee.trace);
        let trace = trace_of(&mut self.window, id, preferred, &mut self.decoder);
        if let Some(entry) = self.window.get(id) {
            let link = entry.link.unwrap_or(Link::None(Reason::NoEvidence));
            otlp::write_link(&mut span, entry.side, link, trace);
            count(&mut self.stats, link);
            if let Link::Unsure {
                request,
                confidence,
            } = link
                && self.config.below_floor == BelowFloor::Link
            {
                // Its trace is not fixed for the sake of a doubt.
                let known = self.window.get(request).and_then(|request| request.trace);
                let theirs = known.unwrap_or_else(|| Trace::begun_by(request));
                otlp::write_unsure(&mut span, request, theirs, confidence);
            }
            if entry.side == Side::Egress {
                self.stats
                    .count_late(write_callee(&self.window, id, trace, &mut span));
            }
            tighten(&self.window, entry, &mut span);
        }
        self.window.exported(place, self.now);
        leaving.push(&envelope, span);
    }
}

fn count(stats: &mut Stats, link: Link) {
    match link {
        Link::To { method, .. } => stats.count_linked(method),
        Link::Unsure { .. } => stats.count_unlinked(Reason::BelowFloor),
        Link::None(reason) => stats.count_unlinked(reason),
    }
}

/// Writes what is known of the other side of a client span.
fn write_callee(window: &Window, id: SpanId, trace: Trace, span: &mut Span) -> Option<Late> {
    let callee = window.callee(id)?;
    if let Some(service) = window
        .process(callee.process)
        .and_then(|process| process.service.as_deref())
    {
        otlp::write_peer(span, service);
    }
    let (callee, theirs, late) = late(window, id, trace)?;
    otlp::write_span_link(span, callee, theirs);
    Some(late)
}

/// Puts a server span inside its client span where both share a clock.
///
/// Times are taken when the system call returns, so a server may seem to have
/// the request before its client sent it, and to answer after the client has
/// read the answer. The true times lie inside: the request was sent no later
/// than it was received. A side that saw no proper end bounds nothing.
fn tighten(window: &Window, entry: &Entry, span: &mut Span) {
    let clock = |entry: &Entry| {
        window
            .process(entry.process)
            .and_then(|process| process.clock)
    };
    let other = match entry.side {
        Side::Egress => window.callee(entry.id),
        Side::Ingress => entry.facts.caller.and_then(|caller| window.get(caller)),
        Side::Foreign => None,
    };
    let Some(other) = other.filter(|other| clock(entry).is_some() && clock(other) == clock(entry))
    else {
        return;
    };
    match (entry.side, other.end_ns()) {
        (Side::Egress, _) => {
            span.start_time_unix_nano = span.start_time_unix_nano.min(other.start_ns);
        }
        (Side::Ingress, Some(read_ns)) if !entry.incomplete && !other.incomplete => {
            let end = span.end_time_unix_nano.min(read_ns);
            span.end_time_unix_nano = end.max(span.start_time_unix_nano);
        }
        _ => {}
    }
}

/// Spans on their way out, in the envelopes they came in.
#[derive(Debug, Default)]
struct Leaving {
    groups: Vec<(Arc<Envelope>, Vec<Span>)>,
    index: FastMap<*const Envelope, usize>,
}

impl Leaving {
    fn push(&mut self, envelope: &Arc<Envelope>, span: Span) {
        let slot = *self.index.entry(Arc::as_ptr(envelope)).or_insert_with(|| {
            self.groups.push((Arc::clone(envelope), Vec::new()));
            self.groups.len() - 1
        });
        if let Some((_, spans)) = self.groups.get_mut(slot) {
            spans.push(span);
        }
    }

    fn into_batch(self, out: &mut Vec<Batch>) {
        if self.groups.is_empty() {
            return;
        }
        let resource_spans = self
            .groups
            .into_iter()
            .map(|(envelope, spans)| ResourceSpans {
                resource: envelope.resource.clone(),
                scope_spans: vec![ScopeSpans {
                    scope: envelope.scope.clone(),
                    spans,
                    schema_url: envelope.scope_schema.clone(),
                }],
                schema_url: envelope.resource_schema.clone(),
            });
        out.push(Batch::new(resource_spans.collect()));
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
