//! How spans of different processes come together, and what leaves.

use crate::scene::{Stage, began, client, finished, foreign_trace, id, link, server};
use span_linker::Config;
use span_model::TraceId;

#[test]
fn a_server_span_hangs_below_the_client_span_its_tcp_stream_names() {
    let linked = link(&[
        client(1, 1, 0..100),
        server(2, 2, 10..90).caller(1).host("other"),
    ]);
    linked.assert_linked(2, 1, "tcp_stream");
    assert!((linked.confidence(2) - 1.0).abs() < 1e-9);
    linked.assert_unlinked(1, "no_open_request");
    assert_eq!(linked.trace(2), TraceId::of_root(id(1)));
    linked.assert_same_trace(&[1, 2]);
    assert_eq!((linked.get(1).flags, linked.get(2).flags), (0x103, 0x303));
}

#[test]
fn the_client_span_says_who_answered() {
    let linked = link(&[client(1, 1, 0..100), server(2, 2, 10..90).caller(1)]);
    assert_eq!(linked.text(1, "peer.service"), "service-2");
    assert_eq!(linked.text(1, "service.peer.name"), "service-2");
    assert_eq!(linked.value(2, "peer.service"), None);
}

#[test]
fn facts_do_not_leave() {
    let linked = link(&[server(2, 2, 10..90)
        .caller(1)
        .tid(5)
        .token(6)
        .context(1, 9)
        .after(4)
        .serving(5)]);
    assert!(
        linked
            .get(2)
            .attributes
            .iter()
            .all(|a| !a.key.starts_with("deeptrace.fact."))
    );
}

#[test]
fn a_server_span_whose_caller_was_not_seen_is_a_root_and_says_why() {
    let linked = link(&[server(2, 2, 10..90).caller(1), server(3, 2, 10..90)]);
    linked.assert_unlinked(2, "caller_not_observed");
    linked.assert_unlinked(3, "no_caller");
    assert_eq!(linked.get(2).flags, 0x103);
}

#[test]
fn a_trace_context_is_the_parent_when_the_caller_was_not_seen() {
    let linked = link(&[server(2, 2, 10..90).caller(1).context(7, 70)]);
    linked.assert_linked(2, 70, "trace_context");
    assert_eq!(linked.trace(2), foreign_trace(7));
    assert_eq!(linked.get(2).flags, 0x301);
}

#[test]
fn an_sdk_span_stands_above_our_client_span_and_that_above_the_server_span() {
    let linked = link(&[
        client(1, 1, 0..100).context(7, 70),
        server(2, 2, 10..90).caller(1).context(7, 70),
    ]);
    linked.assert_linked(1, 70, "trace_context");
    linked.assert_linked(2, 1, "tcp_stream");
    assert_eq!(linked.trace(1), foreign_trace(7));
    linked.assert_same_trace(&[1, 2]);
    assert_eq!((linked.get(1).flags, linked.get(2).flags), (0x101, 0x301));
}

#[test]
fn headers_that_only_the_server_side_saw_count_for_the_client_side() {
    let linked = link(&[
        client(1, 1, 0..100),
        server(2, 2, 10..90).caller(1).context(7, 70),
    ]);
    linked.assert_linked(1, 70, "trace_context");
    linked.assert_same_trace(&[1, 2]);
}

#[test]
fn an_unsampled_context_stays_unsampled() {
    let mut request = server(2, 2, 10..90).context(7, 70);
    request.facts.context.as_mut().unwrap().sampled = Some(false);
    assert_eq!(link(&[request]).get(2).flags, 0x300);
}

#[test]
fn a_chain_of_services_is_one_trace_in_any_order_of_arrival() {
    let spans = [
        server(1, 1, 0..1000).tid(1),
        client(2, 1, 100..900).after(1).tid(1),
        server(3, 2, 110..890).caller(2).tid(2),
        client(4, 2, 200..800).after(3).tid(2),
        server(5, 3, 210..790).caller(4).tid(3),
    ];
    let mut reversed = spans.to_vec();
    reversed.reverse();
    for order in [spans.to_vec(), reversed] {
        let linked = link(&order);
        linked.assert_same_trace(&[1, 2, 3, 4, 5]);
        assert_eq!(linked.trace(5), TraceId::of_root(id(1)));
        for child in 2..=5 {
            assert_eq!(linked.parent(child), Some(id(child - 1)));
        }
    }
}

#[test]
fn children_of_a_request_that_is_open_for_long_leave_with_its_trace() {
    let root = server(1, 1, 0..50_000_000).tid(1);
    let call = client(2, 1, 100..900).after(1).tid(1);
    let callee = server(3, 2, 110..890).caller(2).tid(2);
    let mut stage = Stage::new(Config::default());
    let early = stage
        .at(0, began(std::slice::from_ref(&root)))
        .at(1, finished(&[callee, call]))
        .tick(2001)
        .left();
    assert_eq!(early.0.len(), 2);
    let late = stage.at(50_000, finished(&[root])).tick(52_000).left();
    assert_eq!(early.trace(3), TraceId::of_root(id(1)));
    assert_eq!(early.trace(2), late.trace(1));
    early.assert_linked(2, 1, "thread_order");
}

#[test]
fn a_late_child_finds_the_trace_of_what_left_before() {
    let mut stage = Stage::new(Config::default());
    let root = [client(1, 1, 0..100).context(7, 70)];
    let first = stage.at(0, finished(&root)).tick(2000).left();
    let second = stage
        .at(30_000, finished(&[server(2, 2, 10..90).caller(1)]))
        .tick(32_000)
        .left();
    second.assert_linked(2, 1, "tcp_stream");
    assert_eq!(first.trace(1), second.trace(2));
}

#[test]
fn a_caller_that_comes_too_late_joins_the_trace_that_its_callee_began() {
    let mut stage = Stage::new(Config::default());
    let callee = stage
        .at(0, finished(&[server(2, 2, 10..90).caller(1)]))
        .tick(2000)
        .left();
    callee.assert_unlinked(2, "caller_not_observed");
    let caller = [
        server(3, 1, 0..200).tid(1),
        client(1, 1, 5..95).after(3).tid(1),
    ];
    let caller = stage.at(5000, finished(&caller)).tick(7000).left();
    caller.assert_linked(1, 3, "thread_order");
    caller.assert_same_trace(&[1, 3]);
    assert_eq!(caller.trace(1), callee.trace(2));
    assert_eq!(caller.get(1).links.len(), 1);
    assert_eq!(stage.linker.stats().late_joined, 1);
}

#[test]
fn a_caller_whose_own_trace_has_left_points_to_its_callee() {
    let mut stage = Stage::new(Config::default());
    stage
        .at(
            0,
            finished(&[server(2, 2, 10..90).caller(1), server(3, 1, 0..200).tid(1)]),
        )
        .tick(2000);
    let first = stage.left();
    let caller = stage
        .at(5000, finished(&[client(1, 1, 5..95).after(3).tid(1)]))
        .tick(7000)
        .left();
    assert_eq!(caller.trace(1), first.trace(3));
    let [pointer] = caller.get(1).links.as_slice() else {
        panic!("one span link")
    };
    assert_eq!(pointer.trace_id, first.trace(2).as_bytes());
    assert_eq!(pointer.span_id, id(2).as_bytes());
    assert_eq!(stage.linker.stats().late_split, 1);
}

#[test]
fn an_open_root_may_still_find_its_caller_after_a_child_has_left() {
    let (caller, callee) = (
        client(1, 1, 0..9_000_000),
        server(2, 2, 10..8_000_000).caller(1).tid(2),
    );
    let mut stage = Stage::new(Config::default());
    let call = client(3, 2, 20..30).after(2).tid(2);
    let child = stage
        .at(0, began(std::slice::from_ref(&callee)))
        .at(0, finished(&[call]))
        .tick(2000)
        .left();
    let rest = stage
        .at(9000, finished(&[callee, caller]))
        .tick(11_000)
        .left();
    rest.assert_linked(2, 1, "tcp_stream");
    assert_eq!(
        (child.trace(3), rest.trace(1)),
        (rest.trace(2), rest.trace(2))
    );
    assert_eq!(rest.get(1).links.len(), 0);
}

#[test]
fn a_span_seen_by_two_agents_leaves_once() {
    let mut stage = Stage::new(Config::default());
    let spans = [client(1, 1, 0..100), server(2, 2, 10..90).caller(1)];
    stage
        .at(0, began(&spans))
        .at(1, finished(&spans))
        .at(2, finished(&spans))
        .at(3, began(&spans));
    let linked = stage.tick(2003).left();
    assert_eq!(linked.0.len(), 2);
    stage.at(3000, finished(&spans));
    assert_eq!(stage.flush().0.len(), 0);
    assert_eq!(stage.linker.stats().duplicates, 4);
}

#[test]
fn spans_of_other_tracers_go_through_as_they_came() {
    let mut batch = finished(&[client(1, 1, 0..100)]);
    let span = &mut batch.resource_spans_mut()[0].scope_spans[0].spans[0];
    span.trace_id = foreign_trace(9).as_bytes().to_vec();
    span.parent_span_id = id(5).as_bytes().to_vec();
    span.flags = 0x1;
    let before = span.clone();
    let mut stage = Stage::new(Config::default());
    assert_eq!(*stage.at(0, batch).left().get(1), before);
    assert_eq!(stage.linker.stats().foreign, 1);
}

#[test]
fn a_server_span_is_drawn_inside_its_client_span_when_they_share_a_clock() {
    let spans = [client(1, 1, 20..80), server(2, 2, 10..90).caller(1)];
    let linked = link(&spans);
    assert_eq!(
        (
            linked.get(1).start_time_unix_nano,
            linked.get(1).end_time_unix_nano
        ),
        (10_000, 80_000)
    );
    assert_eq!(
        (
            linked.get(2).start_time_unix_nano,
            linked.get(2).end_time_unix_nano
        ),
        (10_000, 80_000)
    );
    let [caller, callee] = spans;
    let apart = link(&[caller.clone(), callee.clone().host("other")]);
    assert_eq!(apart.get(1).start_time_unix_nano, 20_000);
    assert_eq!(apart.get(2).end_time_unix_nano, 90_000);
    let gave_up = link(&[caller.incomplete(), callee]);
    assert_eq!(
        gave_up.get(2).end_time_unix_nano,
        90_000,
        "a caller that gave up bounds nothing"
    );
}

#[test]
fn a_ring_of_parents_is_cut_and_all_of_it_leaves() {
    let linked = link(&[
        server(1, 1, 0..100).caller(4).tid(1),
        client(2, 1, 10..90).after(1).tid(1),
        server(3, 2, 0..100).caller(2).tid(1),
        client(4, 2, 10..90).after(3).tid(1),
    ]);
    linked.assert_same_trace(&[1, 2, 3, 4]);
    let roots = (1..=4)
        .filter(|span| linked.parent(*span).is_none())
        .count();
    assert_eq!(roots, 1);
}
