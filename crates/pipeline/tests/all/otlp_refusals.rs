//! What the `otlp` receiver does not take, and the status that each transport gives it
//! (OTLP specification 2.1 to 2.3): a row a rule.

use crate::support::client::{
    Call, EXPORT, PROTOBUF, Served, call, framed, gzip, post, rpc_status, with_receiver, zstd,
};
use crate::support::peer::Answer;
use crate::support::{batch_of, count, total};
use bytes::Bytes;
use hyper::Method;
use pipeline::Batch;

const REJECTED: &str = "deeptrace_receiver_rejected_requests";
const GZIP: &[(&str, &str)] = &[PROTOBUF, ("content-encoding", "gzip")];
const ZSTD: &[(&str, &str)] = &[PROTOBUF, ("content-encoding", "zstd")];

fn ok() -> Vec<Answer> {
    vec![Answer {
        status: 200,
        ..Answer::default()
    }]
}

fn body() -> Bytes {
    batch_of(0, 1).encode()
}

/// Above the limit of 1 MiB.
fn large() -> Bytes {
    let large = batch_of(0, 20_000).encode();
    assert!(large.len() > 1 << 20);
    large
}

/// Small, and 50 MiB when it is opened.
fn bomb(compress: fn(&[u8]) -> Vec<u8>) -> Bytes {
    compress(&vec![0; 50 << 20]).into()
}

fn bad_id() -> Bytes {
    let mut batch: Batch = batch_of(0, 1);
    batch.resource_spans_mut()[0].scope_spans[0].spans[0].trace_id = vec![1; 15];
    batch.encode()
}

/// Headers, body, and what comes of them.
struct Case<S>(
    &'static str,
    &'static [(&'static str, &'static str)],
    Bytes,
    S,
);

fn http_cases() -> Vec<Case<(u16, i32)>> {
    let plain = &[PROTOBUF];
    let brotli = &[PROTOBUF, ("content-encoding", "br")];
    vec![
        Case("noise", plain, Bytes::from_static(&[0xff; 9]), (400, 3)),
        Case("a bad id", plain, bad_id(), (400, 3)),
        Case("not gzip", GZIP, body(), (400, 3)),
        Case("not zstd", ZSTD, body(), (400, 3)),
        Case("brotli", brotli, body(), (415, 12)),
        Case("large", plain, large(), (413, 8)),
        Case("large when opened", ZSTD, zstd(&large()).into(), (413, 8)),
        Case("gzip bomb", GZIP, bomb(gzip), (413, 8)),
        Case("zstd bomb", ZSTD, bomb(zstd), (413, 8)),
    ]
}

async fn check_http(served: &Served, Case(name, headers, body, expected): Case<(u16, i32)>) {
    let reply = post(served.http, headers, body).await;
    assert_eq!((reply.status, rpc_status(&reply).0), expected, "{name}");
    assert_eq!(reply.header("content-type"), PROTOBUF.1, "{name}");
}

#[tokio::test]
async fn over_http_every_refusal_has_its_status() {
    let limits = ("", "max_request_body_size: 1048576");
    let samples = with_receiver(limits, "", ok(), |served| async move {
        for case in http_cases() {
            check_http(&served, case).await;
        }
        for (method, path, kind, status) in [
            (Method::GET, "/v1/traces", PROTOBUF, 405),
            (Method::OPTIONS, "/v1/traces", PROTOBUF, 405),
            (Method::POST, "/v1/metrics", PROTOBUF, 404),
            (Method::POST, "/v1/traces/", PROTOBUF, 404),
            (
                Method::POST,
                "/v1/traces",
                ("content-type", "text/plain"),
                415,
            ),
            (Method::POST, "/v1/traces", ("x", "y"), 415),
        ] {
            let call = Call {
                method,
                path,
                headers: &[kind],
                body: Bytes::new(),
                http2: false,
            };
            let reply = call.send(served.http).await;
            assert_eq!(reply.status, status, "{path} {kind:?}");
            assert!(!reply.body.is_empty());
            assert_eq!(reply.header("allow") == "POST", status == 405);
        }
        assert_eq!(served.backend.seen().len(), 0);
    })
    .await;
    for (reason, requests) in [
        ("malformed", 4),
        ("encoding", 1),
        ("too_large", 4),
        ("method", 2),
        ("path", 2),
        ("content_type", 2),
    ] {
        assert_eq!(
            count(&samples, REJECTED, &[("reason", reason)]),
            requests,
            "{reason}"
        );
    }
    let failures = [("transport", "http"), ("outcome", "failure")];
    assert_eq!(count(&samples, "otelcol_receiver_requests", &failures), 15);
}

fn grpc_cases() -> Vec<Case<i32>> {
    let gzipped = &[("grpc-encoding", "gzip")];
    let zipped = &[("grpc-encoding", "zstd")];
    let snappy = &[("grpc-encoding", "snappy")];
    let short = framed(0, &body()).slice(..20);
    let two = [framed(0, &body()), framed(0, &body())].concat();
    let promise = Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]);
    vec![
        Case("no message", &[], Bytes::new(), 3),
        Case("a message cut off", &[], short, 3),
        Case("two messages", &[], two.into(), 3),
        Case("noise", &[], framed(0, &[0xff; 9]), 3),
        Case("a bad id", &[], framed(0, &bad_id()), 3),
        Case("an unknown flag", &[], framed(2, &body()), 3),
        Case("compressed, but how", &[], framed(1, &gzip(&body())), 3),
        Case("not gzip", gzipped, framed(1, &body()), 3),
        Case("snappy", snappy, framed(1, &body()), 12),
        Case("large", &[], framed(0, &large()), 8),
        Case("large when opened", gzipped, framed(1, &gzip(&large())), 8),
        Case("gzip bomb", gzipped, framed(1, &bomb(gzip)), 8),
        Case("zstd bomb", zipped, framed(1, &bomb(zstd)), 8),
        Case("a promise of 4 GiB", &[], promise, 8),
    ]
}

#[tokio::test]
async fn over_grpc_every_refusal_has_its_code() {
    let limits = ("max_recv_msg_size_mib: 1", "");
    let samples = with_receiver(limits, "", ok(), |served| async move {
        for Case(name, headers, body, code) in grpc_cases() {
            let reply = call(served.grpc, headers, body).await;
            assert_eq!((reply.status, reply.code()), (200, code), "{name}");
            assert!(!reply.header("grpc-message").is_empty(), "{name}");
            // With RetryInfo, RESOURCE_EXHAUSTED would be sent again.
            assert_eq!(reply.header("grpc-status-details-bin"), "", "{name}");
        }
        for (path, kind, status, code) in [
            (EXPORT, "application/json", 415, -1),
            ("/grpc.health.v1.Health/Check", "application/grpc", 200, 12),
        ] {
            let call = Call {
                method: Method::POST,
                path,
                headers: &[("content-type", kind)],
                body: framed(0, &body()),
                http2: true,
            };
            let reply = call.send(served.grpc).await;
            assert_eq!((reply.status, reply.code()), (status, code), "{path}");
        }
        assert_eq!(served.backend.seen().len(), 0);
    })
    .await;
    let failures = [("transport", "grpc"), ("outcome", "failure")];
    assert_eq!(count(&samples, "otelcol_receiver_requests", &failures), 16);
    assert_eq!(total(&samples, "otelcol_receiver_accepted_spans"), 0);
}
