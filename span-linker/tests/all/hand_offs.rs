//! How a call that was handed to another thread finds its request, and when it does not.

use crate::scene::{Seen, client, link, server};

/// Threads 5 and 6 serve two requests at a time, which hand a call each to threads 9 and 10 and wait
/// for it. Requests of a round: `10 n` and `10 n + 1`; calls: `10 n + 2` and `10 n + 3`.
fn pool(rounds: std::ops::Range<u64>, tasks_wait: bool) -> Vec<Seen> {
    let round = |round: u64| {
        let (at, one) = (round * 1000, 10 * round);
        let [two, call_one, call_two] = [one + 1, one + 2, one + 3];
        // A worker that was woken for one task finds the other first.
        let (by_one, by_two) = if tasks_wait { (two, one) } else { (one, two) };
        [
            server(one, 1, at..at + 500).woken_after(call_one).tid(5),
            server(two, 1, at + 1..at + 510)
                .woken_after(call_two)
                .tid(6),
            client(call_one, 1, at + 20..at + 300)
                .woken_after(by_one)
                .tid(9),
            client(call_two, 1, at + 30..at + 310)
                .woken_after(by_two)
                .tid(10),
        ]
    };
    rounds.flat_map(round).collect()
}

#[test]
fn a_call_that_was_handed_to_another_thread_is_followed_once_hand_offs_are_proven() {
    let mut spans = pool(1..40, false);
    // Handed off, and nobody waits for it.
    spans.extend([
        server(500, 1, 50_000..51_000).tid(5),
        server(501, 1, 50_001..51_000).tid(6),
        client(502, 1, 50_020..50_300).woken_after(500).tid(9),
    ]);
    let linked = link(&spans);
    linked.assert_unlinked(12, "no_evidence");
    for round in 20..40 {
        let one = 10 * round;
        linked.assert_linked(one + 2, one, "hand_back");
        linked.assert_linked(one + 3, one + 1, "hand_back");
        assert!(
            (linked.confidence(one + 2) - 0.98).abs() < 1e-6,
            "both agree"
        );
    }
    linked.assert_linked(502, 500, "hand_off");
}

#[test]
fn a_worker_that_finds_its_task_waiting_is_not_its_wakers() {
    let mut spans = pool(1..40, true);
    spans.extend([
        server(500, 1, 50_000..51_000).tid(5),
        server(501, 1, 50_001..51_000).tid(6),
        client(502, 1, 50_020..50_300).woken_after(500).tid(9),
        // Others were woken before who waited for it, and it may be any of them.
        server(510, 1, 60_000..61_000)
            .woken_after(512)
            .woken_later()
            .tid(5),
        server(511, 1, 60_001..61_000).tid(6),
        client(512, 1, 60_020..60_300).tid(9),
        // Two were woken.
        server(520, 1, 70_000..71_000).woken_after(522).tid(5),
        server(521, 1, 70_001..71_000).woken_after(522).tid(6),
        client(522, 1, 70_020..70_300).tid(9),
    ]);
    let linked = link(&spans);
    for round in 20..40 {
        let one = 10 * round;
        linked.assert_linked(one + 2, one, "hand_back");
        linked.assert_linked(one + 3, one + 1, "hand_back");
    }
    for call in [502, 512, 522] {
        linked.assert_unlinked(call, "no_evidence");
    }
}

#[test]
fn threads_that_wake_each_other_for_a_lock_hand_nothing_on() {
    // Each makes its own call; who reads a response leaves the lock to the other one. Thread 9
    // works in the background.
    let round = |round: u64| {
        let (at, one) = (round * 1000, 10 * round);
        let [two, call_one, call_two] = [one + 1, one + 2, one + 3];
        let [third, own] = [one + 4, one + 5];
        [
            server(one, 1, at..at + 500).woken_after(call_two).tid(5),
            server(two, 1, at + 1..at + 510).woken_after(own).tid(6),
            server(third, 1, at + 2..at + 510)
                .woken_after(call_one)
                .tid(7),
            client(call_one, 1, at + 20..at + 300).after(one).tid(5),
            client(call_two, 1, at + 30..at + 310)
                .after(two)
                .woken_after(one)
                .tid(6),
            client(own, 1, at + 40..at + 310).woken_after(two).tid(9),
        ]
    };
    let linked = link(&(1..60).flat_map(round).collect::<Vec<_>>());
    for round in 1..60 {
        let one = 10 * round;
        linked.assert_linked(one + 2, one, "thread_order");
        linked.assert_linked(one + 3, one + 1, "thread_order");
        linked.assert_unlinked(one + 5, "no_evidence");
    }
}

#[test]
fn a_thread_that_is_sure_of_its_order_is_believed_before_its_waker() {
    let mut spans = pool(1..40, false);
    spans.extend([
        server(500, 1, 50_000..51_000).tid(5),
        server(501, 1, 50_001..51_000).tid(6),
        client(502, 1, 50_020..50_300)
            .after(501)
            .woken_after(500)
            .tid(6),
        // It had been read by another thread, so the order is not sure.
        client(503, 1, 50_030..50_300)
            .after(501)
            .woken_after(500)
            .tid(9),
        // Both say the same.
        client(504, 1, 50_040..50_300)
            .after(500)
            .woken_after(500)
            .tid(5),
    ]);
    let linked = link(&spans);
    linked.assert_linked(502, 501, "thread_order");
    linked.assert_linked(503, 500, "hand_off");
    linked.assert_linked(504, 500, "thread_order");
}

#[test]
fn a_waker_is_not_believed_against_a_thread_that_is_not_trusted_either() {
    let mut spans = pool(1..40, false);
    // Tokens show that the order of threads is wrong here.
    for n in 60..80 {
        let at = n * 1000;
        spans.extend([
            server(10 * n, 1, at..at + 500).token(n).tid(5),
            server(10 * n + 1, 1, at..at + 500).tid(6),
            client(10 * n + 2, 1, at + 10..at + 20)
                .token(n)
                .after(10 * n + 1)
                .tid(6),
        ]);
    }
    spans.extend([
        server(1000, 1, 100_000..101_000).tid(5),
        server(1001, 1, 100_001..101_000).tid(6),
        client(1002, 1, 100_020..100_300)
            .after(1001)
            .woken_after(1000)
            .tid(6),
        client(1003, 1, 100_030..100_300).woken_after(1000).tid(9),
    ]);
    let linked = link(&spans);
    linked.assert_unlinked(1002, "no_evidence");
    linked.assert_linked(1003, 1000, "hand_off");
}

#[test]
fn hand_offs_of_the_only_request_prove_nothing() {
    let round = |n: u64| {
        [
            server(10 * n, 1, n * 1000..n * 1000 + 900)
                .woken_after(10 * n + 1)
                .tid(5),
            client(10 * n + 1, 1, n * 1000 + 10..n * 1000 + 20)
                .woken_after(10 * n)
                .tid(9),
        ]
    };
    let linked = link(&(1..60).flat_map(round).collect::<Vec<_>>());
    for n in 1..60 {
        linked.assert_unlinked(10 * n + 1, "below_floor");
    }
}
