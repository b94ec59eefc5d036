//! Settings of the `span_linker` processor and their defaults.

use pipeline::component::{Check, Settings};
use pipeline::config::duration;
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// Settings of the `span_linker` processor.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// How long a finished span waits for the spans that tell its parent.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub decision_wait: Duration,
    /// Most spans known at once: open, waiting and remembered together.
    pub max_spans: usize,
    /// A parent less likely than this is not given.
    pub confidence_floor: f64,
    /// What becomes of a call whose likeliest parent is below the floor.
    pub below_floor: BelowFloor,
    /// Parents are also told by whose turn it is in event loops that read ahead.
    pub queue_order: bool,
    /// Parents are also told by timing and sequence, where nothing surer tells and it is measured
    /// that this tells requests apart.
    pub timing: bool,
    /// How long an exported span is remembered for the sake of late children.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub remember: Duration,
    /// How long a request may stay open before it is forgotten.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub open_limit: Duration,
}

/// What becomes of a call whose likeliest parent is below the floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BelowFloor {
    /// It is a root.
    Root,
    /// It is a root with a span link to that parent.
    Link,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            decision_wait: Duration::from_secs(2),
            max_spans: 200_000,
            confidence_floor: 0.8,
            below_floor: BelowFloor::Root,
            queue_order: true,
            timing: true,
            remember: Duration::from_mins(1),
            open_limit: Duration::from_mins(10),
        }
    }
}

impl Settings for Config {
    fn check(&self, check: &mut Check<'_>) {
        if self.max_spans == 0 {
            check.error("max_spans", "must be above 0");
        }
        if !(0.0..=1.0).contains(&self.confidence_floor) {
            check.error("confidence_floor", "must be between 0 and 1");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::component::Factories;
    use pipeline::config::report::Report;
    use pipeline::config::{decode, node};

    /// The settings, as the pipeline reads them.
    fn read(yaml: &str) -> Option<Config> {
        let mut report = Report::default();
        let node = node::parse("test.yaml", yaml, &mut report)?;
        let config = decode(&node, "span_linker", &mut report);
        config.filter(|_| report.errors.is_empty())
    }

    /// What the pipeline says of the settings.
    fn findings(yaml: &str) -> Vec<String> {
        let factories = Factories {
            receivers: &[],
            processors: &[crate::FACTORY],
            exporters: &[],
            extensions: &[],
        };
        let yaml = format!("processors: {{span_linker: {yaml}}}");
        let files = [("test.yaml", yaml.as_str())];
        let error = pipeline::Config::parse(&files, &factories, &|_| None).unwrap_err();
        let said = error.findings.into_iter();
        said.filter_map(|finding| {
            let path = finding.path.strip_prefix("processors::span_linker::")?;
            Some(format!("{path}: {}", finding.message))
        })
        .collect()
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let cases = [
            ("2s", Some(2000)),
            ("300ms", Some(300)),
            ("1m30s", Some(90_000)),
            ("1.5s", Some(1500)),
            ("0", Some(0)),
            ("''", None),
            ("2", None),
            ("s", None),
            ("2 s", None),
        ];
        for (text, millis) in cases {
            let config = read(&format!("decision_wait: {text}"));
            assert_eq!(
                config.map(|config| config.decision_wait),
                millis.map(Duration::from_millis),
                "{text}"
            );
        }
    }

    #[test]
    fn settings_left_out_have_defaults_and_unknown_ones_are_refused() {
        assert_eq!(
            read("decision_wait: 5s"),
            Some(Config {
                decision_wait: Duration::from_secs(5),
                ..Config::default()
            })
        );
        assert_eq!(read(""), Some(Config::default()));
        assert_eq!(
            findings("{decision_weight: 5s}"),
            ["decision_weight: unknown key, did you mean \"decision_wait\"?"]
        );
    }

    #[test]
    fn values_that_cannot_work_are_refused() {
        assert_eq!(
            findings("{confidence_floor: 1.5, max_spans: 0}"),
            [
                "confidence_floor: must be between 0 and 1",
                "max_spans: must be above 0"
            ]
        );
        assert!(findings("{confidence_floor: 1, max_spans: 1}").is_empty());
    }
}
