//! How a call finds the request that it was made for.

use crate::scene::{Seen, Stage, client, finished, id, link, server};
use span_linker::Config;
use span_model::ToldBy;

#[test]
fn an_event_loop_that_interleaves_requests_keeps_them_apart() {
    // One thread: reads 1, calls 11; reads 2, calls 12; reads 11's response and calls 21;
    // reads 12's response and calls 22. `serving` names request 2 throughout.
    let linked = link(&[
        server(1, 1, 0..1000).tid(5),
        server(2, 1, 20..900).tid(5),
        client(11, 1, 10..100).after(1).serving(1).tid(5),
        client(12, 1, 30..200).after(2).serving(2).tid(5),
        client(21, 1, 110..300).after(11).serving(2).tid(5),
        client(22, 1, 210..400).after(12).serving(2).tid(5),
    ]);
    for (child, parent) in [(11, 1), (12, 2), (21, 1), (22, 2)] {
        linked.assert_linked(child, parent, "thread_order");
        assert!(linked.confidence(child) >= 0.9);
    }
    linked.assert_same_trace(&[1, 11, 21]);
    linked.assert_same_trace(&[2, 12, 22]);
}

/// A loop that reads what is there and then works on it, as asyncio does, or that works on each
/// read at once: two requests at a time, one call each.
fn loops(rounds: u64, reads_ahead: bool) -> Vec<Seen> {
    let round = |round: u64| {
        let (at, ids) = (round * 1000, 10 * (round + 1));
        let [one, two, call_one, call_two] = [ids, ids + 1, ids + 2, ids + 3];
        let (read_one, back_one) = if reads_ahead {
            (two, call_two)
        } else {
            (one, call_one)
        };
        [
            server(one, 1, at..at + 500).after(back_one).tid(5),
            server(two, 1, at + 10..at + 510).after(call_two).tid(5),
            client(call_one, 1, at + 20..at + 300)
                .after(read_one)
                .tid(5),
            client(call_two, 1, at + 30..at + 310).after(two).tid(5),
        ]
    };
    (0..rounds).flat_map(round).collect()
}

#[test]
fn a_loop_that_reads_ahead_is_seen_through_by_its_responses() {
    let linked = link(&loops(20, true));
    let unlinked = |round: u64| linked.assert_unlinked(10 * (round + 1) + 2, "no_evidence");
    (0..20).for_each(unlinked);
    let linked = link(&loops(20, false));
    for round in 0..20 {
        let one = 10 * (round + 1);
        linked.assert_linked(one + 2, one, "thread_order");
    }
}

#[test]
fn replies_that_one_call_read_say_nothing_about_the_loop() {
    // Both calls' replies come with one read, which is noted under the second's name.
    let round = |round: u64| {
        let (at, id) = (round * 1000, 10 * (round + 1));
        [
            server(id, 1, at..at + 500).after(id + 3).tid(5),
            client(id + 2, 1, at + 5..at + 300).after(id).tid(5),
            server(id + 1, 1, at + 10..at + 510).after(id + 3).tid(5),
            client(id + 3, 1, at + 15..at + 300).after(id + 1).tid(5),
        ]
    };
    let linked = link(&(0..20).flat_map(round).collect::<Vec<_>>());
    for round in 0..20 {
        let id = 10 * (round + 1);
        linked.assert_linked(id + 2, id, "thread_order");
        linked.assert_linked(id + 3, id + 1, "thread_order");
    }
}

#[test]
fn calls_that_outlive_their_requests_are_linked_where_responses_prove_the_order() {
    // A proxy that mirrors: the copy is still under way when the request is answered.
    let round = |round: u64| {
        let (at, id) = (round * 1000, 10 * (round + 1));
        [
            server(id, 1, at..at + 500).after(id + 1).tid(5),
            client(id + 1, 1, at + 10..at + 400).after(id).tid(5),
            client(id + 2, 1, at + 20..at + 700).after(id).tid(5),
        ]
    };
    let linked = link(&(0..40).flat_map(round).collect::<Vec<_>>());
    for round in 0..40 {
        let id = 10 * (round + 1);
        linked.assert_linked(id + 2, id, "thread_order");
    }
}

#[test]
fn a_call_that_may_have_stood_in_line_for_a_connection_is_not_guessed() {
    // One pooled connection: 12 goes out on it as soon as 11's response has freed it.
    let linked = link(&[
        server(1, 1, 0..1000).tid(5),
        server(2, 1, 20..900).tid(5),
        client(11, 1, 10..100).after(1).serving(1).tid(5),
        client(12, 1, 110..200).after(11).freed().serving(2).tid(5),
    ]);
    linked.assert_unlinked(12, "below_floor");
    // Alone there is nobody else to stand in line.
    let linked = link(&[
        server(1, 1, 0..1000).tid(5),
        client(11, 1, 10..100).after(1).serving(1).tid(5),
        client(12, 1, 110..200).after(11).freed().serving(1).tid(5),
    ]);
    linked.assert_linked(12, 1, "thread_order");
}

#[test]
fn the_first_request_on_a_new_connection_belongs_to_whoever_connected() {
    // The loop connects in request 1's turn and can write only after it has read request 2.
    let linked = link(&[
        server(1, 1, 0..1000).tid(5),
        server(2, 1, 20..900).tid(5),
        client(11, 1, 30..100)
            .connected_after(1)
            .after(2)
            .serving(2)
            .tid(5),
        client(21, 1, 110..300).after(11).serving(2).tid(5),
    ]);
    linked.assert_linked(11, 1, "thread_order");
    linked.assert_linked(21, 1, "thread_order");
}

#[test]
fn blocking_threads_serve_one_request_each() {
    let linked = link(&[
        server(1, 1, 0..1000).tid(5),
        server(2, 1, 1..1000).tid(6),
        client(11, 1, 10..100).after(1).serving(1).tid(5),
        client(12, 1, 11..100).after(2).serving(2).tid(6),
        client(13, 1, 110..120).after(11).serving(1).tid(5),
        client(14, 1, 130..140).serving(2).tid(6),
    ]);
    for (child, parent) in [(11, 1), (12, 2), (13, 1)] {
        linked.assert_linked(child, parent, "thread_order");
        assert!(
            (linked.confidence(child) - 0.98).abs() < 1e-6,
            "both rungs agree"
        );
    }
    // What was read last belongs to no span that we know.
    linked.assert_linked(14, 2, "thread");
    assert!((linked.confidence(14) - 0.9).abs() < 1e-6);
}

#[test]
fn a_long_row_of_calls_leads_back_to_its_request() {
    let mut spans = vec![
        server(1, 1, 0..1_000_000).tid(5),
        server(2, 1, 1..1_000_000).tid(6),
    ];
    for n in 0..500 {
        let call = client(100 + n, 1, 10 + n * 10..15 + n * 10).tid(5);
        spans.push(call.after(if n == 0 { 1 } else { 99 + n }));
    }
    spans.reverse();
    let linked = link(&spans);
    for n in 0..500 {
        linked.assert_linked(100 + n, 1, "thread_order");
    }
}

#[test]
fn a_proxy_that_sends_headers_on_is_linked_by_them() {
    let linked = link(&[
        server(1, 1, 0..1000).context(7, 70).tid(5),
        server(2, 1, 0..1000).context(8, 80).tid(5),
        client(11, 1, 10..100).context(8, 80).after(1).tid(5),
    ]);
    linked.assert_linked(11, 2, "headers");
    linked.assert_linked(2, 80, "trace_context");
    linked.assert_same_trace(&[2, 11]);
}

#[test]
fn a_context_made_in_the_process_is_an_sdks_and_names_the_parent() {
    let linked = link(&[
        server(1, 1, 0..1000).context(7, 70).tid(5),
        client(11, 1, 10..100)
            .context(7, 71)
            .after(1)
            .serving(1)
            .tid(5),
    ]);
    linked.assert_linked(11, 71, "trace_context");
    linked.assert_same_trace(&[1, 11]);
    assert_eq!(linked.get(11).flags, 0x101);
}

#[test]
fn of_two_requests_with_one_context_the_thread_picks() {
    let requests = [
        server(1, 1, 0..1000).context(7, 70).tid(5),
        server(2, 1, 1..1000).context(7, 70).tid(6),
    ];
    let call = client(11, 1, 10..100)
        .context(7, 70)
        .after(2)
        .serving(2)
        .tid(6);
    let [one, two] = requests;
    let linked = link(&[one.clone(), two.clone(), call.clone()]);
    linked.assert_linked(11, 2, "thread_order");
    let blind = Seen {
        facts: span_model::LinkFacts {
            after: None,
            serving: None,
            ..call.facts.clone()
        },
        ..call
    };
    let linked = link(&[one, two, blind]);
    linked.assert_linked(11, 70, "trace_context");
}

#[test]
fn a_request_of_another_trace_is_not_the_parent_whatever_the_thread_says() {
    let linked = link(&[
        server(1, 1, 0..1000).context(7, 70).tid(5),
        server(2, 1, 1..1000).context(7, 70).tid(6),
        server(3, 1, 2..1000).tid(8),
        client(11, 1, 10..100)
            .context(7, 70)
            .after(3)
            .serving(3)
            .tid(8),
    ]);
    linked.assert_linked(11, 70, "trace_context");
    linked.assert_same_trace(&[1, 2, 11]);
}

#[test]
fn a_worker_that_got_its_request_from_another_thread_is_not_followed() {
    // Thread 5 reads and answers requests, thread 9 works for whichever it was handed.
    let linked = link(&[
        server(1, 1, 0..1000).token(1).tid(5),
        server(2, 1, 1..1000).token(2).tid(5),
        client(11, 1, 10..50).token(1).tid(9),
        client(12, 1, 60..90).after(11).tid(9),
    ]);
    linked.assert_linked(11, 1, "tokens");
    linked.assert_unlinked(12, "below_floor");
}

#[test]
fn a_rare_header_value_links_what_it_came_in_with() {
    let linked = link(&[
        server(1, 1, 0..1000).token(71).token(9).tid(5),
        server(2, 1, 1..1000).token(72).token(9).tid(5),
        client(11, 1, 10..100).token(71).token(9).after(2).tid(5),
        client(12, 1, 10..100).token(72).tid(5),
        client(13, 1, 10..100).token(71).token(72).tid(5),
        client(14, 1, 2000..2100).token(71).tid(5),
    ]);
    linked.assert_linked(11, 1, "tokens");
    assert!((linked.confidence(11) - 0.99).abs() < 1e-6);
    linked.assert_linked(12, 2, "tokens");
    linked.assert_unlinked(13, "no_evidence");
    linked.assert_unlinked(14, "no_open_request");
}

#[test]
fn messages_of_two_requests_read_at_once_tell_nothing_about_what_follows() {
    let linked = link(&[
        server(1, 1, 0..1000).tid(5),
        server(2, 1, 0..1000).tid(5),
        client(11, 1, 10..100).after(2).serving(2).tid(5),
    ]);
    linked.assert_unlinked(11, "no_evidence");
    // The responses to two calls of one request, read at once, are no such case.
    let linked = link(&[
        server(1, 1, 0..1000).tid(5),
        server(2, 1, 5..1000).tid(6),
        client(11, 1, 10..100).after(1).tid(5),
        client(12, 1, 11..100).after(1).tid(5),
        client(13, 1, 101..200).after(12).tid(5),
    ]);
    linked.assert_linked(13, 1, "thread_order");
}

#[test]
fn work_that_goes_on_after_the_response_has_no_parent() {
    let linked = link(&[
        server(1, 1, 0..100).tid(5),
        client(11, 1, 100..200).after(1).serving(1).tid(5),
    ]);
    linked.assert_unlinked(11, "no_open_request");
}

#[test]
fn background_work_on_an_event_loop_is_not_given_to_the_request_it_ran_into() {
    // A timer calls 11 with no request open; what it read leads to the next call, while 1 is served.
    let linked = link(&[
        client(11, 1, 0..50).tid(5),
        server(1, 1, 20..1000).tid(5),
        client(12, 1, 60..90).after(11).serving(1).tid(5),
    ]);
    linked.assert_unlinked(11, "no_open_request");
    linked.assert_unlinked(12, "below_floor");
}

#[test]
fn the_only_open_request_is_below_the_floor_until_exact_links_confirm_it() {
    let blind = |n: u64| {
        [
            server(n, 1, n * 1000..n * 1000 + 900),
            client(n + 1, 1, n * 1000 + 10..n * 1000 + 20),
        ]
    };
    link(&blind(10)).assert_unlinked(11, "below_floor");
    let mut spans = Vec::new();
    for n in (100..160).step_by(2) {
        let [request, call] = blind(n);
        spans.extend([request.token(n), call.token(n)]);
    }
    spans.extend(blind(1000));
    let linked = link(&spans);
    linked.assert_linked(1001, 1000, "only_open");
    assert!((linked.confidence(1001) - 0.9).abs() < 1e-6);
}

#[test]
fn a_lower_floor_lets_weaker_links_through() {
    let spans = [server(1, 1, 0..100), client(2, 1, 10..20)];
    let mut stage = Stage::new(Config {
        confidence_floor: 0.5,
        ..Config::default()
    });
    stage
        .at(0, finished(&spans))
        .tick(2000)
        .left()
        .assert_linked(2, 1, "only_open");
}

fn number_of(id: span_model::SpanId) -> u64 {
    u64::from_be_bytes(*id.as_bytes())
}

/// Requests that hop between threads, four at a time, as goroutines do.
fn go_like(rounds: u64, with_tokens: bool) -> Vec<Seen> {
    let mut spans = Vec::new();
    for round in 0..rounds {
        let base = round * 1000;
        for n in 0..4 {
            let request = 10_000 + round * 8 + n;
            let (tid, other) = (
                u32::try_from(n + 1).unwrap_or(0),
                u32::try_from((n + 1) % 4 + 1).unwrap_or(0),
            );
            let mut seen = server(request, 1, base + n..base + 900).tids(tid, other);
            // Written by the thread that read the next request.
            let wrong = 10_000 + round * 8 + (n + 1) % 4;
            let mut call = client(request + 4, 1, base + 100 + n..base + 200 + n)
                .after(wrong)
                .serving(wrong);
            call = call.tids(other, tid);
            if with_tokens {
                seen = seen.token(request);
                call = call.token(request);
            }
            spans.extend([seen, call]);
        }
    }
    spans
}

#[test]
fn threads_that_carry_anybodys_requests_are_not_believed() {
    for (with_tokens, right) in [(true, 80), (false, 0)] {
        let spans = go_like(20, with_tokens);
        let linked = link(&spans);
        let calls = spans
            .iter()
            .filter(|seen| seen.kind == span_model::SpanKind::Client);
        let parents = calls.map(|call| (linked.parent(call.id), id(call.id - 4)));
        let given: Vec<_> = parents.filter(|(parent, _)| parent.is_some()).collect();
        assert_eq!(given.len(), right, "with tokens: {with_tokens}");
        assert!(given.iter().all(|(parent, truth)| *parent == Some(*truth)));
    }
}

/// Requests 1 to 4 at a time, each with calls 10 times its number and on, by goroutines.
fn goroutines(calls: impl Fn(u64) -> Vec<Seen>, answered_after: impl Fn(u64) -> u64) -> Vec<Seen> {
    let requests = 1..=4;
    let of = |n: u64| {
        let mut spans = vec![
            server(n, 1, n..900 + n)
                .after(answered_after(n))
                .of_goroutine(),
        ];
        let calls = calls(n).into_iter();
        spans.extend(calls.map(|call| match call.facts.told_by {
            ToldBy::Thread => call.of_goroutine(),
            _ => call,
        }));
        spans
    };
    requests.flat_map(of).collect()
}

#[test]
fn goroutines_join_calls_with_what_comes_before_and_after_them() {
    // The second call's time slice began with nothing that was read; the third and the response tell.
    let calls = |n: u64| {
        vec![
            client(10 * n, 1, 100 + n..200).after(n),
            client(10 * n + 1, 1, 300 + n..400),
            client(10 * n + 2, 1, 500 + n..600).after(10 * n + 1),
            client(10 * n + 3, 1, 310 + n..390).serving(n),
            client(10 * n + 4, 1, 320 + n..390),
        ]
    };
    let linked = link(&goroutines(calls, |n| 10 * n + 2));
    for n in 1..=4 {
        for call in 10 * n..10 * n + 4 {
            linked.assert_linked(call, n, "goroutine");
        }
        assert_eq!(linked.parent(10 * n + 4), None, "nothing tells");
    }
}

#[test]
fn what_goroutines_join_with_two_requests_is_given_to_none() {
    let calls = |n: u64| match n {
        // A lock woke a goroutine of 1 in a time slice of 2.
        1 => vec![client(10, 1, 101..200).after(20)],
        _ => vec![client(10 * n, 1, 50 + n..90).after(n)],
    };
    let linked = link(&goroutines(calls, |n| 10 * n));
    assert_eq!((linked.parent(10), linked.parent(20)), (None, None));
    linked.assert_linked(30, 3, "goroutine");
}

#[test]
fn whose_turn_it_is_in_gos_queue_is_believed_once_it_is_proven() {
    // Of each request one call that its response proves, and one that nothing else tells of.
    let round = |base: u64, agrees: bool| {
        let calls = move |n: u64| {
            let turn = if agrees { n } else { n % 4 + 1 };
            let proven = client(10 * n, 1, 100 + n..200).serving(turn);
            vec![
                proven.in_turn(),
                client(10 * n + 1, 1, 110 + n..190).serving(n).in_turn(),
            ]
        };
        let mut spans = goroutines(calls, |n| 10 * n);
        for seen in &mut spans {
            seen.id += base;
            seen.times = seen.times.start + base * 1000..seen.times.end + base * 1000;
            for fact in [&mut seen.facts.after, &mut seen.facts.serving] {
                *fact = fact.map(|fact| id(number_of(fact) + base));
            }
        }
        spans
    };
    for (agrees, expected) in [(true, Some("goroutine")), (false, None)] {
        let spans: Vec<Seen> = (1..=10).flat_map(|n| round(n * 1000, agrees)).collect();
        let linked = link(&spans);
        for n in 1..=4 {
            assert_eq!(linked.parent(1000 + 10 * n + 1), None, "not proven yet");
            let last = 10_000 + 10 * n + 1;
            match expected {
                Some(method) => linked.assert_linked(last, 10_000 + n, method),
                None => assert_eq!(linked.parent(last), None),
            }
        }
    }
}

#[test]
fn threads_that_contradict_tokens_are_not_believed_where_tokens_are_missing() {
    // Requests stay on their thread, but calls are made by a pool that mixes them up.
    let mut spans = go_like(20, true);
    for seen in &mut spans {
        let tid = seen.facts.request_tid;
        seen.facts.response_tid = tid;
    }
    let mut blind = go_like(1, false);
    for seen in &mut blind {
        seen.id += 100_000;
        seen.times = seen.times.start + 1_000_000..seen.times.end + 1_000_000;
        seen.facts.response_tid = seen.facts.request_tid;
        for fact in [&mut seen.facts.after, &mut seen.facts.serving]
            .into_iter()
            .flatten()
        {
            *fact = id(number_of(*fact) + 100_000);
        }
    }
    let calls: Vec<_> = blind
        .iter()
        .filter(|s| s.kind == span_model::SpanKind::Client)
        .map(|s| s.id)
        .collect();
    spans.extend(blind);
    let linked = link(&spans);
    for call in calls {
        assert_eq!(linked.parent(call), None);
    }
}

/// Rounds of sixteen requests that are read by one thread and answered by another, each after one call.
/// What was read before leads back to the first `home` of them, and from the others to their neighbours.
fn wandering(home: u64) -> Vec<Seen> {
    let round = move |round: u64| {
        let (at, one) = (round * 1000, 100 * round);
        (0..16).flat_map(move |i| {
            let neighbour = if i < home { i } else { (i + 1) % 16 };
            [
                server(one + i, 1, at + i..at + 1500 + i)
                    .after(one + 20 + neighbour)
                    .tids(5, 6),
                client(one + 20 + i, 1, at + 20 + i..at + 300 + i)
                    .after(one + i)
                    .tid(7),
            ]
        })
    };
    (1..40).flat_map(round).collect()
}

#[test]
fn hops_are_believed_where_ways_lead_back_more_often_than_chance_would() {
    let linked = link(&wandering(13));
    for round in 20..40 {
        let one = 100 * round;
        for i in 0..13 {
            linked.assert_linked(one + 20 + i, one + i, "hops");
        }
        assert_eq!(linked.parent(one + 35), None);
    }
    for home in [1, 4] {
        let linked = link(&wandering(home));
        for round in 20..40 {
            // The first call is read twice, and before its own response first.
            assert_eq!(linked.parent(100 * round + 21), None);
        }
    }
}

#[test]
fn hops_of_one_kind_are_believed_though_those_of_another_are_wrong() {
    // What is called first follows the request, and the response follows that. The second call is made
    // by a thread that has read another request's response.
    let round = |round: u64| {
        let (at, one) = (round * 1000, 100 * round);
        (0..16).flat_map(move |i| {
            let other = one + 20 + (i * 7 + round) % 16;
            [
                server(one + i, 1, at + i..at + 800 + i)
                    .after(one + 20 + i)
                    .tids(5, 6),
                client(one + 20 + i, 1, at + 20 + i..at + 300 + i)
                    .after(one + i)
                    .tid(7),
                client(one + 40 + i, 1, at + 400 + i..at + 500 + i)
                    .named("POST")
                    .after(other)
                    .tid(7),
            ]
        })
    };
    let linked = link(&(1..40).flat_map(round).collect::<Vec<_>>());
    for one in (20..40).map(|round| 100 * round) {
        for i in 0..16 {
            linked.assert_linked(one + 20 + i, one + i, "hops");
            let (second, request) = (linked.parent(one + 40 + i), id(one + i));
            assert!(second.is_none_or(|parent| parent == request), "{one} {i}");
        }
    }
}
