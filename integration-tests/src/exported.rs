//! Spans as the `file` exporter wrote them, and the collector's closing summary.
//!
//! Read with `serde_json` and nothing of the product, so that product and test cannot err alike.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Attributes by key; numbers are numbers, whatever OTLP/JSON makes of them.
pub type Attributes = BTreeMap<String, Value>;

/// One exported span.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Hexadecimal digits.
    pub trace_id: String,
    /// Hexadecimal digits.
    pub span_id: String,
    /// Hexadecimal digits; empty for a root.
    pub parent_span_id: String,
    /// `server`, `client` or what else OTLP knows.
    pub kind: &'static str,
    /// Span name.
    pub name: String,
    /// Unix nanoseconds.
    pub start_ns: u64,
    /// Unix nanoseconds.
    pub end_ns: u64,
    /// W3C trace flags.
    pub flags: u64,
    /// 0 unset, 1 ok, 2 error.
    pub status: u64,
    /// What the status says.
    pub status_message: String,
    /// Attributes of the span.
    pub attributes: Attributes,
    /// Attributes of the resource.
    pub resource: Arc<Attributes>,
    /// Name and version of the scope.
    pub scope: (String, String),
}

impl Span {
    /// `service.name` of the resource.
    pub fn service(&self) -> &str {
        text_of(&self.resource, "service.name")
    }

    /// `process.pid` of the resource.
    pub fn pid(&self) -> u64 {
        self.resource
            .get("process.pid")
            .and_then(Value::as_u64)
            .unwrap_or(0)
    }

    /// An attribute that is a text; empty when it is not there.
    pub fn text(&self, key: &str) -> &str {
        text_of(&self.attributes, key)
    }

    /// An attribute that is a whole number.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.attributes.get(key).and_then(Value::as_u64)
    }

    /// A SERVER span of whoever listens on that port.
    pub fn is_served_at(&self, port: u16) -> bool {
        self.kind == "server" && self.number("server.port") == Some(port.into())
    }
}

fn text_of<'a>(attributes: &'a Attributes, key: &str) -> &'a str {
    attributes
        .get(key)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Reads a file of OTLP/JSON lines.
pub fn read_file(path: &Path) -> Result<Vec<Span>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut spans = Vec::new();
    for line in text.lines() {
        let request: Value = serde_json::from_str(line)
            .with_context(|| format!("a line of {} is not JSON: {line}", path.display()))?;
        read_request(&request, &mut spans)?;
    }
    Ok(spans)
}

/// Reads what Jaeger's `/api/v3/traces` answers: one JSON value a chunk, OTLP/JSON as its `result`.
pub fn read_traces(text: &str) -> Result<Vec<Span>> {
    let mut spans = Vec::new();
    for chunk in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        let chunk = chunk.with_context(|| format!("Jaeger's answer is not JSON: {text}"))?;
        read_request(&chunk["result"], &mut spans)?;
    }
    Ok(spans)
}

fn read_request(request: &Value, spans: &mut Vec<Span>) -> Result<()> {
    for of_resource in items(request, "resourceSpans") {
        let resource = Arc::new(attributes(&of_resource["resource"])?);
        for of_scope in items(of_resource, "scopeSpans") {
            let word = |key: &str| string(&of_scope["scope"], key);
            let scope = (word("name"), word("version"));
            for one in items(of_scope, "spans") {
                spans.push(span(one, &resource, &scope)?);
            }
        }
    }
    Ok(())
}

fn span(from: &Value, resource: &Arc<Attributes>, scope: &(String, String)) -> Result<Span> {
    let kinds = ["", "internal", "server", "client", "producer", "consumer"];
    let kind = from["kind"]
        .as_u64()
        .and_then(|kind| usize::try_from(kind).ok());
    let time = |key: &str| -> Result<u64> {
        let time = from[key].as_str().and_then(|digits| digits.parse().ok());
        time.with_context(|| format!("{key} of {from}"))
    };
    Ok(Span {
        trace_id: string(from, "traceId"),
        span_id: string(from, "spanId"),
        parent_span_id: string(from, "parentSpanId"),
        kind: kind
            .and_then(|kind| kinds.get(kind))
            .context("a span has a kind")?,
        name: string(from, "name"),
        start_ns: time("startTimeUnixNano")?,
        end_ns: time("endTimeUnixNano")?,
        flags: from["flags"].as_u64().unwrap_or(0),
        status: from["status"]["code"].as_u64().unwrap_or(0),
        status_message: string(&from["status"], "message"),
        attributes: attributes(from)?,
        resource: Arc::clone(resource),
        scope: scope.clone(),
    })
}

fn items<'a>(of: &'a Value, key: &str) -> &'a [Value] {
    of[key].as_array().map_or(&[], Vec::as_slice)
}

fn string(of: &Value, key: &str) -> String {
    of[key].as_str().unwrap_or_default().to_owned()
}

fn attributes(of: &Value) -> Result<Attributes> {
    let mut attributes = Attributes::new();
    for pair in items(of, "attributes") {
        let (key, value) = (string(pair, "key"), plain(&pair["value"])?);
        let twice = attributes.insert(key.clone(), value);
        ensure!(twice.is_none(), "{key} is there twice in {of}");
    }
    Ok(attributes)
}

/// `{"intValue": "5"}` is 5.
fn plain(value: &Value) -> Result<Value> {
    let Some((kind, inner)) = value.as_object().and_then(|object| object.iter().next()) else {
        return Ok(Value::Null);
    };
    Ok(match kind.as_str() {
        "intValue" => {
            let digits = inner.as_str().context("an int64 is a text in OTLP/JSON")?;
            digits.parse::<i64>()?.into()
        }
        "arrayValue" => items(inner, "values")
            .iter()
            .map(plain)
            .collect::<Result<_>>()?,
        _ => inner.clone(),
    })
}

/// The collector's last words: every metric that is not zero.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    samples: Vec<(String, HashMap<String, String>, f64)>,
}

impl Summary {
    /// Reads what follows the line `summary:`: samples are indented, headings are not.
    pub fn read(lines: &[String]) -> Result<Self> {
        let start = lines.iter().position(|line| line.starts_with("summary:"));
        let start = start.context("the collector said no summary")?;
        let lines = lines.iter().skip(start + 1);
        let samples = lines
            .filter(|line| line.starts_with("  "))
            .map(|line| sample(line.trim()).with_context(|| format!("{line:?} of the summary")));
        Ok(Self {
            samples: samples.collect::<Result<_>>()?,
        })
    }

    /// The sum of all series of a metric that have these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let wanted = self.samples.iter().filter(|(known, has, _)| {
            let has_label =
                |(key, value): &(&str, &str)| has.get(*key).is_some_and(|is| is == value);
            known == name && labels.iter().all(has_label)
        });
        let sum: f64 = wanted.map(|(.., value)| value).sum();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counters are whole numbers from 0"
        )]
        let sum = sum as u64;
        sum
    }
}

fn sample(line: &str) -> Option<(String, HashMap<String, String>, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let mut known = HashMap::new();
    for pair in labels
        .strip_suffix('}')?
        .split("\",")
        .filter(|pair| !pair.is_empty())
    {
        let (key, value) = pair.split_once("=\"")?;
        known.insert(key.to_owned(), value.trim_end_matches('"').to_owned());
    }
    Some((name.to_owned(), known, value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_read_and_summed_by_labels() -> Result<()> {
        let lines = [
            "ready",
            "summary: 43 spans in 3 traces",
            "lost: nothing",
            "counters:",
            "  a 3",
            "  b{cpu=\"0\",reason=\"x\"} 1",
            "  b{cpu=\"1\",reason=\"x\"} 2",
            "  b{cpu=\"1\",reason=\"y\"} 40",
        ];
        let summary = Summary::read(&lines.map(str::to_owned))?;
        assert_eq!(summary.sum("a", &[]), 3);
        assert_eq!(summary.sum("b", &[]), 43);
        assert_eq!(summary.sum("b", &[("reason", "x")]), 3);
        assert_eq!(summary.sum("b", &[("reason", "x"), ("cpu", "1")]), 2);
        assert_eq!(summary.sum("c", &[]), 0);
        assert!(Summary::read(&[]).is_err());
        Ok(())
    }
}
