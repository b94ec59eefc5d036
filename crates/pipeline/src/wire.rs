//! Looks through an encoded `ExportTraceServiceRequest` without decoding it.
//!
//! A request that passes is one that prost decodes, so that its bytes may travel on as they
//! are and be decoded later, if anybody asks, without a new error. Nothing is allocated.
//!
//! Ids: a span must have a span id of 8 bytes; its parent, and what links name, may be empty.
//! So may its trace id: spans of our own agents have none before a linker has seen them, and
//! the Collector's receiver takes them too.

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

/// A message type; a field's number is its index in `fields`.
struct Message {
    name: &'static str,
    fields: &'static [Field],
    /// Is counted, and must have an id.
    is_span: bool,
}

struct Field(&'static str, Kind);

#[derive(Clone, Copy)]
enum Kind {
    Varint,
    Fixed32,
    Fixed64,
    Text,
    Blob,
    /// So many bytes.
    Id(usize),
    /// So many bytes, or none.
    MaybeId(usize),
    Message(&'static Message),
    Unknown,
}

const fn message(name: &'static str, fields: &'static [Field]) -> Message {
    Message {
        name,
        fields,
        is_span: false,
    }
}

const NONE: Field = Field("", Kind::Unknown);
const ATTRIBUTES: Field = Field("attributes", Kind::Message(&KEY_VALUE));
const DROPPED_ATTRIBUTES: Field = Field("dropped_attributes_count", Kind::Varint);
const SCHEMA_URL: Field = Field("schema_url", Kind::Text);

// opentelemetry-proto v1.10: collector/trace, trace, resource and common v1.
static REQUEST: Message = message(
    "ExportTraceServiceRequest",
    &[
        NONE,
        Field("resource_spans", Kind::Message(&RESOURCE_SPANS)),
    ],
);
static RESOURCE_SPANS: Message = message(
    "ResourceSpans",
    &[
        NONE,
        Field("resource", Kind::Message(&RESOURCE)),
        Field("scope_spans", Kind::Message(&SCOPE_SPANS)),
        SCHEMA_URL,
    ],
);
static RESOURCE: Message = message(
    "Resource",
    &[
        NONE,
        ATTRIBUTES,
        DROPPED_ATTRIBUTES,
        Field("entity_refs", Kind::Message(&ENTITY_REF)),
    ],
);
static ENTITY_REF: Message = message(
    "EntityRef",
    &[
        NONE,
        SCHEMA_URL,
        Field("type", Kind::Text),
        Field("id_keys", Kind::Text),
        Field("description_keys", Kind::Text),
    ],
);
static SCOPE_SPANS: Message = message(
    "ScopeSpans",
    &[
        NONE,
        Field("scope", Kind::Message(&SCOPE)),
        Field("spans", Kind::Message(&SPAN)),
        SCHEMA_URL,
    ],
);
static SCOPE: Message = message(
    "InstrumentationScope",
    &[
        NONE,
        Field("name", Kind::Text),
        Field("version", Kind::Text),
        ATTRIBUTES,
        DROPPED_ATTRIBUTES,
    ],
);
static SPAN: Message = Message {
    name: "Span",
    fields: &[
        NONE,
        Field("trace_id", Kind::MaybeId(16)),
        Field("span_id", Kind::Id(8)),
        Field("trace_state", Kind::Text),
        Field("parent_span_id", Kind::MaybeId(8)),
        Field("name", Kind::Text),
        Field("kind", Kind::Varint),
        Field("start_time_unix_nano", Kind::Fixed64),
        Field("end_time_unix_nano", Kind::Fixed64),
        ATTRIBUTES,
        DROPPED_ATTRIBUTES,
        Field("events", Kind::Message(&EVENT)),
        Field("dropped_events_count", Kind::Varint),
        Field("links", Kind::Message(&LINK)),
        Field("dropped_links_count", Kind::Varint),
        Field("status", Kind::Message(&STATUS)),
        Field("flags", Kind::Fixed32),
    ],
    is_span: true,
};
static EVENT: Message = message(
    "Event",
    &[
        NONE,
        Field("time_unix_nano", Kind::Fixed64),
        Field("name", Kind::Text),
        ATTRIBUTES,
        DROPPED_ATTRIBUTES,
    ],
);
static LINK: Message = message(
    "Link",
    &[
        NONE,
        Field("trace_id", Kind::MaybeId(16)),
        Field("span_id", Kind::MaybeId(8)),
        Field("trace_state", Kind::Text),
        ATTRIBUTES,
        DROPPED_ATTRIBUTES,
        Field("flags", Kind::Fixed32),
    ],
);
static STATUS: Message = message(
    "Status",
    &[
        NONE,
        NONE,
        Field("message", Kind::Text),
        Field("code", Kind::Varint),
    ],
);
static KEY_VALUE: Message = message(
    "KeyValue",
    &[
        NONE,
        Field("key", Kind::Text),
        Field("value", Kind::Message(&ANY_VALUE)),
        Field("key_strindex", Kind::Varint),
    ],
);
static ANY_VALUE: Message = message(
    "AnyValue",
    &[
        NONE,
        Field("string_value", Kind::Text),
        Field("bool_value", Kind::Varint),
        Field("int_value", Kind::Varint),
        Field("double_value", Kind::Fixed64),
        Field("array_value", Kind::Message(&ARRAY_VALUE)),
        Field("kvlist_value", Kind::Message(&KEY_VALUE_LIST)),
        Field("bytes_value", Kind::Blob),
        Field("string_value_strindex", Kind::Varint),
    ],
);
static ARRAY_VALUE: Message = message(
    "ArrayValue",
    &[NONE, Field("values", Kind::Message(&ANY_VALUE))],
);
static KEY_VALUE_LIST: Message = message(
    "KeyValueList",
    &[NONE, Field("values", Kind::Message(&KEY_VALUE))],
);

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
                Some(Field(name, kind)) if !matches!(kind, Kind::Unknown) => {
                    self.field(message, name, *kind, wire, end, depth)?;
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
        name: &str,
        kind: Kind,
        wire: Wire,
        end: usize,
        depth: u32,
    ) -> Result<(), Malformed> {
        let expected = match kind {
            Kind::Varint => Wire::Varint,
            Kind::Fixed32 => Wire::Fixed32,
            Kind::Fixed64 => Wire::Fixed64,
            _ => Wire::Length,
        };
        let fail = |at: usize, what: &str| {
            let message = message.name;
            Err(malformed(at, format!("{message}.{name} {what}")))
        };
        let at = self.at;
        if wire != expected {
            return fail(at, &format!("is {wire:?}, not {expected:?}"));
        }
        match kind {
            Kind::Varint => self.varint(end).map(drop),
            Kind::Fixed32 => self.advance(4, end).map(drop),
            Kind::Fixed64 => self.advance(8, end).map(drop),
            Kind::Blob | Kind::Unknown => self.bytes(end).map(drop),
            Kind::Text => match std::str::from_utf8(self.bytes(end)?) {
                Ok(_) => Ok(()),
                Err(_) => fail(at, "is no UTF-8"),
            },
            Kind::Id(wanted) | Kind::MaybeId(wanted) => {
                let length = self.bytes(end)?.len();
                let may_be_empty = matches!(kind, Kind::MaybeId(_));
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
            Wire::Fixed32 => self.advance(4, end).map(drop),
            Wire::Fixed64 => self.advance(8, end).map(drop),
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
