//! What reads and writes teach, and what is kept of it.

use super::model::{Act, Model, View};
use super::seed::Seed;
use super::steps::{ANSWER, Round, Step, What, steps};
use super::walk::MAX_LIVE;
use super::{MAX_PROCESSES, Made, Queues, Scene, Served};
use span_model::{ProcessKey, SpanId};

const ASKED: u32 = 7;
const CALLED: u32 = 8;

fn served(id: u64, start_ns: u64, end_ns: u64) -> Served {
    Served {
        id: SpanId::from_hash(id),
        kind: ASKED,
        start_ns,
        end_ns: Some(end_ns),
        polls: (0, 0),
    }
}

fn made(id: u64, start_ns: u64, end_ns: u64) -> Made {
    Made {
        id: SpanId::from_hash(id),
        kind: CALLED,
        start_ns,
        end_ns: Some(end_ns),
        connected_after_ns: None,
        polls: (0, 0),
        connected: None,
        parent: None,
    }
}

/// What happened, when and in which round.
fn check(scene: &Scene, expected: &[(What, u64, u32)]) {
    let steps = steps(scene, Round::default());
    let told: Vec<_> = steps
        .iter()
        .map(|step| (step.what, step.time_ns, step.round))
        .collect();
    assert_eq!(told, expected);
}

#[test]
fn a_round_begins_with_the_first_read_after_a_write() {
    let scene = Scene {
        requests: vec![served(1, 10, 50), served(2, 11, 60)],
        calls: vec![made(3, 20, 40)],
        since_ns: 0,
        until_ns: 100,
        horizon_ns: 100,
    };
    let expected = [
        (What::Request, 10, 1),
        (What::Request, 11, 1),
        (What::Call, 20, 1),
        (What::Response, 40, 2),
        (What::Answer, 50, 2),
        (What::Answer, 60, 2),
    ];
    check(&scene, &expected);
}

#[test]
fn a_call_that_connects_has_its_turn_in_the_round_in_which_it_does() {
    let connecting = Made {
        connected_after_ns: Some(11),
        ..made(4, 55, 70)
    };
    let scene = Scene {
        requests: vec![served(1, 10, 50), served(2, 11, 80)],
        calls: vec![connecting, made(3, 20, 40)],
        since_ns: 0,
        until_ns: 100,
        horizon_ns: 100,
    };
    let expected = [
        (What::Request, 10, 1),
        (What::Request, 11, 1),
        (What::Call, 20, 1),
        (What::Call, 40, 1),
        (What::Response, 40, 2),
        (What::Answer, 50, 2),
        (What::Response, 70, 3),
        (What::Answer, 80, 3),
    ];
    check(&scene, &expected);
}

/// Rounds with reads of requests now and then, each followed by a call two rounds later.
fn two_rounds_later() -> Vec<Step> {
    let step = |round, what, kind| Step {
        time_ns: u64::from(round),
        round,
        polls: 0,
        what,
        kind,
        index: 0,
    };
    let asked = |round: u32| (round * round) % 5 + round % 3;
    let mut steps = Vec::new();
    for round in 2..400 {
        steps.extend((0..asked(round)).map(|_| step(round, What::Request, ASKED)));
        steps.extend((0..round % 4).map(|_| step(round, What::Response, CALLED)));
        steps.extend((0..asked(round - 2)).map(|_| step(round, What::Call, CALLED)));
    }
    steps
}

#[test]
fn which_writes_follow_which_reads_is_found_by_their_numbers() {
    let seed = Seed::of(&two_rounds_later());
    let share = |read, lag| seed.shares(read, CALLED, lag).unwrap().0;
    assert!(share(ASKED, 2) > 0.95, "{}", share(ASKED, 2));
    for lag in [0, 1, 3, 4] {
        assert!(share(ASKED, lag) < 0.05, "{lag}: {}", share(ASKED, lag));
    }
    assert!(share(CALLED, 2) < 0.05);
    assert!(seed.shares(ASKED, ANSWER, 2).is_none());
}

#[test]
fn who_has_missed_the_usual_round_is_not_due_before_one_who_has_not() {
    let mut model = Model::default();
    let view = View::begun(ASKED);
    let act = Act {
        kind: CALLED,
        beside: false,
        connects: false,
    };
    assert!(model.due(view, act, 0) > 0.5, "nothing is known");
    for lag in [2; 50].into_iter().chain([6]) {
        model.learn(view, act, lag, 1.0);
    }
    assert!(model.due(view, act, 2) > 0.9);
    assert!(model.due(view, act, 0) < 0.1 && model.due(view, act, 4) < 0.2);
    assert!(model.due(view, act, 20) > 0.5, "later than ever seen");
    assert!(model.likely(view, act) > 0.9);
}

#[test]
fn queues_that_were_idle_longest_go_and_what_they_refused_is_still_counted() {
    let mut queues = Queues::default();
    queues.process(ProcessKey(0)).refused = 7;
    let all = u64::try_from(MAX_PROCESSES).unwrap();
    for key in 1..=all {
        queues.process(ProcessKey(key));
    }
    assert_eq!((queues.forgotten, queues.refused()), (all / 8, 7));
}

#[test]
fn a_scene_that_teaches_nothing_is_followed_by_longer_and_longer_rests() {
    let mut queues = Queues::default();
    let queue = queues.process(ProcessKey(1));
    let mut rests = Vec::new();
    for _ in 0..4 {
        queue.learn(&Scene::default());
        let rest = (1..100).find(|_| queue.is_hungry());
        rests.push(rest.unwrap());
    }
    assert_eq!(rests, [1, 2, 4, 8]);
    assert!(!queue.is_taught());
}

#[test]
fn requests_that_are_not_followed_are_counted_once() {
    let mut queues = Queues::default();
    let queue = queues.process(ProcessKey(1));
    queue.model = Some(Model::default());
    let requests = (1..=MAX_LIVE as u64 + 1).map(|id| served(id, id, 10_000));
    let mut scene = Scene {
        requests: requests.collect(),
        calls: Vec::new(),
        since_ns: 0,
        until_ns: 5000,
        horizon_ns: 5000,
    };
    queue.decide(&scene);
    scene.requests.clear();
    queue.decide(&scene);
    assert_eq!(queues.refused(), 1);
}
