//! What waits to be sent: bounded, joined into requests, in memory or in a storage.
//!
//! ```text
//! push: room? -> stored -> waits -> take: joined -> settle: removed from the storage
//! ```
//! In a storage everything is kept until it is settled, also what is under way, and the same
//! limits hold for it; of bodies that wait there, a few are kept in memory too.

use super::settings::QueueSettings;
use super::{Load, MAX_REQUEST_BYTES};
use crate::clock;
use crate::extensions::file_storage::{Contents, Log, Record, Unstored};
use crate::receipt::NotTaken;
use crate::telemetry::{Gauge, Loss};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// Bytes of stored requests that are kept in memory too, so that a backend that keeps up costs no
/// reading.
const MAX_CACHED_BYTES: usize = 16 << 20;
/// Between two attempts while the storage takes nothing or gives nothing.
const STORAGE_INTERVAL: Duration = Duration::from_secs(1);

/// In every unit that a sizer may count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub requests: usize,
    pub spans: usize,
    pub bytes: usize,
}

impl Size {
    fn of(spans: usize, bytes: usize) -> Self {
        Self {
            requests: 1,
            spans,
            bytes,
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            spans: self.spans + other.spans,
            bytes: self.bytes + other.bytes,
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(other.requests),
            spans: self.spans.saturating_sub(other.spans),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    fn sum(sizes: impl Iterator<Item = Self>) -> Self {
        sizes.fold(Self::default(), Self::plus)
    }
}

/// Where the outcome of a request is told.
type Tell = oneshot::Sender<Result<(), NotTaken>>;

#[derive(Debug)]
struct Item {
    size: Size,
    /// None: it is only in the storage.
    body: Option<Bytes>,
    /// Its number in the storage.
    number: Option<u64>,
    /// None: it has waited long enough.
    since: Option<Instant>,
    tell: Option<Tell>,
}

/// A load that is under way, and what it is made of.
#[derive(Debug)]
pub struct Taken {
    /// What is to be sent.
    pub load: Load,
    size: Size,
    numbers: Vec<u64>,
    tell: Vec<Tell>,
}

impl Taken {
    fn join(items: Vec<Item>) -> Self {
        let size = Size::sum(items.iter().map(|item| item.size));
        let (mut bodies, mut numbers, mut tell) = (Vec::new(), Vec::new(), Vec::new());
        for item in items {
            bodies.extend(item.body);
            numbers.extend(item.number);
            tell.extend(item.tell);
        }
        let load = Load {
            body: concat(bodies, size.bytes),
            spans: size.spans,
        };
        Self {
            load,
            size,
            numbers,
            tell,
        }
    }

    /// Whether those who pushed it wait for the outcome.
    pub fn is_waited_for(&self) -> bool {
        !self.tell.is_empty()
    }
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    /// All items.
    waiting: Size,
    /// What counts against the limit: all items, what is being stored, and, in a storage, what is
    /// under way.
    held: Size,
    /// Bodies in memory of items that are in the storage.
    cached_bytes: usize,
    closed: bool,
}

/// Bounded by requests, spans or bytes, as configured.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    settings: QueueSettings,
    /// Where the items are kept; none: only in memory.
    log: OnceLock<Log>,
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
            log: OnceLock::new(),
            size,
            filled: Notify::new(),
            emptied: Notify::new(),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// From now on everything is kept in the log; what is in it waits already.
    pub fn keep_in(&self, log: Log, contents: &Contents) {
        let mut state = self.lock();
        for stored in &contents.records {
            let size = Size::of(stored.spans, stored.bytes);
            state.held = state.held.plus(size);
            state.waiting = state.waiting.plus(size);
            state.items.push_back(Item {
                size,
                body: None,
                number: Some(stored.number),
                since: None,
                tell: None,
            });
        }
        self.show(&state);
        // Set once, at the start.
        let _ = self.log.set(log);
    }

    /// Whether what waits survives the process.
    pub fn is_kept(&self) -> bool {
        self.log.get().is_some()
    }

    /// Adds requests, all or none, waiting for room or for the outcome if so configured.
    pub async fn push(&self, loads: Vec<Load>) -> Result<(), NotTaken> {
        let sizes = loads
            .iter()
            .map(|load| Size::of(load.spans, load.body.len()));
        let size = Size::sum(sizes);
        self.reserve(size).await?;
        let first = match self.log.get() {
            None => None,
            Some(log) => match self.store(log, &loads).await {
                Ok(first) => Some(first),
                Err(why) => {
                    self.give_back(size);
                    return Err(why);
                }
            },
        };
        for outcome in self.add(loads, first) {
            outcome.await.unwrap_or(Err(NotTaken(Loss::Shutdown)))?;
        }
        Ok(())
    }

    /// Counts what is to come against the limit.
    async fn reserve(&self, size: Size) -> Result<(), NotTaken> {
        const FULL: NotTaken = NotTaken(Loss::QueueFull);
        if self.settings.weigh(size) > self.settings.queue_size {
            return Err(FULL); // Even when it is empty.
        }
        loop {
            let room = self.emptied.notified();
            {
                let mut state = self.lock();
                if state.closed {
                    return Err(FULL);
                }
                let held = state.held.plus(size);
                if self.settings.weigh(held) <= self.settings.queue_size {
                    state.held = held;
                    self.show(&state);
                    return Ok(());
                }
            }
            if !self.settings.block_on_overflow {
                return Err(FULL);
            }
            room.await;
        }
    }

    fn give_back(&self, size: Size) {
        let mut state = self.lock();
        state.held = state.held.minus(size);
        self.show(&state);
        drop(state);
        self.emptied.notify_waiters();
    }

    /// Returns the number of the first request in the storage.
    async fn store(&self, log: &Log, loads: &[Load]) -> Result<u64, NotTaken> {
        let record = |load: &Load| Record {
            body: load.body.clone(),
            spans: load.spans,
        };
        loop {
            let room = self.emptied.notified();
            let loss = match log.append(loads.iter().map(record).collect()).await {
                Ok(first) => return Ok(first),
                Err(Unstored::DiskFull) => Loss::DiskFull,
                Err(Unstored::Unavailable) => Loss::Unwritable,
            };
            if !self.settings.block_on_overflow || self.lock().closed {
                return Err(NotTaken(loss));
            }
            let _ = tokio::time::timeout(STORAGE_INTERVAL, room).await;
        }
    }

    /// Lets requests wait; returns where their outcomes will be told, if that is asked for.
    fn add(
        &self,
        loads: Vec<Load>,
        first: Option<u64>,
    ) -> Vec<oneshot::Receiver<Result<(), NotTaken>>> {
        let mut outcomes = Vec::new();
        let mut state = self.lock();
        for (load, nth) in loads.into_iter().zip(0..) {
            let number = first.map(|first| first + nth);
            let tell = self.settings.wait_for_result.then(|| {
                let (tell, outcome) = oneshot::channel();
                outcomes.push(outcome);
                tell
            });
            let size = Size::of(load.spans, load.body.len());
            let cached = state.cached_bytes + size.bytes;
            let in_memory = number.is_none() || cached <= MAX_CACHED_BYTES;
            if number.is_some() && in_memory {
                state.cached_bytes = cached;
            }
            let item = Item {
                size,
                body: in_memory.then_some(load.body),
                number,
                since: Some(clock::instant()),
                tell,
            };
            // Those who push at the same time may come back in another order than they were stored.
            let later = state.items.iter().rev();
            let later = later.take_while(|other| other.number > number).count();
            let place = state.items.len() - later;
            state.items.insert(place, item);
            state.waiting = state.waiting.plus(size);
        }
        drop(state);
        self.filled.notify_one();
        outcomes
    }

    /// The next load: enough small requests joined, or what waited long enough, and the spans that
    /// were found damaged on the way. None: closed, and empty or unreadable.
    pub async fn take(&self, mut damaged: impl FnMut(usize)) -> Option<Taken> {
        let _turn = self.turn.lock().await;
        loop {
            let filled = self.filled.notified();
            let (items, ready_at) = {
                let mut state = self.lock();
                match self.ready_at(&state) {
                    Some(at) if at <= clock::instant() => (self.pop(&mut state), None),
                    None if state.closed => return None,
                    at => (Vec::new(), at),
                }
            };
            if !items.is_empty() {
                match self.assemble(items, &mut damaged).await {
                    Ok(Some(taken)) => return Some(taken),
                    Ok(None) => {}
                    Err(_) if self.lock().closed => return None,
                    Err(_) => tokio::time::sleep(STORAGE_INTERVAL).await,
                }
                continue;
            }
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
        let item = state.items.front()?;
        let now = clock::instant();
        match (&self.settings.batch, item.since) {
            (Some(batch), Some(since))
                if !state.closed
                    && batch.weigh(state.waiting.spans, state.waiting.bytes) < batch.min_size =>
            {
                Some(since + batch.flush_timeout)
            }
            _ => Some(now),
        }
    }

    /// Takes the items of the next load out.
    fn pop(&self, state: &mut State) -> Vec<Item> {
        let mut taken = Vec::new();
        let mut size = Size::default();
        while let Some(next) = state.items.front() {
            let with_next = size.plus(next.size);
            if !taken.is_empty() && !self.may_join(size, with_next) {
                break;
            }
            let Some(next) = state.items.pop_front() else {
                break;
            };
            if let (Some(body), Some(_)) = (&next.body, next.number) {
                state.cached_bytes = state.cached_bytes.saturating_sub(body.len());
            }
            size = with_next;
            taken.push(next);
        }
        state.waiting = state.waiting.minus(size);
        if !self.is_kept() {
            state.held = state.held.minus(size);
            self.show(state);
            self.emptied.notify_waiters();
        }
        taken
    }

    fn may_join(&self, size: Size, with_next: Size) -> bool {
        let Some(batch) = &self.settings.batch else {
            return false;
        };
        let fits =
            batch.max_size == 0 || batch.weigh(with_next.spans, with_next.bytes) <= batch.max_size;
        fits && with_next.bytes <= MAX_REQUEST_BYTES
            && batch.weigh(size.spans, size.bytes) < batch.min_size
    }

    /// Joins bodies, reading those that are only in the storage. None: all of them are damaged.
    /// After an error the items wait again.
    async fn assemble(
        &self,
        items: Vec<Item>,
        damaged: &mut impl FnMut(usize),
    ) -> Result<Option<Taken>, Unstored> {
        let items = self.read(items).await?;
        let mut sound = Vec::with_capacity(items.len());
        let (mut lost, mut lost_numbers) = (Size::default(), Vec::new());
        for item in items {
            if item.body.is_some() {
                sound.push(item);
            } else {
                lost = lost.plus(item.size);
                lost_numbers.extend(item.number);
            }
        }
        if lost.requests > 0 {
            damaged(lost.spans);
            self.remove(lost, lost_numbers).await;
        }
        Ok((!sound.is_empty()).then(|| Taken::join(sound)))
    }

    /// Fills in the bodies that are only in the storage, unless they are damaged.
    async fn read(&self, mut items: Vec<Item>) -> Result<Vec<Item>, Unstored> {
        let absent = items.iter().filter(|item| item.body.is_none());
        let numbers: Vec<u64> = absent.filter_map(|item| item.number).collect();
        let (Some(log), false) = (self.log.get(), numbers.is_empty()) else {
            return Ok(items);
        };
        match log.read(numbers).await {
            Ok(bodies) => {
                let absent = items.iter_mut().filter(|item| item.body.is_none());
                for (item, body) in absent.zip(bodies) {
                    item.body = body;
                }
                Ok(items)
            }
            Err(error) => {
                self.put_back(items);
                Err(error)
            }
        }
    }

    fn put_back(&self, items: Vec<Item>) {
        let mut state = self.lock();
        for item in items.into_iter().rev() {
            if let Some(body) = &item.body {
                state.cached_bytes += body.len();
            }
            state.waiting = state.waiting.plus(item.size);
            state.items.push_front(item);
        }
    }

    /// A load has been sent, or is given up: it need not be kept any longer.
    pub async fn settle(&self, taken: Taken, outcome: Result<(), NotTaken>) {
        for tell in taken.tell {
            // Whoever asked may have gone.
            let _ = tell.send(outcome);
        }
        self.remove(taken.size, taken.numbers).await;
    }

    async fn remove(&self, size: Size, numbers: Vec<u64>) {
        let Some(log) = self.log.get() else {
            return; // It was out of the queue when it was taken.
        };
        log.remove(numbers).await;
        self.give_back(size);
    }

    /// Lets nothing more in and everything out at once.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
        self.emptied.notify_waiters();
    }

    /// Takes everything out; returns the spans that are lost with it: none if they are kept.
    pub async fn end(&self) -> usize {
        if let Some(log) = self.log.get() {
            log.close().await;
            return 0;
        }
        let mut state = self.lock();
        state.items.clear();
        state.held = Size::default();
        self.show(&state);
        std::mem::take(&mut state.waiting).spans
    }

    fn show(&self, state: &State) {
        self.size.set_len(self.settings.weigh(state.held));
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
