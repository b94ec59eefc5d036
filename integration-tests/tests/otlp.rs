//! Receivers that are not ours understand what the collector sends, as it wrote it into a file.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use integration_tests::backends::{python_package, start_rotel};
use integration_tests::collector::{self, Collector, Finished};
use integration_tests::compile::{home, target_dir};
use integration_tests::demo::{self, Demo, PROGRAMS};
use integration_tests::exported::Span;
use integration_tests::programs;
use integration_tests::sandbox::{Output, Process, Sandbox, free_ports};
use serde_json::{Value, json};

const REQUESTS: u64 = 30;
const LINE_LIMIT: Duration = Duration::from_secs(10);

fn skip(package: &str) -> bool {
    let there = python_package(package).is_some();
    let why = programs::why_not(&PROGRAMS)
        .or_else(collector::why_not)
        .or_else(|| {
            (!there)
                .then(|| format!("no {package} in target/venv; `cargo xtask setup` installs it"))
        });
    if let Some(why) = &why {
        println!("skipped: OTLP receivers of others: {why}");
    }
    why.is_some()
}

/// Runs the demo with a collector that also exports so.
fn observe(exporters: &str, names: &[&'static str]) -> Result<Finished> {
    let demo = Demo::start(&demo::Options::default())?;
    let options = collector::Options {
        ports: demo.ports.to_vec(),
        exporters: exporters.to_owned(),
        exporter_names: names.to_vec(),
        // Several exports, not all in one at the end.
        decision_wait: Some("300ms"),
        ..collector::Options::default()
    };
    let collector = Collector::start(demo.sandbox(), &options)?;
    for number in 1..=REQUESTS {
        demo.product(number)?;
        sleep(Duration::from_millis(20));
    }
    let finished = collector.stop()?;
    demo.stop()?;
    let said = finished.said.join("\n");
    ensure!(finished.status.success(), "{said}");
    ensure!(finished.spans.len() > 400, "{} spans", finished.spans.len());
    let lost = finished.summary.sum("deeptrace_lost_spans", &[]);
    ensure!(lost == 0, "{lost} spans are lost\n{said}");
    for name in names {
        let labels = [("exporter", *name)];
        let sent = finished.summary.sum("otelcol_exporter_sent_spans", &labels);
        ensure!(
            sent == finished.spans.len() as u64,
            "{name} sent {sent}\n{said}"
        );
    }
    Ok(finished)
}

/// A span as `otlp_receiver.py` says it.
fn as_said(span: &Span, transport: &str) -> Value {
    json!({
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "parent_span_id": span.parent_span_id,
        "kind": span.kind,
        "name": span.name,
        "start_unix_ns": span.start_ns,
        "end_unix_ns": span.end_ns,
        "flags": span.flags,
        "status": {"code": span.status, "message": span.status_message},
        "attributes": span.attributes,
        "scope": {"name": span.scope.0, "version": span.scope.1},
        "resource": *span.resource,
        "transport": transport,
    })
}

struct OtlpReceiver {
    process: Process,
    lines: Receiver<String>,
    grpc: u64,
    http: u64,
}

impl OtlpReceiver {
    fn start(sandbox: &Sandbox) -> Result<Self> {
        let mut command = Command::new(target_dir().canonicalize()?.join("venv/bin/python"));
        command.arg(home().join("otlp_receiver.py"));
        let mut process = sandbox.spawn("otlp-receiver", &command, Output::PipedOutput)?;
        let output = process.child.stdout.take().context("stdout is a pipe")?;
        let (send, lines) = mpsc::channel();
        // Ends with the process.
        thread::spawn(move || {
            BufReader::new(output)
                .lines()
                .map_while(Result::ok)
                .all(|line| send.send(line).is_ok())
        });
        let ports: Value = serde_json::from_str(&lines.recv_timeout(LINE_LIMIT)?)?;
        let port = |key: &str| ports[key].as_u64().context("a port is a number");
        Ok(Self {
            grpc: port("grpc")?,
            http: port("http")?,
            process,
            lines,
        })
    }

    /// So many spans, by transport and id.
    fn take(&mut self, count: usize) -> Result<BTreeMap<(String, String), Value>> {
        let mut spans = BTreeMap::new();
        for taken in 0..count {
            let line = self.lines.recv_timeout(LINE_LIMIT);
            let line = line.with_context(|| format!("{taken} spans came, not {count}"))?;
            let span: Value = serde_json::from_str(&line)?;
            let text = |key: &str| span[key].as_str().unwrap_or_default().to_owned();
            let twice = spans.insert((text("transport"), text("span_id")), span.clone());
            ensure!(twice.is_none(), "came twice: {span}");
        }
        // What is too much would be on its way still.
        self.process.stop()?;
        let more: Vec<_> = self.lines.iter().collect();
        ensure!(more.is_empty(), "{} more than {count} came", more.len());
        Ok(spans)
    }
}

fn check_receiver(compression: &str) -> Result<()> {
    if skip("opentelemetry") {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let mut receiver = OtlpReceiver::start(&sandbox)?;
    let (grpc, http) = (receiver.grpc, receiver.http);
    let exporters = format!(
        "  otlp_grpc:\n    endpoint: 127.0.0.1:{grpc}\n    compression: {compression}\n    \
         tls:\n      insecure: true\n  otlp_http:\n    endpoint: http://127.0.0.1:{http}\n    \
         compression: {compression}\n"
    );
    let finished = observe(&exporters, &["otlp_grpc", "otlp_http"])?;
    let received = receiver.take(2 * finished.spans.len())?;
    for span in &finished.spans {
        for transport in ["grpc", "http"] {
            let key = (transport.to_owned(), span.span_id.clone());
            let mut theirs = received.get(&key).cloned().context("a span did not come")?;
            let agent = theirs["user_agent"].as_str().unwrap_or_default();
            ensure!(agent.contains("deeptrace/"), "User-Agent {agent:?}");
            let schema = theirs["schema_url"].as_str().unwrap_or_default();
            ensure!(
                schema.starts_with("https://opentelemetry.io/schemas/"),
                "{schema:?}"
            );
            if let Some(fields) = theirs.as_object_mut() {
                fields.retain(|key, _| {
                    !["user_agent", "schema_url", "trace_state"].contains(&&**key)
                });
            }
            let ours = as_said(span, transport);
            ensure!(theirs == ours, "received {theirs:#}\nwritten {ours:#}");
        }
    }
    println!("{} spans, each over gRPC and HTTP", finished.spans.len());
    Ok(())
}

#[test]
fn a_receiver_of_others_gets_what_is_in_the_file() -> Result<()> {
    check_receiver("gzip")
}

#[test]
fn a_receiver_of_others_gets_what_is_in_the_file_uncompressed() -> Result<()> {
    check_receiver("none")
}

/// Rotel prints each span with its fields by line; what it prints is compared field by field.
#[test]
fn rotel_gets_what_is_in_the_file() -> Result<()> {
    if skip("rotel/rotel-agent") {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let [grpc, http] = free_ports()?;
    let mut rotel = start_rotel(&sandbox, None, "127.0.0.1", [grpc, http])?;
    let exporters =
        format!("  otlp_grpc:\n    endpoint: 127.0.0.1:{grpc}\n    tls:\n      insecure: true\n");
    let finished = observe(&exporters, &["otlp_grpc"])?;
    let deadline = Instant::now() + LINE_LIMIT;
    while rotel.logged().matches("Parent ID").count() < finished.spans.len()
        && Instant::now() < deadline
    {
        sleep(Duration::from_millis(50));
    }
    rotel.stop()?;
    let mut printed = printed(&rotel.logged());
    ensure!(
        printed.len() == finished.spans.len(),
        "rotel printed {} spans, {} are in the file",
        printed.len(),
        finished.spans.len()
    );
    for span in &finished.spans {
        let theirs = printed.remove(&span.span_id).unwrap_or_default();
        let ours = as_printed(span);
        ensure!(theirs == ours, "printed {theirs:#?}\nwritten {ours:#?}");
    }
    println!("{} spans, printed by rotel", finished.spans.len());
    Ok(())
}

/// What rotel printed of each span, by its id: the lines of the span and of its resource, sorted.
fn printed(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut spans = BTreeMap::new();
    for of_resource in text.split("ResourceSpans #").skip(1) {
        let mut parts = of_resource.split("\nSpan #");
        let attributes = parts.next().unwrap_or_default().lines();
        let resource = attributes.filter(|line| line.starts_with("     ->"));
        let resource: Vec<_> = resource.map(|line| format!("resource{line}")).collect();
        for part in parts {
            let is_own = |line: &&str| line.starts_with(' ') || line.contains(" time: ");
            let own = part.lines().filter(is_own).map(str::to_owned);
            let mut lines: Vec<_> = own.chain(resource.iter().cloned()).collect();
            lines.sort();
            let id = lines
                .iter()
                .find_map(|line| line.strip_prefix("    ID             : "));
            spans.insert(id.unwrap_or_default().to_owned(), lines);
        }
    }
    spans
}

fn as_printed(span: &Span) -> Vec<String> {
    let value = |value: &Value| match value {
        Value::String(text) => format!("Str({text})"),
        Value::Bool(truth) => format!("Bool({truth})"),
        Value::Number(number) if number.is_f64() => {
            format!("Double({})", number.as_f64().unwrap_or(f64::NAN))
        }
        other => format!("Int({other})"),
    };
    let mut lines = vec![
        format!("    Trace ID       : {}", span.trace_id),
        format!("    Parent ID      : {}", span.parent_span_id),
        format!("    ID             : {}", span.span_id),
        format!("    Name           : {}", span.name),
        format!(
            "    Kind           : SPAN_KIND_{}",
            span.kind.to_uppercase()
        ),
        format!("Start time: {}", span.start_ns),
        format!("End time: {}", span.end_ns),
    ];
    let code = match span.status {
        0 => None,
        1 => Some("OK"),
        _ => Some("ERROR"),
    };
    if let Some(code) = code {
        lines.push(format!("    Status code    : STATUS_CODE_{code}"));
        lines.push(format!("    Status message : {}", span.status_message));
    }
    let of_span = span.attributes.iter();
    lines.extend(of_span.map(|(key, is)| format!("     -> {key}: {}", value(is))));
    let of_resource = span.resource.iter();
    lines.extend(of_resource.map(|(key, is)| format!("resource     -> {key}: {}", value(is))));
    lines.sort();
    lines
}
