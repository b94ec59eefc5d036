//! One file of records: append, read, remove, each group of changes wholly or not at all.
//!
//! redb keeps the structure; what is in it can be found without redb ([`record`](super::record)).

use super::backend::Backend;
use super::record::{self, HEADER_BYTES, Header, State};
use bytes::Bytes;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Record number to header and body.
const RECORDS: TableDefinition<u64, &[u8]> = TableDefinition::new("records");
/// One entry each: the state. Twice, on pages of their own, since it tells what a damaged file lacks.
const STATES: [TableDefinition<(), &[u8]>; 2] = [
    TableDefinition::new("state"),
    TableDefinition::new("state copy"),
];
/// Memory that redb may take for pages of one file.
const CACHE_BYTES: usize = 8 << 20;

/// What a file said instead of doing what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no room on the disk.
    #[error("the disk is full")]
    Full,
    /// Another process has it open.
    #[error("another process has it open")]
    InUse,
    /// The disk or the permissions.
    #[error(transparent)]
    Io(io::Error),
    /// It is not what was written.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) => error.into(),
            // An earlier error that was not about damage; the file has to be opened again.
            redb::Error::PreviousIo => Self::Io(io::Error::other("an earlier attempt failed")),
            redb::Error::DatabaseAlreadyOpen => Self::InUse,
            error => Self::Damaged(error.to_string()),
        }
    }
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::Full,
            io::ErrorKind::WouldBlock => Self::InUse,
            // How redb says that a file is none of its own, or shorter than it must be.
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Self::Damaged(error.to_string())
            }
            _ => Self::Io(error),
        }
    }
}

/// What is known of a stored record while its body is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its number.
    pub number: u64,
    /// Spans in it.
    pub spans: usize,
    /// Bytes of its body.
    pub bytes: usize,
}

/// A record to be.
#[derive(Clone, Debug)]
pub struct Record {
    /// What is kept.
    pub body: Bytes,
    /// Spans in it.
    pub spans: usize,
}

/// An open file.
pub struct Store {
    database: Database,
    state: State,
    /// Spans and bytes of every record in the file.
    records: BTreeMap<u64, (u32, u32)>,
}

/// redb is not to panic on a damaged file; if it does all the same, the file counts as damaged.
fn guarded<T>(body: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|_| Err(StoreError::Damaged("the store panicked".to_owned())))
}

impl Store {
    /// Opens or makes a file and checks all of it.
    pub fn open(path: &Path, fsync: bool) -> Result<Self, StoreError> {
        guarded(|| {
            let backend = Backend::open(path, fsync)?;
            let database = Builder::new()
                .set_cache_size(CACHE_BYTES)
                .set_check_integrity_on_open(true)
                .create_with_backend(backend)
                .map_err(redb::Error::from)?;
            Self::load(database)
        })
    }

    fn load(database: Database) -> Result<Self, StoreError> {
        let mut records = BTreeMap::new();
        let mut state = State::default();
        let reading = database.begin_read().map_err(redb::Error::from)?;
        match reading.open_table(RECORDS) {
            Ok(table) => {
                for entry in table.iter().map_err(redb::Error::from)? {
                    let (number, value) = entry.map_err(redb::Error::from)?;
                    let damaged = || StoreError::Damaged("a record has no header".to_owned());
                    let header = Header::decode(value.value()).ok_or_else(damaged)?;
                    records.insert(number.value(), (header.spans, header.length));
                }
                let [table, _] = STATES;
                let table = reading.open_table(table).map_err(redb::Error::from)?;
                let value = table.get(()).map_err(redb::Error::from)?;
                let known = value.and_then(|value| State::decode(value.value()));
                state = known.ok_or_else(|| StoreError::Damaged("it has no state".to_owned()))?;
            }
            // A new file.
            Err(redb::TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(redb::Error::from(error).into()),
        }
        drop(reading);
        let after_last = records.last_key_value().map_or(0, |(last, _)| last + 1);
        state.next = state.next.max(after_last);
        Ok(Self {
            database,
            state,
            records,
        })
    }

    /// Gives back to the file system what has become free inside of the file.
    pub fn compact(&mut self) -> Result<(), StoreError> {
        guarded(|| match self.database.compact() {
            Ok(_) => Ok(()),
            Err(redb::CompactionError::Storage(error)) => Err(redb::Error::from(error).into()),
            Err(error) => Err(StoreError::Io(io::Error::other(error))),
        })
    }

    /// Every record, in the order of arrival.
    pub fn records(&self) -> impl Iterator<Item = Stored> {
        self.records.iter().map(|(number, (spans, bytes))| Stored {
            number: *number,
            spans: *spans as usize,
            bytes: *bytes as usize,
        })
    }

    /// The number that the next record gets.
    pub fn next(&self) -> u64 {
        self.state.next
    }

    /// Counts on from here; for a file that takes the place of another.
    pub fn skip_to(&mut self, next: u64) {
        self.state.next = self.state.next.max(next);
    }

    /// Removes records and appends others, with the numbers from [`next`](Self::next) on;
    /// after an error nothing has changed, and the file has to be opened again.
    pub fn commit(&mut self, appends: &[Record], removals: &[u64]) -> Result<(), StoreError> {
        let numbered: Vec<(u64, &Record)> = (self.state.next..).zip(appends).collect();
        self.write(&numbered, removals)
    }

    /// As [`commit`](Self::commit), with numbers of the caller's own.
    pub fn write(
        &mut self,
        appends: &[(u64, &Record)],
        removals: &[u64],
    ) -> Result<(), StoreError> {
        let mut records = std::mem::take(&mut self.records);
        let mut state = self.state;
        for number in removals {
            if let Some((spans, _)) = records.remove(number) {
                state.records = state.records.saturating_sub(1);
                state.spans = state.spans.saturating_sub(u64::from(spans));
            }
        }
        let mut headers = Vec::with_capacity(appends.len());
        for (number, record) in appends {
            let header = Header::new(*number, record.spans, &record.body);
            records.insert(*number, (header.spans, header.length));
            state.records += 1;
            state.spans += u64::from(header.spans);
            state.next = state.next.max(number + 1);
            headers.push(header);
        }
        state.version += 1;
        state.lowest = records
            .first_key_value()
            .map_or(state.next, |(first, _)| *first);
        self.records = records;
        guarded(|| self.write_transaction(appends, &headers, removals, &state))?;
        self.state = state;
        Ok(())
    }

    fn write_transaction(
        &self,
        appends: &[(u64, &Record)],
        headers: &[Header],
        removals: &[u64],
        state: &State,
    ) -> Result<(), StoreError> {
        let mut writing = self.database.begin_write().map_err(redb::Error::from)?;
        // In one phase a damaged header looks like a commit that a crash cut off: redb would go back
        // to the commit before, and what the last one held would be lost uncounted.
        writing.set_two_phase_commit(true);
        {
            let mut table = writing.open_table(RECORDS).map_err(redb::Error::from)?;
            for number in removals {
                table.remove(number).map_err(redb::Error::from)?;
            }
            for ((number, record), header) in appends.iter().zip(headers) {
                let length = HEADER_BYTES + record.body.len();
                let mut place = table
                    .insert_reserve(number, length)
                    .map_err(redb::Error::from)?;
                let place: &mut [u8] = place.as_mut();
                if let Some((head, body)) = place.split_first_chunk_mut::<HEADER_BYTES>() {
                    *head = header.encode();
                    body.copy_from_slice(&record.body);
                }
            }
        }
        for table in STATES {
            let mut table = writing.open_table(table).map_err(redb::Error::from)?;
            table
                .insert((), state.encode().as_slice())
                .map_err(redb::Error::from)?;
        }
        writing.commit().map_err(redb::Error::from)?;
        Ok(())
    }

    /// The body of a record. None: it is not there, or it is damaged.
    pub fn read(&self, number: u64) -> Result<Option<Bytes>, StoreError> {
        guarded(|| {
            let reading = self.database.begin_read().map_err(redb::Error::from)?;
            let table = reading.open_table(RECORDS).map_err(redb::Error::from)?;
            let value = table.get(number).map_err(redb::Error::from)?;
            let body = value.and_then(|value| record::body(value.value()));
            Ok(body.and_then(|(header, body)| (header.number == number).then_some(body)))
        })
    }
}
