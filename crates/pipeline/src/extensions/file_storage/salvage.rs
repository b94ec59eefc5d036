//! What can still be read of a file that redb cannot open: looked for by the marks of its records,
//! wherever they lie.
//!
//! A file also holds remains of records that were removed. The newest state says below which
//! number all of them are; of those above it that were removed out of order some may come back,
//! which delivers them twice. How many are damaged follows from the same state.

use super::record::{HEADER_BYTES, Header, MARK, STATE_BYTES, State};
use super::store::{Record, Store, StoreError};
use bytes::Bytes;
use memchr::memmem::Finder;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes looked through at a time.
const WINDOW_BYTES: usize = 1 << 20;
/// Bytes of records that are copied in one transaction.
const COPY_BYTES: usize = 16 << 20;

/// What became of a damaged file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Records that are in the new file.
    pub kept: u64,
    /// Records that are lost.
    pub damaged: u64,
    /// Spans in those, as far as that is known.
    pub damaged_spans: u64,
}

/// Where a record lies, and whether its body is as it was.
#[derive(Clone, Copy, Debug)]
struct Place {
    header: Header,
    offset: u64,
    sound: bool,
}

/// Makes a new file of what can be read of the old one, and puts it in its place.
/// The old one is set aside as `….damaged`. After an error everything is as before.
pub fn salvage(path: &Path, fsync: bool) -> Result<(Store, Salvaged), StoreError> {
    let (draft, aside) = (beside(path, "draft"), beside(path, "damaged"));
    remove(&draft)?;
    let old = File::open(path)?;
    let found = Found::scan(&old)?;
    let mut store = Store::open(&draft, fsync)?;
    if let Err(error) = found.copy(&old, &mut store) {
        drop(store);
        remove(&draft)?;
        return Err(error);
    }
    remove(&aside)?;
    // Where there are no hard links the damaged file is simply replaced.
    let _ = fs::hard_link(path, &aside);
    fs::rename(&draft, path)?;
    Ok((store, found.outcome()))
}

/// A name for a file that belongs to `path`.
pub fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(what);
    PathBuf::from(name)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[derive(Debug, Default)]
struct Found {
    state: Option<State>,
    records: BTreeMap<u64, Place>,
}

impl Found {
    /// Looks for records and states from the beginning of the file to its end.
    fn scan(file: &File) -> io::Result<Self> {
        let mut found = Self::default();
        let finder = Finder::new(&MARK);
        let mut window = vec![0; WINDOW_BYTES];
        let mut offset = 0;
        loop {
            let length = read_at_most(file, &mut window, offset)?;
            let bytes = window.get(..length).unwrap_or_default();
            match finder.find(bytes) {
                Some(at) => {
                    offset += at as u64;
                    offset += found.take(file, offset)?.max(1);
                }
                // A mark may lie across the end of the window.
                None if length == WINDOW_BYTES => offset += (length - MARK.len()) as u64,
                None => break,
            }
        }
        if let Some(state) = found.state {
            found.records = found.records.split_off(&state.lowest);
        }
        Ok(found)
    }

    /// Takes what begins here with a mark; returns how much of the file that was.
    fn take(&mut self, file: &File, offset: u64) -> io::Result<u64> {
        let mut head = [0; STATE_BYTES];
        let length = read_at_most(file, &mut head, offset)?;
        let head = head.get(..length).unwrap_or_default();
        if let Some(state) = State::decode(head) {
            if self.state.is_none_or(|known| known.version < state.version) {
                self.state = Some(state);
            }
            return Ok(STATE_BYTES as u64);
        }
        let Some(header) = Header::decode(head) else {
            return Ok(0);
        };
        let sound = read_body(file, offset, &header)?.is_some();
        let known = self.records.get(&header.number);
        if known.is_none_or(|known| !known.sound) {
            let place = Place {
                header,
                offset,
                sound,
            };
            self.records.insert(header.number, place);
        }
        // What lies in a sound body is not looked at: it may be anything.
        let body = if sound { u64::from(header.length) } else { 0 };
        Ok(HEADER_BYTES as u64 + body)
    }

    fn copy(&self, old: &File, store: &mut Store) -> Result<(), StoreError> {
        let mut group: Vec<(u64, Record)> = Vec::new();
        let mut bytes = 0;
        let mut flush = |group: &mut Vec<(u64, Record)>| {
            let records: Vec<(u64, &Record)> = group
                .iter()
                .map(|(number, record)| (*number, record))
                .collect();
            let written = store.write(&records, &[]);
            group.clear();
            written
        };
        for place in self.records.values().filter(|place| place.sound) {
            let Some(body) = read_body(old, place.offset, &place.header)? else {
                continue;
            };
            bytes += body.len();
            let spans = place.header.spans as usize;
            group.push((place.header.number, Record { body, spans }));
            if bytes >= COPY_BYTES {
                flush(&mut group)?;
                bytes = 0;
            }
        }
        flush(&mut group)?;
        if let Some(state) = self.state {
            store.skip_to(state.next);
        }
        // So that the number to count on from is in the file too.
        store.commit(&[], &[])
    }

    fn outcome(&self) -> Salvaged {
        let sound = || self.records.values().filter(|place| place.sound);
        let kept = sound().count() as u64;
        let kept_spans: u64 = sound().map(|place| u64::from(place.header.spans)).sum();
        if let Some(state) = self.state {
            return Salvaged {
                kept,
                damaged: state.records.saturating_sub(kept),
                damaged_spans: state.spans.saturating_sub(kept_spans),
            };
        }
        // Without a state: what is broken, and the numbers that are missing in between.
        let broken = || self.records.values().filter(|place| !place.sound);
        let first = self
            .records
            .first_key_value()
            .map_or(0, |(first, _)| *first);
        let last = self
            .records
            .last_key_value()
            .map_or(0, |(last, _)| last + 1);
        Salvaged {
            kept,
            damaged: (last - first).saturating_sub(kept),
            damaged_spans: broken().map(|place| u64::from(place.header.spans)).sum(),
        }
    }
}

/// The body of a record that lies at `offset`. None: it is damaged.
fn read_body(file: &File, offset: u64, header: &Header) -> io::Result<Option<Bytes>> {
    let end = offset + HEADER_BYTES as u64 + u64::from(header.length);
    if end > file.metadata()?.len() {
        return Ok(None);
    }
    let mut body = vec![0; header.length as usize];
    file.read_exact_at(&mut body, offset + HEADER_BYTES as u64)?;
    Ok(header.fits(&body).then(|| Bytes::from(body)))
}

/// Fills the buffer as far as the file reaches.
fn read_at_most(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_state_tells_what_is_left_and_what_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        let record = |number: usize| Record {
            body: Bytes::from(vec![b'x'; 100 * number]),
            spans: number,
        };
        {
            let mut store = Store::open(&path, false).unwrap();
            let records: Vec<Record> = (1..=5).map(record).collect();
            store.commit(&records, &[]).unwrap();
            store.commit(&[], &[0, 1]).unwrap();
        }
        fs::write(&path, destroyed(&fs::read(&path).unwrap())).unwrap();
        assert!(matches!(
            Store::open(&path, false),
            Err(StoreError::Damaged(_))
        ));
        let (store, salvaged) = salvage(&path, false).unwrap();
        let numbers: Vec<u64> = store.records().map(|stored| stored.number).collect();
        assert_eq!(numbers, [2, 3, 4]);
        assert_eq!(
            salvaged,
            Salvaged {
                kept: 3,
                ..Salvaged::default()
            }
        );
        assert_eq!(store.next(), 5);
        assert!(beside(&path, "damaged").exists());
    }

    /// Nothing is left of the structure but the records themselves.
    fn destroyed(bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for byte in bytes.iter_mut().take(320) {
            *byte = 0xaa;
        }
        bytes
    }
}
