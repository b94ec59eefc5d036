//! The thread that owns one store: whatever waits when it comes back is one commit, so that many
//! batches cost as much as one, and no task of the runtime waits for a disk.
//!
//! ```text
//!          +--> open --- commit fails: full, damaged, disk --+
//! start ---+      ^                                          |
//!                 +--- opened again, salvaged if damaged <---+--> closed: tried again in a second
//! ```

use super::reserve::Reserve;
use super::salvage::{Salvaged, salvage};
use super::store::{Record, Store, StoreError, Stored};
use crate::clock;
use crate::telemetry::{Counter, Metrics};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Commands that wait for the thread; then those who give them wait.
const MAX_COMMANDS: usize = 64;
/// Bytes of new records in one commit.
const MAX_COMMIT_BYTES: usize = 32 << 20;
/// Between two attempts to write to a full disk, or to open a file that could not be opened.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// An attempt that fails costs opening the file again: at most a tenth of the time goes there.
const RETRY_COST: u32 = 10;

/// Why records were not stored, or not read; both may work later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unstored {
    /// There is no room on the disk.
    #[error("the disk is full")]
    DiskFull,
    /// The file cannot be opened or written just now.
    #[error("the storage is not available")]
    Unavailable,
}

/// Where an answer goes; whoever asked may have gone.
type Reply<T> = oneshot::Sender<Result<T, Unstored>>;

/// In the order of the numbers asked for. None: damaged or gone.
type Bodies = Vec<Option<Bytes>>;

enum Command {
    Append(Vec<Record>, Reply<u64>),
    Read(Vec<u64>, Reply<Bodies>),
    Remove(Vec<u64>),
    Close(oneshot::Sender<()>),
}

/// The records of one exporter on the disk.
#[derive(Debug)]
pub struct Log {
    commands: mpsc::Sender<Command>,
}

/// What was in a file when it was opened.
#[derive(Debug, Default)]
pub struct Contents {
    /// In the order of arrival.
    pub records: Vec<Stored>,
    /// None: it was whole.
    pub salvaged: Option<Salvaged>,
}

impl Log {
    /// Appends records, all or none; returns the number of the first, the others follow on it.
    pub async fn append(&self, records: Vec<Record>) -> Result<u64, Unstored> {
        self.ask(|reply| Command::Append(records, reply)).await?
    }

    /// Bodies by number. None: that record is damaged or gone.
    pub async fn read(&self, numbers: Vec<u64>) -> Result<Bodies, Unstored> {
        self.ask(|reply| Command::Read(numbers, reply)).await?
    }

    /// Removes records soon; a crash before that brings them back.
    pub async fn remove(&self, numbers: Vec<u64>) {
        // Fails only after the end, which leaves them for the next start.
        let _ = self.commands.send(Command::Remove(numbers)).await;
    }

    /// Writes what is to be written and closes the file.
    pub async fn close(&self) {
        let _ = self.ask(Command::Close).await;
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Unstored> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(command(reply)).await;
        sent.map_err(|_| Unstored::Unavailable)?;
        answer.await.map_err(|_| Unstored::Unavailable)
    }
}

/// Counters of one file.
#[derive(Clone, Debug)]
pub struct Meters {
    damaged_records: Counter,
    damaged_files: Counter,
    disk_full: Counter,
    unavailable: Counter,
}

impl Meters {
    /// For the file that `exporter` has in `storage`.
    pub fn new(metrics: &Metrics, storage: &str, exporter: &str) -> Self {
        let labels = [("storage", storage), ("exporter", exporter)];
        let refused = |reason| {
            let labels = [labels[0], labels[1], ("reason", reason)];
            metrics.counter(
                "deeptrace_storage_refused_records",
                "Records that could not be stored.",
                &labels,
            )
        };
        Self {
            damaged_records: metrics.counter(
                "deeptrace_storage_damaged_records",
                "Stored records that could not be read again.",
                &labels,
            ),
            damaged_files: metrics.counter(
                "deeptrace_storage_damaged_files",
                "Files that were damaged, and made anew from what could be read.",
                &labels,
            ),
            disk_full: refused("disk_full"),
            unavailable: refused("unavailable"),
        }
    }
}

/// Where a store lies and how it is written.
#[derive(Clone, Debug)]
pub struct Location {
    /// The file.
    pub path: PathBuf,
    /// Wait for the disk at each commit.
    pub fsync: bool,
    /// Make the file smaller when it is opened.
    pub compact: bool,
}

/// Opens a store, for the first time in this process, and starts its thread.
pub fn start(location: Location, meters: Meters) -> Result<(Log, Contents), StoreError> {
    let (mut store, salvaged) = open_or_salvage(&location.path, location.fsync, &meters)?;
    if let Some(salvaged) = &salvaged {
        meters.damaged_records.add(salvaged.damaged);
    }
    if location.compact {
        store.compact()?;
    }
    let contents = Contents {
        records: store.records().collect(),
        salvaged,
    };
    let mut reserve = Reserve::new(&location.path);
    reserve.hold();
    let worker = Worker {
        next: store.next(),
        location,
        meters,
        store: Some(store),
        reserve,
        removals: Vec::new(),
        full_until: None,
        closed_until: None,
    };
    let (commands, queue) = mpsc::channel(MAX_COMMANDS);
    std::thread::Builder::new()
        .name("deeptrace-store".to_owned())
        .spawn(move || worker.run(queue))?;
    Ok((Log { commands }, contents))
}

fn open_or_salvage(
    path: &Path,
    fsync: bool,
    meters: &Meters,
) -> Result<(Store, Option<Salvaged>), StoreError> {
    let reason = match Store::open(path, fsync) {
        Err(StoreError::Damaged(reason)) => reason,
        opened => return Ok((opened?, None)),
    };
    let (store, salvaged) = salvage(path, fsync)?;
    meters.damaged_files.inc();
    tracing::error!(
        file = %path.display(),
        reason,
        kept = salvaged.kept,
        damaged = salvaged.damaged,
        "storage file was damaged: it is set aside as .damaged, what could be read is in a new one"
    );
    Ok((store, Some(salvaged)))
}

struct Worker {
    location: Location,
    meters: Meters,
    /// None: it could not be opened again after an error.
    store: Option<Store>,
    reserve: Reserve,
    /// Removals that are not in the file yet.
    removals: Vec<u64>,
    /// Above every number that was ever given out.
    next: u64,
    full_until: Option<Instant>,
    closed_until: Option<Instant>,
}

/// Commands that are done together.
#[derive(Default)]
struct Group {
    records: Vec<Record>,
    /// How many of the records are whose.
    appends: Vec<(usize, Reply<u64>)>,
    reads: Vec<(Vec<u64>, Reply<Bodies>)>,
    bytes: usize,
    close: Option<oneshot::Sender<()>>,
}

impl Worker {
    fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        while let Some(first) = queue.blocking_recv() {
            let mut group = Group::default();
            self.sort(first, &mut group);
            while group.bytes < MAX_COMMIT_BYTES
                && group.close.is_none()
                && let Ok(next) = queue.try_recv()
            {
                self.sort(next, &mut group);
            }
            self.write(&group.records, group.appends);
            for (numbers, reply) in group.reads {
                let _ = reply.send(self.read(&numbers));
            }
            if let Some(done) = group.close {
                self.store = None;
                let _ = done.send(());
                return;
            }
        }
    }

    fn sort(&mut self, command: Command, group: &mut Group) {
        match command {
            Command::Append(records, reply) => {
                group.bytes += records
                    .iter()
                    .map(|record| record.body.len())
                    .sum::<usize>();
                group.appends.push((records.len(), reply));
                group.records.extend(records);
            }
            Command::Read(numbers, reply) => group.reads.push((numbers, reply)),
            Command::Remove(numbers) => self.removals.extend(numbers),
            Command::Close(reply) => group.close = Some(reply),
        }
    }

    fn write(&mut self, records: &[Record], appends: Vec<(usize, Reply<u64>)>) {
        let mut result = Ok(());
        if !records.is_empty() {
            result = self.append(records);
        }
        // Together with the records, unless those could not be written.
        if !self.removals.is_empty() {
            self.remove();
        }
        let mut number = self.next;
        if result.is_ok() {
            self.next += records.len() as u64;
        }
        for (count, reply) in appends {
            if let Err(reason) = result {
                let refused = match reason {
                    Unstored::DiskFull => &self.meters.disk_full,
                    Unstored::Unavailable => &self.meters.unavailable,
                };
                refused.add_len(count);
            }
            let _ = reply.send(result.map(|()| number));
            number += count as u64;
        }
    }

    /// Appends records together with the removals that wait.
    fn append(&mut self, records: &[Record]) -> Result<(), Unstored> {
        let now = clock::instant();
        if self.full_until.is_some_and(|until| now < until) {
            return Err(Unstored::DiskFull);
        }
        if !self.reserve.hold() {
            self.full_until = Some(now + RETRY_INTERVAL);
            return Err(Unstored::DiskFull);
        }
        let next = self.next;
        let removals = std::mem::take(&mut self.removals);
        let store = self.opened()?;
        store.skip_to(next);
        let failed = match store.commit(records, &removals) {
            Ok(()) => {
                self.full_until = None;
                return Ok(());
            }
            Err(error) => error,
        };
        self.removals = removals;
        self.reopen(&failed);
        if matches!(failed, StoreError::Full) {
            let cost = clock::instant().duration_since(now) * RETRY_COST;
            self.full_until = Some(clock::instant() + cost.max(RETRY_INTERVAL));
            return Err(Unstored::DiskFull);
        }
        Err(Unstored::Unavailable)
    }

    /// Writes the removals that wait; on a full disk with the help of what is held in reserve.
    fn remove(&mut self) {
        for _ in 0..2 {
            let removals = std::mem::take(&mut self.removals);
            let Ok(store) = self.opened() else {
                self.removals = removals;
                return;
            };
            let Err(error) = store.commit(&[], &removals) else {
                return;
            };
            self.removals = removals;
            if matches!(error, StoreError::Full) {
                self.reserve.release();
            }
            self.reopen(&error);
        }
    }

    fn read(&mut self, numbers: &[u64]) -> Result<Bodies, Unstored> {
        for _ in 0..2 {
            let store = self.opened()?;
            let bodies: Result<Vec<_>, _> =
                numbers.iter().map(|number| store.read(*number)).collect();
            match bodies {
                Ok(bodies) => {
                    let damaged = bodies.iter().filter(|body| body.is_none()).count();
                    self.meters.damaged_records.add_len(damaged);
                    return Ok(bodies);
                }
                Err(error) => self.reopen(&error),
            }
        }
        Err(Unstored::Unavailable)
    }

    /// The store; if it could not be opened the last time, it is tried again now and then.
    fn opened(&mut self) -> Result<&mut Store, Unstored> {
        let now = clock::instant();
        if self.store.is_none() && self.closed_until.is_none_or(|until| until <= now) {
            self.open();
        }
        self.store.as_mut().ok_or(Unstored::Unavailable)
    }

    /// After an error the store only works again when it is opened anew.
    fn reopen(&mut self, after: &StoreError) {
        if !matches!(after, StoreError::Full) {
            let file = self.location.path.display();
            tracing::error!(%file, error = %after, "storage file failed, it is opened again");
        }
        self.store = None;
        self.open();
    }

    fn open(&mut self) {
        let Location { path, fsync, .. } = &self.location;
        let mut opened = open_or_salvage(path, *fsync, &self.meters);
        if matches!(opened, Err(StoreError::Full)) {
            self.reserve.release();
            opened = open_or_salvage(path, *fsync, &self.meters);
        }
        match opened {
            Ok((store, _)) => {
                // Of a commit that failed as its last step: nobody was told that it holds these.
                let untold = store.records().filter(|stored| stored.number >= self.next);
                self.removals.extend(untold.map(|stored| stored.number));
                self.next = self.next.max(store.next());
                self.store = Some(store);
            }
            Err(error) => {
                let file = path.display();
                tracing::error!(%file, %error, "storage file cannot be opened, will try again");
                self.closed_until = Some(clock::instant() + RETRY_INTERVAL);
            }
        }
    }
}
