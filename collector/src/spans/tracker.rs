//! Every connection of every traced process: events in, spans out.

use super::build::{Context, build};
use super::counts::{Counts, Unpaired};
use super::exchange::{Begun, Exchange, Finished, Response};
use super::threads::Threads;
use crate::capture::{
    Call, CaptureMode, ConnectionId, Direction, Flags, Protocol, Role, SocketEvent,
};
use crate::protocols::Flow;
use crate::streams::{Connection, Limits, Mark, Piece, Wanted};
use span_model::{
    Connected, ConnectionKey, Initiator, LinkFacts, Opening, ProcessKey, RequestKey, Resource,
    Span, SpanId, SpanKind, ToldBy,
};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// Bounds of the whole table.
#[derive(Clone, Copy, Debug)]
pub struct TrackerLimits {
    /// Connections kept; beyond it the longest idle go.
    pub connections: usize,
    /// A connection without a message for so long is forgotten.
    pub idle_ns: u64,
    /// Bytes buffered by all connections; beyond it waiting pieces are let go.
    pub buffered_bytes: usize,
    /// Bounds of each connection.
    pub connection: Limits,
}

impl Default for TrackerLimits {
    fn default() -> Self {
        Self {
            connections: 65_536,
            idle_ns: 900_000_000_000,
            buffered_bytes: 64 << 20,
            connection: Limits::default(),
        }
    }
}

/// A traced process, as the spans show it.
#[derive(Clone, Debug)]
pub struct Process {
    /// Attributes of its spans' resource.
    pub resource: Arc<Resource>,
    /// Its name for the linker.
    pub key: ProcessKey,
}

/// What the tracker asks of the world around it.
pub trait Surroundings {
    /// The process that had this tgid at that `CLOCK_MONOTONIC` time; None: not known and gone.
    fn process(&mut self, tgid: u32, monotonic_ns: u64) -> Option<Process>;
    /// Wall-clock time of a `CLOCK_MONOTONIC` time.
    fn unix_ns(&self, monotonic_ns: u64) -> u64;
}

/// What came out.
#[derive(Debug, Default)]
pub struct Output {
    /// Finished requests.
    pub spans: Vec<Span>,
    /// Begun requests.
    pub openings: Vec<Opening>,
    /// Connections whose capture mode should change.
    pub modes: Vec<(ConnectionId, CaptureMode)>,
}

/// Every connection of every traced process.
pub struct Tracker {
    connections: HashMap<ConnectionId, Tracked>,
    /// Connections with pieces that wait for others.
    waiting: HashSet<ConnectionId>,
    threads: Threads,
    /// What a thread had read last when it called `connect`, by socket.
    connects: HashMap<u64, Connect>,
    limits: TrackerLimits,
    /// Counters since the start.
    pub counts: Counts,
}

struct Tracked {
    connection: Connection,
    exchange: Exchange,
    endpoints: Endpoints,
    mode: CaptureMode,
    connect: Option<Connect>,
    last_ns: u64,
}

/// A call of `connect`, and what its thread had done before.
#[derive(Clone, Copy, Debug)]
struct Connect {
    /// What it had read last.
    after: Option<SpanId>,
    /// How often it had waited for descriptors.
    polls: u32,
    /// When the call returned, `CLOCK_MONOTONIC` ns.
    exit_ns: u64,
}

impl Connect {
    /// The same as a fact of a message that was sent then.
    fn before(self, message: &Mark) -> Connected {
        let before_ns = message.exit_ns.saturating_sub(self.exit_ns);
        Connected {
            after: self.after,
            polls: self.polls,
            before_ns: u32::try_from(before_ns).unwrap_or(u32::MAX),
        }
    }
}

/// What both spans of a request are named after.
#[derive(Clone, Copy, Debug)]
struct Endpoints {
    role: Role,
    local_isn: u32,
    remote_isn: u32,
    knows_peer: bool,
    local: Option<SocketAddr>,
    remote: Option<SocketAddr>,
}

/// Connects remembered until their first request.
const MAX_CONNECTS: usize = 65_536;

impl Tracker {
    /// A tracker that knows nothing.
    pub fn new(limits: TrackerLimits) -> Self {
        Self {
            connections: HashMap::new(),
            waiting: HashSet::new(),
            threads: Threads::default(),
            connects: HashMap::new(),
            limits,
            counts: Counts::default(),
        }
    }

    /// Other bounds from now on: connections kept, bytes buffered by all of them.
    pub fn set_limits(&mut self, connections: usize, buffered_bytes: usize) {
        self.limits.connections = connections;
        self.limits.buffered_bytes = buffered_bytes;
    }

    /// Connections in the table.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Requests that are open on all connections.
    pub fn open_requests(&self) -> u64 {
        let connections = self.connections.values();
        connections
            .map(|tracked| tracked.exchange.open_requests())
            .sum()
    }

    /// Bytes that the connections hold.
    pub fn buffered_bytes(&self) -> usize {
        self.connections
            .values()
            .map(|tracked| tracked.connection.memory())
            .sum()
    }

    /// Takes one event.
    pub fn handle(
        &mut self,
        event: &SocketEvent<'_>,
        world: &mut impl Surroundings,
        out: &mut Output,
    ) {
        match event.call {
            Call::Connect => self.connected(event),
            Call::Accept | Call::Accept4 => {}
            Call::LocalClose => self.local_close(event, world, out),
            Call::Closed => self.closed(event, world, out),
            _ if event.protocol == Protocol::Udp => self.datagram(event),
            _ => self.message(event, world, out),
        }
    }

    /// Lets pieces go that have waited long enough; called every few milliseconds.
    pub fn tick(&mut self, now_ns: u64, world: &mut impl Surroundings, out: &mut Output) {
        for id in std::mem::take(&mut self.waiting) {
            self.release(id, now_ns, world, out);
        }
    }

    /// Forgets idle connections, and lets every waiting piece go if they take too much
    /// memory; called every second or so, for it looks at every connection.
    pub fn sweep(&mut self, now_ns: u64, world: &mut impl Surroundings, out: &mut Output) {
        if self.buffered_bytes() > self.limits.buffered_bytes {
            self.tick(u64::MAX, world, out);
        }
        let idle_before = now_ns.saturating_sub(self.limits.idle_ns);
        let connections = self.connections.iter();
        let idle: Vec<_> = connections
            .filter(|(_, tracked)| tracked.last_ns < idle_before)
            .map(|(id, _)| *id)
            .collect();
        for id in idle {
            self.forget(id, Unpaired::Closed, world, out);
        }
    }

    fn release(
        &mut self,
        id: ConnectionId,
        now_ns: u64,
        world: &mut impl Surroundings,
        out: &mut Output,
    ) {
        let Some(tracked) = self.connections.get_mut(&id) else {
            return;
        };
        tracked.connection.release(now_ns, &mut tracked.exchange);
        tracked.collect(&mut self.threads, &mut self.counts, world, out);
        if tracked.connection.is_waiting() {
            self.waiting.insert(id);
        }
    }

    /// Ends everything: what is open is counted, what is finished goes out.
    pub fn shutdown(&mut self, world: &mut impl Surroundings, out: &mut Output) {
        let ids: Vec<_> = self.connections.keys().copied().collect();
        for id in ids {
            if let Some(tracked) = self.connections.get_mut(&id) {
                tracked.connection.release(u64::MAX, &mut tracked.exchange);
                tracked.collect(&mut self.threads, &mut self.counts, world, out);
                let open = tracked.exchange.open_requests();
                self.counts
                    .unpaired(tracked.protocol_name(), Unpaired::Shutdown, open);
            }
        }
        self.connections.clear();
    }

    fn connected(&mut self, event: &SocketEvent<'_>) {
        if self.connects.len() >= MAX_CONNECTS {
            self.connects.clear();
        }
        self.connects.insert(
            event.sock,
            Connect {
                after: self.threads.last_read(event),
                polls: event.polls,
                exit_ns: event.exit_ns,
            },
        );
    }

    fn datagram(&mut self, event: &SocketEvent<'_>) {
        let port = event.remote.map_or(0, |remote| remote.port());
        let local = event.local.map_or(0, |local| local.port());
        self.counts.datagram(port.min(local));
        if event.direction == Direction::Read {
            self.threads.read(event, None);
        }
    }

    fn message(
        &mut self,
        event: &SocketEvent<'_>,
        world: &mut impl Surroundings,
        out: &mut Output,
    ) {
        self.counts.messages += 1;
        self.counts.bytes += u64::from(event.total_len);
        if event.has(Flags::UNSTABLE) {
            self.counts.unstable += 1;
        }
        self.make_room(world, out);
        let id = event.connection_id();
        self.meet_peer(event, id, out);
        let limits = self.limits.connection;
        let connects = &mut self.connects;
        let tracked = self
            .connections
            .entry(id)
            .or_insert_with(|| Tracked::new(event, limits, connects.remove(&event.sock)));
        tracked.last_ns = event.exit_ns;
        tracked.endpoints.learn(event);
        let mark = self.threads.mark(event);
        let offset = tracked.endpoints.stream_offset(event);
        let piece = Piece {
            offset,
            total_len: event.total_len.into(),
            bytes: event.payload,
            mark,
        };
        let ignored = tracked.connection.ignored();
        tracked.exchange.touched = None;
        if event.has(Flags::END) {
            tracked
                .connection
                .end(event.direction, Some(mark), &mut tracked.exchange);
        } else {
            tracked
                .connection
                .push(event.direction, &piece, &mut tracked.exchange);
        }
        tracked.collect(&mut self.threads, &mut self.counts, world, out);
        if tracked.connection.is_waiting() {
            self.waiting.insert(id);
        }
        if event.direction == Direction::Read && !event.has(Flags::END) {
            let cause = tracked.cause_of_read();
            self.threads.read(event, cause);
        }
        if let Some(reason) = tracked.connection.ignored().filter(|_| ignored.is_none()) {
            self.counts
                .ignored(reason, tracked.endpoints.service_port());
        }
        tracked.ask_kernel(id, out);
    }

    /// A connection that was seen before its peer had told its number gets its name.
    fn meet_peer(&mut self, event: &SocketEvent<'_>, id: ConnectionId, out: &mut Output) {
        let asks_first = event.role != Role::Acceptor && event.knows_peer();
        if !asks_first || self.connections.contains_key(&id) {
            return;
        }
        let before = ConnectionId {
            receive_base: 0,
            ..id
        };
        let Some(mut tracked) = self.connections.remove(&before) else {
            return;
        };
        tracked.endpoints.remote_isn = event.remote_isn;
        tracked.endpoints.knows_peer = true;
        out.modes.push((id, tracked.mode));
        if self.waiting.remove(&before) {
            self.waiting.insert(id);
        }
        self.connections.insert(id, tracked);
    }

    fn local_close(
        &mut self,
        event: &SocketEvent<'_>,
        world: &mut impl Surroundings,
        out: &mut Output,
    ) {
        self.meet_peer(event, event.connection_id(), out);
        let mark = self.threads.mark(event);
        if let Some(tracked) = self.connections.get_mut(&event.connection_id()) {
            tracked
                .connection
                .end(Direction::Write, Some(mark), &mut tracked.exchange);
            tracked.collect(&mut self.threads, &mut self.counts, world, out);
        }
    }

    fn closed(&mut self, event: &SocketEvent<'_>, world: &mut impl Surroundings, out: &mut Output) {
        self.connects.remove(&event.sock);
        self.meet_peer(event, event.connection_id(), out);
        self.forget(event.connection_id(), Unpaired::Closed, world, out);
    }

    fn forget(
        &mut self,
        id: ConnectionId,
        reason: Unpaired,
        world: &mut impl Surroundings,
        out: &mut Output,
    ) {
        let Some(mut tracked) = self.connections.remove(&id) else {
            return;
        };
        tracked.connection.finish(&mut tracked.exchange);
        tracked.exchange.close(reason, None);
        tracked.collect(&mut self.threads, &mut self.counts, world, out);
    }

    /// Forgets a tenth, the longest idle, when the table is full.
    fn make_room(&mut self, world: &mut impl Surroundings, out: &mut Output) {
        if self.connections.len() < self.limits.connections {
            return;
        }
        let mut by_age: Vec<_> = self
            .connections
            .iter()
            .map(|(id, tracked)| (tracked.last_ns, *id))
            .collect();
        by_age.sort_unstable_by_key(|(last_ns, _)| *last_ns);
        for (_, id) in by_age.into_iter().take(self.limits.connections / 10 + 1) {
            self.counts.evicted += 1;
            self.forget(id, Unpaired::Closed, world, out);
        }
    }
}

impl Threads {
    fn mark(&mut self, event: &SocketEvent<'_>) -> Mark {
        let writing = event.direction == Direction::Write;
        let woken = event.woken.filter(|_| writing);
        if let Some(goroutine) = event.goroutine {
            self.goroutines.saw(event.tgid, goroutine);
        }
        let (serving, in_turn) = (self.serving(event), self.serving_in_turn(event));
        Mark {
            exit_ns: event.exit_ns,
            tgid: event.tgid,
            tid: event.tid,
            other_offset: event.other_offset,
            after: self.last_read(event).filter(|_| writing),
            serving: serving.or(in_turn).filter(|_| writing),
            woken_after: woken.and_then(|woken| self.read_before(woken)),
            woken_first: woken.is_some_and(|woken| woken.first),
            same_connection: writing && self.read_from(event.tid, event.connection_id()),
            told_by: match event.goroutine.filter(|_| writing) {
                None => ToldBy::Thread,
                Some(_) if serving.is_none() && in_turn.is_some() => ToldBy::Turn,
                Some(_) => ToldBy::Goroutine,
            },
            polls: event.polls,
        }
    }
}

impl Tracked {
    fn new(event: &SocketEvent<'_>, limits: Limits, connect: Option<Connect>) -> Self {
        Self {
            connection: Connection::new(limits),
            exchange: Exchange::new(),
            endpoints: Endpoints {
                role: event.role,
                local_isn: event.local_isn,
                remote_isn: event.remote_isn,
                knows_peer: event.knows_peer(),
                local: event.local,
                remote: event.remote,
            },
            mode: CaptureMode {
                off: 0,
                role: event.role as u32,
                read_limit: u32::MAX,
                write_limit: u32::MAX,
                read_skip_until: 0,
                write_skip_until: 0,
            },
            connect,
            last_ns: event.exit_ns,
        }
    }

    fn protocol_name(&self) -> &'static str {
        self.connection
            .protocol()
            .map_or("unknown", |protocol| protocol.name())
    }

    /// Server if requests are read here, client if they are written.
    fn kind(&self) -> Option<SpanKind> {
        match self.connection.flow(Direction::Read)? {
            Flow::Request => Some(SpanKind::Server),
            Flow::Response => Some(SpanKind::Client),
        }
    }

    /// Moves what the exchange has finished into spans.
    fn collect(
        &mut self,
        threads: &mut Threads,
        counts: &mut Counts,
        world: &mut impl Surroundings,
        out: &mut Output,
    ) {
        let Some(kind) = self.kind() else { return };
        let protocol = self.protocol_name();
        let streams = self.connection.take_counts();
        counts.gaps += u64::from(streams.gaps);
        counts.overlaps += u64::from(streams.overlaps);
        for (total, lost) in counts.lost_bytes.iter_mut().zip(streams.lost) {
            *total += lost;
        }
        for reason in std::mem::take(&mut self.exchange.dropped) {
            counts.unpaired(protocol, reason, 1);
        }
        let begun = if self.endpoints.knows_peer {
            std::mem::take(&mut self.exchange.begun)
        } else {
            // Nobody knows yet what the spans will be called.
            Vec::new()
        };
        for begun in begun {
            let span_id = self.endpoints.span_id(kind, begun.offset);
            if kind == SpanKind::Server {
                threads.opened(span_id);
            }
            let Some(process) = world.process(begun.first.tgid, begun.first.exit_ns) else {
                continue;
            };
            out.openings.push(Opening {
                span_id,
                kind,
                process: process.key,
                start_unix_ns: world.unix_ns(begun.first.exit_ns),
                facts: self.facts(kind, begun, None),
            });
        }
        for finished in std::mem::take(&mut self.exchange.finished) {
            let span_id = self.endpoints.span_id(kind, finished.request.offset);
            threads.closed(span_id);
            if let Some(reason) = finished.unpaired {
                counts.unpaired(protocol, reason, 1);
            }
            let Some(span) = self.span(kind, span_id, finished, world) else {
                counts.no_process += 1;
                continue;
            };
            *counts.spans.entry(protocol).or_default() += 1;
            out.spans.push(span);
        }
    }

    fn span(
        &self,
        kind: SpanKind,
        span_id: SpanId,
        finished: Finished,
        world: &mut impl Surroundings,
    ) -> Option<Span> {
        let first = finished.request.first;
        let process = world.process(first.tgid, first.exit_ns)?;
        let context = Context {
            span_id,
            kind,
            local: self.endpoints.local,
            remote: self.endpoints.remote,
            start_unix_ns: world.unix_ns(first.exit_ns),
            end_unix_ns: world.unix_ns(finished.last.exit_ns),
            resource: process.resource,
            link: self.facts(kind, finished.request.begun(), Some(&finished)),
        };
        Some(build(finished, context))
    }

    fn facts(&self, kind: SpanKind, request: Begun, finished: Option<&Finished>) -> LinkFacts {
        let key = self.endpoints.request_key(kind, request.offset);
        let mut facts = LinkFacts {
            context: request.context,
            tokens: request.tokens,
            request_tid: request.first.tid,
            response_tid: finished.map_or(0, |finished| finished.last.tid),
            request_polls: request.first.polls,
            response_polls: finished.map_or(0, |finished| finished.last.polls),
            ..LinkFacts::default()
        };
        match kind {
            SpanKind::Server => {
                let response = finished.and_then(|finished| finished.response.as_ref());
                if let Some(Response { first, .. }) = response {
                    facts.after = first.after;
                    facts.told_by = first.told_by;
                    facts.woken_after = first.woken_after;
                    facts.woken_first = first.woken_first && first.woken_after.is_some();
                }
                facts.caller = Some(key.client_span_id());
            }
            SpanKind::Client => {
                let first = request.first;
                facts.after = first.after;
                facts.told_by = first.told_by;
                facts.freed = first.same_connection && first.after.is_some();
                facts.serving = first.serving;
                facts.woken_after = first.woken_after;
                facts.woken_first = first.woken_first && first.woken_after.is_some();
                let connect = self.connect.filter(|_| request.offset == 0);
                facts.connected = connect.map(|connect| Box::new(connect.before(&request.first)));
            }
        }
        facts
    }

    /// The span whose message the bytes just read belong to.
    fn cause_of_read(&self) -> Option<SpanId> {
        let kind = self.kind()?;
        let unparsed = self.connection.unparsed(Direction::Read);
        let request = match kind {
            SpanKind::Server => unparsed
                .or(self.exchange.touched)
                .or(self.exchange.last_open()),
            SpanKind::Client => unparsed
                .and(self.exchange.awaited())
                .or(self.exchange.touched)
                .or(self.exchange.awaited()),
        };
        request.map(|offset| self.endpoints.span_id(kind, offset))
    }

    fn ask_kernel(&mut self, id: ConnectionId, out: &mut Output) {
        match self.connection.take_wanted() {
            None => return,
            // Heads without bytes still tell that the thread read something unknown.
            Some(Wanted::Heads) => (self.mode.read_limit, self.mode.write_limit) = (0, 0),
            Some(Wanted::SkipUntil(Direction::Read, until)) => self.mode.read_skip_until = until,
            Some(Wanted::SkipUntil(Direction::Write, until)) => self.mode.write_skip_until = until,
        }
        self.mode.role = self.endpoints.role as u32;
        out.modes.push((id, self.mode));
    }
}

impl Endpoints {
    fn learn(&mut self, event: &SocketEvent<'_>) {
        if event.role != Role::Unknown {
            self.role = event.role;
            self.local_isn = event.local_isn;
        }
        if self.remote_isn == 0 {
            self.remote_isn = event.remote_isn;
        }
    }

    /// Written offsets count the SYN of a connecting side whose role is not known yet.
    fn stream_offset(&self, event: &SocketEvent<'_>) -> u64 {
        let counts_syn = event.role == Role::Unknown
            && event.protocol == Protocol::Tcp
            && event.direction == Direction::Write
            && self.role == Role::Connector;
        event.offset.saturating_sub(u64::from(counts_syn))
    }

    fn span_id(&self, kind: SpanKind, offset: u64) -> SpanId {
        let key = self.request_key(kind, offset);
        match kind {
            SpanKind::Client => key.client_span_id(),
            SpanKind::Server => key.server_span_id(),
        }
    }

    fn request_key(&self, kind: SpanKind, offset: u64) -> RequestKey {
        // Without a known role (a unix socket), who asks counts as who connected.
        let connector = match self.role {
            Role::Connector => true,
            Role::Acceptor => false,
            Role::Unknown => kind == SpanKind::Client,
        };
        let (client_isn, server_isn) = if connector {
            (self.local_isn, self.remote_isn)
        } else {
            (self.remote_isn, self.local_isn)
        };
        let asks = kind == SpanKind::Client;
        let initiator = if asks == connector {
            Initiator::Connector
        } else {
            Initiator::Acceptor
        };
        RequestKey {
            connection: ConnectionKey {
                client_isn,
                server_isn,
            },
            initiator,
            offset,
        }
    }

    /// Port of the accepting side.
    fn service_port(&self) -> u16 {
        let address = if self.role == Role::Connector {
            self.remote
        } else {
            self.local
        };
        address.map_or(0, |address| address.port())
    }
}
