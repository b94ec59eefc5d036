//! Trace contexts that other tracers put into requests, and the rare header
//! values that name a request. Every protocol with headers offers them here.
//!
//! Leaves to others: finding headers in bytes (the protocols), and what a context
//! means for a span's parent (the linker).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use span_model::{PAYLOAD_TOKEN, SpanId, TraceId, WireContext};
use std::borrow::Cow;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Headers whose value is rare: seen on two requests, it links them. Some are also
/// read as a context; they count here too, for a proxy may pass only one of them on.
const TOKEN_HEADERS: &[&str] = &[
    "cf-ray",
    "correlation-id",
    "elastic-apm-traceparent",
    "fly-request-id",
    "idempotency-key",
    "ot-tracer-traceid",
    "request-id",
    "trace-id",
    "x-amz-cf-id",
    "x-amzn-requestid",
    "x-amzn-trace-id",
    "x-b3-spanid",
    "x-b3-traceid",
    "x-client-request-id",
    "x-client-trace-id",
    "x-cloud-trace-context",
    "x-correlation-id",
    "x-datadog-trace-id",
    "x-envoy-original-request-id",
    "x-envoy-stream-id",
    "x-idempotency-key",
    "x-instana-t",
    "x-kong-request-id",
    "x-message-id",
    "x-ms-client-request-id",
    "x-ms-request-id",
    "x-ot-span-context",
    "x-request-id",
    "x-request-trace",
    "x-trace-id",
    "x-transaction-id",
    "x-vercel-id",
];

/// Shorter values are not rare: `1`, `true`, a counter.
const MIN_TOKEN_BYTES: usize = 8;
/// More tokens on one request are refused; four is already unusual.
const MAX_TOKENS: usize = 8;
/// Longer values are neither a context nor a request id.
const MAX_VALUE_BYTES: usize = 1024;

/// What the headers of one request said so far.
#[derive(Debug, Default)]
pub struct ContextHeaders {
    traceparent: Option<WireContext>,
    traceparent_conflict: bool,
    b3_single: Option<WireContext>,
    b3_trace: Option<TraceId>,
    b3_span: Option<SpanId>,
    b3_sampled: Option<bool>,
    jaeger: Option<WireContext>,
    skywalking: Option<WireContext>,
    tokens: Vec<u64>,
}

impl ContextHeaders {
    /// Takes one header in; the name may be in any case. Headers that say nothing
    /// about contexts are ignored.
    pub fn offer(&mut self, name: &str, value: &str) {
        let value = value.trim();
        if value.len() > MAX_VALUE_BYTES {
            return;
        }
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("traceparent") {
            self.offer_traceparent(value);
        } else if is("b3") {
            self.b3_single = b3_single(value);
        } else if is("x-b3-traceid") {
            self.b3_trace = padded_trace_id(value, &[16, 32]);
        } else if is("x-b3-spanid") {
            self.b3_span = SpanId::from_hex(value);
        } else if is("x-b3-sampled") {
            self.b3_sampled = self.b3_sampled.or(b3_decision(value));
        } else if is("x-b3-flags") && value == "1" {
            self.b3_sampled = Some(true);
        } else if is("uber-trace-id") {
            self.jaeger = jaeger(value);
        } else if is("sw8") {
            self.skywalking = skywalking(value);
        }
        self.offer_token(name, value);
    }

    /// The context, if a header gave one, and the tokens. The first that is well
    /// formed wins: W3C, B3 single, B3 multi, Jaeger, `SkyWalking`.
    pub fn finish(self) -> (Option<WireContext>, Vec<u64>) {
        let b3_multi = self.b3_trace.map(|trace_id| WireContext {
            trace_id,
            parent_span_id: self.b3_span,
            sampled: self.b3_sampled,
        });
        let context = self
            .traceparent
            .or(self.b3_single)
            .or(b3_multi.filter(|context| context.parent_span_id.is_some()))
            .or(self.jaeger)
            .or(self.skywalking);
        (context, self.tokens)
    }

    /// Two headers that disagree count as none, as the W3C asks of receivers.
    fn offer_traceparent(&mut self, value: &str) {
        let read = traceparent(value);
        if self.traceparent.is_some() && self.traceparent != read {
            self.traceparent_conflict = true;
        }
        self.traceparent = read.filter(|_| !self.traceparent_conflict);
    }

    /// The hash is of the value alone: a service that hands an id on under another
    /// name (`X-Request-Id` in, `X-Correlation-Id` out) still matches.
    fn offer_token(&mut self, name: &str, value: &str) {
        let known = TOKEN_HEADERS
            .iter()
            .any(|token| name.eq_ignore_ascii_case(token));
        if !known || value.len() < MIN_TOKEN_BYTES || self.tokens.len() >= MAX_TOKENS {
            return;
        }
        let token = xxh3_64(value.as_bytes()) & !PAYLOAD_TOKEN;
        if !self.tokens.contains(&token) {
            self.tokens.push(token);
        }
    }
}

/// W3C Trace Context: `version-trace-parent-flags`, lower-case hex. Of versions
/// that do not exist yet the first four fields are read, `ff` is forbidden.
fn traceparent(value: &str) -> Option<WireContext> {
    if value.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let mut fields = value.split('-');
    let version = hex_byte(fields.next()?)?;
    let trace_id = TraceId::from_hex(fields.next()?)?;
    let parent = SpanId::from_hex(fields.next()?)?;
    let flags = hex_byte(fields.next()?)?;
    if version == 0xff || (version == 0 && fields.next().is_some()) {
        return None;
    }
    Some(WireContext {
        trace_id,
        parent_span_id: Some(parent),
        sampled: Some(flags & 1 == 1),
    })
}

/// B3 in one header: `trace-span[-decision[-parent]]`. A decision alone names no trace.
fn b3_single(value: &str) -> Option<WireContext> {
    let mut fields = value.split('-');
    let trace_id = padded_trace_id(fields.next()?, &[16, 32])?;
    let span = SpanId::from_hex(fields.next()?)?;
    Some(WireContext {
        trace_id,
        parent_span_id: Some(span),
        sampled: fields.next().and_then(b3_decision),
    })
}

fn b3_decision(value: &str) -> Option<bool> {
    match value {
        "1" | "d" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

/// Jaeger: `trace:span:parent:flags`, ids without leading zeros, colons perhaps
/// percent-encoded.
fn jaeger(value: &str) -> Option<WireContext> {
    let value: Cow<'_, str> = if value.contains('%') {
        value.replace("%3A", ":").replace("%3a", ":").into()
    } else {
        value.into()
    };
    let mut fields = value.split(':');
    let trace_id = padded_trace_id(fields.next()?, &[])?;
    let span = fields
        .next()
        .filter(|text| (1..=16).contains(&text.len()))?;
    let span = SpanId::from_hex(&format!("{span:0>16}"))?;
    let _parent = fields.next()?;
    let flags = u8::from_str_radix(fields.next()?, 16).ok()?;
    Some(WireContext {
        trace_id,
        parent_span_id: Some(span),
        sampled: Some(flags & 1 == 1),
    })
}

/// `SkyWalking` 8: `sample-trace-segment-span-…`, texts in base64. Its trace id is any
/// text, so it is hashed unless it already is one of 16 bytes; its parent is a
/// segment and an index, which is no span id.
fn skywalking(value: &str) -> Option<WireContext> {
    let fields: Vec<&str> = value.split('-').collect();
    let [sample, trace, _, _, _, _, _, _] = fields.as_slice() else {
        return None;
    };
    let text = STANDARD
        .decode(trace)
        .ok()
        .filter(|text| !text.is_empty())?;
    let as_is = std::str::from_utf8(&text).ok().and_then(TraceId::from_hex);
    let hashed = || TraceId::from_bytes(xxh3_128(&text).to_be_bytes());
    Some(WireContext {
        trace_id: as_is.or_else(hashed)?,
        parent_span_id: None,
        sampled: b3_decision(sample),
    })
}

/// Reads a trace id that may be short, filling up with zeros on the left. With
/// `lengths` given, only those numbers of digits are accepted.
fn padded_trace_id(digits: &str, lengths: &[usize]) -> Option<TraceId> {
    let fits = if lengths.is_empty() {
        (1..=32).contains(&digits.len())
    } else {
        lengths.contains(&digits.len())
    };
    fits.then(|| TraceId::from_hex(&format!("{digits:0>32}")))?
}

fn hex_byte(digits: &str) -> Option<u8> {
    let hex = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    hex.then(|| u8::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn read(headers: &[(&str, &str)]) -> Option<(String, Option<String>, Option<bool>)> {
        let mut offered = ContextHeaders::default();
        for (name, value) in headers {
            offered.offer(name, value);
        }
        offered.finish().0.map(|context| {
            let parent = context.parent_span_id.map(|id| id.to_string());
            (context.trace_id.to_string(), parent, context.sampled)
        })
    }

    fn tokens(headers: &[(&str, &str)]) -> Vec<u64> {
        let mut offered = ContextHeaders::default();
        for (name, value) in headers {
            offered.offer(name, value);
        }
        offered.finish().1
    }

    fn full(sampled: Option<bool>) -> (String, Option<String>, Option<bool>) {
        (TRACE.into(), Some(SPAN.into()), sampled)
    }

    #[test]
    fn w3c_contexts_are_read_in_this_and_in_future_versions() {
        for (value, sampled) in [
            (format!("00-{TRACE}-{SPAN}-01"), true),
            (format!("00-{TRACE}-{SPAN}-00"), false),
            (format!("00-{TRACE}-{SPAN}-03"), true),
            (format!(" 00-{TRACE}-{SPAN}-01 "), true),
            (format!("cc-{TRACE}-{SPAN}-01"), true),
            (format!("cc-{TRACE}-{SPAN}-01-what-the-future-brings"), true),
        ] {
            assert_eq!(
                read(&[("TraceParent", &value)]),
                Some(full(Some(sampled))),
                "{value}"
            );
        }
    }

    #[test]
    fn broken_w3c_contexts_are_refused() {
        let zero_trace = "0".repeat(32);
        for value in [
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{zero_trace}-{SPAN}-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{TRACE}-{SPAN}-01-extra"),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-+1"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            String::new(),
        ] {
            assert_eq!(read(&[("traceparent", &value)]), None, "{value}");
        }
    }

    #[test]
    fn two_w3c_contexts_that_disagree_count_as_none() {
        let one = format!("00-{TRACE}-{SPAN}-01");
        let other = format!("00-{TRACE}-00f067aa0ba902b8-01");
        assert_eq!(
            read(&[("traceparent", &one), ("traceparent", &one)]),
            Some(full(Some(true)))
        );
        let three = [
            ("traceparent", &*one),
            ("traceparent", &*other),
            ("traceparent", &*one),
        ];
        assert_eq!(read(&three), None);
    }

    #[test]
    fn b3_in_one_header_is_read() {
        for (value, sampled) in [
            (format!("{TRACE}-{SPAN}-1"), Some(true)),
            (format!("{TRACE}-{SPAN}-d-00f067aa0ba902b8"), Some(true)),
            (format!("{TRACE}-{SPAN}-0"), Some(false)),
            (format!("{TRACE}-{SPAN}"), None),
        ] {
            assert_eq!(read(&[("b3", &value)]), Some(full(sampled)), "{value}");
        }
        for value in ["0", "1", "d", "", "-"] {
            assert_eq!(read(&[("b3", value)]), None, "{value}");
        }
    }

    #[test]
    fn b3_in_many_headers_is_read_and_short_traces_are_filled_up() {
        let headers = [
            ("X-B3-TraceId", TRACE),
            ("X-B3-SpanId", SPAN),
            ("X-B3-Sampled", "1"),
        ];
        assert_eq!(read(&headers), Some(full(Some(true))));
        let short = [("x-b3-traceid", "a3ce929d0e0e4736"), ("x-b3-spanid", SPAN)];
        let expected = (
            "0000000000000000a3ce929d0e0e4736".into(),
            Some(SPAN.into()),
            None,
        );
        assert_eq!(read(&short), Some(expected));
        assert_eq!(
            read(&[("x-b3-traceid", TRACE)]),
            None,
            "a trace without a span"
        );
        let debug = [
            ("x-b3-flags", "1"),
            ("x-b3-traceid", TRACE),
            ("x-b3-spanid", SPAN),
        ];
        assert_eq!(read(&debug), Some(full(Some(true))));
    }

    #[test]
    fn jaeger_contexts_are_read_encoded_and_short_too() {
        let short_span = SPAN.trim_start_matches('0');
        for value in [
            format!("{TRACE}:{SPAN}:0:1"),
            format!("{TRACE}:{short_span}:0:1"),
            format!("{TRACE}%3A{SPAN}%3A0%3a1"),
        ] {
            assert_eq!(
                read(&[("uber-trace-id", &value)]),
                Some(full(Some(true))),
                "{value}"
            );
        }
        let expected = (
            format!("{:0>32}", "abc"),
            Some(format!("{:0>16}", "d")),
            Some(false),
        );
        assert_eq!(read(&[("uber-trace-id", "abc:d:0:0")]), Some(expected));
        for value in ["", "abc", "abc:d:0", "0:d:0:1", "abc:0:0:1", ":::"] {
            assert_eq!(read(&[("uber-trace-id", value)]), None, "{value}");
        }
    }

    #[test]
    fn skywalking_gives_a_trace_and_no_parent() {
        let header = |id: &str| {
            let id = STANDARD.encode(id);
            format!("1-{id}-c2VnbWVudA==-3-c2VydmljZQ==-aW5zdGFuY2U=-L2VuZA==-MTI3LjAuMC4xOjgw")
        };
        let plain = Some((TRACE.into(), None, Some(true)));
        assert_eq!(read(&[("sw8", &header(TRACE))]), plain);
        let dotted = "3912196de0cf41f4bab8a8a8108fc3a8.63.16294441329780027";
        let first = read(&[("sw8", &header(dotted))]);
        assert!(first.is_some());
        assert_eq!(
            first,
            read(&[("sw8", &header(dotted))]),
            "the same on every machine"
        );
        assert_ne!(
            first,
            read(&[("sw8", &header("3912196de0cf41f4bab8a8a8108fc3a8.63.1"))])
        );
        assert_eq!(read(&[("sw8", "1-%%%-a-b-c-d-e-f")]), None);
        assert_eq!(read(&[("sw8", "1-YQ==")]), None);
    }

    #[test]
    fn the_w3c_context_wins_over_all_others() {
        let w3c = format!("00-{TRACE}-{SPAN}-01");
        let b3 = format!("{}-{SPAN}-0", "a".repeat(32));
        assert_eq!(
            read(&[("b3", &b3), ("traceparent", &w3c)]),
            Some(full(Some(true)))
        );
    }

    #[test]
    fn a_renamed_request_id_gives_the_same_token() {
        let id = "7f1c0f0e-52f7-4f9b-9d0c-8f0f3b1f2a11";
        let one = tokens(&[("X-Request-Id", id)]);
        assert_eq!(one.len(), 1);
        assert_eq!(one, tokens(&[("x-correlation-id", id)]));
        assert_eq!(
            one,
            tokens(&[("x-request-id", id), ("x-correlation-id", id)]),
            "no doubles"
        );
    }

    #[test]
    fn short_values_and_unlisted_headers_give_no_token() {
        assert!(tokens(&[("x-request-id", "1234567")]).is_empty());
        assert!(tokens(&[("authorization", "Bearer abcdefghijkl")]).is_empty());
        assert!(tokens(&[("cookie", "session=abcdefghijkl")]).is_empty());
        let long = "x".repeat(MAX_VALUE_BYTES + 1);
        assert!(tokens(&[("x-request-id", &long)]).is_empty());
    }
}
