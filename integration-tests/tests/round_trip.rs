//! What the OpenTelemetry SDK of Python sends comes out of the collector as it was: every field.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use integration_tests::backends::python_package;
use integration_tests::compile::{home, target_dir};
use integration_tests::sandbox::{Output, Sandbox, free_ports, uninterrupted};
use serde_json::Value;

const END_LIMIT: Duration = Duration::from_mins(1);

fn why_not() -> Option<String> {
    let program = target_dir().join("release/deeptrace-collector");
    if !program.is_file() {
        return Some("no collector; `cargo build --release -p collector` makes it".to_owned());
    }
    python_package("opentelemetry/sdk")
        .is_none()
        .then(|| "no SDK in target/venv; `cargo xtask setup` installs it".to_owned())
}

fn configuration(from: [u16; 2], to: [u64; 2]) -> String {
    let ([from_grpc, from_http], [to_grpc, to_http]) = (from, to);
    format!(
        "receivers:\n  otlp:\n    protocols:\n      \
         grpc: {{endpoint: 127.0.0.1:{from_grpc}}}\n      \
         http: {{endpoint: 127.0.0.1:{from_http}}}\n\
         exporters:\n  \
         otlp_grpc: {{endpoint: 'http://127.0.0.1:{to_grpc}'}}\n  \
         otlp_http: {{endpoint: 'http://127.0.0.1:{to_http}'}}\n\
         service:\n  telemetry: {{metrics: {{level: none}}}}\n  pipelines:\n    \
         traces: {{receivers: [otlp], exporters: [otlp_grpc, otlp_http]}}\n"
    )
}

#[test]
fn a_span_of_the_python_sdk_comes_out_as_it_went_in() -> Result<()> {
    if let Some(why) = why_not() {
        println!("skipped: round trip of the Python SDK: {why}");
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let from: [u16; 2] = free_ports()?;
    let mut command = Command::new(target_dir().canonicalize()?.join("venv/bin/python"));
    command.arg(home().join("round_trip.py"));
    command.args(from.map(|port| port.to_string()));
    let mut python = sandbox.spawn("round-trip", &command, Output::Conversation)?;
    let output = python.child.stdout.take().context("stdout is a pipe")?;
    let mut lines = BufReader::new(output).lines();
    let ports: Value = serde_json::from_str(&lines.next().context("it says its ports")??)?;
    let port = |key: &str| ports[key].as_u64().context("a port is a number");

    let config = sandbox.dir().join("collector.yaml");
    fs::write(&config, configuration(from, [port("grpc")?, port("http")?]))?;
    let program = target_dir().join("release/deeptrace-collector");
    let mut command = Command::new(program.canonicalize()?);
    command.arg("--config").arg(&config);
    let mut collector = sandbox.spawn("collector", &command, Output::Log)?;
    for port in from {
        collector.wait_for_port(port, &uninterrupted())?;
    }

    let mut input = python.child.stdin.take().context("stdin is a pipe")?;
    writeln!(input, "go")?;
    let mut ways = Vec::new();
    for line in lines {
        let result: Value = serde_json::from_str(&line?)?;
        ensure!(result["same"] == true, "{result:#}\n{}", collector.logged());
        ways.push(result["way"].as_str().unwrap_or_default().to_owned());
    }
    let status = python.wait(END_LIMIT, &uninterrupted())?;
    ensure!(status.is_some_and(|status| status.success()), "{status:?}");
    ensure!(
        ways == [
            "grpc to grpc",
            "grpc to http",
            "http to grpc",
            "http to http"
        ],
        "{ways:?}"
    );
    collector.stop()?;
    Ok(())
}
