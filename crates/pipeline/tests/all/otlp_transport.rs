//! Connections of the `otlp` receiver: versions of HTTP, slow and silent clients, limits, browsers,
//! and which sections are on.

use crate::support::client::{
    Call, JSON, PROTOBUF, call, framed, post, wait_for_port, with_receiver,
};
use crate::support::peer::Answer;
use crate::support::{FACTORIES, batch_of, config, count, free_port, service, total, wait_for};
use bytes::Bytes;
use hyper::Method;
use pipeline::Config;
use pipeline::telemetry::{Metrics, Sample};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn ok() -> Vec<Answer> {
    vec![Answer {
        status: 200,
        ..Answer::default()
    }]
}

fn closed(samples: &[Sample], reason: &str) -> u64 {
    let name = "deeptrace_receiver_closed_connections";
    count(samples, name, &[("reason", reason)])
}

async fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.unwrap()
}

/// Says this, and gives all that is answered until the other side hangs up.
async fn say(stream: &mut TcpStream, bytes: &[u8]) -> String {
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn the_http_port_speaks_both_versions() {
    with_receiver(("", ""), "", ok(), |served| async move {
        for http2 in [false, true] {
            let call = Call {
                method: Method::POST,
                path: "/v1/traces",
                headers: &[PROTOBUF],
                body: batch_of(0, 1).encode(),
                http2,
            };
            assert_eq!(call.send(served.http).await.status, 200, "{http2}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_has_closed_its_side_still_gets_its_answer() {
    with_receiver(("", ""), "", ok(), |served| async move {
        let body = batch_of(0, 1).encode();
        let mut stream = connect(served.http).await;
        let head = format!(
            "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    })
    .await;
}

const BEGUN: &[u8] = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\n\
    content-type: application/x-protobuf\r\ncontent-length: 100\r\n\r\nabc";

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let settings = ("read_timeout: 100ms", "read_timeout: 100ms");
    let samples = with_receiver(settings, "", ok(), |served| async move {
        let answer = say(&mut connect(served.http).await, BEGUN).await;
        assert!(
            answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
            "{answer}"
        );
        assert!(answer.contains("retry-after: 1\r\n"), "{answer}");
        // A gRPC request whose body never ends.
        let (mut sender, connection) = hyper::client::conn::http2::handshake(
            hyper_util::rt::TokioExecutor::new(),
            hyper_util::rt::TokioIo::new(connect(served.grpc).await),
        )
        .await
        .unwrap();
        tokio::spawn(connection);
        let (body, _keep) = endless();
        let request = hyper::Request::post(format!(
            "http://localhost{}",
            crate::support::client::EXPORT
        ))
        .header("content-type", "application/grpc")
        .body(body)
        .unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "4");
    })
    .await;
    assert_eq!(total(&samples, "deeptrace_receiver_rejected_requests"), 2);
}

type Never = http_body_util::channel::Channel<Bytes, std::convert::Infallible>;

/// A body of which nothing comes for as long as the second part is kept.
fn endless() -> (Never, impl Sized) {
    let (sender, body) = http_body_util::channel::Channel::new(1);
    (body, sender)
}

#[tokio::test]
async fn a_body_that_breaks_off_is_counted() {
    let samples = with_receiver(("", ""), "", ok(), |served| async move {
        let mut stream = connect(served.http).await;
        stream.write_all(BEGUN).await.unwrap();
        drop(stream);
        wait_for(|| {
            total(
                &served.metrics.samples(),
                "deeptrace_receiver_rejected_requests",
            ) == 1
        })
        .await;
    })
    .await;
    assert_eq!(total(&samples, "deeptrace_receiver_connections"), 0);
}

#[tokio::test]
async fn silent_clients_are_hung_up_on() {
    let settings = (
        "read_timeout: 100ms, keepalive: {server_parameters: {max_connection_idle: 100ms}}",
        "read_header_timeout: 100ms, idle_timeout: 100ms",
    );
    let samples = with_receiver(settings, "", ok(), |served| async move {
        for port in [served.http, served.grpc] {
            for bytes in [&b""[..], b"POST /v1/tr", b"PRI * HTTP/2.0\r\n\r\nSM"] {
                say(&mut connect(port).await, bytes).await; // Is back: it was hung up on.
            }
        }
        // One that has sent a request, and then nothing.
        let empty = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\n\
            content-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        let answer = say(&mut connect(served.http).await, empty).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    })
    .await;
    assert!(
        closed(&samples, "idle") >= 4,
        "{}",
        closed(&samples, "idle")
    );
}

#[tokio::test]
async fn connections_over_the_limit_are_hung_up_on() {
    let settings = ("max_connections: 2", "");
    let samples = with_receiver(settings, "", ok(), |served| async move {
        let mut held = [connect(served.grpc).await, connect(served.grpc).await];
        wait_for(|| total(&served.metrics.samples(), "deeptrace_receiver_connections") >= 2).await;
        let mut rest = Vec::new();
        let mut third = connect(served.grpc).await;
        assert_eq!(third.read_to_end(&mut rest).await.unwrap(), 0);
        // The other endpoint has room of its own, and a slot that is free again is used.
        assert_eq!(post(served.http, &[JSON], "{}").await.status, 200);
        held[0].shutdown().await.unwrap();
        held[0].read_to_end(&mut rest).await.unwrap();
        wait_for(|| total(&served.metrics.samples(), "deeptrace_receiver_connections") < 2).await;
        assert_eq!(call(served.grpc, &[], framed(0, &[])).await.code(), 0);
    })
    .await;
    assert_eq!(closed(&samples, "over_limit"), 1);
}

#[tokio::test]
async fn pages_of_allowed_origins_may_send_spans() {
    let cors =
        "cors: {allowed_origins: ['https://*.example'], allowed_headers: [x-token], max_age: 60}";
    with_receiver(("", cors), "", ok(), |served| async move {
        let ask = async |origin: &str| {
            let call = Call {
                method: Method::OPTIONS,
                path: "/v1/traces",
                headers: &[
                    ("origin", origin),
                    ("access-control-request-method", "POST"),
                ],
                body: Bytes::new(),
                http2: false,
            };
            call.send(served.http).await
        };
        let reply = ask("https://shop.example").await;
        assert_eq!(reply.status, 204);
        for (name, value) in [
            ("access-control-allow-origin", "https://shop.example"),
            ("access-control-allow-methods", "POST"),
            ("access-control-max-age", "60"),
            ("vary", "Origin"),
        ] {
            assert_eq!(reply.header(name), value);
        }
        let headers = reply.header("access-control-allow-headers");
        assert!(
            headers.contains("content-type") && headers.ends_with("x-token"),
            "{headers}"
        );
        let reply = ask("https://evil.test").await;
        assert_eq!(reply.header("access-control-allow-origin"), "");
        let reply = post(
            served.http,
            &[JSON, ("origin", "https://shop.example")],
            "{}",
        )
        .await;
        assert_eq!(
            reply.header("access-control-allow-origin"),
            "https://shop.example"
        );
    })
    .await;
}

#[tokio::test]
async fn what_was_answered_well_before_a_stop_arrives() {
    let samples = with_receiver(("", ""), "", ok(), |served| async move {
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..20 {
            let (grpc, http) = (served.grpc, served.http);
            clients.spawn(async move {
                for number in 0..10 {
                    let body = batch_of(client * 100 + number, 5).encode();
                    if number % 2 == 0 {
                        assert_eq!(call(grpc, &[], framed(0, &body)).await.code(), 0);
                    } else {
                        assert_eq!(post(http, &[PROTOBUF], body).await.status, 200);
                    }
                }
            });
        }
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
    })
    .await;
    assert_eq!(total(&samples, "otelcol_receiver_accepted_spans"), 1_000);
    assert_eq!(total(&samples, "otelcol_exporter_sent_spans"), 1_000);
}

fn yaml(protocols: &str) -> String {
    format!(
        "receivers: {{otlp: {{protocols: {protocols}}}}}\nexporters: {{debug: }}\n\
         service: {{telemetry: {{metrics: {{level: none}}}}, \
         pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}}}\n"
    )
}

#[test]
fn a_section_without_a_value_is_on_and_one_that_is_not_there_is_off() {
    for good in ["{grpc: }", "{http: }", "{grpc: {}, http: {enabled: false}}"] {
        config(&yaml(good));
    }
    for (bad, expected) in [
        ("{}", "receivers::otlp::protocols: must name grpc or http"),
        (
            "{grpc: {enabled: false}}",
            "receivers::otlp::protocols: must name grpc or http",
        ),
        (
            "{grpc: {endpoint: ':4317'}}",
            "protocols::grpc::endpoint: \":4317\" is not host:port",
        ),
        (
            "{http: {traces_url_path: x}}",
            "protocols::http::traces_url_path: must begin with /",
        ),
        (
            "{http: {tls: {cert_file: /x}}}",
            "protocols::http::tls::cert_file: needs key_file",
        ),
        (
            "{http: {tls: {}}}",
            "protocols::http::tls::cert_file: must be set",
        ),
        (
            "{http: {cors: {allowed_origins: ['*.*']}}}",
            "cors::allowed_origins::0: may have one *",
        ),
        (
            "{grpc: {max_recv_msg_size_mib: 0}}",
            "max_recv_msg_size_mib: must be from 1 to 1024",
        ),
        ("{grpc: {tls: {min_version: '1.1'}}}", "tls::min_version"),
    ] {
        let error = Config::parse(&[("a.yaml", yaml(bad).as_str())], &FACTORIES, &|_| None);
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{bad}: {error}");
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_a_clear_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let yaml = yaml(&format!("{{grpc: {{endpoint: '127.0.0.1:{port}'}}}}"));
    let error = service(&yaml, &Metrics::default()).run(std::future::pending());
    let error = error.await.unwrap_err();
    assert_eq!(error.to_string(), "cannot start receiver otlp");
    let source = std::error::Error::source(&error).unwrap().to_string();
    let expected = format!("cannot listen on 127.0.0.1:{port} (protocols::grpc::endpoint): ");
    assert!(source.starts_with(&expected), "{source}");
}

#[tokio::test]
async fn a_stop_ends_connections_that_are_open() {
    let port = free_port();
    let yaml = yaml(&format!("{{http: {{endpoint: '127.0.0.1:{port}'}}}}"));
    let begun = std::time::Instant::now();
    let running = service(&yaml, &Metrics::default()).run(async {
        wait_for_port(port).await;
        // Stays open, with nothing said.
        std::mem::forget(connect(port).await);
    });
    running.await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
}
