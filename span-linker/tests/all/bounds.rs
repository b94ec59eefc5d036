//! Order of arrival, time and memory.

use crate::scene::{Seen, Stage, began, client, finished, link, server};
use proptest::prelude::*;
use span_linker::Config;
use span_linker::window::link::{Method, Reason};
use std::time::Duration;

#[test]
fn a_span_leaves_when_its_wait_is_over_and_not_before() {
    let mut stage = Stage::new(Config {
        decision_wait: Duration::from_millis(500),
        ..Config::default()
    });
    stage.at(100, finished(&[server(1, 1, 0..10)])).tick(599);
    assert_eq!(stage.left().0.len(), 0);
    assert_eq!(stage.at(600, finished(&[])).left().0.len(), 1);
    assert_eq!(
        (stage.linker.held_spans(), stage.linker.known_spans()),
        (0, 1)
    );
}

#[test]
fn a_flush_decides_everything_and_children_get_their_parents_traces() {
    let mut stage = Stage::new(Config::default());
    let spans = [
        client(4, 2, 200..800).after(3).tid(2),
        server(3, 2, 110..890).caller(2).tid(2),
        client(2, 1, 100..900).after(1).tid(1),
        server(1, 1, 0..1000).tid(1),
    ];
    for (n, span) in (0..).zip(&spans) {
        stage.at(n, finished(std::slice::from_ref(span)));
    }
    let linked = stage.flush();
    linked.assert_same_trace(&[1, 2, 3, 4]);
    assert_eq!(stage.linker.stats().linked(Method::ThreadOrder), 2);
    assert_eq!(stage.linker.stats().linked(Method::TcpStream), 1);
    assert_eq!(stage.linker.stats().unlinked(Reason::NoCaller), 1);
    assert_eq!(stage.flush().0.len(), 0);
}

#[test]
fn spans_of_a_process_that_came_apart_leave_together() {
    let mut linker = span_linker::SpanLinker::new(Config::default());
    let (now, mut out) = (pipeline::clock::Monotonic::default(), Vec::new());
    for n in 1..=3 {
        linker.process(finished(&[server(n, 1, 0..10)]), now, &mut out);
        linker.process(finished(&[server(n + 10, 2, 0..10)]), now, &mut out);
    }
    linker.flush(&mut out);
    let [batch] = out.as_slice() else {
        panic!("one batch")
    };
    assert_eq!((batch.resource_spans().len(), batch.span_count()), (2, 6));
}

#[test]
fn over_the_limit_the_oldest_waiting_spans_leave_unlinked() {
    let mut stage = Stage::new(Config {
        max_spans: 10,
        ..Config::default()
    });
    for n in 0..30 {
        stage.at(n, finished(&[client(n + 1, 1, n..n + 1).context(7, 70)]));
        assert!(stage.linker.known_spans() <= 10);
    }
    let refused = stage.left();
    assert_eq!(refused.0.len(), 20);
    refused.assert_unlinked(1, "window_full");
    assert_eq!(stage.linker.stats().refused, 20);
    stage
        .tick(2100)
        .left()
        .assert_linked(30, 70, "trace_context");
}

#[test]
fn remembered_spans_make_room_for_waiting_ones() {
    let mut stage = Stage::new(Config {
        max_spans: 10,
        ..Config::default()
    });
    for n in 0..30 {
        stage.at(n * 3000, finished(&[client(n + 1, 1, n..n + 1)]));
        assert!(stage.linker.known_spans() <= 10);
    }
    assert_eq!(stage.linker.stats().refused, 0);
}

#[test]
fn openings_that_never_end_are_forgotten() {
    let mut stage = Stage::new(Config {
        max_spans: 10,
        ..Config::default()
    });
    for n in 0..30 {
        stage.at(n, began(&[server(n + 1, 1, n..n + 1)]));
    }
    assert_eq!(
        (
            stage.linker.known_spans(),
            stage.linker.stats().forgotten_openings
        ),
        (10, 20)
    );
    stage.tick(700_000);
    assert_eq!(
        (
            stage.linker.known_spans(),
            stage.linker.stats().forgotten_openings
        ),
        (0, 30)
    );
}

#[test]
fn exported_spans_are_forgotten_in_time() {
    let mut stage = Stage::new(Config::default());
    stage
        .at(0, finished(&[server(1, 1, 0..10)]))
        .tick(2000)
        .tick(61_000);
    assert_eq!(stage.linker.known_spans(), 1);
    stage.tick(63_000);
    assert_eq!(stage.linker.known_spans(), 0);
}

#[test]
fn a_span_without_an_id_goes_through_and_is_counted() {
    let mut batch = finished(&[server(1, 1, 0..10)]);
    batch.resource_spans_mut()[0].scope_spans[0].spans[0].span_id = vec![1, 2, 3];
    let mut out = Vec::new();
    let mut linker = span_linker::SpanLinker::new(Config::default());
    linker.process(batch, pipeline::clock::Monotonic::default(), &mut out);
    assert_eq!(
        out.iter().map(pipeline::Batch::span_count).sum::<usize>(),
        1
    );
    assert_eq!(linker.stats().malformed, 1);
}

/// Three services of interleaving event loops and blocking threads.
fn world() -> Vec<Seen> {
    let mut spans = Vec::new();
    for n in 0..12 {
        let t = n * 37;
        let (a, b, c) = (100 + n * 10, 101 + n * 10, 102 + n * 10);
        let worker = u32::try_from(n).unwrap_or(0) + 1;
        spans.extend([
            server(a, 1, t..t + 900).tid(5).token(n / 2),
            client(b, 1, t + 10..t + 500).after(a).serving(a).tid(5),
            server(c, 2, t + 5..t + 505).caller(b).tid(worker),
            client(a + 3, 2, t + 20..t + 80)
                .after(c)
                .serving(c)
                .tid(worker),
            client(a + 4, 2, t + 90..t + 95)
                .after(a + 3)
                .serving(c)
                .tid(worker),
            server(a + 5, 3, t + 21..t + 79).caller(a + 3).host("other"),
            client(a + 6, 1, t + 510..t + 600)
                .after(b)
                .serving(a)
                .tid(5),
        ]);
    }
    spans
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_arrival_within_the_delay_does_not_matter(
        order in Just((0..world().len()).collect::<Vec<_>>()).prop_shuffle(),
        pieces in 1_usize..20,
        open in proptest::collection::vec(any::<bool>(), 84),
    ) {
        let spans = world();
        let expected = link(&spans);
        let mut stage = Stage::new(Config::default());
        for (n, piece) in (0..).zip(order.chunks(pieces)) {
            let seen: Vec<_> = piece.iter().map(|index| spans[*index].clone()).collect();
            let also_open = seen.iter().zip(&open).filter(|(_, open)| **open).map(|(seen, _)| seen.clone());
            let openings = began(&also_open.collect::<Vec<_>>());
            // Before and after their ends, some twice.
            if n % 2 == 0 {
                stage.at(n * 20, openings).at(n * 20, finished(&seen));
            } else {
                stage.at(n * 20, finished(&seen)).at(n * 20, openings);
            }
            stage.at(n * 20, finished(&seen[..1]));
        }
        stage.tick(2000).tick(2200).tick(4000);
        prop_assert_eq!(stage.left(), expected);
    }
}
