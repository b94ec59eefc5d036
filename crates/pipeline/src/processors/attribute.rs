//! Looking up, changing and comparing attributes.

use crate::proto::common::v1::any_value::Value;
use crate::proto::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use base64::Engine as _;
use schemars::JsonSchema;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// The value of an attribute; None: it is not there or empty.
pub(super) fn find<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    attribute.value.as_ref()?.value.as_ref()
}

/// Sets an attribute, in its place if it is there already.
pub(super) fn set(attributes: &mut Vec<KeyValue>, key: &str, value: Value) {
    let value = Some(AnyValue { value: Some(value) });
    match attributes.iter_mut().find(|attribute| attribute.key == key) {
        Some(attribute) => attribute.value = value,
        None => attributes.push(KeyValue {
            key: key.to_owned(),
            value,
            ..KeyValue::default()
        }),
    }
}

/// A text value.
pub(super) fn string(text: impl Into<String>) -> Value {
    Value::StringValue(text.into())
}

/// Bytes as lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The value as text, as the Collector writes it (pdata `AsString`): lists and maps as JSON,
/// bytes as base64.
pub(super) fn text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::StringValue(text) => Cow::Borrowed(text),
        Value::BoolValue(truth) => Cow::Owned(truth.to_string()),
        Value::IntValue(number) => Cow::Owned(number.to_string()),
        Value::DoubleValue(number) => Cow::Owned(double_text(*number)),
        Value::BytesValue(bytes) => {
            Cow::Owned(base64::engine::general_purpose::STANDARD.encode(bytes))
        }
        Value::ArrayValue(_) | Value::KvlistValue(_) => Cow::Owned(json(value).to_string()),
        Value::StringValueStrindex(_) => Cow::Borrowed(""),
    }
}

/// As Go's JSON does: no exponent between 1e-6 and 1e21.
fn double_text(number: f64) -> String {
    let size = number.abs();
    if size == 0.0 || (1e-6..1e21).contains(&size) || !size.is_finite() {
        return number.to_string();
    }
    let text = format!("{number:e}");
    match text.split_once('e') {
        Some((digits, power)) if !power.starts_with('-') => format!("{digits}e+{power}"),
        _ => text,
    }
}

fn json(value: &Value) -> serde_json::Value {
    let inner = |value: &Option<AnyValue>| {
        let value = value.as_ref().and_then(|value| value.value.as_ref());
        value.map_or(serde_json::Value::Null, json)
    };
    match value {
        Value::BoolValue(truth) => (*truth).into(),
        Value::IntValue(number) => (*number).into(),
        Value::DoubleValue(number) => (*number).into(),
        Value::ArrayValue(list) => {
            let values = list.values.iter();
            values.map(|value| inner(&Some(value.clone()))).collect()
        }
        Value::KvlistValue(map) => {
            let entries = map.values.iter();
            let entries = entries.map(|entry| (entry.key.clone(), inner(&entry.value)));
            serde_json::Value::Object(entries.collect())
        }
        other => text(other).into_owned().into(),
    }
}

/// A value as a configuration has it: its type is what it looks like, text in quotes is text.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(transparent)]
pub(super) struct Literal(#[schemars(with = "serde_json::Value")] pub Value);

impl<'de> Deserialize<'de> for Literal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LiteralVisitor)
    }
}

struct LiteralVisitor;

impl<'de> Visitor<'de> for LiteralVisitor {
    type Value = Literal;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Literal, E> {
        Ok(Literal(Value::BoolValue(truth)))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Literal, E> {
        Ok(Literal(Value::IntValue(number)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Literal, E> {
        let number = i64::try_from(number)
            .map_err(|_| E::custom(format!("{number} is above what an attribute can hold")))?;
        self.visit_i64(number)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Literal, E> {
        Ok(Literal(Value::DoubleValue(number)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Literal, E> {
        Ok(Literal(string(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Literal, A::Error> {
        let mut values = Vec::new();
        while let Some(Literal(value)) = items.next_element()? {
            values.push(AnyValue { value: Some(value) });
        }
        Ok(Literal(Value::ArrayValue(ArrayValue { values })))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Literal, A::Error> {
        let mut values = Vec::new();
        while let Some((key, Literal(value))) = entries.next_entry::<String, Literal>()? {
            set(&mut values, &key, value);
        }
        Ok(Literal(Value::KvlistValue(KeyValueList { values })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_the_collector_writes_them() {
        let list = Value::ArrayValue(ArrayValue {
            values: vec![
                AnyValue {
                    value: Some(string("a\"b")),
                },
                AnyValue { value: None },
                AnyValue {
                    value: Some(Value::IntValue(7)),
                },
            ],
        });
        let mut entries = Vec::new();
        set(&mut entries, "list", list.clone());
        set(&mut entries, "half", Value::DoubleValue(0.5));
        let cases = [
            (string("x"), "x"),
            (Value::BoolValue(true), "true"),
            (Value::IntValue(-3), "-3"),
            (Value::DoubleValue(2.0), "2"),
            (Value::DoubleValue(1.5e30), "1.5e+30"),
            (Value::DoubleValue(1e-7), "1e-7"),
            (Value::BytesValue(vec![1, 2, 255]), "AQL/"),
            (list, r#"["a\"b",null,7]"#),
            (
                Value::KvlistValue(KeyValueList { values: entries }),
                r#"{"half":0.5,"list":["a\"b",null,7]}"#,
            ),
        ];
        for (value, expected) in cases {
            assert_eq!(text(&value), expected);
        }
    }
}
