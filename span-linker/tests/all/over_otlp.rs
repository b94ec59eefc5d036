//! A linker behind OTLP, fed by agents that have none, links as one in the same process does.

#![expect(
    clippy::unwrap_used,
    reason = "a test whose parts cannot be made fails by panicking"
)]

use crate::scene::{Linked, Seen, Stage, began, client, finished, server};
use pipeline::clock::Monotonic;
use pipeline::config::ComponentId;
use pipeline::telemetry::Metrics;
use pipeline::{Batch, Context, Extensions, Processor, ProcessorSettings};
use span_linker::{Config, OpeningsSettings};
use std::collections::BTreeMap;

/// From the agent's exporter to the linker: batching, the wire, a slow minute.
const TRANSPORT_MS: u64 = 400;

/// What is told at which millisecond, in the order of time.
type Timeline = Vec<(u64, Batch)>;

/// Each request is told when it begins and when it ends, by the agent of its host.
fn timeline(seen: &[Seen], host: &str) -> Timeline {
    let mut events: BTreeMap<u64, (Vec<Seen>, Vec<Seen>)> = BTreeMap::new();
    for span in seen.iter().filter(|span| span.host == host) {
        let began = events.entry(span.times.start / 1000).or_default();
        began.0.push(span.clone());
        let ended = events.entry(span.times.end / 1000).or_default();
        ended.1.push(span.clone());
    }
    let batch = |(start, end): (Vec<Seen>, Vec<Seen>)| {
        let mut batch = finished(&end);
        batch.openings = began(&start).openings;
        batch
    };
    let events = events.into_iter();
    events.map(|(at, event)| (at, batch(event))).collect()
}

/// Lets a linker tick every 100 ms until all it was told has left.
fn run(mut told: Timeline) -> Linked {
    told.sort_by_key(|(at, _)| *at);
    let mut stage = Stage::new(Config::default());
    let mut ticks = 0;
    for (at, batch) in told {
        while ticks < at {
            stage.tick(ticks);
            ticks += 100;
        }
        stage.at(at, batch);
    }
    for _ in 0..25 {
        stage.tick(ticks);
        ticks += 100;
    }
    stage.left()
}

fn openings() -> Box<dyn Processor> {
    let context = Context {
        id: ComponentId::parse("openings").unwrap(),
        metrics: Metrics::default(),
        extensions: Extensions::default(),
    };
    OpeningsSettings::default().build(context).unwrap()
}

/// What an agent with the processor sends, as it arrives at the linker.
fn through_agent(told: Timeline, mut agent: Option<Box<dyn Processor>>) -> Timeline {
    let mut sent = Timeline::new();
    let mut ticks = 0;
    for (at, mut batch) in told {
        let mut out = Vec::new();
        match &mut agent {
            None => {
                batch.openings.clear();
                sent.push((at, batch));
            }
            Some(agent) => {
                while ticks < at {
                    agent.tick(Monotonic::from_millis(ticks), &mut out);
                    sent.extend(out.drain(..).map(|batch| (ticks, batch)));
                    ticks += 100;
                }
                agent.process(batch, Monotonic::from_millis(at), &mut out);
                sent.extend(out.into_iter().map(|batch| (at, batch)));
            }
        }
    }
    let arrives = |(at, batch): (u64, Batch)| {
        assert!(batch.openings.is_empty(), "exporters would lose them");
        (at + TRANSPORT_MS, Batch::encoded(batch.encode()).unwrap())
    };
    sent.into_iter().map(arrives).collect()
}

/// Two hosts; requests from 20 ms to a minute; every kind of evidence.
fn scene() -> Vec<Seen> {
    let ms = |from: u64, to: u64| from * 1000..to * 1000;
    vec![
        // A request that is open for a minute, and what is done for it on two hosts meanwhile.
        server(1, 1, ms(0, 60_000)).tid(1),
        client(2, 1, ms(10, 50_000)).after(1).serving(1).tid(1),
        server(3, 2, ms(12, 49_000)).caller(2).tid(2).host("other"),
        client(4, 2, ms(100, 120)).after(3).tid(2).host("other"),
        client(5, 2, ms(20_000, 20_700))
            .after(4)
            .tid(2)
            .host("other"),
        server(6, 1, ms(20_001, 20_600)).caller(5).tid(7),
        client(7, 1, ms(20_010, 20_020)).after(6).serving(6).tid(7),
        // Short ones beside it: tokens, contexts, pools, a caller that nobody saw.
        server(10, 3, ms(1000, 1200)).tid(1).token(77),
        client(11, 3, ms(1010, 1100)).tid(2).token(77),
        server(12, 4, ms(1011, 1090)).caller(11).host("other"),
        server(20, 3, ms(2000, 2200)).tid(3).context(7, 70),
        client(21, 3, ms(2010, 2100))
            .tid(3)
            .context(7, 70)
            .after(20),
        client(22, 3, ms(2101, 2102))
            .tid(3)
            .after(21)
            .freed()
            .serving(20),
        client(23, 3, ms(2103, 2109))
            .tid(3)
            .connected_after(20)
            .after(21),
        server(30, 4, ms(3000, 3020)).caller(99).incomplete(),
        client(40, 5, ms(4000, 4001)),
    ]
}

fn over_otlp(seen: &[Seen], agent: fn() -> Option<Box<dyn Processor>>) -> Linked {
    let agents = ["h", "other"].map(|host| through_agent(timeline(seen, host), agent()));
    run(agents.concat())
}

fn in_one_process(seen: &[Seen]) -> Linked {
    run([timeline(seen, "h"), timeline(seen, "other")].concat())
}

#[test]
fn agents_that_forward_openings_have_their_spans_linked_as_in_one_process() {
    let seen = scene();
    let linked = in_one_process(&seen);
    linked.assert_same_trace(&[1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(linked.0.len(), seen.len());
    let wired = over_otlp(&seen, || Some(openings()));
    for (id, span) in &linked.0 {
        assert_eq!(wired.0.get(id), Some(span));
    }
    assert_eq!(wired.0.len(), seen.len());
}

#[test]
fn without_openings_requests_shorter_than_the_wait_are_linked_all_the_same() {
    let mut seen = scene();
    seen.retain(|span| span.times.end - span.times.start < 1_000_000 && span.id >= 10);
    assert_eq!(over_otlp(&seen, || None), in_one_process(&seen));
}

#[test]
fn what_an_agent_has_linked_goes_through_and_stays_apart() {
    let ours = [
        client(1, 1, 0..100_000),
        server(2, 1, 1000..90_000).caller(9),
    ];
    let mut sent = Vec::new();
    let mut agent = Stage::new(Config::default());
    agent.at(0, finished(&ours)).linker.flush(&mut sent);
    let before = Linked::from_batches(sent.clone());
    // The other agent leaves the linking of its spans to the linker behind it.
    let theirs = [
        server(3, 2, 10_000..90_000).caller(1).host("other"),
        client(9, 2, 10_000..90_000).host("other"),
    ];
    sent.push(finished(&theirs));
    let told = sent.into_iter().map(|batch| (0, batch)).collect();
    let linked = run(through_agent(told, None));
    assert_eq!(linked.get(1), before.get(1));
    assert_eq!(linked.get(2), before.get(2));
    linked.assert_unlinked(3, "caller_not_observed");
    assert_ne!(linked.trace(1), linked.trace(3));
    assert_ne!(linked.trace(2), linked.trace(9));
}
