//! Conversations as the kernel would report them, whole and with pieces missing.

use super::tracker::{Output, Process, Surroundings, Tracker, TrackerLimits};
use super::{Counts, Unpaired};
use crate::capture::{Call, Direction, Flags, Goroutine, Protocol, Role, SocketEvent, Woken};
use proptest::prelude::*;
use span_model::{ProcessKey, Resource, Span, SpanKind, Status, ToldBy, Value, semconv};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

struct World;

impl Surroundings for World {
    fn process(&mut self, tgid: u32, _: u64) -> Option<Process> {
        (tgid != 0).then(|| Process {
            resource: Arc::new(Resource::default()),
            key: ProcessKey(tgid.into()),
        })
    }

    fn unix_ns(&self, monotonic_ns: u64) -> u64 {
        monotonic_ns
    }
}

/// One end of a connection: keeps the stream positions as the kernel does.
#[derive(Clone)]
struct End {
    role: Role,
    sock: u64,
    tid: u32,
    read: u64,
    written: u64,
    now_ns: u64,
}

const CLIENT_ISN: u32 = 0x1111_1111;
const SERVER_ISN: u32 = 0x2222_2222;

impl End {
    fn server() -> Self {
        Self {
            role: Role::Acceptor,
            sock: 1,
            tid: 10,
            read: 0,
            written: 0,
            now_ns: 1_000,
        }
    }

    fn client() -> Self {
        Self {
            role: Role::Connector,
            sock: 2,
            tid: 20,
            ..Self::server()
        }
    }

    fn event<'a>(&mut self, call: Call, direction: Direction, bytes: &'a [u8]) -> SocketEvent<'a> {
        self.now_ns += 1_000;
        let len = bytes.len() as u64;
        let (offset, other_offset) = match direction {
            Direction::Read => (self.read, self.written),
            Direction::Write => (self.written, self.read),
        };
        match direction {
            Direction::Read => self.read += len,
            Direction::Write => self.written += len,
        }
        let port = |port| Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let connector = self.role == Role::Connector;
        let isns = if connector {
            (CLIENT_ISN, SERVER_ISN)
        } else {
            (SERVER_ISN, CLIENT_ISN)
        };
        let ports = if connector {
            (40_000, 80)
        } else {
            (80, 40_000)
        };
        SocketEvent {
            call,
            direction,
            flags: if direction == Direction::Write {
                Flags::WRITE
            } else {
                0
            },
            exit_ns: self.now_ns,
            tgid: self.tid,
            tid: self.tid,
            comm: [0; 16],
            protocol: Protocol::Tcp,
            role: self.role,
            sock: self.sock,
            local_isn: isns.0,
            remote_isn: isns.1,
            local: port(ports.0),
            remote: port(ports.1),
            netns: 1,
            fd: 3,
            offset,
            other_offset,
            total_len: u32::try_from(len).expect("test messages are small"),
            result: 0,
            woken: None,
            polls: 0,
            goroutine: None,
            payload: bytes,
        }
    }

    fn read<'a>(&mut self, bytes: &'a [u8]) -> SocketEvent<'a> {
        self.event(Call::Read, Direction::Read, bytes)
    }

    fn write<'a>(&mut self, bytes: &'a [u8]) -> SocketEvent<'a> {
        self.event(Call::Write, Direction::Write, bytes)
    }

    fn closed(&mut self) -> SocketEvent<'static> {
        self.event(Call::Closed, Direction::Read, b"")
    }
}

fn spans_of<'a>(events: impl IntoIterator<Item = SocketEvent<'a>>) -> (Vec<Span>, Counts) {
    let mut tracker = Tracker::new(TrackerLimits::default());
    let mut out = Output::default();
    for event in events {
        tracker.handle(&event, &mut World, &mut out);
    }
    tracker.tick(u64::MAX / 2, &mut World, &mut out);
    tracker.shutdown(&mut World, &mut out);
    (out.spans, tracker.counts)
}

fn request(number: usize) -> Vec<u8> {
    format!("GET /{number} HTTP/1.1\r\nHost: shop\r\n\r\n").into_bytes()
}

/// The status tells which request it answers.
fn response(number: usize) -> Vec<u8> {
    let body = "x".repeat(number % 40);
    let status = status_of(number);
    let length = body.len();
    format!("HTTP/1.1 {status} Fine\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

fn status_of(number: usize) -> i64 {
    200 + i64::try_from(number % 97).unwrap_or(0)
}

fn attribute<'a>(span: &'a Span, key: &str) -> Option<&'a Value> {
    span.attributes
        .iter()
        .find(|(known, _)| known == key)
        .map(|(_, value)| value)
}

fn number(span: &Span) -> usize {
    let path = attribute(span, semconv::URL_PATH).or(attribute(span, semconv::URL_FULL));
    let Some(Value::Str(path)) = path else {
        panic!("{span:?} has no path")
    };
    path.rsplit('/')
        .next()
        .and_then(|tail| tail.parse().ok())
        .expect("a number in the path")
}

/// Every span with a response has the right one; gives (with response, without).
fn check_pairs(spans: &[Span]) -> (usize, usize) {
    let mut counts = (0, 0);
    for span in spans {
        match attribute(span, semconv::HTTP_RESPONSE_STATUS_CODE) {
            Some(Value::Int(status)) => {
                assert_eq!(*status, status_of(number(span)), "{span:?}");
                counts.0 += 1;
            }
            _ => counts.1 += 1,
        }
    }
    counts
}

#[test]
fn both_ends_of_a_request_are_named_after_the_stream_and_know_each_other() {
    let (mut client, mut server) = (End::client(), End::server());
    let (ask, answer) = (request(1), response(1));
    let (spans, _) = spans_of([
        client.write(&ask),
        server.read(&ask),
        server.write(&answer),
        client.read(&answer),
    ]);
    let of = |kind| {
        spans
            .iter()
            .find(|span| span.kind == kind)
            .expect("a span of each kind")
    };
    assert_eq!(
        of(SpanKind::Server).link.caller,
        Some(of(SpanKind::Client).span_id)
    );
    assert_ne!(of(SpanKind::Server).span_id, of(SpanKind::Client).span_id);
    assert_eq!(check_pairs(&spans), (2, 0));
}

#[test]
fn a_request_that_left_with_the_first_packet_is_named_once_the_peer_is_known() {
    let (mut client, mut server) = (End::client(), End::server());
    let (ask, answer) = (request(1), response(1));
    let early = SocketEvent {
        remote_isn: u32::MAX,
        ..client.write(&ask)
    };
    let mut tracker = Tracker::new(TrackerLimits::default());
    let mut out = Output::default();
    tracker.handle(&early, &mut World, &mut out);
    assert!(out.openings.is_empty(), "{:?}", out.openings);
    for event in [
        client.read(&answer),
        server.read(&ask),
        server.write(&answer),
    ] {
        tracker.handle(&event, &mut World, &mut out);
    }
    let [client, server] = &out.spans[..] else {
        panic!("{:?}", out.spans)
    };
    assert_eq!(server.link.caller, Some(client.span_id));
    assert_eq!(out.openings[0].span_id, client.span_id);
    assert_eq!(tracker.connections(), 2);
}

#[test]
fn a_pipeline_in_one_read_is_answered_in_order() {
    let mut server = End::server();
    let asks: Vec<u8> = (1..=20).flat_map(request).collect();
    let answers: Vec<u8> = (1..=20).flat_map(response).collect();
    let (spans, counts) = spans_of([server.read(&asks), server.write(&answers)]);
    assert_eq!(check_pairs(&spans), (20, 0));
    assert!(counts.unpaired.is_empty(), "{counts:?}");
}

#[test]
fn a_header_that_arrives_byte_by_byte_starts_with_its_first_byte() {
    let mut server = End::server();
    let (ask, answer) = (request(7), response(7));
    let first_ns = server.now_ns + 1_000;
    let mut events: Vec<_> = ask.chunks(1).map(|byte| server.read(byte)).collect();
    events.extend(answer.chunks(1).map(|byte| server.write(byte)));
    let last_ns = server.now_ns;
    let (spans, _) = spans_of(events);
    assert_eq!(check_pairs(&spans), (1, 0));
    assert_eq!(
        (spans[0].start_unix_ns, spans[0].end_unix_ns),
        (first_ns, last_ns)
    );
}

#[test]
fn a_response_whose_record_overtakes_the_request_still_finds_it() {
    let mut client = End::client();
    let (ask, answer, ask2, answer2) = (request(1), response(1), request(2), response(2));
    let events = [
        client.write(&ask),
        client.read(&answer),
        client.write(&ask2),
        client.read(&answer2),
    ];
    let [first, second, third, fourth] = events;
    let (spans, counts) = spans_of([first, second, fourth, third]);
    assert_eq!(check_pairs(&spans), (2, 0), "{counts:?}");
}

#[test]
fn a_body_that_nobody_saw_ends_its_response_all_the_same() {
    let mut server = End::server();
    let (ask, ask2, answer2) = (request(1), request(2), response(2));
    let head = b"HTTP/1.1 201 Fine\r\nContent-Length: 5000\r\n\r\n";
    let file = vec![0; 5000];
    let mut sent = [server.read(&ask), server.write(head), server.write(&file)];
    sent[2].flags |= Flags::UNSEEN;
    sent[2].payload = &[];
    let end_ns = sent[2].exit_ns;
    let later = [server.read(&ask2), server.write(&answer2)];
    let (spans, counts) = spans_of(sent.into_iter().chain(later));
    assert_eq!(check_pairs(&spans), (2, 0), "{counts:?}");
    assert_eq!(spans[0].end_unix_ns, end_ns);
}

#[test]
fn a_connection_that_closes_before_the_response_is_an_error() {
    for mut end in [End::server(), End::client()] {
        let ask = request(1);
        let server = end.role == Role::Acceptor;
        let asked = if server {
            end.read(&ask)
        } else {
            end.write(&ask)
        };
        let (spans, counts) = spans_of([asked, end.closed()]);
        assert_eq!(spans.len(), 1);
        assert_eq!(spans[0].status, Status::Error("".into()));
        let error = attribute(&spans[0], semconv::ERROR_TYPE);
        assert_eq!(error, Some(&Value::from("connection_closed")));
        assert_eq!(counts.unpaired.get(&("http1", Unpaired::Closed)), Some(&1));
    }
}

#[test]
fn a_connection_older_than_the_collector_is_joined_at_its_next_message() {
    let mut server = End {
        read: 1 << 33,
        written: 1 << 34,
        ..End::server()
    };
    let tail = b"rest of some body, not a message at all\r\n";
    let (ask, answer) = (request(3), response(3));
    let events = [server.write(tail), server.read(&ask), server.write(&answer)];
    let (spans, _) = spans_of(events);
    assert_eq!(check_pairs(&spans), (1, 0));
}

#[test]
fn what_a_thread_read_before_it_wrote_is_noted() {
    let mut inbound = End::server();
    let mut outbound = End {
        tid: inbound.tid,
        sock: 9,
        ..End::client()
    };
    let (ask, answer) = (request(1), response(1));
    let connect = outbound.event(Call::Connect, Direction::Write, b"");
    let (spans, _) = spans_of([
        inbound.read(&ask),
        connect,
        outbound.write(&ask),
        outbound.read(&answer),
        outbound.write(&ask),
        outbound.read(&answer),
        inbound.write(&answer),
        outbound.write(&ask),
        outbound.read(&answer),
    ]);
    let server = spans
        .iter()
        .find(|span| span.kind == SpanKind::Server)
        .expect("the server span");
    let clients: Vec<_> = spans
        .iter()
        .filter(|span| span.kind == SpanKind::Client)
        .collect();
    assert_eq!(clients[0].link.after, Some(server.span_id));
    assert_eq!(clients[0].link.connected_after(), Some(server.span_id));
    assert_eq!(clients[1].link.after, Some(clients[0].span_id));
    assert_eq!(clients[1].link.connected, None);
    assert_eq!(clients[1].link.serving, Some(server.span_id));
    assert_eq!(clients[2].link.serving, None, "the request is answered");
    assert_eq!(
        server.link.after,
        Some(clients[1].span_id),
        "before its response"
    );
}

#[test]
fn what_a_waker_had_read_when_it_woke_is_noted() {
    let on = |tid, sock, end: End| End { sock, tid, ..end };
    let (mut inbound, mut next) = (on(10, 1, End::server()), on(10, 3, End::server()));
    let mut outbound = on(11, 2, End::client());
    let (ask, answer) = (request(1), response(1));
    let woken = |mut event: SocketEvent<'static>, waker_tid, time_ns, first| {
        event.woken = Some(Woken {
            waker_tid,
            time_ns,
            first,
        });
        event
    };
    let (ask, answer): (&'static [u8], &'static [u8]) = (ask.leak(), answer.leak());
    let read = inbound.read(ask);
    let handed_ns = read.exit_ns + 1;
    // The waker goes on to read another request before the worker's write is heard of.
    next.now_ns = inbound.now_ns;
    let other = next.read(ask);
    outbound.now_ns = next.now_ns;
    let called = woken(outbound.write(ask), 10, handed_ns, false);
    let back = outbound.read(answer);
    inbound.now_ns = outbound.now_ns;
    let answered = woken(inbound.write(answer), 11, back.exit_ns, true);
    // Whom the waker had read longer ago than is remembered is not known.
    let again = woken(outbound.write(ask), 10, 1, true);
    let end = outbound.read(answer);
    let (spans, _) = spans_of([read, other, called, back, answered, again, end]);
    let of = |kind| spans.iter().filter(move |span| span.kind == kind);
    let server = of(SpanKind::Server).next().expect("a server span");
    let calls: Vec<_> = of(SpanKind::Client).collect();
    assert_eq!(calls[0].link.woken_after, Some(server.span_id));
    assert!(!calls[0].link.woken_first);
    assert_eq!(server.link.woken_after, Some(calls[0].span_id));
    assert!(server.link.woken_first);
    assert_eq!(calls[1].link.woken_after, None);
    assert!(!calls[1].link.woken_first);
}

#[test]
fn goroutines_go_on_with_what_was_read_in_their_time_slice() {
    let mut inbound = End::server();
    let mut outbound = End {
        sock: 2,
        tid: inbound.tid,
        ..End::client()
    };
    let slice = |mut event: SocketEvent<'static>, number, time_slice| {
        event.goroutine = Some(Goroutine {
            number,
            time_slice,
            ..Goroutine::NONE
        });
        event
    };
    let (ask, answer): (&'static [u8], &'static [u8]) = (request(1).leak(), response(1).leak());
    let mut events = vec![slice(inbound.read(ask), 10, 5)];
    outbound.now_ns = inbound.now_ns;
    // By another goroutine in the same slice, then in another one, then in one that is not known.
    for time_slice in [5, 6, 0] {
        events.push(slice(outbound.write(ask), 11, time_slice));
        events.push(slice(outbound.read(answer), 12, 7));
    }
    events.push(slice(outbound.write(ask), 10, 8));
    events.push(slice(outbound.read(answer), 12, 9));
    inbound.now_ns = outbound.now_ns;
    events.push(slice(inbound.write(answer), 10, 9));
    let (spans, _) = spans_of(events);
    let of = |kind| spans.iter().filter(move |span| span.kind == kind);
    let server = of(SpanKind::Server).next().expect("a server span");
    let calls: Vec<_> = of(SpanKind::Client).collect();
    let after: Vec<_> = calls.iter().map(|call| call.link.after).collect();
    assert_eq!(after, [Some(server.span_id), None, None, None]);
    assert!(
        spans
            .iter()
            .all(|span| span.link.told_by == ToldBy::Goroutine)
    );
    // The last one was written by the goroutine that had read the request.
    let serving: Vec<_> = calls.iter().map(|call| call.link.serving).collect();
    assert_eq!(serving, [None, None, None, Some(server.span_id)]);
    assert_eq!(server.link.after, calls.last().map(|call| call.span_id));
}

#[test]
fn bytes_of_an_unknown_protocol_are_counted_by_port_and_their_reader_forgets() {
    let mut server = End::server();
    let chunk = vec![0xf5; 100];
    let events: Vec<_> = (0..40).map(|_| server.read(&chunk)).collect();
    let (spans, counts) = spans_of(events);
    assert!(spans.is_empty());
    let ignored: Vec<_> = counts
        .ignored
        .iter()
        .map(|((why, port), n)| (why.as_str(), *port, *n))
        .collect();
    assert_eq!(ignored, [("unknown_protocol", 80, 1)]);
}

/// A conversation in turns: `batch` requests in one call, then their responses.
fn conversation(mut end: End, requests: usize, batch: usize) -> Vec<(End, Direction, Vec<u8>)> {
    let mut steps = Vec::new();
    let numbers: Vec<usize> = (1..=requests).collect();
    for turn in numbers.chunks(batch) {
        let ask: Vec<u8> = turn.iter().flat_map(|number| request(*number)).collect();
        let (asks, answers) = match end.role {
            Role::Acceptor => (Direction::Read, Direction::Write),
            _ => (Direction::Write, Direction::Read),
        };
        steps.push((end.clone(), asks, ask.clone()));
        end.event(Call::Read, asks, &ask);
        for number in turn {
            let answer = response(*number);
            steps.push((end.clone(), answers, answer.clone()));
            end.event(Call::Write, answers, &answer);
        }
    }
    steps
}

proptest! {
    #[test]
    fn pairing_never_slips_whatever_is_lost(
        client in any::<bool>(),
        batch in 1_usize..5,
        lost in prop::collection::vec(0_usize..120, 0..12),
    ) {
        let end = if client { End::client() } else { End::server() };
        let steps = conversation(end, 60, batch);
        let mut kept: Vec<_> = steps.iter().enumerate().filter(|(index, _)| !lost.contains(index)).collect();
        let events = kept.iter_mut().map(|(_, (end, direction, bytes))| {
            end.clone().event(Call::Read, *direction, bytes)
        });
        let (spans, counts) = spans_of(events);
        let (paired, _) = check_pairs(&spans);
        let lost = steps.len() - kept.len();
        // A lost record costs its own batch and, until the connection is in step again, the next.
        prop_assert!(paired + (lost * 2 + 1) * batch >= 60, "{paired} paired, {lost} lost, {counts:?}");
    }
}
