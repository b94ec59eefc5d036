//! Settings of the `span_linker` processor and their defaults.

use serde::{Deserialize, Deserializer};
use std::time::Duration;

/// Settings of the `span_linker` processor.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long a finished span waits for the spans that tell its parent.
    #[serde(deserialize_with = "duration")]
    pub decision_wait: Duration,
    /// Most spans known at once: open, waiting and remembered together.
    pub max_spans: usize,
    /// A parent less likely than this is not given.
    pub confidence_floor: f64,
    /// How long an exported span is remembered for the sake of late children.
    #[serde(deserialize_with = "duration")]
    pub remember: Duration,
    /// How long a request may stay open before it is forgotten.
    #[serde(deserialize_with = "duration")]
    pub open_limit: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            decision_wait: Duration::from_secs(2),
            max_spans: 200_000,
            confidence_floor: 0.8,
            remember: Duration::from_mins(1),
            open_limit: Duration::from_mins(10),
        }
    }
}

impl Config {
    /// Says what is wrong with the settings, if anything is.
    pub fn validate(&self) -> Result<(), String> {
        if self.max_spans == 0 {
            return Err("max_spans must be above 0".to_owned());
        }
        if !(0.0..=1.0).contains(&self.confidence_floor) {
            return Err("confidence_floor must be between 0 and 1".to_owned());
        }
        Ok(())
    }
}

/// Reads `300ms`, `2s`, `1m30s` as Go writes durations.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).ok_or_else(|| {
        serde::de::Error::custom(format!("{text:?} is not a duration such as 2s or 300ms"))
    })
}

fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        total = total.checked_add(part)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let cases = [
            ("2s", Some(2000)),
            ("300ms", Some(300)),
            ("1m30s", Some(90_000)),
            ("1.5s", Some(1500)),
            ("0", Some(0)),
            ("", None),
            ("2", None),
            ("s", None),
            ("2 s", None),
        ];
        for (text, millis) in cases {
            assert_eq!(
                parse_duration(text),
                millis.map(Duration::from_millis),
                "{text}"
            );
        }
    }

    #[test]
    fn settings_left_out_have_defaults_and_unknown_ones_are_refused() {
        let config: Config = serde_json::from_str(r#"{"decision_wait":"5s"}"#).unwrap();
        assert_eq!(
            config,
            Config {
                decision_wait: Duration::from_secs(5),
                ..Config::default()
            }
        );
        assert!(serde_json::from_str::<Config>(r#"{"decision_weight":"5s"}"#).is_err());
        assert!(
            Config {
                confidence_floor: 1.5,
                ..Config::default()
            }
            .validate()
            .is_err()
        );
        assert!(Config::default().validate().is_ok());
    }
}
