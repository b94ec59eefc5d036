//! Span and trace ids that both ends of a connection compute without talking.
//!
//! A TCP stream position is the same at both ends and survives NAT, so the two
//! initial sequence numbers, the direction and the offset of a request's first
//! byte name that request anywhere. Addresses stay out of the key on purpose.

use std::fmt;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

/// Seeds keep the three id families apart; changing one breaks linking between
/// agents of different versions.
const CLIENT_SEED: u64 = u64::from_le_bytes(*b"dt.clien");
const SERVER_SEED: u64 = u64::from_le_bytes(*b"dt.serve");
const TRACE_SEED: u64 = u64::from_le_bytes(*b"dt.trace");

/// A W3C span id: 8 bytes, never all zero (trace.proto `Span.span_id`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId([u8; 8]);

/// A W3C trace id: 16 bytes, never all zero (trace.proto `Span.trace_id`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId([u8; 16]);

/// One TCP connection, named by the initial sequence numbers of both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionKey {
    /// Initial sequence number of the side that called `connect`.
    pub client_isn: u32,
    /// Initial sequence number of the side that accepted.
    pub server_isn: u32,
}

/// Which end of the connection sent the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Initiator {
    /// The side that called `connect`: the usual case.
    Connector,
    /// The side that accepted (server push, reversed tunnels).
    Acceptor,
}

/// One request on one connection: the key that both ends hash into span ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestKey {
    /// The connection that carries the request.
    pub connection: ConnectionKey,
    /// The end that sent it.
    pub initiator: Initiator,
    /// Offset of the request's first byte in its direction, 0 = first byte after the SYN.
    pub offset: u64,
}

impl RequestKey {
    /// Id of the span that the sender of the request sees.
    pub fn client_span_id(&self) -> SpanId {
        SpanId::from_hash(xxh3_64_with_seed(&self.bytes(), CLIENT_SEED))
    }

    /// Id of the span that the receiver of the request sees.
    pub fn server_span_id(&self) -> SpanId {
        SpanId::from_hash(xxh3_64_with_seed(&self.bytes(), SERVER_SEED))
    }

    fn bytes(&self) -> [u8; 17] {
        let mut bytes = [0; 17];
        bytes[..4].copy_from_slice(&self.connection.client_isn.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.connection.server_isn.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_be_bytes());
        bytes[16] = u8::from(self.initiator == Initiator::Acceptor);
        bytes
    }
}

impl SpanId {
    /// Takes 8 bytes as they are on the wire; all zero is not an id.
    pub fn from_bytes(bytes: [u8; 8]) -> Option<Self> {
        (bytes != [0; 8]).then_some(Self(bytes))
    }

    /// Takes a hash; zero, one chance in 2^64, becomes 1.
    pub fn from_hash(hash: u64) -> Self {
        Self(hash.max(1).to_be_bytes())
    }

    /// Takes exactly 16 hex digits, in either case.
    pub fn from_hex(text: &str) -> Option<Self> {
        hex_bytes(text).and_then(Self::from_bytes)
    }

    /// The 8 bytes of the wire form.
    pub fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl TraceId {
    /// Takes 16 bytes as they are on the wire; all zero is not an id.
    pub fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// The trace id that a root span gives to its whole trace.
    pub fn of_root(root: SpanId) -> Self {
        Self(xxh3_128_with_seed(&root.0, TRACE_SEED).max(1).to_be_bytes())
    }

    /// Takes exactly 32 hex digits, in either case.
    pub fn from_hex(text: &str) -> Option<Self> {
        hex_bytes(text).and_then(Self::from_bytes)
    }

    /// The 16 bytes of the wire form.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

fn hex_bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = (hex_digit(*high)? << 4) | hex_digit(*low)?;
    }
    Some(bytes)
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(offset: u64) -> RequestKey {
        RequestKey {
            connection: ConnectionKey {
                client_isn: 7,
                server_isn: 9,
            },
            initiator: Initiator::Connector,
            offset,
        }
    }

    #[test]
    fn client_and_server_never_share_an_id() {
        assert_ne!(key(0).client_span_id(), key(0).server_span_id());
        assert_ne!(key(0).client_span_id(), key(1).client_span_id());
    }

    #[test]
    fn every_part_of_the_key_changes_the_id() {
        let base = key(0);
        let swapped = RequestKey {
            connection: ConnectionKey {
                client_isn: 9,
                server_isn: 7,
            },
            ..base
        };
        let reversed = RequestKey {
            initiator: Initiator::Acceptor,
            ..base
        };
        let wrapped = key(1 << 32);
        for other in [swapped, reversed, wrapped] {
            assert_ne!(base.client_span_id(), other.client_span_id(), "{other:?}");
        }
    }

    #[test]
    fn ids_are_the_same_on_every_machine_and_in_every_version() {
        // Frozen: agents of different versions must agree.
        assert_eq!(key(0).client_span_id().to_string(), "9e4d79fe012881bb");
        assert_eq!(key(0).server_span_id().to_string(), "0fed704775a51ad0");
    }

    #[test]
    fn hex_is_read_back_and_nonsense_is_refused() {
        let id = key(5).client_span_id();
        assert_eq!(SpanId::from_hex(&id.to_string()), Some(id));
        for bad in [
            "",
            "0",
            "0000000000000000",
            "zzzzzzzzzzzzzzzz",
            "00000000000000011",
        ] {
            assert_eq!(SpanId::from_hex(bad), None, "{bad}");
        }
        assert_eq!(TraceId::from_hex("é000000000000000000000000000001"), None);
    }
}
