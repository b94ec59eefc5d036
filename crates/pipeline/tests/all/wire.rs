//! Encoded requests that travel without being decoded: what is let in, and that it decodes.

use crate::support::batch_of;
use crate::support::everything::everything;
use bytes::Bytes;
use pipeline::proto::collector::trace::v1::ExportTraceServiceRequest;
use pipeline::proto::trace::v1::span::Link;
use pipeline::proto::trace::v1::{ResourceSpans, ScopeSpans, Span};
use pipeline::{Batch, count_spans};
use proptest::prelude::*;
use prost::Message;

fn span() -> Span {
    Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        ..Span::default()
    }
}

fn request(span: Span) -> Vec<u8> {
    let scope_spans = vec![ScopeSpans {
        spans: vec![span],
        ..ScopeSpans::default()
    }];
    let resource_spans = vec![ResourceSpans {
        scope_spans,
        ..ResourceSpans::default()
    }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

fn said(body: &[u8]) -> Result<usize, String> {
    count_spans(body).map_err(|error| error.to_string())
}

#[test]
fn ids_have_the_right_length_or_the_request_is_refused() {
    let check = |change: fn(&mut Span), expected: Result<usize, &str>| {
        let mut span = span();
        change(&mut span);
        let body = request(span.clone());
        let expected = expected.map_err(str::to_owned);
        assert_eq!(said(&body), expected, "{span:?}");
    };
    check(|_| {}, Ok(1));
    check(|span| span.trace_id.clear(), Ok(1));
    check(|span| span.parent_span_id = vec![3; 8], Ok(1));
    check(
        |span| span.trace_id = vec![1; 15],
        Err("byte 7: Span.trace_id has 15 bytes, not 16"),
    );
    check(
        |span| span.span_id = vec![1; 16],
        Err("byte 25: Span.span_id has 16 bytes, not 8"),
    );
    check(|span| span.span_id.clear(), Err("byte 6: Span has no id"));
    check(
        |span| span.parent_span_id = vec![1; 4],
        Err("byte 35: Span.parent_span_id has 4 bytes, not 8"),
    );
    let link = |bytes: usize| Link {
        trace_id: vec![1; bytes],
        ..Link::default()
    };
    let mut linked = span();
    linked.links = vec![link(0), link(16)];
    assert_eq!(said(&request(linked.clone())), Ok(1));
    linked.links.push(link(17));
    let error = said(&request(linked)).unwrap_err();
    assert!(
        error.ends_with("Link.trace_id has 17 bytes, not 16"),
        "{error}"
    );
}

#[test]
fn broken_bytes_are_refused_with_their_place() {
    let cases: [(&[u8], &str); 9] = [
        (&[0x0a], "byte 1: a number does not end"),
        (&[0x0a, 5, 1], "byte 1: 5 bytes are promised, 1 are there"),
        (
            &[0x08, 1],
            "byte 1: ExportTraceServiceRequest.resource_spans is Varint, not Length",
        ),
        (&[0x07], "byte 0: a field has no known wire type"),
        (&[0x00, 1], "byte 0: a field has an impossible number"),
        (
            &[0x0a, 3, 0x1a, 1, 0xff],
            "byte 3: ResourceSpans.schema_url is no UTF-8",
        ),
        (&[0x7d, 1, 2], "byte 1: a number is cut off"),
        (&[0x7b, 0x7b], "byte 2: a number does not end"),
        (&[0x7c], "byte 1: a group ends that has not begun"),
    ];
    for (body, expected) in cases {
        assert_eq!(said(body), Err(expected.to_owned()), "{body:?}");
    }
}

#[test]
fn fields_that_are_not_known_pass_through() {
    let mut body = batch_of(0, 3).encode().to_vec();
    // Field 15 of all five wire types, the group with another field in it.
    body.extend([0x78, 1, 0x79, 1, 2, 3, 4, 5, 6, 7, 8, 0x7a, 2, 0xff, 0xff]);
    body.extend([0x7b, 0x08, 1, 0x7c, 0x7d, 1, 2, 3, 4]);
    let mut batch = Batch::encoded(Bytes::from(body.clone())).unwrap();
    assert_eq!((batch.span_count(), batch.encode().to_vec()), (3, body));
    assert_eq!(
        batch.take_resource_spans(),
        batch_of(0, 3).take_resource_spans()
    );
    assert_eq!(batch.span_count(), 0);
}

/// Values inside each other, so many levels below the request.
fn nested(levels: usize) -> Vec<u8> {
    let length_delimited = |tag: u8, inner: Vec<u8>| {
        let mut outer = vec![tag];
        prost::encoding::encode_varint(inner.len() as u64, &mut outer);
        outer.extend(inner);
        outer
    };
    // A resource's attribute: request, resource_spans, resource, attributes, value, then pairs
    // of array_value and values.
    let value = (4..levels).fold(Vec::new(), |inner, level| {
        length_delimited(
            if (levels - level) % 2 == 1 {
                0x2a
            } else {
                0x0a
            },
            inner,
        )
    });
    [0x12, 0x0a, 0x0a, 0x0a]
        .into_iter()
        .fold(value, |inner, tag| length_delimited(tag, inner))
}

#[test]
fn depth_is_limited_as_the_decoder_limits_it() {
    for levels in [5, 99, 100, 101, 102, 5_000] {
        let body = nested(levels);
        let decoded = ExportTraceServiceRequest::decode(body.as_slice());
        assert_eq!(
            said(&body).is_ok(),
            decoded.is_ok(),
            "{levels} {:?}",
            said(&body)
        );
        assert_eq!(decoded.is_ok(), levels <= 100, "{levels}");
    }
}

#[test]
fn an_empty_request_has_no_spans() {
    assert_eq!(said(&[]), Ok(0));
    assert!(Batch::encoded(Bytes::new()).unwrap().is_empty());
}

#[test]
fn a_look_leaves_the_bytes_and_a_change_does_not() {
    let body = everything().encode();
    let mut batch = Batch::encoded(body.clone()).unwrap();
    assert_eq!(*batch.resource_spans(), *everything().resource_spans());
    assert_eq!(batch.encode().as_ptr(), body.as_ptr());
    batch.resource_spans_mut().pop();
    assert!(batch.encode().is_empty());
}

proptest! {
    #[test]
    fn what_is_let_in_decodes_to_as_many_spans(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut body = everything().encode().to_vec();
        for (place, byte) in changes {
            let place = place.index(body.len());
            body[place] = byte;
        }
        check_agreement(&body);
        body.truncate(cut.index(body.len()));
        check_agreement(&body);
    }

    #[test]
    fn noise_is_let_in_only_if_it_decodes(body in prop::collection::vec(any::<u8>(), 0..40)) {
        check_agreement(&body);
    }
}

/// Never lets in what does not decode; refuses what decodes only for its ids.
fn check_agreement(body: &[u8]) {
    let decoded = ExportTraceServiceRequest::decode(body);
    match (count_spans(body), decoded) {
        (Ok(spans), Ok(request)) => {
            assert_eq!(spans, Batch::new(request.resource_spans).span_count());
        }
        (Ok(_), Err(error)) => panic!("let in, but {error}: {body:?}"),
        (Err(error), Ok(_)) => {
            let about_ids = [" id", "_id has "].iter().any(|id| error.what.contains(id));
            assert!(about_ids, "{error}: {body:?}");
        }
        (Err(_), Err(_)) => {}
    }
}
