//! Keeps what a linker sees of live traffic, with the truth, in the form that
//! `deeptrace-span-linker evaluate` reads: one JSON object a span and a line.
//!
//! Set `DEEPTRACE_LIVE_RECORD` to a folder, and every run leaves `RUNTIME-IN_FLIGHT.jsonl` there.

use std::collections::HashMap;
use std::env;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Round;
use super::truth::Truth;
use crate::exported::Span;

/// Where recordings are to be kept, if they are.
pub(super) fn folder() -> Option<PathBuf> {
    env::var_os("DEEPTRACE_LIVE_RECORD").map(PathBuf::from)
}

/// Writes the spans of each round's server, which went through no linker: `raw`. `linked` are the
/// same spans linked, by which the truth is known.
pub(super) fn record(raw: &[Span], linked: &[Span], truth: &Truth, rounds: &[Round]) -> Result<()> {
    let Some(folder) = folder() else {
        return Ok(());
    };
    fs::create_dir_all(&folder)?;
    let mut numbers = HashMap::new();
    let mut requests = HashMap::new();
    for (span, port, number) in truth.assign(linked) {
        numbers.insert(&*span.span_id, number);
        numbers.insert(&*span.parent_span_id, number);
        requests.insert((port, number), &*span.span_id);
    }
    for round in rounds {
        let name = round.server.runtime.name.replace(' ', "-");
        let path = folder.join(format!("{name}-{}.jsonl", round.level.in_flight));
        let context = || path.display().to_string();
        let mut file = fs::File::create(&path).with_context(context)?;
        for span in raw {
            let Some(number) = numbers.get(&*span.span_id) else {
                continue;
            };
            let port = round.server.port;
            let served = span.is_served_at(port);
            let called = span.kind == "client" && round.numbers.contains(number);
            if called && span.number("server.port") != Some(port.into()) || served {
                let parent = requests.get(&(port, *number)).copied();
                writeln!(file, "{}", line(span, *number, parent)).with_context(context)?;
            }
        }
    }
    Ok(())
}

fn line(span: &Span, number: u64, parent: Option<&str>) -> Value {
    let fact = |name: &str| span.attributes.get(&format!("deeptrace.fact.{name}"));
    let is_true = |name| fact(name).is_some_and(|value| value.as_bool() == Some(true));
    let number_of = |name| fact(name).and_then(Value::as_u64).unwrap_or(0);
    let polls = ["request_polls", "response_polls", "connected_polls"].map(number_of);
    let connected_before_ns = number_of("connected_before_ns");
    let is_call = span.kind == "client";
    let port = span.number("server.port").unwrap_or(0);
    json!({
        "t": number.to_string(),
        "s": "server",
        "d": if is_call { "out" } else { "in" },
        "p": port.to_string(),
        "o": format!("{} {}", span.name, span.text("url.path")),
        "a": span.start_ns,
        "b": span.end_ns,
        "i": span.span_id,
        "g": parent.filter(|_| is_call),
        "tid_req": number_of("request_tid"),
        "tid_resp": number_of("response_tid"),
        "after": fact("after"),
        "told_by": fact("told_by"),
        "freed": is_true("freed"),
        "woken_after": fact("woken_after"),
        "woken_first": is_true("woken_first"),
        "polls": polls,
        "connected_before_ns": connected_before_ns,
        "serving": fact("serving"),
        "connected_after": fact("connected_after"),
    })
}
