//! What lies in a file: records and states, each with a checksum, so that they are known again
//! even in a file whose structure is destroyed.
//!
//! ```text
//! record: mark 'r' | number | spans | length | checksum of the body | checksum of these | body
//! state:  mark 's' | version | next number | lowest number | records | spans | checksum
//! ```
//! Numbers are little-endian u64, `spans` and `length` of a record u32.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

/// What both begin with, before the byte that tells them apart.
pub const MARK: [u8; 7] = [0x89, b'd', b't', 0x17, 0xf3, 0xa6, 0x0d];
const RECORD: u8 = b'r';
const STATE: u8 = b's';
/// Bytes of a record in front of its body.
pub const HEADER_BYTES: usize = 40;
/// Bytes of a state.
pub const STATE_BYTES: usize = 56;

/// What is known of a record without its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Counts up in the order of arrival.
    pub number: u64,
    /// Spans in the body.
    pub spans: u32,
    /// Bytes of the body.
    pub length: u32,
    body_checksum: u64,
}

impl Header {
    /// Of a new record.
    pub fn new(number: u64, spans: usize, body: &[u8]) -> Self {
        Self {
            number,
            spans: u32::try_from(spans).unwrap_or(u32::MAX),
            length: u32::try_from(body.len()).unwrap_or(u32::MAX),
            body_checksum: xxh3_64(body),
        }
    }

    /// As it stands in the file.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = Encoder::new(RECORD);
        out.put(&self.number.to_le_bytes());
        out.put(&self.spans.to_le_bytes());
        out.put(&self.length.to_le_bytes());
        out.put(&self.body_checksum.to_le_bytes());
        out.seal()
    }

    /// None: it is none, or a damaged one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Decoder::<HEADER_BYTES>::open(bytes, RECORD)?;
        Some(Self {
            number: fields.u64()?,
            spans: fields.u32()?,
            length: fields.u32()?,
            body_checksum: fields.u64()?,
        })
    }

    /// Whether this is the body that was stored.
    pub fn fits(&self, body: &[u8]) -> bool {
        u32::try_from(body.len()) == Ok(self.length) && xxh3_64(body) == self.body_checksum
    }
}

/// The body of an undamaged record.
pub fn body(record: &[u8]) -> Option<(Header, Bytes)> {
    let header = Header::decode(record)?;
    let body = record.get(HEADER_BYTES..)?;
    header
        .fits(body)
        .then(|| (header, Bytes::copy_from_slice(body)))
}

/// What a file holds as of one commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Counts commits.
    pub version: u64,
    /// The next record gets this number.
    pub next: u64,
    /// No record that waits has a lower number.
    pub lowest: u64,
    /// How many wait.
    pub records: u64,
    /// Spans in them.
    pub spans: u64,
}

impl State {
    /// As it stands in the file.
    pub fn encode(&self) -> [u8; STATE_BYTES] {
        let mut out = Encoder::new(STATE);
        for field in [
            self.version,
            self.next,
            self.lowest,
            self.records,
            self.spans,
        ] {
            out.put(&field.to_le_bytes());
        }
        out.seal()
    }

    /// None: it is none, or a damaged one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Decoder::<STATE_BYTES>::open(bytes, STATE)?;
        Some(Self {
            version: fields.u64()?,
            next: fields.u64()?,
            lowest: fields.u64()?,
            records: fields.u64()?,
            spans: fields.u64()?,
        })
    }
}

/// Writes fields behind the mark and, last, the checksum of all of them.
struct Encoder(Vec<u8>);

impl Encoder {
    fn new(kind: u8) -> Self {
        Self([&MARK[..], &[kind]].concat())
    }

    fn put(&mut self, field: &[u8]) {
        self.0.extend_from_slice(field);
    }

    fn seal<const N: usize>(mut self) -> [u8; N] {
        let checksum = xxh3_64(&self.0).to_le_bytes();
        self.put(&checksum);
        let mut out = [0; N];
        for (to, from) in out.iter_mut().zip(self.0) {
            *to = from;
        }
        out
    }
}

/// Reads what [`Encoder`] wrote, if its checksum is right.
struct Decoder<'a, const N: usize>(&'a [u8]);

impl<'a, const N: usize> Decoder<'a, N> {
    fn open(bytes: &'a [u8], kind: u8) -> Option<Self> {
        let (sealed, checksum) = bytes.get(..N)?.split_at_checked(N - 8)?;
        let fields = sealed.strip_prefix(&MARK)?.strip_prefix(&[kind])?;
        (xxh3_64(sealed).to_le_bytes() == checksum).then_some(Self(fields))
    }

    fn u64(&mut self) -> Option<u64> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*field))
    }

    fn u32(&mut self) -> Option<u32> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_record_is_found() {
        let payload = b"spans";
        let mut record = Header::new(7, 3, payload).encode().to_vec();
        record.extend_from_slice(payload);
        let (header, back) = body(&record).unwrap();
        assert_eq!((header.number, header.spans), (7, 3));
        assert_eq!(back, payload.as_slice());
        for bit in 0..record.len() * 8 {
            let mut damaged = record.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(body(&damaged), None, "bit {bit}");
        }
        assert_eq!(body(&record[..record.len() - 1]), None);
    }

    #[test]
    fn a_state_comes_back_as_it_was() {
        let state = State {
            version: 1,
            next: 2,
            lowest: 3,
            records: 4,
            spans: u64::MAX,
        };
        assert_eq!(State::decode(&state.encode()), Some(state));
        assert_eq!(Header::decode(&state.encode()), None);
    }
}
