//! What can be asked of a span, its events, scope and resource.

use super::super::attribute::{self, hex};
use super::value::Value;
use super::{Context, Subject, Unanswerable};
use crate::config::report::did_you_mean;
use crate::proto::common::v1::any_value::Value as Attribute;
use crate::proto::common::v1::{AnyValue, KeyValue};
use std::borrow::Cow;

/// A step into an attribute.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Key {
    Name(String),
    Index(usize),
}

/// A field.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Path {
    Field(Field),
    /// One attribute, or what lies in it.
    Attribute(Owner, Vec<Key>),
}

/// Whose attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Resource,
    Scope,
    Span,
    Event,
}

/// A field that has a name of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    ScopeName,
    ScopeVersion,
    Name,
    Kind,
    StatusCode,
    StatusMessage,
    TraceId,
    TraceIdText,
    SpanId,
    SpanIdText,
    ParentSpanId,
    ParentSpanIdText,
    TraceState,
    StartTime,
    EndTime,
    StartNanos,
    EndNanos,
    DroppedAttributes,
    DroppedEvents,
    DroppedLinks,
    EventName,
    EventTime,
    EventNanos,
}

/// Fields by name.
type Fields = &'static [(&'static str, Field)];

const SCOPE_FIELDS: Fields = &[("name", Field::ScopeName), ("version", Field::ScopeVersion)];

const SPAN_FIELDS: Fields = &[
    ("name", Field::Name),
    ("kind", Field::Kind),
    ("status.code", Field::StatusCode),
    ("status.message", Field::StatusMessage),
    ("trace_id", Field::TraceId),
    ("trace_id.string", Field::TraceIdText),
    ("span_id", Field::SpanId),
    ("span_id.string", Field::SpanIdText),
    ("parent_span_id", Field::ParentSpanId),
    ("parent_span_id.string", Field::ParentSpanIdText),
    ("trace_state", Field::TraceState),
    ("start_time", Field::StartTime),
    ("end_time", Field::EndTime),
    ("start_time_unix_nano", Field::StartNanos),
    ("end_time_unix_nano", Field::EndNanos),
    ("dropped_attributes_count", Field::DroppedAttributes),
    ("dropped_events_count", Field::DroppedEvents),
    ("dropped_links_count", Field::DroppedLinks),
];

const EVENT_FIELDS: Fields = &[
    ("name", Field::EventName),
    ("time", Field::EventTime),
    ("time_unix_nano", Field::EventNanos),
];

/// The prefixes, and what stands behind them.
const OWNERS: &[(&str, Owner, Fields)] = &[
    ("resource", Owner::Resource, &[]),
    ("scope", Owner::Scope, SCOPE_FIELDS),
    ("instrumentation_scope", Owner::Scope, SCOPE_FIELDS),
    ("span", Owner::Span, SPAN_FIELDS),
    ("spanevent", Owner::Event, EVENT_FIELDS),
];

impl Path {
    /// The path of this dotted name and these keys, or what is wrong with it.
    pub fn new(name: &str, keys: Vec<Key>, context: Context) -> Result<Self, String> {
        let (prefix, rest) = name.split_once('.').unwrap_or((name, ""));
        let prefixed = OWNERS.iter().find(|(known, ..)| *known == prefix);
        let unprefixed = match context {
            Context::Inferred => None,
            Context::Span => Some((Owner::Span, SPAN_FIELDS)),
            Context::Event => Some((Owner::Event, EVENT_FIELDS)),
        };
        let (owner, fields, name) = match (prefixed, unprefixed) {
            (Some((_, owner, fields)), _) => (*owner, *fields, rest),
            (None, Some((owner, fields))) => (owner, fields, name),
            (None, None) => {
                let known = OWNERS.iter().map(|(known, ..)| *known);
                let hint = did_you_mean(prefix, known);
                return Err(format!(
                    "\"{name}\" must begin with resource, scope, span or spanevent{hint}"
                ));
            }
        };
        if name == "attributes" {
            if keys.is_empty() {
                return Err("attributes need a key, as in attributes[\"key\"]".to_owned());
            }
            return Ok(Self::Attribute(owner, keys));
        }
        let field = fields.iter().find(|(known, _)| *known == name);
        let Some((_, field)) = field else {
            let known = fields.iter().map(|(known, _)| *known);
            let hint = did_you_mean(name, known.chain(["attributes"]));
            return Err(format!("unknown path \"{name}\"{hint}"));
        };
        if keys.is_empty() {
            Ok(Self::Field(*field))
        } else {
            Err(format!("\"{name}\" takes no key"))
        }
    }

    /// Whether it is about an event.
    pub fn is_about_event(&self) -> bool {
        match self {
            Self::Attribute(owner, _) => *owner == Owner::Event,
            Self::Field(field) => EVENT_FIELDS.iter().any(|(_, known)| known == field),
        }
    }

    /// What stands there.
    pub fn value<'a>(&self, subject: Subject<'a>) -> Result<Value<'a>, Unanswerable> {
        match self {
            Self::Field(field) => field.value(subject),
            Self::Attribute(owner, keys) => {
                let attributes = match owner {
                    Owner::Resource => subject.origin.resource,
                    Owner::Scope => &subject.origin.scope.attributes,
                    Owner::Span => &subject.span.attributes,
                    Owner::Event => &event(subject)?.attributes,
                };
                let mut keys = keys.iter();
                let first = keys.next().and_then(|key| entry(attributes, key));
                Ok(keys.fold(first, |value, key| step(value?, key)).into())
            }
        }
    }
}

fn event(subject: Subject<'_>) -> Result<&crate::proto::trace::v1::span::Event, Unanswerable> {
    subject
        .event
        .ok_or(Unanswerable(Cow::Borrowed("there is no event here")))
}

fn entry<'a>(entries: &'a [KeyValue], key: &Key) -> Option<&'a Attribute> {
    match key {
        Key::Name(name) => attribute::find(entries, name),
        Key::Index(_) => None,
    }
}

fn step<'a>(value: &'a Attribute, key: &Key) -> Option<&'a Attribute> {
    let item = |value: &'a AnyValue| value.value.as_ref();
    match (value, key) {
        (Attribute::KvlistValue(map), key) => entry(&map.values, key),
        (Attribute::ArrayValue(list), Key::Index(index)) => list.values.get(*index).and_then(item),
        _ => None,
    }
}

impl Field {
    fn value(self, subject: Subject<'_>) -> Result<Value<'_>, Unanswerable> {
        let (span, scope) = (subject.span, subject.origin.scope);
        let text = |text| Value::Str(Cow::Borrowed(text));
        let status = span.status.as_ref();
        Ok(match self {
            Self::ScopeName => text(&scope.name),
            Self::ScopeVersion => text(&scope.version),
            Self::Name => text(&span.name),
            Self::Kind => Value::Int(span.kind.into()),
            Self::StatusCode => Value::Int(status.map_or(0, |status| status.code.into())),
            Self::StatusMessage => text(status.map_or("", |status| &status.message)),
            Self::TraceId => Value::Bytes(Cow::Borrowed(&span.trace_id)),
            Self::SpanId => Value::Bytes(Cow::Borrowed(&span.span_id)),
            Self::ParentSpanId => Value::Bytes(Cow::Borrowed(&span.parent_span_id)),
            Self::TraceIdText => Value::Str(Cow::Owned(hex(&span.trace_id))),
            Self::SpanIdText => Value::Str(Cow::Owned(hex(&span.span_id))),
            Self::ParentSpanIdText => Value::Str(Cow::Owned(hex(&span.parent_span_id))),
            Self::TraceState => text(&span.trace_state),
            Self::StartTime => Value::Time(span.start_time_unix_nano.into()),
            Self::EndTime => Value::Time(span.end_time_unix_nano.into()),
            Self::StartNanos => nanos(span.start_time_unix_nano),
            Self::EndNanos => nanos(span.end_time_unix_nano),
            Self::DroppedAttributes => Value::Int(span.dropped_attributes_count.into()),
            Self::DroppedEvents => Value::Int(span.dropped_events_count.into()),
            Self::DroppedLinks => Value::Int(span.dropped_links_count.into()),
            Self::EventName => text(&event(subject)?.name),
            Self::EventTime => Value::Time(event(subject)?.time_unix_nano.into()),
            Self::EventNanos => nanos(event(subject)?.time_unix_nano),
        })
    }
}

fn nanos(nanos: u64) -> Value<'static> {
    Value::Int(i64::try_from(nanos).unwrap_or(i64::MAX))
}
