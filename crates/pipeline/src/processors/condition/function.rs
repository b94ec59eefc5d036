//! The functions of OTTL that a condition may use (contrib `pkg/ottl/ottlfuncs`).

use super::value::Value;
use super::{Subject, Unanswerable};
use crate::config::duration;
use crate::proto::common::v1::any_value::Value as Attribute;
use std::borrow::Cow;

/// A function; `IsMatch` is not here, since its pattern is compiled once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    IsRootSpan,
    HasPrefix,
    HasSuffix,
    IsString,
    IsBool,
    IsInt,
    IsDouble,
    IsList,
    IsMap,
    ContainsValue,
    Index,
    Len,
    ToLowerCase,
    ToUpperCase,
    Int,
    Double,
    String,
    Duration,
    Nanoseconds,
    Microseconds,
    Milliseconds,
    Seconds,
    Minutes,
    Hours,
}

/// Name, number of arguments, whether the answer is yes or no.
const FUNCTIONS: &[(&str, usize, bool, Function)] = &[
    ("IsRootSpan", 0, true, Function::IsRootSpan),
    ("HasPrefix", 2, true, Function::HasPrefix),
    ("HasSuffix", 2, true, Function::HasSuffix),
    ("IsString", 1, true, Function::IsString),
    ("IsBool", 1, true, Function::IsBool),
    ("IsInt", 1, true, Function::IsInt),
    ("IsDouble", 1, true, Function::IsDouble),
    ("IsList", 1, true, Function::IsList),
    ("IsMap", 1, true, Function::IsMap),
    ("ContainsValue", 2, true, Function::ContainsValue),
    ("Index", 2, false, Function::Index),
    ("Len", 1, false, Function::Len),
    ("ToLowerCase", 1, false, Function::ToLowerCase),
    ("ToUpperCase", 1, false, Function::ToUpperCase),
    ("Int", 1, false, Function::Int),
    ("Double", 1, false, Function::Double),
    ("String", 1, false, Function::String),
    ("Duration", 1, false, Function::Duration),
    ("Nanoseconds", 1, false, Function::Nanoseconds),
    ("Microseconds", 1, false, Function::Microseconds),
    ("Milliseconds", 1, false, Function::Milliseconds),
    ("Seconds", 1, false, Function::Seconds),
    ("Minutes", 1, false, Function::Minutes),
    ("Hours", 1, false, Function::Hours),
];

/// Names, for messages.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|(name, ..)| *name).chain(["IsMatch"])
}

impl Function {
    pub fn named(name: &str) -> Option<Self> {
        let found = FUNCTIONS.iter().find(|(known, ..)| *known == name)?;
        Some(found.3)
    }

    fn entry(self) -> (&'static str, usize, bool) {
        let found = FUNCTIONS.iter().find(|(.., function)| *function == self);
        found.map_or(("", 0, false), |(name, arguments, asks, _)| {
            (name, *arguments, *asks)
        })
    }

    pub fn argument_count(self) -> usize {
        self.entry().1
    }

    /// Whether the answer is yes or no, so that it can stand as a condition.
    pub fn asks(self) -> bool {
        self.entry().2
    }

    pub fn call<'a>(
        self,
        arguments: &[Value<'a>],
        subject: Subject<'a>,
    ) -> Result<Value<'a>, Unanswerable> {
        let first = arguments.first().unwrap_or(&Value::Nil);
        let second = arguments.get(1).unwrap_or(&Value::Nil);
        Ok(match self {
            Self::IsRootSpan => {
                Value::Bool(subject.span.parent_span_id.iter().all(|byte| *byte == 0))
            }
            Self::HasPrefix => Value::Bool(self.text(first)?.starts_with(self.text(second)?)),
            Self::HasSuffix => Value::Bool(self.text(first)?.ends_with(self.text(second)?)),
            Self::IsString => Value::Bool(matches!(first, Value::Str(_))),
            Self::IsBool => Value::Bool(matches!(first, Value::Bool(_))),
            Self::IsInt => Value::Bool(matches!(first, Value::Int(_))),
            Self::IsDouble => Value::Bool(matches!(first, Value::Float(_))),
            Self::IsList => Value::Bool(matches!(first, Value::Nested(Attribute::ArrayValue(_)))),
            Self::IsMap => Value::Bool(matches!(first, Value::Nested(Attribute::KvlistValue(_)))),
            Self::ContainsValue => Value::Bool(self.contains(first, second)?),
            Self::Index => {
                let at = self.text(first)?.find(self.text(second)?);
                Value::Int(at.map_or(-1, length))
            }
            Self::Len => Value::Int(length(self.len(first)?)),
            Self::ToLowerCase => Value::Str(Cow::Owned(self.text(first)?.to_lowercase())),
            Self::ToUpperCase => Value::Str(Cow::Owned(self.text(first)?.to_uppercase())),
            Self::Int => int(first),
            Self::Double => double(first),
            Self::String => match first.text() {
                Some(text) => Value::Str(Cow::Owned(text.into_owned())),
                None => Value::Nil,
            },
            Self::Duration => {
                let parsed = duration::parse(self.text(first)?);
                let parsed = parsed.ok_or_else(|| self.wants("a duration such as 1m30s", first))?;
                Value::Duration(i128::try_from(parsed.as_nanos()).unwrap_or(i128::MAX))
            }
            Self::Nanoseconds => self.whole_units(first, 1)?,
            Self::Microseconds => self.whole_units(first, 1_000)?,
            Self::Milliseconds => self.whole_units(first, 1_000_000)?,
            Self::Seconds => self.units(first, 1e9)?,
            Self::Minutes => self.units(first, 60e9)?,
            Self::Hours => self.units(first, 3600e9)?,
        })
    }

    fn wants(self, wanted: &str, value: &Value<'_>) -> Unanswerable {
        let (name, ..) = self.entry();
        Unanswerable(format!("{name} wants {wanted}, got {}", value.kind()).into())
    }

    fn text<'v>(self, value: &'v Value<'_>) -> Result<&'v str, Unanswerable> {
        match value {
            Value::Str(text) => Ok(text),
            other => Err(self.wants("a string", other)),
        }
    }

    fn contains(self, list: &Value<'_>, item: &Value<'_>) -> Result<bool, Unanswerable> {
        let Value::Nested(Attribute::ArrayValue(values)) = list else {
            return Err(self.wants("a list", list));
        };
        Ok(values.values.iter().any(|value| {
            let value = Value::from(value.value.as_ref());
            value.compare(super::value::Comparison::Equal, item)
        }))
    }

    fn len(self, value: &Value<'_>) -> Result<usize, Unanswerable> {
        match value {
            Value::Str(text) => Ok(text.len()),
            Value::Bytes(bytes) => Ok(bytes.len()),
            Value::Nested(Attribute::ArrayValue(list)) => Ok(list.values.len()),
            Value::Nested(Attribute::KvlistValue(map)) => Ok(map.values.len()),
            other => Err(self.wants("a string, list or map", other)),
        }
    }

    fn nanos(self, value: &Value<'_>) -> Result<i128, Unanswerable> {
        match value {
            Value::Duration(nanos) => Ok(*nanos),
            other => Err(self.wants("a duration", other)),
        }
    }

    fn whole_units(self, value: &Value<'_>, unit: i128) -> Result<Value<'static>, Unanswerable> {
        let units = self.nanos(value)? / unit;
        Ok(Value::Int(i64::try_from(units).unwrap_or(i64::MAX)))
    }

    #[expect(clippy::cast_precision_loss, reason = "OTTL gives float64 here")]
    fn units(self, value: &Value<'_>, unit: f64) -> Result<Value<'static>, Unanswerable> {
        Ok(Value::Float(self.nanos(value)? as f64 / unit))
    }
}

fn length(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

fn int(value: &Value<'_>) -> Value<'static> {
    match value {
        Value::Int(number) => Value::Int(*number),
        Value::Bool(truth) => Value::Int((*truth).into()),
        #[expect(clippy::cast_possible_truncation, reason = "OTTL cuts fractions off")]
        Value::Float(number) => Value::Int(*number as i64),
        Value::Str(text) => text.parse().map_or(Value::Nil, Value::Int),
        _ => Value::Nil,
    }
}

fn double(value: &Value<'_>) -> Value<'static> {
    match value {
        #[expect(clippy::cast_precision_loss, reason = "what a double is asked for")]
        Value::Int(number) => Value::Float(*number as f64),
        Value::Bool(truth) => Value::Float(f64::from(u8::from(*truth))),
        Value::Float(number) => Value::Float(*number),
        Value::Str(text) => text.parse().map_or(Value::Nil, Value::Float),
        _ => Value::Nil,
    }
}
