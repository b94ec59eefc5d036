//! Tests of the window's bounds and indexes.

use super::*;
use span_model::LinkFacts;

const PROCESS: ProcessKey = ProcessKey(1);

fn ingress(id: u64, start_ns: u64, end_ns: Option<u64>) -> Entry {
    let facts = LinkFacts {
        tokens: vec![42, 42],
        request_tid: 7,
        response_tid: 7,
        ..LinkFacts::default()
    };
    let mut entry = Entry::new(
        SpanId::from_hash(id),
        Side::Ingress,
        PROCESS,
        start_ns,
        facts,
    );
    if let Some(end_ns) = end_ns {
        entry.ended(end_ns);
    }
    entry
}

fn open_ids(window: &Window, time_ns: u64) -> Vec<SpanId> {
    window.open_in_process(PROCESS, time_ns).collect()
}

#[test]
fn an_open_request_is_found_until_it_ends() {
    let mut window = Window::default();
    assert_eq!(window.open(ingress(1, 10, None), Moment(0)), Admission::New);
    assert_eq!(open_ids(&window, 100), [SpanId::from_hash(1)]);
    assert_eq!(
        window.hold(ingress(1, 10, Some(50)), Moment(1)),
        Admission::New
    );
    assert_eq!(open_ids(&window, 100), []);
    assert_eq!(open_ids(&window, 20), [SpanId::from_hash(1)]);
    assert_eq!(window.len(), 1);
}

#[test]
fn the_same_copy_of_a_span_is_kept_whichever_comes_first() {
    let early = ingress(1, 10, Some(50));
    let late = ingress(1, 11, Some(50));
    let mut window = Window::default();
    assert_eq!(window.hold(early.clone(), Moment(0)), Admission::New);
    assert_eq!(window.hold(late.clone(), Moment(0)), Admission::Duplicate);
    let mut other = Window::default();
    assert_eq!(other.hold(late, Moment(0)), Admission::New);
    assert_eq!(other.hold(early, Moment(0)), Admission::Replaced);
    for window in [window, other] {
        assert_eq!(window.get(SpanId::from_hash(1)).unwrap().start_ns, 10);
    }
}

#[test]
fn nothing_stays_in_an_index_when_its_span_is_forgotten() {
    let mut window = Window::default();
    for id in 1..=40 {
        let mut entry = ingress(id, id * 10, None);
        entry.facts.caller = Some(SpanId::from_hash(1000 + id));
        window.open(entry.clone(), Moment(id));
        if id % 2 == 0 {
            entry.ended(id * 10 + 5);
            window.hold(entry, Moment(id));
            let place = window.place(SpanId::from_hash(id)).unwrap();
            window.exported(place, Moment(id));
        }
    }
    assert_eq!(window.expire(Moment(21), Moment(0)), 10);
    assert_eq!(window.len(), 30);
    assert!(window.forget_oldest(Stage::Exported));
    assert_eq!(window.expire(Moment(100), Moment(100)), 10);
    assert!(window.is_empty() && window.postings.is_empty() && window.callees.is_empty());
    assert!(window.timelines.is_empty());
    assert_eq!(window.free.len(), window.slots.len());
}
