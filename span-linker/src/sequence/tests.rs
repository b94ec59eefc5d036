//! What a process that calls `A`, then `B`, teaches, and what is chosen by it.

use super::joint::Deal;
use super::model::{MAX_HISTOGRAMS, Model};
use super::pair::{Dealer, Pair};
use super::{Call, Choice, MAX_PROCESSES, Process, Request, Scene, Sequences, State};
use span_model::{ProcessKey, SpanId};

const A: u32 = 1;
const B: u32 = 2;
const MS: u64 = 1_000_000;

/// A request that was under way from then to then, in ms.
fn request(id: u64, start_ms: u64, end_ms: u64) -> Request {
    Request {
        id: SpanId::from_hash(id),
        kind: 9,
        start_ns: start_ms * MS,
        end_ns: Some(end_ms * MS),
        tids: (0, 0),
    }
}

/// A call that lasted 4 ms.
fn call(id: u64, kind: u32, start_ms: u64) -> Call {
    Call {
        id: SpanId::from_hash(1_000_000 + id),
        kind,
        start_ns: start_ms * MS,
        end_ns: Some((start_ms + 4) * MS),
        tids: (0, 0),
        after: None,
        serving: None,
    }
}

fn scene(requests: &[Request], calls: &[Call]) -> Scene {
    Scene {
        requests: requests.to_vec(),
        states: requests.iter().map(State::begun).collect(),
        calls: calls.to_vec(),
        pinned: vec![None; calls.len()],
    }
}

/// A process that served 100 requests, one at a time: each called `A` after 2 ms and `B` 1 ms
/// after that had ended, and ended 1 ms after `B` had. The last one ended by 2000 ms.
fn taught() -> Process {
    let mut process = Process::default();
    for n in 0..100 {
        let start = n * 20;
        let requests = [request(n, start, start + 12)];
        let calls = [call(2 * n, A, start + 2), call(2 * n + 1, B, start + 7)];
        process.decide(&scene(&requests, &calls), (start + 20) * MS);
    }
    assert!(process.is_taught());
    process
}

fn parents(choices: &[Choice]) -> Vec<Option<u32>> {
    choices.iter().map(|choice| choice.parent).collect()
}

/// Two requests, the second 5 ms after the first: it makes its first call when the first one
/// makes its second.
fn crossing() -> Scene {
    let requests = [request(501, 3000, 3012), request(502, 3005, 3017)];
    let calls = [
        call(501, A, 3002),
        call(502, B, 3007),
        call(503, A, 3007),
        call(504, B, 3012),
    ];
    scene(&requests, &calls)
}

#[test]
fn a_request_takes_its_calls_in_the_order_that_was_learned() {
    let choices = taught().decide(&crossing(), 4000 * MS);
    assert_eq!(parents(&choices), [Some(0), Some(0), Some(1), Some(1)]);
    assert!(
        choices.iter().all(|choice| choice.confidence > 0.9),
        "{choices:?}"
    );
}

#[test]
fn calls_that_began_at_once_may_come_in_any_order() {
    let mut other = crossing();
    other.calls.swap(1, 2);
    let choices = taught().decide(&other, 4000 * MS);
    assert_eq!(parents(&choices), [Some(0), Some(1), Some(0), Some(1)]);
}

#[test]
fn a_call_that_no_open_request_can_have_made_has_no_parent() {
    let requests = [request(501, 3000, 3012)];
    let calls = [
        call(501, A, 2990),
        call(502, A, 3002),
        call(503, B, 3007),
        call(504, A, 3012),
    ];
    let choices = taught().decide(&scene(&requests, &calls), 4000 * MS);
    assert_eq!(parents(&choices), [None, Some(0), Some(0), None]);
}

#[test]
fn a_known_parent_stands_whatever_was_learned() {
    let mut scene = crossing();
    scene.pinned = vec![None, Some(1), None, None];
    let choices = taught().decide(&scene, 4000 * MS);
    assert_eq!(choices.get(1).and_then(|choice| choice.parent), Some(1));
}

#[test]
fn a_pair_that_has_each_others_calls_is_dealt_out_right() {
    let mut process = taught();
    let scene = crossing();
    let wrong = Deal {
        calls: vec![vec![0, 2], vec![1, 3]],
        ..Deal::default()
    };
    let pair = Pair::new(&scene, &wrong, 0, 1).unwrap();
    let best = Dealer::default()
        .deal(&scene, &mut process.model, &pair)
        .unwrap();
    let seconds: Vec<_> = (0..4).map(|n| pair.gives_to_second(&best, n)).collect();
    assert_eq!(seconds, [false, false, true, true]);
}

#[test]
fn a_pair_whose_calls_are_known_is_left_alone() {
    let mut scene = crossing();
    scene.pinned = vec![Some(0), Some(0), Some(1), Some(1)];
    let deal = Deal {
        calls: vec![vec![0, 1], vec![2, 3]],
        ..Deal::default()
    };
    assert!(Pair::new(&scene, &deal, 0, 1).is_none());
}

#[test]
fn what_is_usual_weighs_more_than_what_is_not() {
    let mut model = taught().model;
    let begun = State::begun(&request(501, 3000, 3012));
    let mut weigh = |kind, start_ms| model.weigh(&begun, &begun.call(&call(1, kind, start_ms)));
    let usual = weigh(A, 3002);
    for (kind, start_ms) in [(B, 3002), (A, 3001), (A, 3009), (77, 3002)] {
        let unusual = weigh(kind, start_ms);
        assert!(usual > unusual + 2.0, "{kind} at {start_ms}: {unusual}");
    }
}

#[test]
fn a_model_without_room_counts_what_it_does_not_learn() {
    let mut model = Model::default();
    let begun = State::begun(&request(1, 0, 10));
    let kinds = u32::try_from(MAX_HISTOGRAMS).unwrap();
    for kind in 0..kinds {
        model.learn(&begun, &begun.call(&call(1, kind, 2)), 1.0);
    }
    assert!(model.refused > 0);
}

#[test]
fn models_that_were_idle_longest_go_and_what_they_refused_is_still_counted() {
    let mut sequences = Sequences::default();
    sequences.process(ProcessKey(0)).model.refused = 7;
    let all = u64::try_from(MAX_PROCESSES).unwrap();
    for key in 1..=all {
        sequences.process(ProcessKey(key));
    }
    assert_eq!((sequences.forgotten, sequences.refused()), (all / 8, 7));
}
