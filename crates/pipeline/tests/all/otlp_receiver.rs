//! What the `otlp` receiver takes and what it answers (OTLP specification 2.1 to 2.3 and 2.6).

use crate::support::client::{
    Call, EXPORT, JSON, PROTOBUF, Reply, call, framed, gzip, post, with_receiver, zstd,
};
use crate::support::everything::everything;
use crate::support::peer::Answer;
use crate::support::{batch_of, lost, total, wait_for};
use bytes::Bytes;
use hyper::Method;
use pipeline::proto::collector::trace::v1::ExportTraceServiceRequest;
use pipeline::telemetry::Sample;
use prost::Message;
use std::time::Duration;

const QUEUE: &str = "sending_queue: {batch: null}";

fn ok() -> Vec<Answer> {
    vec![Answer {
        status: 200,
        ..Answer::default()
    }]
}

fn rejected(samples: &[Sample], reason: &str) -> u64 {
    let named = samples.iter().filter(|sample| {
        sample.name == "deeptrace_receiver_rejected_requests"
            && sample.label("reason") == Some(reason)
    });
    named.map(|sample| sample.value).sum::<f64>() as u64
}

fn requests(samples: &[Sample], transport: &str, outcome: &str) -> u64 {
    let named = samples.iter().filter(|sample| {
        sample.name == "otelcol_receiver_requests"
            && sample.label("transport") == Some(transport)
            && sample.label("outcome") == Some(outcome)
    });
    named.map(|sample| sample.value).sum::<f64>() as u64
}

/// Everything, and a field that nobody knows yet.
fn body() -> Vec<u8> {
    let mut body = everything().encode().to_vec();
    body.extend([0xf8, 0x07, 1]); // Field 127 of the request.
    body
}

#[tokio::test]
async fn what_comes_in_goes_out_byte_by_byte() {
    let samples = with_receiver(("", ""), QUEUE, ok(), |served| async move {
        let sent = body();
        let plain: &[(&str, &str)] = &[PROTOBUF];
        for reply in [
            post(served.http, plain, sent.clone()).await,
            post(
                served.http,
                &[PROTOBUF, ("content-encoding", "gzip")],
                gzip(&sent),
            )
            .await,
            post(
                served.http,
                &[PROTOBUF, ("content-encoding", "zstd")],
                zstd(&sent),
            )
            .await,
        ] {
            assert_eq!((reply.status, reply.body.len()), (200, 0), "{reply:?}");
            assert_eq!(reply.header("content-type"), PROTOBUF.1);
        }
        let zstd_flag = framed(1, &zstd(&sent));
        for reply in [
            call(served.grpc, &[], framed(0, &sent)).await,
            call(
                served.grpc,
                &[("grpc-encoding", "gzip")],
                framed(1, &gzip(&sent)),
            )
            .await,
            call(served.grpc, &[("grpc-encoding", "gzip")], framed(0, &sent)).await,
            call(served.grpc, &[("grpc-encoding", "zstd")], zstd_flag).await,
        ] {
            assert_eq!((reply.status, reply.code()), (200, 0), "{reply:?}");
            assert_eq!(reply.body.as_ref(), [0; 5]);
        }
        wait_for(|| served.backend.seen().len() == 7).await;
        for seen in served.backend.seen() {
            assert_eq!(seen.body, sent);
        }
    })
    .await;
    assert_eq!(total(&samples, "otelcol_receiver_accepted_spans"), 7);
    assert_eq!(requests(&samples, "http", "success"), 3);
    assert_eq!(requests(&samples, "grpc", "success"), 4);
}

#[tokio::test]
async fn json_means_the_same_as_protobuf() {
    with_receiver(("", ""), QUEUE, ok(), |served| async move {
        let json = pipeline::otlp_json::encode(&everything().resource_spans());
        let kind = ("content-type", "application/json; charset=utf-8");
        let reply = post(
            served.http,
            &[kind, ("content-encoding", "gzip")],
            gzip(&json),
        )
        .await;
        assert_eq!((reply.status, reply.body.as_ref()), (200, b"{}".as_slice()));
        assert_eq!(reply.header("content-type"), JSON.1);
        wait_for(|| served.backend.seen().len() == 1).await;
        let body = served.backend.seen()[0].body.clone();
        let decoded = ExportTraceServiceRequest::decode(body).unwrap();
        assert_eq!(decoded.resource_spans, *everything().resource_spans());
    })
    .await;
}

/// A span of JSON with these fields more.
fn json_span(fields: &str) -> String {
    let ids = r#""traceId":"0102030405060708090A0b0C0d0E0f10","spanId":"1112131415161718""#;
    format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{ids}{fields}}}]}}]}}]}}"#)
}

#[tokio::test]
async fn json_is_read_as_its_quirks_have_it() {
    // What is sent, and what JSON of ours says of it.
    let good = [
        ("", ""),
        (r#","kind":3"#, r#","kind":3"#),
        (r#","kind":"SPAN_KIND_SERVER""#, r#","kind":2"#),
        (
            r#","startTimeUnixNano":"18446744073709551615""#,
            r#","startTimeUnixNano":"18446744073709551615""#,
        ),
        (r#","startTimeUnixNano":12"#, r#","startTimeUnixNano":"12""#),
        (
            r#","attributes":[{"key":"a","value":{"intValue":"-5"}}]"#,
            r#","attributes":[{"key":"a","value":{"intValue":"-5"}}]"#,
        ),
        (
            r#","attributes":[{"key":"a","value":{"intValue":-5}}]"#,
            r#","attributes":[{"key":"a","value":{"intValue":"-5"}}]"#,
        ),
        (
            r#","attributes":[{"key":"a","value":{"doubleValue":2}}]"#,
            r#","attributes":[{"key":"a","value":{"doubleValue":2.0}}]"#,
        ),
        (
            r#","attributes":[{"key":"a","value":{"doubleValue":"-Infinity"}}]"#,
            r#","attributes":[{"key":"a","value":{"doubleValue":"-Infinity"}}]"#,
        ),
        (
            r#","attributes":[{"key":"a","value":{"bytesValue":"-_8"}}]"#,
            r#","attributes":[{"key":"a","value":{"bytesValue":"+/8="}}]"#,
        ),
        (
            r#","attributes":[{"key":"a","value":{"boolValue":false}}]"#,
            r#","attributes":[{"key":"a","value":{"boolValue":false}}]"#,
        ),
        (
            r#","attributes":[{"key":"a","value":{}}]"#,
            r#","attributes":[{"key":"a","value":{}}]"#,
        ),
        (
            r#","parentSpanId":"","flags":257,"name":null,"unknown":{"a":[1,{}]},"start_time_unix_nano":5"#,
            r#","flags":257"#,
        ),
        (
            r#","status":{"code":"STATUS_CODE_ERROR","message":"\u00e9"}"#,
            r#","status":{"message":"é","code":2}"#,
        ),
    ];
    with_receiver(("", ""), QUEUE, ok(), |served| async move {
        for (index, (sent, expected)) in good.into_iter().enumerate() {
            let reply = post(served.http, &[JSON], json_span(sent)).await;
            assert_eq!(reply.status, 200, "{sent}: {reply:?}");
            wait_for(|| served.backend.seen().len() == index + 1).await;
            let body = served.backend.seen()[index].body.clone();
            let decoded = ExportTraceServiceRequest::decode(body).unwrap();
            let json = pipeline::otlp_json::encode(&decoded.resource_spans);
            let expected = json_span(expected).replace("0A0b0C0d0E0f10", "0a0b0c0d0e0f10");
            assert_eq!(String::from_utf8(json).unwrap(), expected, "{sent}");
        }
    })
    .await;
}

#[tokio::test]
async fn json_that_is_wrong_is_refused_with_the_reason() {
    let cases = [
        (r#","kind":"SERVER""#, r#"Span.kind has no value "SERVER""#),
        (r#","kind":2.5"#, "invalid type: floating point `2.5`"),
        (r#","flags":-1"#, "-1 is out of range for Span.flags"),
        (
            r#","startTimeUnixNano":"1e3""#,
            r#"invalid value: string "1e3""#,
        ),
        (r#","name":5"#, "a value for Span.name"),
        (r#","name":["x"]"#, "a value for Span.name"),
        (r#","events":[[]]"#, "a value for Span.events"),
        (
            r#","links":{"traceId":"xy"}"#,
            r#"Link.trace_id is no hex: "xy""#,
        ),
        (
            r#","parentSpanId":"0102""#,
            "Span.parent_span_id has 2 bytes, not 8",
        ),
        (r#","parentSpanId":"010""#, "Span.parent_span_id is no hex"),
        (
            r#","attributes":[{"value":{"bytesValue":"?"}}]"#,
            "AnyValue.bytes_value is no base64",
        ),
        (r#","status":3"#, "a value for Span.status"),
        ("}", "expected"),
    ];
    let samples = with_receiver(("", ""), QUEUE, ok(), |served| async move {
        for (sent, expected) in cases {
            let reply = post(served.http, &[JSON], json_span(sent)).await;
            assert_eq!(
                (reply.status, reply.header("content-type")),
                (400, JSON.1),
                "{sent}"
            );
            let status: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
            let message = status["message"].as_str().unwrap();
            assert!(message.contains(expected), "{sent}: {message}");
            assert_eq!(status["code"], 3);
        }
    })
    .await;
    assert_eq!(rejected(&samples, "malformed"), cases.len() as u64);
}

/// The code and text of a `google.rpc.Status` in protobuf.
fn rpc_status(reply: &Reply) -> (i32, String) {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Status {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(string, tag = "2")]
        message: String,
    }
    let status = Status::decode(reply.body.clone()).unwrap();
    (status.code, status.message)
}

#[tokio::test]
async fn over_http_every_refusal_has_its_status() {
    let limits = ("", "max_request_body_size: 100000");
    let bomb = vec![0; 50 << 20];
    let large = batch_of(0, 5_000).encode();
    let mut bad_id = batch_of(0, 1);
    bad_id.resource_spans_mut()[0].scope_spans[0].spans[0].trace_id = vec![1; 15];
    let cases: Vec<(&str, &[(&str, &str)], Bytes, u16, i32)> = vec![
        ("noise", &[PROTOBUF], Bytes::from_static(&[0xff; 9]), 400, 3),
        ("a bad id", &[PROTOBUF], bad_id.encode(), 400, 3),
        (
            "not gzip",
            &[PROTOBUF, ("content-encoding", "gzip")],
            body().into(),
            400,
            3,
        ),
        (
            "not zstd",
            &[PROTOBUF, ("content-encoding", "zstd")],
            body().into(),
            400,
            3,
        ),
        (
            "br",
            &[PROTOBUF, ("content-encoding", "br")],
            body().into(),
            415,
            12,
        ),
        ("large", &[PROTOBUF], large.clone(), 413, 8),
        (
            "large when opened",
            &[PROTOBUF, ("content-encoding", "zstd")],
            zstd(&large).into(),
            413,
            8,
        ),
        (
            "gzip bomb",
            &[PROTOBUF, ("content-encoding", "gzip")],
            gzip(&bomb).into(),
            413,
            8,
        ),
        (
            "zstd bomb",
            &[PROTOBUF, ("content-encoding", "zstd")],
            zstd(&bomb).into(),
            413,
            8,
        ),
    ];
    let samples = with_receiver(limits, QUEUE, ok(), |served| async move {
        for (name, headers, body, status, code) in cases {
            let reply = post(served.http, headers, body).await;
            assert_eq!(reply.status, status, "{name}: {reply:?}");
            assert_eq!(reply.header("content-type"), PROTOBUF.1, "{name}");
            assert_eq!(rpc_status(&reply).0, code, "{name}");
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
            if status == 405 {
                assert_eq!(reply.header("allow"), "POST");
            }
        }
        assert_eq!(served.backend.seen().len(), 0);
    })
    .await;
    for (reason, count) in [
        ("malformed", 4),
        ("encoding", 1),
        ("too_large", 4),
        ("method", 2),
        ("path", 2),
        ("content_type", 2),
    ] {
        assert_eq!(rejected(&samples, reason), count, "{reason}");
    }
    assert_eq!(requests(&samples, "http", "failure"), 15);
}

#[tokio::test]
async fn over_grpc_every_refusal_has_its_code() {
    let limits = ("max_recv_msg_size_mib: 1", "");
    let bomb = vec![0; 50 << 20];
    let large = batch_of(0, 20_000).encode();
    assert!(large.len() > 1 << 20);
    let mut bad_id = batch_of(0, 1);
    bad_id.resource_spans_mut()[0].scope_spans[0].spans[0].span_id = vec![1; 7];
    let gzipped: &[(&str, &str)] = &[("grpc-encoding", "gzip")];
    let zipped: &[(&str, &str)] = &[("grpc-encoding", "zstd")];
    let short = framed(0, &body()).slice(..20);
    let long = [framed(0, &body()), framed(0, &body())].concat();
    let cases: Vec<(&str, &[(&str, &str)], Bytes, i32)> = vec![
        ("no message", &[], Bytes::new(), 3),
        ("a message cut off", &[], short, 3),
        ("two messages", &[], long.into(), 3),
        ("noise", &[], framed(0, &[0xff; 9]), 3),
        ("a bad id", &[], framed(0, &bad_id.encode()), 3),
        ("an unknown flag", &[], framed(2, &body()), 3),
        ("compressed, but how", &[], framed(1, &gzip(&body())), 3),
        ("not gzip", gzipped, framed(1, &body()), 3),
        (
            "snappy",
            &[("grpc-encoding", "snappy")],
            framed(1, &body()),
            12,
        ),
        ("large", &[], framed(0, &large), 8),
        ("large when opened", gzipped, framed(1, &gzip(&large)), 8),
        ("gzip bomb", gzipped, framed(1, &gzip(&bomb)), 8),
        ("zstd bomb", zipped, framed(1, &zstd(&bomb)), 8),
        (
            "a promise of 4 GiB",
            &[],
            Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]),
            8,
        ),
    ];
    let samples = with_receiver(limits, QUEUE, ok(), |served| async move {
        for (name, headers, body, code) in cases {
            let reply = call(served.grpc, headers, body).await;
            assert_eq!(
                (reply.status, reply.code()),
                (200, code),
                "{name}: {reply:?}"
            );
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
    assert_eq!(requests(&samples, "grpc", "failure"), 16);
    assert_eq!(total(&samples, "otelcol_receiver_accepted_spans"), 0);
}

#[tokio::test]
async fn an_empty_request_is_a_success() {
    with_receiver(("", ""), QUEUE, ok(), |served| async move {
        let empty_scope = [0x0a, 2, 0x12, 0];
        for body in [&[][..], &empty_scope] {
            assert_eq!(
                post(served.http, &[PROTOBUF], body.to_vec()).await.status,
                200
            );
            assert_eq!(call(served.grpc, &[], framed(0, body)).await.code(), 0);
        }
        for body in ["{}", r#"{"resourceSpans":[]}"#] {
            assert_eq!(post(served.http, &[JSON], body).await.status, 200);
        }
    })
    .await;
}

#[tokio::test]
async fn what_the_pipelines_do_not_take_goes_back_to_the_client_and_is_not_lost() {
    let stuck = Answer {
        delay: Duration::from_mins(1),
        ..ok().remove(0)
    };
    let queue = "sending_queue: {batch: null, num_consumers: 1, queue_size: 1}";
    let samples = with_receiver(("", ""), queue, vec![stuck], |served| async move {
        let body = batch_of(0, 3).encode();
        // One is being sent, one waits, and there is no room for more.
        assert_eq!(
            post(served.http, &[PROTOBUF], body.clone()).await.status,
            200
        );
        wait_for(|| served.backend.seen().len() == 1).await;
        assert_eq!(call(served.grpc, &[], framed(0, &body)).await.code(), 0);
        let reply = post(served.http, &[PROTOBUF], body.clone()).await;
        assert_eq!((reply.status, reply.header("retry-after")), (503, "1"));
        assert_eq!(rpc_status(&reply), (14, "not taken: queue_full".to_owned()));
        let reply = call(served.grpc, &[], framed(0, &body)).await;
        assert_eq!(
            (reply.code(), reply.header("grpc-message")),
            (14, "not%20taken:%20queue_full")
        );
        let samples = served.metrics.samples();
        assert_eq!(lost(&samples, "queue_full"), 0);
    })
    .await;
    assert_eq!(total(&samples, "otelcol_receiver_accepted_spans"), 6);
    assert_eq!(total(&samples, "otelcol_receiver_refused_spans"), 6);
    assert_eq!(total(&samples, "otelcol_exporter_enqueue_failed_spans"), 6);
    assert_eq!(lost(&samples, "shutdown"), 6, "what was accepted");
    assert_eq!(rejected(&samples, "pipelines"), 2);
}

#[tokio::test]
async fn without_a_queue_the_client_hears_what_the_backend_says() {
    let queue = "sending_queue: {enabled: false}, retry_on_failure: {enabled: false}";
    for (backend, http, grpc) in [(200, 200, 0), (400, 500, 13)] {
        let answer = Answer {
            status: backend,
            ..Answer::default()
        };
        with_receiver(("", ""), queue, vec![answer], |served| async move {
            let body = batch_of(0, 3).encode();
            let reply = post(served.http, &[PROTOBUF], body.clone()).await;
            assert_eq!(reply.status, http, "{reply:?}");
            let reply = call(served.grpc, &[], framed(0, &body)).await;
            assert_eq!(reply.code(), grpc, "{reply:?}");
            assert_eq!(served.backend.seen().len(), 2);
        })
        .await;
    }
}
