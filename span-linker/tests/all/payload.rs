//! Calls that carry on an id of the request they are made for.

use crate::scene::{Seen, client, link, server};
use span_model::PAYLOAD_TOKEN;

/// Two requests at a time for other things, and a call for each on threads that say nothing; every
/// `foreign`th of them is about something else.
fn requests(pairs: u64, foreign: u64) -> Vec<Seen> {
    let word = |n: u64| PAYLOAD_TOKEN + n;
    let pair = |n: u64| {
        let (id, at) = (10 * n, 1000 * n);
        let about = |n: u64| {
            if n.is_multiple_of(foreign) {
                word(900_000 + n)
            } else {
                word(n)
            }
        };
        [
            server(id, 1, at..at + 500).token(word(2 * n)).tids(5, 6),
            server(id + 1, 1, at + 1..at + 500)
                .token(word(2 * n + 1))
                .tids(6, 5),
            client(id + 2, 1, at + 10..at + 20)
                .token(about(2 * n))
                .tid(7),
            client(id + 3, 1, at + 11..at + 21)
                .token(about(2 * n + 1))
                .tid(8),
        ]
    };
    (1..=pairs).flat_map(pair).collect()
}

#[test]
fn an_id_that_one_open_request_came_with_links_once_calls_are_known_to_carry_them_on() {
    let linked = link(&requests(40, u64::MAX));
    linked.assert_linked(402, 400, "payload");
    linked.assert_linked(403, 401, "payload");
    assert_eq!(linked.parent(12), None, "nothing is known yet");
}

#[test]
fn kinds_of_calls_that_often_carry_on_nothing_are_not_linked_by_it() {
    let linked = link(&requests(40, 5));
    linked.assert_unlinked(402, "no_evidence");
    linked.assert_unlinked(403, "no_evidence");
}

#[test]
fn an_id_that_two_requests_share_tells_neither() {
    let mut spans = requests(40, u64::MAX);
    let word = PAYLOAD_TOKEN + 77;
    spans.extend([
        server(1000, 1, 100_000..101_000).token(word).tids(5, 6),
        server(1001, 1, 100_001..101_000).token(word).tids(6, 5),
        client(1002, 1, 100_020..100_300).token(word).tid(7),
    ]);
    link(&spans).assert_unlinked(1002, "no_evidence");
}
