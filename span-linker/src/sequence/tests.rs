//! What a process that calls `A`, then `B`, teaches, and what is chosen by it.

use super::held_out::HeldOut;
use super::joint::Deal;
use super::model::{MAX_HISTOGRAMS, Model};
use super::pair::{Dealer, Pair};
use super::{Call, Choice, MAX_PROCESSES, Process, Request, Scene, Sequences, State, joint};
use crate::hash::mix;
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
    let requests = |n: u64| request(n, n * 20, n * 20 + 12);
    let calls = |n: u64| [call(2 * n, A, n * 20 + 2), call(2 * n + 1, B, n * 20 + 7)];
    for n in 0..100 {
        // With a look at the next one.
        let calls = [calls(n), calls(n + 1)].concat();
        let scene = scene(&[requests(n), requests(n + 1)], &calls);
        process.decide(&scene, (n * 20 + 20) * MS);
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

/// 20 requests of which each makes two calls at any time while it lasts: nothing tells whose they are.
fn guessing(round: u64) -> Scene {
    let random = |n: u64, range_ms: u64| mix(mix(round, 1) ^ n, 5) % (range_ms * MS);
    let requests = (0..20).map(|n| Request {
        start_ns: 100 * round * MS + random(n, 20),
        end_ns: Some((100 * round + 60) * MS + random(n + 100, 30)),
        ..request(1000 * round + n, 0, 0)
    });
    let calls = (0..40).map(|n| {
        let start_ns = (100 * round + 25) * MS + random(n + 200, 30);
        Call {
            start_ns,
            end_ns: Some(start_ns + 4 * MS),
            ..call(1000 * round + n, if n % 2 == 0 { A } else { B }, 0)
        }
    });
    let (mut requests, mut calls): (Vec<_>, Vec<_>) = (requests.collect(), calls.collect());
    requests.sort_by_key(|request| request.start_ns);
    calls.sort_by_key(|call| call.start_ns);
    scene(&requests, &calls)
}

#[test]
fn where_it_only_guesses_it_is_soon_not_believed() {
    let mut process = taught();
    let mut sure = Vec::new();
    for round in 30..100 {
        let choices = process.decide(&guessing(round), (100 * round + 100) * MS);
        let of_round = choices.iter().filter(|choice| choice.confidence >= 0.8);
        sure.push(of_round.count());
    }
    let (early, late) = sure.split_at(50);
    let calls = 40 * 20;
    assert!(early.iter().sum::<usize>() < calls / 2, "{early:?}");
    assert!(late.iter().sum::<usize>() < calls / 100, "{late:?}");
}

#[test]
fn what_began_with_guesses_is_not_believed_however_well_it_fits() {
    let mut process = Process::default();
    // Two requests at a time, always: each could have made the other's calls.
    for round in 0..200 {
        let start = round * 40;
        let requests = [
            request(2 * round, start, start + 12),
            request(2 * round + 1, start + 1, start + 13),
        ];
        let calls = [
            call(4 * round, A, start + 2),
            call(4 * round + 1, A, start + 3),
            call(4 * round + 2, B, start + 7),
            call(4 * round + 3, B, start + 8),
        ];
        let choices = process.decide(&scene(&requests, &calls), (start + 40) * MS);
        assert!(
            choices.iter().all(|choice| choice.confidence <= 0.5),
            "{choices:?}"
        );
    }
    assert!(process.is_taught());
}

#[test]
fn looking_for_decoys_changes_nothing_that_was_learned() {
    let (mut one, other) = (taught(), taught());
    one.doubts.look(&crossing(), &one.model, 0..u64::MAX);
    let choose =
        |process: &Process| joint::choose(&crossing(), &mut process.model.clone(), false).choices;
    assert_eq!(choose(&one), choose(&other));
}

/// Two requests that cross, whose calls of `A` were made by these, and a third one of whose call
/// nothing is known.
fn partly_known(round: u64, known: [u32; 2]) -> Scene {
    let (id, start) = (10 * round, 3000 + 100 * round);
    let requests = [
        request(id, start, start + 12),
        request(id + 1, start + 5, start + 17),
        request(id + 2, start + 50, start + 62),
    ];
    let calls = [
        call(id, A, start + 2),
        call(id + 1, A, start + 7),
        call(id + 2, A, start + 52),
    ];
    let mut scene = scene(&requests, &calls);
    let [first, second] = known.map(Some);
    scene.pinned = vec![first, second, None];
    scene
}

#[test]
fn calls_whose_parents_are_known_tell_how_far_timing_may_be_believed_about_their_like() {
    let process = taught();
    let most = |known: [u32; 2]| {
        let mut held_out = HeldOut::default();
        for round in 0..40 {
            held_out.look(&partly_known(round, known), &process.model, u64::MAX);
        }
        [A, B].map(|kind| held_out.most_of_kind(kind))
    };
    assert!(most([0, 1]).iter().all(|most| *most >= 1.0));
    let [wrong, unknown] = most([1, 0]);
    assert!(wrong < 0.7, "{wrong}");
    assert!(unknown >= 1.0, "{unknown}");
}
