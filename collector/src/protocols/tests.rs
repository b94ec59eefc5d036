//! The contract that every registered protocol keeps. A new protocol brings
//! fixtures in `collector/testdata/<name>/` and nothing else.

mod corpus;
pub(super) mod replay;

use super::{Detection, Flow, MAX_UNREAD, Protocol, REGISTRY};
use proptest::prelude::*;
use replay::{Fixture, Read, Replay, Seen, fixtures};

/// What every protocol's fixtures show at least.
const REQUIRED: [&str; 5] = [
    "one_exchange",
    "pipelined",
    "error_reply",
    "split",
    "mid_stream",
];

/// A fixture and the index of its protocol, for proptest.
fn any_fixture(wanted: fn(&Fixture) -> bool) -> impl Strategy<Value = (usize, Fixture)> {
    let all: Vec<(usize, Fixture)> = REGISTRY
        .iter()
        .enumerate()
        .flat_map(|(at, protocol)| fixtures(*protocol).into_iter().map(move |one| (at, one)))
        .filter(|(_, fixture)| wanted(fixture))
        .collect();
    proptest::sample::select(all)
}

fn replayed(protocol: &dyn Protocol, reads: &[Read]) -> Vec<Seen> {
    let mut replay = Replay::new(protocol);
    for read in reads {
        replay.feed(read.flow, &read.bytes);
    }
    replay.finish()
}

/// The same bytes in the same order, cut elsewhere.
fn recut(reads: &[Read], cuts: &[prop::sample::Index]) -> Vec<Read> {
    let mut pieces: Vec<Read> = Vec::new();
    for read in reads {
        match pieces.last_mut() {
            Some(last) if last.flow == read.flow => last.bytes.extend(&read.bytes),
            _ => pieces.push(read.clone()),
        }
    }
    let mut cut = Vec::new();
    for piece in pieces {
        let mut ends: Vec<usize> = cuts
            .iter()
            .map(|cut| cut.index(piece.bytes.len()))
            .collect();
        ends.push(piece.bytes.len());
        ends.sort_unstable();
        let mut start = 0;
        for end in ends {
            if end > start {
                let bytes = piece.bytes[start..end].to_vec();
                cut.push(Read {
                    flow: piece.flow,
                    bytes,
                });
                start = end;
            }
        }
    }
    cut
}

fn bytes_of(reads: &[Read], flow: Flow) -> Vec<u8> {
    reads
        .iter()
        .filter(|read| read.flow == flow)
        .flat_map(|read| read.bytes.clone())
        .collect()
}

/// What must be the same after a gap: session state (the database, a transaction
/// under way) is rightly forgotten.
fn outline(seen: &[Seen]) -> Vec<String> {
    let one = |seen: &Seen| {
        let message = &seen.message;
        let error = message.client_error.as_deref().unwrap_or_default();
        format!(
            "{:?} {:?} {} {error}",
            seen.flow, message.kind, message.operation
        )
    };
    seen.iter().map(one).collect()
}

#[test]
fn every_protocol_shows_the_required_fixtures() {
    for protocol in REGISTRY {
        let names: Vec<String> = fixtures(*protocol)
            .into_iter()
            .map(|one| one.name)
            .collect();
        for required in REQUIRED {
            assert!(
                names.iter().any(|name| name == required),
                "{} {required}",
                protocol.name()
            );
        }
    }
}

#[test]
fn names_are_unique_and_fit_a_configuration_key() {
    for (at, protocol) in REGISTRY.iter().enumerate() {
        let name = protocol.name();
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        assert!(!name.is_empty() && name.bytes().all(fits), "{name}");
        assert!(
            REGISTRY[..at].iter().all(|other| other.name() != name),
            "{name} twice"
        );
    }
}

#[test]
fn cutting_at_every_byte_gives_the_same_messages() {
    for protocol in REGISTRY {
        for fixture in fixtures(*protocol) {
            let whole = replayed(*protocol, &recut(&fixture.reads, &[]));
            let bytes = fixture.reads.iter().flat_map(|read| {
                read.bytes.iter().map(|byte| Read {
                    flow: read.flow,
                    bytes: vec![*byte],
                })
            });
            let cut = replayed(*protocol, &bytes.collect::<Vec<_>>());
            assert!(!whole.is_empty(), "{} {}", protocol.name(), fixture.name);
            assert_eq!(whole, cut, "{} {}", protocol.name(), fixture.name);
        }
    }
}

#[test]
fn every_message_of_a_whole_capture_is_answered_and_ends() {
    for protocol in REGISTRY {
        for fixture in fixtures(*protocol) {
            if fixture.name == "mid_stream" {
                continue;
            }
            let mut replay = Replay::new(*protocol);
            fixture
                .reads
                .iter()
                .for_each(|read| replay.feed(read.flow, &read.bytes));
            let name = format!("{} {}", protocol.name(), fixture.name);
            assert_eq!(replay.losses, [], "{name}");
            assert_eq!(replay.open_requests(), 0, "{name}");
            for seen in replay.finish() {
                assert!(seen.end.is_some(), "{name} {seen:?}");
            }
        }
    }
}

#[test]
fn each_protocol_knows_its_fixtures_and_no_other_claims_them() {
    for owner in REGISTRY {
        for fixture in fixtures(*owner) {
            for flow in [Flow::Request, Flow::Response] {
                let bytes = bytes_of(&fixture.reads, flow);
                for protocol in REGISTRY {
                    let is_owner = protocol.name() == owner.name();
                    let mid_stream = fixture.name == "mid_stream";
                    for end in 1..bytes.len().min(600) {
                        let found = protocol.detect(&bytes[..end]);
                        let what = format!("{} {} {end}", protocol.name(), fixture.name);
                        match found {
                            Detection::Yes(found) => {
                                assert!(is_owner && found == flow, "{what} {found:?}");
                            }
                            Detection::No => assert!(!is_owner || mid_stream, "{what}"),
                            Detection::NeedMore => {}
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn the_requests_of_a_fixture_are_enough_to_detect_it() {
    for protocol in REGISTRY {
        for fixture in fixtures(*protocol) {
            let either = [Flow::Request, Flow::Response].into_iter().any(|flow| {
                protocol.detect(&bytes_of(&fixture.reads, flow)) == Detection::Yes(flow)
            });
            assert!(
                either || fixture.name == "mid_stream",
                "{} {}",
                protocol.name(),
                fixture.name
            );
        }
    }
}

/// Nothing that goes on forever is kept: `Replay` checks the bytes it holds.
#[test]
fn streams_without_an_end_are_given_up_in_time() {
    let tails: [&[u8]; 6] = [b"a", b"1", b"\r", b" ", b"\0", b"x: y\r\n"];
    for protocol in REGISTRY {
        for fixture in fixtures(*protocol) {
            for flow in [Flow::Request, Flow::Response] {
                let bytes = bytes_of(&fixture.reads, flow);
                let ends = [1, 2, 5, 9, 14, 21, 40, 90]
                    .into_iter()
                    .chain([bytes.len()]);
                for end in ends.filter(|end| *end <= bytes.len()) {
                    for tail in tails {
                        let mut replay = Replay::new(*protocol);
                        replay.feed(flow, &bytes[..end]);
                        for _ in 0..3 * MAX_UNREAD / 4000 {
                            replay.feed(flow, &tail.repeat(4000 / tail.len()));
                        }
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn any_cut_gives_the_same_messages(
        (owner, fixture) in any_fixture(|_| true),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let protocol = REGISTRY[owner];
        let whole = replayed(protocol, &recut(&fixture.reads, &[]));
        prop_assert_eq!(whole, replayed(protocol, &recut(&fixture.reads, &cuts)));
    }

    /// `Replay` fails when a step makes no progress.
    #[test]
    fn random_bytes_never_panic_and_always_advance(
        pieces in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 1..200)), 1..20),
    ) {
        for protocol in REGISTRY {
            let mut replay = Replay::new(*protocol);
            for (is_request, piece) in &pieces {
                let flow = if *is_request { Flow::Request } else { Flow::Response };
                let _ = protocol.detect(piece);
                replay.feed(flow, piece);
            }
            replay.finish();
        }
    }

    /// Nearly right is harder than random.
    #[test]
    fn damaged_fixtures_never_panic_and_always_advance(
        (owner, fixture) in any_fixture(|_| true),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut reads = recut(&fixture.reads, &cuts);
        for (at, byte) in damage {
            let read = at.index(reads.len());
            let within = at.index(reads[read].bytes.len());
            reads[read].bytes[within] = byte;
        }
        for other in REGISTRY {
            for read in &reads {
                let _ = other.detect(&read.bytes);
            }
            replayed(*other, &reads);
        }
        replayed(REGISTRY[owner], &reads);
    }

    /// The connection's exchanges are played three times; a piece of the second round
    /// is lost, and the third must come out as if nothing had happened.
    #[test]
    fn a_lost_piece_is_survived(
        (owner, fixture) in any_fixture(Fixture::goes_on),
        lost_read in any::<prop::sample::Index>(),
        (from, length) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
    ) {
        let protocol = REGISTRY[owner];
        let intact = outline(&replayed(protocol, &fixture.reads));
        let mut replay = Replay::new(protocol);
        fixture.reads.iter().for_each(|read| replay.feed(read.flow, &read.bytes));
        let lost_read = lost_read.index(fixture.reads.len());
        for (at, read) in fixture.reads.iter().enumerate() {
            if at == lost_read {
                let from = from.index(read.bytes.len());
                let length = 1 + length.index(read.bytes.len() - from);
                replay.feed(read.flow, &read.bytes[..from]);
                replay.gap(read.flow, length as u64);
                replay.feed(read.flow, &read.bytes[from + length..]);
            } else {
                replay.feed(read.flow, &read.bytes);
            }
        }
        replay.forget();
        let before = replay.seen().len();
        fixture.reads.iter().for_each(|read| replay.feed(read.flow, &read.bytes));
        let after = outline(&replay.finish()[before..]);
        prop_assert_eq!(after, intact, "{} {}", protocol.name(), fixture.name);
    }
}
