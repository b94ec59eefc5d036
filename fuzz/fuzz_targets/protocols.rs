//! Any bytes, cut and torn anywhere, through every registered protocol: no panic, no
//! step without progress, nothing kept past the limit.
#![no_main]

use arbitrary::Arbitrary;
use collector::protocols::{Flow, MAX_UNREAD, Message, MessageKind, Protocol, REGISTRY, Step};
use libfuzzer_sys::fuzz_target;
use std::collections::VecDeque;

/// What happens on the connection next.
#[derive(Arbitrary, Debug)]
enum Event<'a> {
    Read {
        from_client: bool,
        bytes: &'a [u8],
    },
    /// The same bytes many times: what does not end must be given up.
    Repeat {
        from_client: bool,
        bytes: &'a [u8],
        times: u8,
    },
    Gap {
        from_client: bool,
    },
    End {
        from_client: bool,
    },
}

#[derive(Default)]
struct Lane {
    unread: Vec<u8>,
    skip: u64,
}

fuzz_target!(|events: Vec<Event<'_>>| {
    for protocol in REGISTRY {
        play(*protocol, &events);
    }
});

fn play(protocol: &dyn Protocol, events: &[Event<'_>]) {
    let mut parser = protocol.parser();
    let mut lanes = [Lane::default(), Lane::default()];
    let mut open = VecDeque::new();
    for event in events {
        match *event {
            Event::Gap { from_client } => {
                let flow = flow(from_client);
                lanes[flow as usize] = Lane::default();
                parser.resync(flow);
                open.clear();
            }
            Event::End { from_client } => {
                parser.end(flow(from_client));
            }
            Event::Read { from_client, bytes } => {
                let _ = protocol.detect(bytes);
                let flow = flow(from_client);
                lanes[flow as usize].unread.extend_from_slice(bytes);
                if !read(parser.as_mut(), flow, &mut lanes[flow as usize], &mut open) {
                    return;
                }
            }
            Event::Repeat {
                from_client,
                bytes,
                times,
            } => {
                let flow = flow(from_client);
                for _ in 0..times {
                    lanes[flow as usize].unread.extend(bytes.repeat(64));
                    if !read(parser.as_mut(), flow, &mut lanes[flow as usize], &mut open) {
                        return;
                    }
                }
            }
        }
    }
}

fn flow(from_client: bool) -> Flow {
    if from_client {
        Flow::Request
    } else {
        Flow::Response
    }
}

/// Steps until the parser waits. False: it has stopped.
fn read(
    parser: &mut dyn collector::protocols::Parser,
    flow: Flow,
    lane: &mut Lane,
    open: &mut VecDeque<Message>,
) -> bool {
    let mut empty_end = false;
    loop {
        let passed = lane.skip.min(lane.unread.len() as u64);
        lane.unread.drain(..passed as usize);
        lane.skip -= if lane.skip == u64::MAX { 0 } else { passed };
        if lane.skip > 0 || lane.unread.is_empty() {
            return true;
        }
        let answered = open.front().filter(|_| flow == Flow::Response);
        let was_empty_end = std::mem::take(&mut empty_end);
        lane.skip = match parser.step(flow, &lane.unread, answered) {
            Step::Stop => return false,
            Step::NeedMore => {
                assert!(lane.unread.len() < MAX_UNREAD);
                return true;
            }
            Step::Message {
                consumed, message, ..
            } => {
                match message.kind {
                    MessageKind::Request if open.len() < 100 => open.push_back(*message),
                    MessageKind::Response => drop(open.pop_front()),
                    _ => {}
                }
                progress(consumed)
            }
            Step::Skip(consumed) => progress(consumed),
            Step::End { consumed } => {
                empty_end = consumed == 0;
                assert!(!(empty_end && was_empty_end));
                consumed
            }
            Step::Resync { consumed, .. } => {
                assert!(consumed <= lane.unread.len());
                progress(consumed as u64)
            }
        };
    }
}

fn progress(consumed: u64) -> u64 {
    assert!(consumed > 0);
    consumed
}
