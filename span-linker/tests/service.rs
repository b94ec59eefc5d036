//! The real binary with the configuration that is handed out: agents send over HTTP, whole traces
//! come out.
#![cfg(test)]

use pipeline::Batch;
use pipeline::otlp::encode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use span_model::{LinkFacts, Resource, Span, SpanId, SpanKind, Status, semconv};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// The linker under test; its end is the test's end.
struct Linker {
    child: Child,
    port: u16,
}

impl Drop for Linker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Linker {
    fn start(output: &Path) -> Self {
        let [grpc, http, health] = [free_port(), free_port(), free_port()];
        let sets = [
            "service.telemetry.metrics.level=none".to_owned(),
            format!("extensions.health_check.endpoint=127.0.0.1:{health}"),
            format!("exporters.file.path={}", output.display()),
            "service.pipelines.traces.exporters=[file]".to_owned(),
        ];
        let mut command = Command::new(env!("CARGO_BIN_EXE_deeptrace-span-linker"));
        command.args(["--config", "../config/span-linker.yaml"]);
        for set in sets {
            command.args(["--set", &set]);
        }
        let child = command
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("LISTEN_GRPC", format!("127.0.0.1:{grpc}"))
            .env("LISTEN_HTTP", format!("127.0.0.1:{http}"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let linker = Self { child, port: http };
        linker.wait_until_it_listens();
        linker
    }

    fn wait_until_it_listens(&self) {
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(begun.elapsed() < PATIENCE, "it does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends as an agent does; returns when the linker has taken the spans.
    fn send(&self, spans: Vec<Span>) {
        let body = Batch::new(encode(spans, "0")).encode();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "POST /v1/traces HTTP/1.1\r\nhost: linker\r\nconnection: close\r\n\
             content-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// Tells it to stop; what it says at the end.
    fn stop(mut self) -> String {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        assert!(self.child.wait().unwrap().success(), "{said}");
        said
    }
}

fn id(number: u64) -> SpanId {
    SpanId::from_hash(number)
}

fn span(number: u64, kind: SpanKind, host: &'static str, link: LinkFacts) -> Span {
    let attributes = vec![
        (semconv::HOST_ID.into(), host.into()),
        (semconv::PROCESS_PID.into(), 1_i64.into()),
        (semconv::SERVICE_NAME.into(), host.into()),
    ];
    Span {
        trace_id: None,
        span_id: id(number),
        parent_span_id: None,
        kind,
        name: "GET".into(),
        start_unix_ns: 1_000 * number,
        end_unix_ns: 100_000 - number,
        status: Status::Unset,
        attributes: Vec::new(),
        resource: Arc::new(Resource { attributes }),
        link,
    }
}

/// Every span of an OTLP/JSON lines file.
fn spans_in(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    let mut spans = Vec::new();
    for line in text.lines() {
        let request: Value = serde_json::from_str(line).unwrap();
        for resource in request["resourceSpans"].as_array().unwrap() {
            for scope in resource["scopeSpans"].as_array().unwrap() {
                spans.extend(scope["spans"].as_array().unwrap().iter().cloned());
            }
        }
    }
    spans
}

#[test]
fn spans_of_two_hosts_leave_as_one_trace() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("traces.jsonl");
    let linker = Linker::start(&output);
    let caller = LinkFacts {
        caller: Some(id(1)),
        ..LinkFacts::default()
    };
    let after = LinkFacts {
        after: Some(id(2)),
        request_tid: 7,
        response_tid: 7,
        ..LinkFacts::default()
    };
    let served = LinkFacts {
        request_tid: 7,
        response_tid: 7,
        ..caller
    };
    linker.send(vec![
        span(2, SpanKind::Server, "b", served),
        span(3, SpanKind::Client, "b", after),
    ]);
    linker.send(vec![span(1, SpanKind::Client, "a", LinkFacts::default())]);
    let said = linker.stop();
    assert!(said.contains("summary: 3 spans in 1 traces"), "{said}");

    let spans = spans_in(&output);
    assert_eq!(spans.len(), 3, "{spans:?}");
    let parent_of = |number: u64| {
        let id = id(number).to_string();
        let span = spans.iter().find(|span| span["spanId"] == id).unwrap();
        span["parentSpanId"].as_str().unwrap_or_default().to_owned()
    };
    let parents = [1, 2, 3].map(parent_of);
    assert_eq!(
        parents,
        [String::new(), id(1).to_string(), id(2).to_string()]
    );
    assert!(
        spans
            .iter()
            .all(|span| span["traceId"] == spans[0]["traceId"])
    );
}
