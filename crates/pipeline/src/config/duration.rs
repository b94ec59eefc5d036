//! Durations as Go writes them (`200ms`, `1m30s`): a field of type [`Duration`] with
//! `#[serde(with = "duration")]` and `#[schemars(with = "duration::Text")]`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Visitor};
use serde::ser::Serializer;
use std::borrow::Cow;
use std::fmt::{self, Write};
use std::time::Duration;

/// Units in Go's order of preference; `µs` is accepted in both spellings.
const UNITS: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a field of type [`Duration`].
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_str(DurationVisitor)
}

/// Writes it as it is read, for the default values in the schema.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(*duration))
}

/// As Go writes it: `0s`, `200ms`, `1m30s`.
fn text(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for unit in ["h", "m", "s", "ms", "us", "ns"] {
        let nanos = UNITS.iter().find(|(name, _)| *name == unit);
        let nanos = nanos.map_or(1, |(_, nanos)| *nanos);
        if rest >= nanos {
            // A String takes everything.
            let _ = write!(text, "{}{unit}", rest / nanos);
            rest %= nanos;
        }
    }
    if text.is_empty() {
        text.push_str("0s");
    }
    text
}

/// A duration as the configuration has it, for the schema.
#[derive(Debug)]
pub enum Text {}

impl JsonSchema for Text {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // A number without a unit is 0 or an error.
        json_schema!({
            "type": ["string", "integer"],
            "pattern": "^\\+?(0|(([0-9]+\\.?[0-9]*|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$",
            "minimum": 0,
            "maximum": 0,
        })
    }
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as 200ms or 1m30s")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        parse(text).ok_or_else(|| {
            E::custom(format!(
                "expected a duration such as 200ms or 1m30s, got \"{text}\""
            ))
        })
    }
}

/// Reads one duration; negative ones are refused, since no setting has a use for them.
pub fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number_len = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at_checked(number_len)?;
        let unit_len = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(unit_len)?;
        let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(term(number, *nanos)?)?;
        rest = tail;
    }
    Some(total)
}

fn term(number: &str, unit_nanos: u64) -> Option<Duration> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let mut nanos = whole.checked_mul(unit_nanos)?;
    let mut scale = unit_nanos;
    for digit in fraction.chars() {
        scale /= 10;
        nanos = nanos.checked_add(scale.checked_mul(digit.to_digit(10)?.into())?)?;
    }
    Some(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_read() {
        let cases = [
            ("200ms", 200_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("2µs", 2_000),
            ("1h2m3s4ms5us6ns", 3_723_004_005_006),
            ("0", 0),
        ];
        for (text, nanos) in cases {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(parse(text), Some(duration), "{text}");
            assert_eq!(parse(&super::text(duration)), Some(duration), "{text}");
        }
        assert_eq!(text(Duration::from_millis(90_200)), "1m30s200ms");
        assert_eq!(text(Duration::ZERO), "0s");
    }

    #[test]
    fn nonsense_is_no_duration() {
        for text in [
            "",
            "5",
            "s",
            "-1s",
            "1 s",
            "1d",
            "1.2.3s",
            "99999999999999h",
            "é",
            "1é",
            ".",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
