//! The messages of an `ExportTraceServiceRequest`, their fields and kinds, as tables.
//!
//! One table for both forms: bytes that are looked through, and JSON that is turned into bytes.

/// A message type; a field's number is its index in `fields`.
pub struct Message {
    /// As in the `.proto` file.
    pub name: &'static str,
    pub fields: &'static [Field],
    /// Is counted, and must have an id.
    pub is_span: bool,
}

/// A field of a message.
pub struct Field {
    /// In snake case, as in the `.proto` file.
    pub name: &'static str,
    pub kind: Kind,
    pub repeated: bool,
}

/// What a field holds.
#[derive(Clone, Copy)]
pub enum Kind {
    Bool,
    /// From the least to the most.
    Int(i64, i64),
    /// Names of the numbers from 0 on.
    Enum(&'static [&'static str]),
    Fixed32,
    Fixed64,
    Double,
    Text,
    Blob,
    /// So many bytes.
    Id(usize),
    /// So many bytes, or none.
    MaybeId(usize),
    Message(&'static Message),
    Unknown,
}

const INT32: Kind = Kind::Int(i32::MIN as i64, i32::MAX as i64);
const INT64: Kind = Kind::Int(i64::MIN, i64::MAX);
const UINT32: Kind = Kind::Int(0, u32::MAX as i64);
const SPAN_KIND: Kind = Kind::Enum(&[
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
]);
const STATUS_CODE: Kind = Kind::Enum(&["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"]);

const fn message(name: &'static str, fields: &'static [Field]) -> Message {
    Message {
        name,
        fields,
        is_span: false,
    }
}

const fn one(name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        kind,
        repeated: false,
    }
}

const fn many(name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        kind,
        repeated: true,
    }
}

const NONE: Field = one("", Kind::Unknown);
const ATTRIBUTES: Field = many("attributes", Kind::Message(&KEY_VALUE));
const DROPPED_ATTRIBUTES: Field = one("dropped_attributes_count", UINT32);
const SCHEMA_URL: Field = one("schema_url", Kind::Text);

// opentelemetry-proto v1.10: collector/trace, trace, resource and common v1.
pub static REQUEST: Message = message(
    "ExportTraceServiceRequest",
    &[NONE, many("resource_spans", Kind::Message(&RESOURCE_SPANS))],
);
static RESOURCE_SPANS: Message = message(
    "ResourceSpans",
    &[
        NONE,
        one("resource", Kind::Message(&RESOURCE)),
        many("scope_spans", Kind::Message(&SCOPE_SPANS)),
        SCHEMA_URL,
    ],
);
static RESOURCE: Message = message(
    "Resource",
    &[
        NONE,
        ATTRIBUTES,
        DROPPED_ATTRIBUTES,
        many("entity_refs", Kind::Message(&ENTITY_REF)),
    ],
);
static ENTITY_REF: Message = message(
    "EntityRef",
    &[
        NONE,
        SCHEMA_URL,
        one("type", Kind::Text),
        many("id_keys", Kind::Text),
        many("description_keys", Kind::Text),
    ],
);
static SCOPE_SPANS: Message = message(
    "ScopeSpans",
    &[
        NONE,
        one("scope", Kind::Message(&SCOPE)),
        many("spans", Kind::Message(&SPAN)),
        SCHEMA_URL,
    ],
);
static SCOPE: Message = message(
    "InstrumentationScope",
    &[
        NONE,
        one("name", Kind::Text),
        one("version", Kind::Text),
        ATTRIBUTES,
        DROPPED_ATTRIBUTES,
    ],
);
static SPAN: Message = Message {
    name: "Span",
    fields: &[
        NONE,
        one("trace_id", Kind::MaybeId(16)),
        one("span_id", Kind::Id(8)),
        one("trace_state", Kind::Text),
        one("parent_span_id", Kind::MaybeId(8)),
        one("name", Kind::Text),
        one("kind", SPAN_KIND),
        one("start_time_unix_nano", Kind::Fixed64),
        one("end_time_unix_nano", Kind::Fixed64),
        ATTRIBUTES,
        DROPPED_ATTRIBUTES,
        many("events", Kind::Message(&EVENT)),
        one("dropped_events_count", UINT32),
        many("links", Kind::Message(&LINK)),
        one("dropped_links_count", UINT32),
        one("status", Kind::Message(&STATUS)),
        one("flags", Kind::Fixed32),
    ],
    is_span: true,
};
static EVENT: Message = message(
    "Event",
    &[
        NONE,
        one("time_unix_nano", Kind::Fixed64),
        one("name", Kind::Text),
        ATTRIBUTES,
        DROPPED_ATTRIBUTES,
    ],
);
static LINK: Message = message(
    "Link",
    &[
        NONE,
        one("trace_id", Kind::MaybeId(16)),
        one("span_id", Kind::MaybeId(8)),
        one("trace_state", Kind::Text),
        ATTRIBUTES,
        DROPPED_ATTRIBUTES,
        one("flags", Kind::Fixed32),
    ],
);
static STATUS: Message = message(
    "Status",
    &[
        NONE,
        NONE,
        one("message", Kind::Text),
        one("code", STATUS_CODE),
    ],
);
static KEY_VALUE: Message = message(
    "KeyValue",
    &[
        NONE,
        one("key", Kind::Text),
        one("value", Kind::Message(&ANY_VALUE)),
        one("key_strindex", INT32),
    ],
);
static ANY_VALUE: Message = message(
    "AnyValue",
    &[
        NONE,
        one("string_value", Kind::Text),
        one("bool_value", Kind::Bool),
        one("int_value", INT64),
        one("double_value", Kind::Double),
        one("array_value", Kind::Message(&ARRAY_VALUE)),
        one("kvlist_value", Kind::Message(&KEY_VALUE_LIST)),
        one("bytes_value", Kind::Blob),
        one("string_value_strindex", INT32),
    ],
);
static ARRAY_VALUE: Message = message(
    "ArrayValue",
    &[NONE, many("values", Kind::Message(&ANY_VALUE))],
);
static KEY_VALUE_LIST: Message = message(
    "KeyValueList",
    &[NONE, many("values", Kind::Message(&KEY_VALUE))],
);
