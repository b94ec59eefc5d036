//! The bounded queue in front of a network exporter, and what empties it.
//!
//! Batches are encoded once when they come in. Encoded requests of OTLP join by
//! putting their bytes behind each other, so small ones leave as one.

mod retry;
mod sender;
mod settings;

pub use sender::{Accepted, Client, Refusal, Retry, Sender};
pub use settings::{QueueSettings, RetrySettings};

use crate::clock;
use crate::telemetry::Gauge;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes that a request may have before compression (OTLP specification, 64 MiB).
pub const MAX_REQUEST_BYTES: usize = 64 << 20;

/// One or more encoded requests joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// An encoded `ExportTraceServiceRequest`.
    pub body: Bytes,
    /// Spans in it.
    pub spans: usize,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<(Load, Option<Instant>)>,
    spans: usize,
    bytes: usize,
    closed: bool,
}

/// Bounded by requests, spans or bytes, as configured.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    settings: QueueSettings,
    size: Gauge,
    filled: Notify,
    emptied: Notify,
    /// Only one consumer waits for a batch to become full at a time.
    turn: tokio::sync::Mutex<()>,
}

impl Queue {
    /// An empty queue that shows its size in the gauge.
    pub fn new(settings: QueueSettings, size: Gauge) -> Self {
        Self {
            state: Mutex::default(),
            settings,
            size,
            filled: Notify::new(),
            emptied: Notify::new(),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// Adds a request, waiting for room if so configured; a refused one comes back.
    pub async fn push(&self, load: Load) -> Result<(), Load> {
        let mut load = load;
        loop {
            let room = self.emptied.notified();
            match self.try_push(load) {
                Ok(()) => return Ok(()),
                Err(back) => load = back,
            }
            let never_fits =
                self.settings.weigh(1, load.spans, load.body.len()) > self.settings.queue_size;
            if !self.settings.block_on_overflow || never_fits || self.lock().closed {
                return Err(load);
            }
            room.await;
        }
    }

    fn try_push(&self, load: Load) -> Result<(), Load> {
        let mut state = self.lock();
        let spans = state.spans + load.spans;
        let bytes = state.bytes + load.body.len();
        if state.closed
            || self.settings.weigh(state.items.len() + 1, spans, bytes) > self.settings.queue_size
        {
            return Err(load);
        }
        state.spans = spans;
        state.bytes = bytes;
        state.items.push_back((load, Some(clock::instant())));
        self.show(&state);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// The next load: enough small requests joined, or what waited long enough. None: closed and empty.
    pub async fn take(&self) -> Option<Load> {
        let _turn = self.turn.lock().await;
        loop {
            let filled = self.filled.notified();
            let ready_at = {
                let mut state = self.lock();
                match self.ready_at(&state) {
                    Some(at) if at <= clock::instant() => return self.join(&mut state),
                    None if state.closed => return None,
                    at => at,
                }
            };
            match ready_at {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, filled).await;
                }
                None => filled.await,
            }
        }
    }

    /// When a load may leave. None: there is nothing.
    fn ready_at(&self, state: &State) -> Option<Instant> {
        let (_, since) = state.items.front()?;
        let now = clock::instant();
        match (&self.settings.batch, since) {
            (Some(batch), Some(since)) if !state.closed && state.spans < batch.min_size => {
                Some(*since + batch.flush_timeout)
            }
            _ => Some(now),
        }
    }

    fn join(&self, state: &mut State) -> Option<Load> {
        let (first, _) = state.items.pop_front()?;
        let wanted = self
            .settings
            .batch
            .as_ref()
            .map_or(0, |batch| batch.min_size);
        let mut spans = first.spans;
        let mut parts = vec![first.body];
        let mut bytes: usize = parts.iter().map(Bytes::len).sum();
        while let Some((next, _)) = state.items.front() {
            if spans >= wanted || bytes + next.body.len() > MAX_REQUEST_BYTES {
                break;
            }
            let Some((next, _)) = state.items.pop_front() else {
                break;
            };
            spans += next.spans;
            bytes += next.body.len();
            parts.push(next.body);
        }
        state.spans = state.spans.saturating_sub(spans);
        state.bytes = state.bytes.saturating_sub(bytes);
        self.show(state);
        self.emptied.notify_waiters();
        Some(Load {
            body: concat(parts, bytes),
            spans,
        })
    }

    /// Lets nothing more in and everything out at once.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
        self.emptied.notify_waiters();
    }

    /// Takes everything out; returns the spans that were in it.
    pub fn clear(&self) -> usize {
        let mut state = self.lock();
        state.items.clear();
        state.bytes = 0;
        let spans = std::mem::take(&mut state.spans);
        self.show(&state);
        spans
    }

    fn show(&self, state: &State) {
        self.size.set_len(
            self.settings
                .weigh(state.items.len(), state.spans, state.bytes),
        );
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn concat(mut parts: Vec<Bytes>, bytes: usize) -> Bytes {
    if parts.len() == 1 {
        return parts.pop().unwrap_or_default();
    }
    let mut body = BytesMut::with_capacity(bytes);
    for part in parts {
        body.extend_from_slice(&part);
    }
    body.freeze()
}
