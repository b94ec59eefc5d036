//! Looks through an encoded `ExportTraceServiceRequest` without decoding it.
//!
//! A request that passes is one that prost decodes, so that its bytes may travel on as they
//! are and be decoded later, if anybody asks, without a new error. Nothing is allocated.
//!
//! Ids: a span must have a span id of 8 bytes; its parent, and what links name, may be empty.
//! So may its trace id: spans of our own agents have none before a linker has seen them, and
//! the Collector's receiver takes them too.

mod json;
mod schema;

pub use json::from_json;
use schema::{Field, Kind, Message, REQUEST};

/// Levels of messages inside each other, as prost limits them.
const MAX_DEPTH: u32 = 100;
const KEY_TYPE_BITS: u32 = 3;
/// The bit of `Span.span_id` among the fields that were seen.
const SPAN_ID: u32 = 1 << 2;

/// Why bytes are no request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {at}: {what}")]
pub struct Malformed {
    /// Offset in the body.
    pub at: usize,
    /// What stands there.
    pub what: String,
}

/// Number of spans in an encoded request, or what is wrong with it.
pub fn count_spans(body: &[u8]) -> Result<usize, Malformed> {
    let mut walk = Walk {
        bytes: body,
        at: 0,
        spans: 0,
    };
    walk.message(&REQUEST, body.len(), MAX_DEPTH)?;
    Ok(walk.spans)
}

/// How a field lies in the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Varint,
    Fixed64,
    Length,
    GroupStart,
    GroupEnd,
    Fixed32,
}

impl Wire {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Bool | Kind::Int(..) | Kind::Enum(_) => Self::Varint,
            Kind::Fixed32 => Self::Fixed32,
            Kind::Fixed64 | Kind::Double => Self::Fixed64,
            _ => Self::Length,
        }
    }

    /// What stands in front of a field in the bytes.
    fn key(self, number: u64) -> u64 {
        number << KEY_TYPE_BITS
            | match self {
                Self::Varint => 0,
                Self::Fixed64 => 1,
                Self::Length => 2,
                Self::GroupStart => 3,
                Self::GroupEnd => 4,
                Self::Fixed32 => 5,
            }
    }
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    spans: usize,
}

impl Walk<'_> {
    fn message(&mut self, message: &Message, end: usize, depth: u32) -> Result<(), Malformed> {
        let begun = self.at;
        let mut seen = 0u32;
        while self.at < end {
            let (number, wire) = self.key(end)?;
            seen |= 1u32.checked_shl(number).unwrap_or(0);
            let field = usize::try_from(number).ok();
            match field.and_then(|number| message.fields.get(number)) {
                Some(field) if !matches!(field.kind, Kind::Unknown) => {
                    self.field(message, field, wire, end, depth)?;
                }
                _ => self.skip(number, wire, end, depth)?,
            }
        }
        if message.is_span {
            if seen & SPAN_ID == 0 {
                return Err(malformed(begun, "Span has no id"));
            }
            self.spans += 1;
        }
        Ok(())
    }

    fn field(
        &mut self,
        message: &Message,
        field: &Field,
        wire: Wire,
        end: usize,
        depth: u32,
    ) -> Result<(), Malformed> {
        let fail = |at: usize, what: &str| {
            let (message, field) = (message.name, field.name);
            Err(malformed(at, format!("{message}.{field} {what}")))
        };
        let expected = Wire::of(field.kind);
        let at = self.at;
        if wire != expected {
            return fail(at, &format!("is {wire:?}, not {expected:?}"));
        }
        match field.kind {
            Kind::Bool | Kind::Int(..) | Kind::Enum(_) => self.varint(end).map(drop),
            Kind::Fixed32 => self.advance(4, end),
            Kind::Fixed64 | Kind::Double => self.advance(8, end),
            Kind::Blob | Kind::Unknown => self.bytes(end).map(drop),
            Kind::Text => match std::str::from_utf8(self.bytes(end)?) {
                Ok(_) => Ok(()),
                Err(_) => fail(at, "is no UTF-8"),
            },
            Kind::Id(wanted) | Kind::MaybeId(wanted) => {
                let length = self.bytes(end)?.len();
                let may_be_empty = matches!(field.kind, Kind::MaybeId(_));
                if length == wanted || length == 0 && may_be_empty {
                    return Ok(());
                }
                fail(at, &format!("has {length} bytes, not {wanted}"))
            }
            Kind::Message(inner) => {
                let end = self.length(end)?;
                match depth.checked_sub(1) {
                    Some(depth) => self.message(inner, end, depth),
                    None => fail(at, "is nested too deeply"),
                }
            }
        }
    }

    /// Passes over a field that is not known.
    fn skip(&mut self, number: u32, wire: Wire, end: usize, depth: u32) -> Result<(), Malformed> {
        match wire {
            Wire::Varint => self.varint(end).map(drop),
            Wire::Fixed32 => self.advance(4, end),
            Wire::Fixed64 => self.advance(8, end),
            Wire::Length => self.bytes(end).map(drop),
            Wire::GroupEnd => Err(malformed(self.at, "a group ends that has not begun")),
            Wire::GroupStart => {
                let Some(depth) = depth.checked_sub(1) else {
                    return Err(malformed(self.at, "is nested too deeply"));
                };
                loop {
                    match self.key(end)? {
                        (inner, Wire::GroupEnd) if inner == number => return Ok(()),
                        (inner, wire) => self.skip(inner, wire, end, depth)?,
                    }
                }
            }
        }
    }

    fn key(&mut self, end: usize) -> Result<(u32, Wire), Malformed> {
        let at = self.at;
        let key = self.varint(end)?;
        let wire = match key & ((1 << KEY_TYPE_BITS) - 1) {
            0 => Wire::Varint,
            1 => Wire::Fixed64,
            2 => Wire::Length,
            3 => Wire::GroupStart,
            4 => Wire::GroupEnd,
            5 => Wire::Fixed32,
            _ => return Err(malformed(at, "a field has no known wire type")),
        };
        match u32::try_from(key) {
            Ok(key) if key >> KEY_TYPE_BITS > 0 => Ok((key >> KEY_TYPE_BITS, wire)),
            _ => Err(malformed(at, "a field has an impossible number")),
        }
    }

    fn varint(&mut self, end: usize) -> Result<u64, Malformed> {
        let bytes = self.bytes.get(self.at..end).unwrap_or_default();
        let mut value = 0u64;
        for (index, byte) in bytes.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                // Of the tenth byte one bit has room.
                if index == 9 && *byte > 1 {
                    break;
                }
                self.at += index + 1;
                return Ok(value);
            }
        }
        Err(malformed(self.at, "a number does not end"))
    }

    /// The end of what a length in front says.
    fn length(&mut self, end: usize) -> Result<usize, Malformed> {
        let at = self.at;
        let length = self.varint(end)?;
        let room = end.saturating_sub(self.at);
        match usize::try_from(length) {
            Ok(length) if length <= room => Ok(self.at + length),
            _ => Err(malformed(
                at,
                format!("{length} bytes are promised, {room} are there"),
            )),
        }
    }

    fn bytes(&mut self, end: usize) -> Result<&[u8], Malformed> {
        let end = self.length(end)?;
        let bytes = self.bytes.get(self.at..end).unwrap_or_default();
        self.at = end;
        Ok(bytes)
    }

    fn advance(&mut self, count: usize, end: usize) -> Result<(), Malformed> {
        if end.saturating_sub(self.at) < count {
            return Err(malformed(self.at, "a number is cut off"));
        }
        self.at += count;
        Ok(())
    }
}

fn malformed(at: usize, what: impl Into<String>) -> Malformed {
    let what = what.into();
    Malformed { at, what }
}
