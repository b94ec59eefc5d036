//! What the `otlp` receiver takes and what it answers (OTLP specification 2.1 to 2.3 and 2.6).

use crate::support::client::{
    JSON, PROTOBUF, call, framed, gzip, post, rpc_status, with_receiver, zstd,
};
use crate::support::everything::everything;
use crate::support::peer::Answer;
use crate::support::{batch_of, count, lost, total, wait_for};
use pipeline::proto::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use std::time::Duration;

const QUEUE: &str = "sending_queue: {batch: null}";
const REJECTED: &str = "deeptrace_receiver_rejected_requests";

fn ok() -> Vec<Answer> {
    vec![Answer {
        status: 200,
        ..Answer::default()
    }]
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
    for (transport, requests) in [("http", 3), ("grpc", 4)] {
        let labels = [("transport", transport), ("outcome", "success")];
        assert_eq!(
            count(&samples, "otelcol_receiver_requests", &labels),
            requests
        );
    }
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
    assert_eq!(
        count(&samples, REJECTED, &[("reason", "malformed")]),
        cases.len() as u64
    );
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
    assert_eq!(count(&samples, REJECTED, &[("reason", "pipelines")]), 2);
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
