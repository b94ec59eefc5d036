//! What is known: spans that are open, that wait, and that left not long ago.
//!
//! Owns the entries, their indexes and their bounds in time and number. Knows
//! nothing of evidence; it answers questions such as "which requests was this
//! process serving at that time".

pub mod entry;
pub mod link;
mod postings;
mod process;
mod queue;
mod timeline;
mod trust;

use entry::{Entry, MAX_TOKENS, Moment, Side, Stage};
use link::{Link, Trace};
use postings::{Postings, Tag};
pub use process::Process;
use process::Processes;
use queue::{Item, Queue};
use span_model::{ProcessKey, SpanId, TraceId};
use std::collections::HashMap;
use timeline::{Line, Timeline, lines};
pub use trust::{Measured, Trust};

/// A hash map with a fast, seeded hasher: ids come off the wire, so the seed matters.
pub type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Where an entry lies.
pub type Place = u32;

/// Reads followed from a response back to its request.
const MAX_READS: usize = 64;

/// The entries and the indexes over them.
#[derive(Debug, Default)]
pub struct Window {
    slots: Vec<Option<Entry>>,
    free: Vec<u32>,
    index: FastMap<SpanId, u32>,
    /// Server span by the client span that called it, while that one is not here.
    callees: FastMap<SpanId, SpanId>,
    postings: Postings,
    timelines: FastMap<Line, Timeline>,
    processes: Processes,
    /// Open and exported entries, oldest first; waiting ones are the processor's.
    open: Queue,
    exported: Queue,
    /// Ended requests that came in since returns were measured.
    unmeasured: Vec<SpanId>,
}

/// What became of a span that was put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is new, or it ended what was open.
    New,
    /// It was waiting already; the newcomer is the one to keep.
    Replaced,
    /// It is known already; the newcomer is to be dropped.
    Duplicate,
}

impl Window {
    /// The number of entries.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// No entries.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The entry of a span.
    pub fn get(&self, id: SpanId) -> Option<&Entry> {
        self.at(self.place(id)?)
    }

    /// Where a span's entry lies, from when it is held until it is forgotten.
    pub fn place(&self, id: SpanId) -> Option<Place> {
        self.index.get(&id).copied()
    }

    /// The entry at a place.
    pub fn at(&self, place: Place) -> Option<&Entry> {
        self.slots.get(place as usize)?.as_ref()
    }

    /// The server span that a client span's request arrived as.
    pub fn callee(&self, client: SpanId) -> Option<&Entry> {
        self.get(self.get(client)?.callee?)
    }

    /// What is known of a process.
    pub fn process(&self, key: ProcessKey) -> Option<&Process> {
        self.processes.get(key)
    }

    /// What is known of a process, to add to it.
    pub fn process_mut(&mut self, key: ProcessKey) -> &mut Process {
        self.processes.entry(key)
    }

    /// Puts in a request that has begun. The same one twice, or one that has ended: no effect.
    pub fn open(&mut self, mut entry: Entry, now: Moment) -> Admission {
        if let Some(known) = self.get(entry.id) {
            let earlier = (entry.start_ns, entry.process) < (known.start_ns, known.process);
            if known.stage != Stage::Open || !earlier {
                return Admission::Duplicate;
            }
            entry.link = known.link;
            entry.trace = known.trace;
        }
        entry.stage = Stage::Open;
        let id = entry.id;
        let place = self.put(entry, now);
        self.open.push(id, place, now);
        Admission::New
    }

    /// Puts in a span that has ended and waits for its decision.
    ///
    /// Of two ended spans with one id the same one is kept, whichever comes first.
    pub fn hold(&mut self, mut entry: Entry, now: Moment) -> Admission {
        let mut admission = Admission::New;
        if let Some(known) = self.get(entry.id) {
            let rank = |e: &Entry| (e.process, e.start_ns, e.end_ns());
            if known.stage == Stage::Exported
                || (known.stage == Stage::Held && rank(known) <= rank(&entry))
            {
                return Admission::Duplicate;
            }
            if known.stage == Stage::Held {
                admission = Admission::Replaced;
            }
            entry.link = known.link;
            entry.trace = known.trace;
        }
        entry.stage = Stage::Held;
        if admission == Admission::New && entry.side == Side::Ingress {
            self.measure(&entry);
        }
        self.put(entry, now);
        admission
    }

    fn measure(&mut self, request: &Entry) {
        if request.facts.after.is_some() {
            self.unmeasured.push(request.id);
        }
        let trust = &mut self.processes.entry(request.process).trust;
        trust.saw_request(
            request.start_ns,
            request.end_ns().unwrap_or(request.start_ns),
        );
        let tids = (request.facts.request_tid, request.facts.response_tid);
        if tids.0 != 0 && tids.1 != 0 {
            trust.saw_threads(tids.0 == tids.1);
        }
    }

    /// Measures whether the responses of requests that have come in lead back to them; called
    /// when what came in with them is there too.
    pub fn measure_returns(&mut self) {
        for id in std::mem::take(&mut self.unmeasured) {
            let Some(request) = self.get(id) else {
                continue;
            };
            let Some(to) = self.way_back(request) else {
                continue;
            };
            let leads_back = to == id;
            let (process, tid) = (request.process, request.facts.response_tid);
            let end_ns = request.end_ns().unwrap_or(request.start_ns);
            let mut on_thread = self.open_on_thread(process, tid, end_ns);
            let rivals = on_thread.any(|other| other != id);
            drop(on_thread);
            let trust = &mut self.processes.entry(process).trust;
            trust.saw_return(leads_back, rivals);
        }
    }

    /// Follows what the thread read before it wrote the response back, read by read, to a request;
    /// `None` where that leads to nothing that is known.
    fn way_back(&self, request: &Entry) -> Option<SpanId> {
        let mut read = request.facts.after?;
        for _ in 0..MAX_READS {
            if read == request.id {
                return Some(read);
            }
            let entry = self.get(read)?;
            if self.read_together(entry)?.iter().any(|id| *id != read) {
                return None;
            }
            if entry.side != Side::Egress {
                return Some(read);
            }
            if entry.facts.freed {
                // It may have stood in line for the connection.
                return None;
            }
            read = entry.facts.connected_after().or(entry.facts.after)?;
        }
        None
    }

    /// Remembers a span that has left as it came, for its trace.
    pub fn remember(&mut self, mut entry: Entry, now: Moment) {
        if self.get(entry.id).is_some() {
            return;
        }
        entry.stage = Stage::Exported;
        let id = entry.id;
        let place = self.put(entry, now);
        self.exported.push(id, place, now);
    }

    /// A waiting span has left.
    pub fn exported(&mut self, place: Place, now: Moment) {
        if let Some(Some(entry)) = self.slots.get_mut(place as usize) {
            entry.stage = Stage::Exported;
            if entry.side == Side::Egress {
                // Only those of requests are looked for later.
                entry.facts.tokens = Vec::new();
            }
            self.exported.push(entry.id, place, now);
        }
    }

    /// Writes down a decision.
    pub fn set_link(&mut self, id: SpanId, link: Link) {
        if let Some(entry) = self.get_mut(id) {
            entry.link = Some(link);
        }
    }

    /// Fixes a span's trace.
    pub fn set_trace(&mut self, id: SpanId, trace: Trace) {
        if let Some(entry) = self.get_mut(id) {
            entry.trace = Some(trace);
        }
    }

    /// Forgets entries that are too old. Gives the number of open ones among them.
    pub fn expire(&mut self, open_before: Moment, exported_before: Moment) -> u64 {
        let mut forgotten = 0;
        while let Some(place) = self.oldest(Stage::Open, Some(open_before)) {
            self.remove(place);
            forgotten += 1;
        }
        while let Some(place) = self.oldest(Stage::Exported, Some(exported_before)) {
            self.remove(place);
        }
        self.processes.expire(exported_before);
        forgotten
    }

    /// Forgets the oldest entry of a stage to make room.
    pub fn forget_oldest(&mut self, stage: Stage) -> bool {
        let oldest = self.oldest(stage, None);
        oldest.is_some_and(|place| self.remove(place).is_some())
    }

    fn oldest(&mut self, stage: Stage, before: Option<Moment>) -> Option<Place> {
        let Self {
            open,
            exported,
            index,
            slots,
            ..
        } = self;
        let queue = if stage == Stage::Open { open } else { exported };
        let is_current = |item: &Item| {
            let entry = slots.get(item.place as usize).and_then(Option::as_ref);
            entry.is_some_and(|entry| entry.stage == stage && item.is_of(entry.id))
        };
        queue.compact(index.len(), is_current);
        queue.pop(before, is_current)
    }
}

/// Questions that evidence asks.
impl Window {
    /// Requests of a process, under way at a time, that came with a trace context of this trace.
    pub fn open_with_trace(
        &self,
        process: ProcessKey,
        trace: TraceId,
        time_ns: u64,
    ) -> impl Iterator<Item = &Entry> {
        let key = self.postings.key(Tag::Context, (process, trace));
        self.listed(key).filter(move |entry| {
            entry.process == process
                && entry
                    .facts
                    .context
                    .is_some_and(|context| context.trace_id == trace)
                && entry.is_open_at(time_ns)
        })
    }

    /// Requests of a process, under way at a time, that came with this token.
    pub fn open_with_token(
        &self,
        process: ProcessKey,
        token: u64,
        time_ns: u64,
    ) -> impl Iterator<Item = &Entry> {
        let key = self.postings.key(Tag::Token, (process, token));
        self.listed(key).filter(move |entry| {
            entry.process == process
                && entry.facts.tokens.contains(&token)
                && entry.is_open_at(time_ns)
        })
    }

    /// Requests that a process was serving at a time, those that began last first.
    pub fn open_in_process(
        &self,
        process: ProcessKey,
        time_ns: u64,
    ) -> impl Iterator<Item = SpanId> {
        self.open_on(Line::Process(process), time_ns)
    }

    /// Requests that a process began to serve in a stretch of time, in that order.
    pub fn requests_begun_in(
        &self,
        process: ProcessKey,
        from_ns: u64,
        until_ns: u64,
    ) -> impl Iterator<Item = &Entry> {
        self.begun_on(Line::Process(process), from_ns, until_ns)
    }

    /// Calls that a process began in a stretch of time, in that order.
    pub fn calls_begun_in(
        &self,
        process: ProcessKey,
        from_ns: u64,
        until_ns: u64,
    ) -> impl Iterator<Item = &Entry> {
        self.begun_on(Line::Calls(process), from_ns, until_ns)
    }

    fn begun_on(&self, line: Line, from_ns: u64, until_ns: u64) -> impl Iterator<Item = &Entry> {
        let timeline = self.timelines.get(&line).into_iter();
        timeline
            .flat_map(move |timeline| timeline.begun_in(from_ns, until_ns))
            .filter_map(|id| self.get(id))
    }

    /// Requests that one thread had read and that were unanswered at a time.
    pub fn open_on_thread(
        &self,
        process: ProcessKey,
        tid: u32,
        time_ns: u64,
    ) -> impl Iterator<Item = SpanId> {
        self.open_on(Line::Thread(process, tid), time_ns)
    }

    /// All spans whose message came in with the same read as this one's: one
    /// system call can read messages of several requests. `None`: too many to list.
    pub fn read_together(&self, entry: &Entry) -> Option<&[SpanId]> {
        self.read_key(entry)
            .map_or(Some(&[]), |key| self.postings.get(key))
    }

    /// Spans whose thread had waited until one ended the wait that had read this span's message.
    pub fn woken_after(&self, read: SpanId) -> impl Iterator<Item = &Entry> {
        let key = self.postings.key(Tag::Woken, read);
        self.listed(key)
            .filter(move |entry| entry.facts.woken_after == Some(read))
    }

    fn open_on(&self, line: Line, time_ns: u64) -> impl Iterator<Item = SpanId> {
        self.timelines
            .get(&line)
            .into_iter()
            .flat_map(move |timeline| timeline.open_at(time_ns))
    }

    fn listed(&self, key: u64) -> impl Iterator<Item = &Entry> {
        self.postings
            .get(key)
            .unwrap_or_default()
            .iter()
            .filter_map(|id| self.get(*id))
    }
}

/// Keeping entries and indexes in step.
impl Window {
    fn get_mut(&mut self, id: SpanId) -> Option<&mut Entry> {
        let slot = *self.index.get(&id)?;
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// Puts an entry in, in place of one with its id.
    fn put(&mut self, mut entry: Entry, now: Moment) -> Place {
        let place = match self.place(entry.id) {
            Some(place) => {
                if let Some(known) = self.slots.get_mut(place as usize).and_then(Option::take) {
                    entry.callee = known.callee;
                    self.unlist(&known);
                }
                place
            }
            None => self.vacant(entry.id),
        };
        self.list(&mut entry, now);
        if let Some(slot) = self.slots.get_mut(place as usize) {
            *slot = Some(entry);
        }
        place
    }

    fn vacant(&mut self, id: SpanId) -> Place {
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            Place::try_from(self.slots.len() - 1).unwrap_or(Place::MAX)
        });
        self.index.insert(id, place);
        place
    }

    fn remove(&mut self, place: Place) -> Option<Entry> {
        let entry = self.slots.get_mut(place as usize)?.take()?;
        self.index.remove(&entry.id);
        self.free.push(place);
        self.unlist(&entry);
        Some(entry)
    }

    fn list(&mut self, entry: &mut Entry, now: Moment) {
        let id = entry.id;
        for key in self.posting_keys(entry).into_iter().flatten() {
            self.postings.insert(key, id);
        }
        for line in lines(entry) {
            let timeline = self.timelines.entry(line).or_default();
            timeline.insert(id, entry.start_ns, entry.end_ns());
        }
        match (entry.side, entry.facts.caller) {
            (Side::Ingress, Some(caller)) => match self.get_mut(caller) {
                Some(caller) => caller.callee = Some(id),
                None => {
                    self.callees.insert(caller, id);
                }
            },
            (Side::Egress, _) => entry.callee = entry.callee.or(self.callees.remove(&id)),
            _ => {}
        }
        self.processes.enter(entry.process, now);
    }

    fn unlist(&mut self, entry: &Entry) {
        let id = entry.id;
        for key in self.posting_keys(entry).into_iter().flatten() {
            self.postings.remove(key, id);
        }
        for line in lines(entry) {
            self.cut(line, entry);
        }
        if let (Side::Ingress, Some(caller)) = (entry.side, entry.facts.caller) {
            if self.callees.get(&caller) == Some(&id) {
                self.callees.remove(&caller);
            } else if let Some(caller) = self.get_mut(caller)
                && caller.callee == Some(id)
            {
                caller.callee = None;
            }
        }
        self.processes.leave(entry.process);
    }

    fn cut(&mut self, line: Line, entry: &Entry) {
        if let Some(timeline) = self.timelines.get_mut(&line) {
            if entry.stage == Stage::Exported {
                timeline.forget(entry.start_ns);
            } else {
                timeline.remove(entry.id, entry.start_ns);
            }
            if timeline.is_empty() {
                self.timelines.remove(&line);
            }
        }
    }

    fn posting_keys(&self, entry: &Entry) -> [Option<u64>; MAX_TOKENS + 3] {
        let mut keys = [None; MAX_TOKENS + 3];
        let [read, woken, context, tokens @ ..] = &mut keys;
        *read = self.read_key(entry);
        *woken = entry
            .facts
            .woken_after
            .map(|read| self.postings.key(Tag::Woken, read));
        if entry.side == Side::Ingress {
            let (process, facts) = (entry.process, &entry.facts);
            *context = facts
                .context
                .map(|c| self.postings.key(Tag::Context, (process, c.trace_id)));
            for (place, token) in tokens.iter_mut().zip(&facts.tokens) {
                *place = Some(self.postings.key(Tag::Token, (process, *token)));
            }
        }
        keys
    }

    /// A server span is read with its request, a client span with its response.
    fn read_key(&self, entry: &Entry) -> Option<u64> {
        let (tid, time_ns) = match entry.side {
            Side::Ingress => (entry.facts.request_tid, entry.start_ns),
            Side::Egress => (entry.facts.response_tid, entry.end_ns()?),
            Side::Foreign => return None,
        };
        (tid != 0).then(|| self.postings.key(Tag::Read, (entry.process, tid, time_ns)))
    }
}

#[cfg(test)]
mod tests;
