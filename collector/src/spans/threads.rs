//! What each thread read last: the raw material of links inside a process.
//!
//! In an event loop, and in a thread that blocks, what a thread does after a
//! read belongs to what it read. So a request that it writes is marked with the
//! span whose message it read last, and with the request that it is serving.
//!
//! A thread that works for another one was woken by it, and what the other had read last when it
//! did is what the work belongs to.
//!
//! Goroutines share threads, and Go's scheduler tells when another request's turn may have begun: with
//! a new time slice. What was read before that says nothing; what the goroutines work for does
//! (`goroutines`).

use super::goroutines::Goroutines;
use crate::capture::{ConnectionId, SocketEvent, Woken};
use span_model::SpanId;
use std::collections::{HashMap, HashSet};

/// Threads remembered; beyond it all are forgotten, which costs links and not truth.
const MAX_THREADS: usize = 65_536;

/// Reads remembered of each thread: the record of a woken thread's message comes after those of
/// what its waker has read meanwhile. Beyond them a link is lost and not made wrong.
const MAX_READS: usize = 8;

/// A message, or a part of one, that a thread read.
#[derive(Clone, Copy, Debug, Default)]
struct Read {
    time_ns: u64,
    of: Option<SpanId>,
}

/// What is known of one thread.
#[derive(Clone, Copy, Debug, Default)]
struct Thread {
    /// The last one first.
    reads: [Read; MAX_READS],
    last_connection: ConnectionId,
    /// Of the last read; 0: not Go, or not known.
    time_slice: u64,
    serving: Option<SpanId>,
}

/// Every thread that has read something, and goroutines.
#[derive(Debug, Default)]
pub(super) struct Threads {
    by_tid: HashMap<u32, Thread>,
    pub(super) goroutines: Goroutines,
    /// Server spans that have begun and not ended.
    open: HashSet<SpanId>,
}

impl Threads {
    /// The thread read bytes of this span's message; None: of something unknown.
    pub(super) fn read(&mut self, event: &SocketEvent<'_>, of: Option<SpanId>) {
        let tid = event.tid;
        if self.by_tid.len() >= MAX_THREADS && !self.by_tid.contains_key(&tid) {
            self.by_tid.clear();
        }
        let thread = self.by_tid.entry(tid).or_default();
        thread.reads.rotate_right(1);
        let [last, ..] = &mut thread.reads;
        *last = Read {
            time_ns: event.exit_ns,
            of,
        };
        thread.last_connection = event.connection_id();
        thread.time_slice = event.goroutine.map_or(0, |goroutine| goroutine.time_slice);
        let Some(server) = of.filter(|span| self.open.contains(span)) else {
            return;
        };
        match event.goroutine {
            None => thread.serving = Some(server),
            Some(goroutine) => {
                let is_open = |request: &SpanId| self.open.contains(request);
                self.goroutines
                    .reads(event.tgid, goroutine.number, server, is_open);
            }
        }
    }

    /// What the thread read last before this call; in Go, in the same time slice.
    pub(super) fn last_read(&self, event: &SocketEvent<'_>) -> Option<SpanId> {
        let thread = self.by_tid.get(&event.tid)?;
        let same_turn = event.goroutine.is_none_or(|goroutine| {
            goroutine.time_slice != 0 && goroutine.time_slice == thread.time_slice
        });
        let [last, ..] = &thread.reads;
        last.of.filter(|_| same_turn)
    }

    /// What the waker had read last when it woke; None where that is too long ago, too.
    pub(super) fn read_before(&self, woken: Woken) -> Option<SpanId> {
        let reads = &self.by_tid.get(&woken.waker_tid)?.reads;
        reads.iter().find(|read| read.time_ns <= woken.time_ns)?.of
    }

    /// The thread's last read was on this connection.
    pub(super) fn read_from(&self, tid: u32, connection: ConnectionId) -> bool {
        let thread = self.by_tid.get(&tid);
        thread.is_some_and(|thread| thread.last_connection == connection)
    }

    /// The request that the thread or goroutine works for, if it is not answered yet.
    pub(super) fn serving(&mut self, event: &SocketEvent<'_>) -> Option<SpanId> {
        let is_open = |request: &SpanId| self.open.contains(request);
        match event.goroutine {
            None => self.by_tid.get(&event.tid)?.serving.filter(is_open),
            Some(goroutine) => self.goroutines.serving(event.tgid, goroutine, is_open),
        }
    }

    /// In Go, the request whose turn it probably is in the scheduler's queue.
    pub(super) fn serving_in_turn(&mut self, event: &SocketEvent<'_>) -> Option<SpanId> {
        let is_open = |request: &SpanId| self.open.contains(request);
        let goroutine = event.goroutine?;
        self.goroutines
            .serving_in_turn(event.tgid, goroutine, is_open)
    }

    /// A server span has begun.
    pub(super) fn opened(&mut self, server: SpanId) {
        self.open.insert(server);
    }

    /// A span has ended.
    pub(super) fn closed(&mut self, span: SpanId) {
        self.open.remove(&span);
    }
}
