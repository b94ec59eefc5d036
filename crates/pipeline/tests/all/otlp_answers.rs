//! What the OTLP exporters make of every answer that a backend can give (OTLP specification 2.1 to 2.3).

use crate::support::peer::{Answer, Peer};
use crate::support::{lost, one_pipeline, run_until, total};
use base64::Engine;
use bytes::{BufMut, Bytes, BytesMut};
use pipeline::Summary;
use pipeline::proto::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use std::time::Duration;

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");

/// What should become of one span.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Sent, after so many requests.
    Sent(usize),
    /// Lost for this reason, after so many requests.
    Lost(&'static str, usize),
}

fn http(status: u16) -> Answer {
    Answer {
        status,
        headers: vec![(PROTOBUF.0, PROTOBUF.1.to_owned())],
        ..Answer::default()
    }
}

fn typed(status: u16, kind: &str, body: impl Into<Bytes>) -> Answer {
    Answer {
        status,
        headers: vec![("content-type", kind.to_owned())],
        body: body.into(),
        ..Answer::default()
    }
}

fn grpc(code: u16) -> Answer {
    let headers = vec![("content-type", "application/grpc".to_owned())];
    let body = if code == 0 {
        frame(&ExportTraceServiceResponse::default().encode_to_vec())
    } else {
        Bytes::new()
    };
    let trailers = vec![
        ("grpc-status", code.to_string()),
        ("grpc-message", "as the script says".to_owned()),
    ];
    Answer {
        status: 200,
        headers,
        body,
        trailers,
        ..Answer::default()
    }
}

fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.put_slice(message);
    frame.freeze()
}

/// `google.rpc.Status` with a `RetryInfo`, as the trailer carries it.
fn retry_info(seconds: u8) -> (&'static str, String) {
    let field = |tag: u8, bytes: &[u8]| {
        [&[tag << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
    };
    let info = field(1, &[1 << 3, seconds]);
    let any = [
        field(1, b"type.googleapis.com/google.rpc.RetryInfo"),
        field(2, &info),
    ]
    .concat();
    let status = [vec![1 << 3, 8], field(3, &any)].concat();
    (
        "grpc-status-details-bin",
        base64::engine::general_purpose::STANDARD_NO_PAD.encode(status),
    )
}

fn partial(rejected_spans: i64, error_message: &str) -> Vec<u8> {
    let error_message = error_message.to_owned();
    let partial_success = Some(ExportTracePartialSuccess {
        rejected_spans,
        error_message,
    });
    ExportTraceServiceResponse { partial_success }.encode_to_vec()
}

const RETRY: &str = "{initial_interval: 5ms, max_interval: 20ms, max_elapsed_time: 1500ms}";

async fn export(exporter: &str, peer: &Peer, more: &str) -> Summary {
    let endpoint = format!("http://127.0.0.1:{}", peer.port);
    let settings = format!(
        "{{endpoint: {endpoint:?}, retry_on_failure: {RETRY}, \
         sending_queue: {{batch: {{flush_timeout: 1ms}}}}{more}}}"
    );
    let yaml = one_pipeline("{}", "", &settings, exporter);
    run_until(&yaml, |samples| {
        let sent = total(samples, "otelcol_exporter_sent_spans");
        sent + total(samples, "otelcol_exporter_send_failed_spans") > 0
    })
    .await
}

async fn check(name: &str, exporter: &str, peer: Peer, more: &str, fate: Fate) {
    let samples = export(exporter, &peer, more).await.samples;
    let requests = peer.seen().len();
    let found = if total(&samples, "otelcol_exporter_sent_spans") > 0 {
        Fate::Sent(requests)
    } else {
        let reason = ["refused", "partly_refused", "retries_exhausted", "shutdown"];
        Fate::Lost(
            reason
                .into_iter()
                .find(|reason| lost(&samples, reason) > 0)
                .unwrap_or("?"),
            requests,
        )
    };
    assert_eq!(found, fate, "{name}");
}

#[tokio::test]
async fn http_follows_the_retry_table() {
    for status in [429, 502, 503, 504] {
        let peer = Peer::http(vec![http(status), http(status), http(200)]).await;
        check(&status.to_string(), "otlp_http", peer, "", Fate::Sent(3)).await;
    }
    for status in [301, 400, 401, 404, 405, 408, 413, 415, 500, 501, 505] {
        let peer = Peer::http(vec![http(status), http(200)]).await;
        check(
            &status.to_string(),
            "otlp_http",
            peer,
            "",
            Fate::Lost("refused", 1),
        )
        .await;
    }
    for status in [200, 202, 204] {
        let peer = Peer::http(vec![http(status)]).await;
        check(&status.to_string(), "otlp_http", peer, "", Fate::Sent(1)).await;
    }
}

#[tokio::test]
async fn grpc_follows_the_retry_table() {
    for code in [1, 4, 10, 11, 14, 15] {
        let peer = Peer::grpc(vec![grpc(code), grpc(code), grpc(0)]).await;
        check(
            &format!("code {code}"),
            "otlp_grpc",
            peer,
            "",
            Fate::Sent(3),
        )
        .await;
    }
    for code in [2, 3, 5, 6, 7, 8, 9, 12, 13, 16, 99] {
        let peer = Peer::grpc(vec![grpc(code), grpc(0)]).await;
        check(
            &format!("code {code}"),
            "otlp_grpc",
            peer,
            "",
            Fate::Lost("refused", 1),
        )
        .await;
    }
    // Without a gRPC status, the HTTP status decides (gRPC's http-grpc-status-mapping).
    for (status, fate) in [
        (503, Fate::Sent(2)),
        (404, Fate::Lost("refused", 1)),
        (200, Fate::Lost("refused", 1)),
    ] {
        let peer = Peer::grpc(vec![typed(status, "text/html", "<html>"), grpc(0)]).await;
        check(&format!("HTTP {status}"), "otlp_grpc", peer, "", fate).await;
    }
}

#[tokio::test]
async fn a_server_that_asks_for_time_gets_it() {
    let throttled = Answer {
        trailers: vec![("grpc-status", "8".to_owned()), retry_info(1)],
        ..grpc(8)
    };
    let peer = Peer::grpc(vec![throttled, grpc(0)]).await;
    let summary = export("otlp_grpc", &peer, "").await;
    assert_eq!(total(&summary.samples, "otelcol_exporter_sent_spans"), 1);
    let seen = peer.seen();
    assert!(seen[1].at.duration_since(seen[0].at) >= Duration::from_secs(1));

    let mut busy = http(503);
    busy.headers.push(("retry-after", "1".to_owned()));
    let peer = Peer::http(vec![busy.clone(), http(200)]).await;
    export("otlp_http", &peer, "").await;
    let seen = peer.seen();
    assert!(seen[1].at.duration_since(seen[0].at) >= Duration::from_secs(1));

    // More time than the request has: given up at once.
    busy.headers.retain(|(name, _)| *name != "retry-after");
    busy.headers
        .push(("retry-after", "Fri, 31 Dec 2100 23:59:59 GMT".to_owned()));
    let peer = Peer::http(vec![busy, http(200)]).await;
    check(
        "a date far ahead",
        "otlp_http",
        peer,
        "",
        Fate::Lost("retries_exhausted", 1),
    )
    .await;
}

#[tokio::test]
async fn a_partial_success_is_counted_and_never_sent_again() {
    let answer = typed(200, PROTOBUF.1, partial(1, "too old"));
    let peer = Peer::http(vec![answer]).await;
    check(
        "http",
        "otlp_http",
        peer,
        "",
        Fate::Lost("partly_refused", 1),
    )
    .await;

    let json = r#"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"too old"}}"#;
    let peer = Peer::http(vec![typed(200, "application/json; charset=utf-8", json)]).await;
    check(
        "json",
        "otlp_http",
        peer,
        "",
        Fate::Lost("partly_refused", 1),
    )
    .await;

    let peer = Peer::http(vec![typed(
        200,
        "application/json",
        r#"{"partialSuccess":null}"#,
    )])
    .await;
    check("json without", "otlp_http", peer, "", Fate::Sent(1)).await;

    let peer = Peer::grpc(vec![Answer {
        body: frame(&partial(5_000, "too old")),
        ..grpc(0)
    }])
    .await;
    check(
        "more than there were",
        "otlp_grpc",
        peer,
        "",
        Fate::Lost("partly_refused", 1),
    )
    .await;

    let peer = Peer::grpc(vec![Answer {
        body: frame(&partial(0, "soon too old")),
        ..grpc(0)
    }])
    .await;
    check("only a warning", "otlp_grpc", peer, "", Fate::Sent(1)).await;

    let peer = Peer::grpc(vec![Answer {
        body: frame(&partial(-3, "")),
        ..grpc(0)
    }])
    .await;
    check("a negative count", "otlp_grpc", peer, "", Fate::Sent(1)).await;
}

#[tokio::test]
async fn nonsense_is_an_error_that_is_not_repeated() {
    let cases = [
        (
            "a web page",
            typed(200, "text/html", "<html>Please log in</html>"),
        ),
        ("broken protobuf", typed(200, PROTOBUF.1, vec![0xff; 20])),
        ("broken JSON", typed(200, "application/json", "{")),
        (
            "an answer over 4 MiB",
            typed(200, PROTOBUF.1, vec![0; (4 << 20) + 1]),
        ),
        (
            "an error over 4 MiB",
            typed(400, "text/plain", vec![b'x'; (4 << 20) + 1]),
        ),
    ];
    for (name, answer) in cases {
        let peer = Peer::http(vec![answer, http(200)]).await;
        check(name, "otlp_http", peer, "", Fate::Lost("refused", 1)).await;
    }
    let cases = [
        ("broken protobuf", frame(&[0xff; 20])),
        ("no frame", Bytes::from_static(b"<html>")),
        ("an answer over 4 MiB", frame(&vec![0; (4 << 20) + 1])),
        (
            "a frame that promises 4 GiB",
            Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]),
        ),
        ("no message", Bytes::new()),
    ];
    for (name, body) in cases {
        let peer = Peer::grpc(vec![Answer { body, ..grpc(0) }, grpc(0)]).await;
        check(name, "otlp_grpc", peer, "", Fate::Lost("refused", 1)).await;
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_tried_again() {
    for (exporter, ok) in [("otlp_http", http(200)), ("otlp_grpc", grpc(0))] {
        let hang_up = Answer {
            hang_up: true,
            ..Answer::default()
        };
        let script = vec![hang_up, ok.clone()];
        let peer = if exporter == "otlp_http" {
            Peer::http(script).await
        } else {
            Peer::grpc(script).await
        };
        check("hang up", exporter, peer, "", Fate::Sent(2)).await;

        let slow = Answer {
            delay: Duration::from_secs(5),
            ..ok.clone()
        };
        let script = vec![slow, ok];
        let peer = if exporter == "otlp_http" {
            Peer::http(script).await
        } else {
            Peer::grpc(script).await
        };
        check("slow", exporter, peer, ", timeout: 100ms", Fate::Sent(2)).await;
    }
}

/// A peer that sends these bytes to every connection, and then ends its side or falls silent.
async fn raw_peer(bytes: &'static [u8], half_close: bool) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                // What the client makes of it is the test, not whether it listens to the end.
                let _ = stream.write_all(bytes).await;
                if half_close {
                    let _ = stream.shutdown().await;
                }
                let mut sink = [0; 4096];
                while stream.read(&mut sink).await.is_ok_and(|read| read > 0) {}
            });
        }
    });
    port
}

#[tokio::test]
async fn a_peer_that_speaks_nonsense_or_not_at_all_is_given_up_in_time() {
    let cases: [(&str, &[u8], bool); 5] = [
        ("silence", b"", false),
        ("half-closed", b"", true),
        ("noise", b"\x00\xff\x13\x37 nonsense \r\n\r\n", false),
        (
            "a body that stops",
            b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc",
            false,
        ),
        (
            "a body that breaks off",
            b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc",
            true,
        ),
    ];
    for (name, bytes, half_close) in cases {
        for exporter in ["otlp_http", "otlp_grpc"] {
            let port = raw_peer(bytes, half_close).await;
            let settings = format!(
                "{{endpoint: 'http://127.0.0.1:{port}', timeout: 50ms, \
                 retry_on_failure: {{initial_interval: 5ms, max_interval: 20ms, max_elapsed_time: 150ms}}}}"
            );
            let yaml = one_pipeline("{spans: 3}", "", &settings, exporter);
            let summary = run_until(&yaml, |samples| {
                total(samples, "otelcol_exporter_send_failed_spans") == 3
            })
            .await;
            assert_eq!(
                lost(&summary.samples, "retries_exhausted"),
                3,
                "{name} {exporter}"
            );
        }
    }
}

#[tokio::test]
async fn a_backend_that_is_away_costs_the_spans_when_time_is_up() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    for exporter in ["otlp_http", "otlp_grpc"] {
        let endpoint = format!("http://127.0.0.1:{free}");
        let retry = "{initial_interval: 5ms, max_interval: 20ms, max_elapsed_time: 100ms}";
        let settings = format!("{{endpoint: {endpoint:?}, retry_on_failure: {retry}}}");
        let yaml = one_pipeline("{spans: 3}", "", &settings, exporter);
        run_until(&yaml, |samples| lost(samples, "retries_exhausted") == 3).await;
    }
}

#[tokio::test]
async fn requests_carry_what_is_configured() {
    let more = ", headers: {x-token: secret, X-Tenant: shop}";
    for (exporter, ok, path) in [
        ("otlp_http", http(200), "/v1/traces"),
        (
            "otlp_grpc",
            grpc(0),
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        ),
    ] {
        let peer = if exporter == "otlp_http" {
            Peer::http(vec![ok]).await
        } else {
            Peer::grpc(vec![ok]).await
        };
        export(exporter, &peer, &format!("{more}, compression: none")).await;
        let seen = &peer.seen()[0];
        assert_eq!(seen.path, path);
        assert_eq!(seen.headers["x-token"], "secret");
        assert_eq!(seen.headers["x-tenant"], "shop");
        let agent = seen.headers["user-agent"].to_str().unwrap();
        assert!(
            agent.starts_with("deeptrace/") && agent.contains(" OTel-OTLP-Exporter-Rust/"),
            "{agent}"
        );
        let body = if exporter == "otlp_grpc" {
            seen.body.slice(5..)
        } else {
            seen.body.clone()
        };
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        assert_eq!(
            request.resource_spans,
            crate::support::batch_of(0, 1).take_resource_spans()
        );
    }
    let peer = Peer::http(vec![http(200)]).await;
    export("otlp_http", &peer, "").await;
    let seen = &peer.seen()[0];
    assert_eq!(seen.headers["content-encoding"], "gzip");
    let mut body = Vec::new();
    std::io::Read::read_to_end(
        &mut flate2::read::GzDecoder::new(seen.body.as_ref()),
        &mut body,
    )
    .unwrap();
    assert_eq!(
        ExportTraceServiceRequest::decode(body.as_slice())
            .unwrap()
            .resource_spans
            .len(),
        1
    );
}
