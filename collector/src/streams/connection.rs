//! Both directions of one socket, and the protocol that they speak.
//!
//! ```text
//!            a protocol says Yes              Step::Stop
//!  Unknown ------------------------> Speaking -----------> Ignored
//!     \------------------------------------------------------^
//!            TLS, or too many pieces that nobody knows
//! ```

use super::half::{Half, Mark, Piece};
use crate::capture::Direction;
use crate::protocols::{Detection, Flow, Loss, Message, Parser, Protocol, REGISTRY, Step};

/// Bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes kept of one direction (a header block and what is held out of order).
    pub direction_bytes: usize,
    /// How long a piece waits for the bytes before it.
    pub hold_ns: u64,
    /// Pieces held at most.
    pub held_pieces: usize,
    /// Pieces looked at before a connection counts as unknown.
    pub detection_pieces: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            direction_bytes: 256 << 10,
            hold_ns: 50_000_000,
            held_pieces: 32,
            detection_pieces: 32,
        }
    }
}

/// Where messages go. `spans` implements it by pairing.
pub trait Sink {
    /// The protocol is known now; nothing else is called before.
    fn speaks(&mut self, protocol: &'static dyn Protocol);
    /// The request that a response starting at `offset` would answer.
    fn answered(&self, offset: u64) -> Option<&Message>;
    /// A message began at `offset`; `marks` are those of the first byte and of the last
    /// byte that was read of it.
    fn message(
        &mut self,
        flow: Flow,
        message: Message,
        offset: u64,
        marks: [Mark; 2],
        complete: bool,
    );
    /// The message under way has ended.
    fn end(&mut self, flow: Flow, last: Mark);
    /// Bytes up to `until` are missing, and with them perhaps messages.
    fn gap(&mut self, flow: Flow, until: u64, at: Mark);
}

/// Why nothing is read from a connection any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ignored {
    /// No protocol knows the bytes.
    Unknown,
    /// The bytes are TLS records.
    Encrypted,
    /// The protocol handed the connection over (101, CONNECT, MONITOR).
    Upgraded,
}

impl Ignored {
    /// Metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown_protocol",
            Self::Encrypted => "encrypted",
            Self::Upgraded => "upgraded",
        }
    }
}

/// What user space wants of the connection from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing but the fact that bytes moved.
    Heads,
    /// In this direction no bytes before this offset.
    SkipUntil(Direction, u64),
}

/// Losses of one push, for the caller's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCounts {
    /// Gaps that cost messages.
    pub gaps: u32,
    /// Pieces that were seen before, whole or in part.
    pub overlaps: u32,
    /// Bytes given up looking for a message start, by reason.
    pub lost: [u64; 3],
}

enum State {
    Unknown {
        pieces: u32,
    },
    Speaking {
        protocol: &'static dyn Protocol,
        parser: Box<dyn Parser>,
        read_flow: Flow,
    },
    Ignored(Ignored),
}

/// Skips shorter than this are not worth a system call to tell the kernel.
const KERNEL_SKIP_BYTES: u64 = 128 << 10;

/// One socket's two directions.
pub struct Connection {
    state: State,
    read: Half,
    write: Half,
    limits: Limits,
    wanted: Option<Wanted>,
    counts: StreamCounts,
}

impl Connection {
    /// A connection of which nothing is known.
    pub fn new(limits: Limits) -> Self {
        Self {
            state: State::Unknown { pieces: 0 },
            read: Half::default(),
            write: Half::default(),
            limits,
            wanted: None,
            counts: StreamCounts::default(),
        }
    }

    /// The protocol, once it is known.
    pub fn protocol(&self) -> Option<&'static dyn Protocol> {
        match &self.state {
            State::Speaking { protocol, .. } => Some(*protocol),
            _ => None,
        }
    }

    /// Why nothing is read any more.
    pub fn ignored(&self) -> Option<Ignored> {
        match self.state {
            State::Ignored(reason) => Some(reason),
            _ => None,
        }
    }

    /// Which flow a direction is, once the protocol is known.
    pub fn flow(&self, direction: Direction) -> Option<Flow> {
        match &self.state {
            State::Speaking { read_flow, .. } => Some(flow_of(direction, *read_flow)),
            _ => None,
        }
    }

    /// Offset of the message under way in a direction: one that is not wholly parsed yet.
    pub fn unparsed(&self, direction: Direction) -> Option<u64> {
        let half = self.half(direction);
        (!half.unread().is_empty()).then(|| half.position())
    }

    /// Bytes of memory that grow with traffic.
    pub fn memory(&self) -> usize {
        self.read.memory() + self.write.memory()
    }

    /// What the kernel should be told, once.
    pub fn take_wanted(&mut self) -> Option<Wanted> {
        self.wanted.take()
    }

    /// Losses since the last call.
    pub fn take_counts(&mut self) -> StreamCounts {
        std::mem::take(&mut self.counts)
    }

    /// Takes a message of a system call.
    pub fn push(&mut self, direction: Direction, piece: &Piece<'_>, sink: &mut impl Sink) {
        if self.ignored().is_some() {
            return;
        }
        self.half_mut(opposite(direction))
            .stood_at(piece.mark.other_offset);
        if self.must_wait(direction, piece) {
            self.half_mut(direction).hold(piece);
        } else {
            self.accept(direction, piece, sink);
        }
        self.release(piece.mark.exit_ns, sink);
    }

    /// Lets pieces go on that are in order now, or have waited long enough; those of
    /// both directions in the order of their time. `now` is `CLOCK_MONOTONIC` ns.
    pub fn release(&mut self, now_ns: u64, sink: &mut impl Sink) {
        while let Some(first) = self.earliest_held() {
            let force = self.waited_enough(now_ns);
            let second = opposite(first);
            let next = if self.is_ready(first) || force {
                first
            } else if self.held_response_waits(first) && self.is_ready(second) {
                second
            } else {
                break;
            };
            let Some((offset, total_len, bytes, mark)) = self.half_mut(next).take_held() else {
                break;
            };
            let piece = Piece {
                offset,
                total_len,
                bytes: &bytes,
                mark,
            };
            self.accept(next, &piece, sink);
        }
    }

    /// Pieces wait for others.
    pub fn is_waiting(&self) -> bool {
        self.earliest_held().is_some()
    }

    /// The direction whose first held piece is older.
    fn earliest_held(&self) -> Option<Direction> {
        let read = self
            .read
            .first_held()
            .map(|(_, mark)| (mark.exit_ns, Direction::Read));
        let write = self
            .write
            .first_held()
            .map(|(_, mark)| (mark.exit_ns, Direction::Write));
        let earliest = match (read, write) {
            (Some(read), Some(write)) => Some(if write.0 < read.0 { write } else { read }),
            (one, other) => one.or(other),
        };
        earliest.map(|(_, direction)| direction)
    }

    fn waited_enough(&self, now_ns: u64) -> bool {
        let halves = [&self.read, &self.write];
        let pieces: usize = halves.iter().map(|half| half.held_pieces()).sum();
        let oldest = halves
            .iter()
            .filter_map(|half| half.first_held())
            .map(|(_, mark)| mark.exit_ns);
        let waited = oldest
            .min()
            .is_some_and(|oldest| now_ns.saturating_sub(oldest) >= self.limits.hold_ns);
        waited || pieces > self.limits.held_pieces || self.memory() > self.limits.direction_bytes
    }

    /// The first held piece of this direction has nothing more to wait for.
    fn is_ready(&self, direction: Direction) -> bool {
        let half = self.half(direction);
        let in_order = half
            .first_held()
            .is_some_and(|(offset, _)| half.next().is_none_or(|next| offset <= next));
        in_order && !self.held_response_waits(direction)
    }

    /// Lets every waiting piece go and ends both directions.
    pub fn finish(&mut self, sink: &mut impl Sink) {
        self.end(Direction::Read, None, sink);
        self.end(Direction::Write, None, sink);
    }

    /// A direction will carry no more bytes.
    pub fn end(&mut self, direction: Direction, at: Option<Mark>, sink: &mut impl Sink) {
        self.release(u64::MAX, sink);
        let half = self.half_mut(direction);
        if std::mem::replace(&mut half.ended, true) {
            return;
        }
        let last = at.unwrap_or_else(|| half.mark_at(u64::MAX));
        if let State::Speaking {
            parser, read_flow, ..
        } = &mut self.state
        {
            let flow = flow_of(direction, *read_flow);
            if parser.end(flow) {
                sink.end(flow, last);
            }
        }
    }

    /// A piece waits for the bytes before it, a response for its request, and all for
    /// what waits already: what came later must not overtake it.
    fn must_wait(&self, direction: Direction, piece: &Piece<'_>) -> bool {
        let early = self
            .half(direction)
            .next()
            .is_some_and(|next| piece.offset > next);
        let waiting_already = self.is_waiting();
        early || waiting_already || self.request_is_late(direction, piece.mark.other_offset)
    }

    fn held_response_waits(&self, direction: Direction) -> bool {
        let held = self.half(direction).first_held();
        held.is_some_and(|(_, mark)| self.request_is_late(direction, mark.other_offset))
    }

    /// True for a response read before its request's record came: records of two
    /// threads may change places.
    fn request_is_late(&self, direction: Direction, other_offset: u64) -> bool {
        if self.flow(direction) != Some(Flow::Response) || direction == Direction::Write {
            return false;
        }
        self.write.next().is_some_and(|next| next < other_offset)
    }

    fn accept(&mut self, direction: Direction, piece: &Piece<'_>, sink: &mut impl Sink) {
        let next = self.half_mut(direction).start(piece.offset);
        if piece.offset > next {
            self.lose(direction, piece.offset, piece.mark, sink);
        }
        let seen = next.saturating_sub(piece.offset);
        if seen > 0 {
            self.counts.overlaps += 1;
        }
        if seen >= piece.total_len && piece.total_len > 0 {
            return;
        }
        let fresh = usize::try_from(seen)
            .ok()
            .and_then(|seen| piece.bytes.get(seen..));
        let fresh = fresh.unwrap_or_default();
        let missing = piece.total_len - seen.min(piece.total_len) - fresh.len() as u64;
        if !fresh.is_empty() {
            self.half_mut(direction).append(fresh, piece.mark);
            self.parse(direction, sink);
        }
        if missing > 0 && !self.half_mut(direction).pass(missing, piece.mark) {
            self.resynchronise(direction, piece.mark, sink);
        } else if missing > 0 {
            self.parse(direction, sink);
        }
    }

    /// Bytes before `offset` never came.
    fn lose(&mut self, direction: Direction, offset: u64, mark: Mark, sink: &mut impl Sink) {
        let half = self.half_mut(direction);
        let missing = offset - half.next().unwrap_or(offset);
        if half.pass(missing, mark) {
            return self.parse(direction, sink);
        }
        self.resynchronise(direction, mark, sink);
    }

    fn resynchronise(&mut self, direction: Direction, mark: Mark, sink: &mut impl Sink) {
        let until = self.half(direction).position();
        if let State::Speaking {
            parser, read_flow, ..
        } = &mut self.state
        {
            let flow = flow_of(direction, *read_flow);
            parser.resync(flow);
            self.counts.gaps += 1;
            sink.gap(flow, until, mark);
        }
    }

    fn parse(&mut self, direction: Direction, sink: &mut impl Sink) {
        if matches!(self.state, State::Unknown { .. }) {
            self.detect(direction);
            if let State::Speaking { protocol, .. } = &self.state {
                sink.speaks(*protocol);
                self.step_all(opposite(direction), sink);
            }
        }
        self.step_all(direction, sink);
    }

    fn step_all(&mut self, direction: Direction, sink: &mut impl Sink) {
        let State::Speaking {
            parser, read_flow, ..
        } = &mut self.state
        else {
            return;
        };
        let flow = flow_of(direction, *read_flow);
        let half = match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        };
        loop {
            let position = half.position();
            if half.take_end() {
                sink.end(flow, half.mark_at(position.saturating_sub(1)));
            }
            if !half.is_due() {
                break;
            }
            let answered = if flow == Flow::Response {
                sink.answered(position)
            } else {
                None
            };
            match parser.step(flow, half.unread(), answered) {
                Step::NeedMore => break,
                Step::Skip(len) => half.skip(len, false),
                Step::End { consumed } => half.skip(consumed, true),
                Step::Message {
                    consumed,
                    message,
                    complete,
                } => {
                    let here = half.unread().len() as u64;
                    let end = position + consumed.min(here);
                    let marks = [half.mark_at(position), half.mark_at(end.saturating_sub(1))];
                    // The rest of a body whose length is known may still be on its way.
                    let arrived = consumed <= here;
                    half.skip(consumed, complete && !arrived);
                    sink.message(flow, *message, position, marks, complete && arrived);
                }
                Step::Resync { consumed, reason } => {
                    count_loss(&mut self.counts, reason, consumed);
                    half.consume(consumed.max(1));
                }
                Step::Stop => {
                    self.ignore(Ignored::Upgraded);
                    return;
                }
            }
        }
        self.tell_kernel(direction);
    }

    /// Large bodies need not be copied out of the kernel.
    fn tell_kernel(&mut self, direction: Direction) {
        let half = self.half(direction);
        let skip = half.skipping();
        if skip >= KERNEL_SKIP_BYTES && skip != u64::MAX {
            let until = half.position() + skip;
            self.wanted = Some(Wanted::SkipUntil(direction, until));
        }
    }

    fn detect(&mut self, direction: Direction) {
        let half = self.half(direction);
        let head = half.unread();
        if is_tls(head) {
            return self.ignore(Ignored::Encrypted);
        }
        let mut undecided = false;
        for protocol in REGISTRY {
            match protocol.detect(head) {
                Detection::Yes(flow) => {
                    let read_flow = flow_of(direction, flow);
                    let parser = protocol.parser();
                    self.state = State::Speaking {
                        protocol: *protocol,
                        parser,
                        read_flow,
                    };
                    return;
                }
                Detection::NeedMore => undecided = true,
                Detection::No => {}
            }
        }
        let too_much = head.len() > self.limits.direction_bytes / 2;
        if !undecided || too_much {
            let half = self.half_mut(direction);
            let len = half.unread().len();
            half.consume(len);
            self.count_unknown_piece();
        }
    }

    fn count_unknown_piece(&mut self) {
        let limit = self.limits.detection_pieces;
        if let State::Unknown { pieces } = &mut self.state {
            *pieces += 1;
            if *pieces >= limit {
                self.ignore(Ignored::Unknown);
            }
        }
    }

    fn ignore(&mut self, reason: Ignored) {
        self.state = State::Ignored(reason);
        self.wanted = Some(Wanted::Heads);
        self.read = Half::default();
        self.write = Half::default();
    }

    fn half(&self, direction: Direction) -> &Half {
        match direction {
            Direction::Read => &self.read,
            Direction::Write => &self.write,
        }
    }

    fn half_mut(&mut self, direction: Direction) -> &mut Half {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
    }
}

/// Turns a direction into a flow, and (with the flow of that direction) into the flow of reads.
fn flow_of(direction: Direction, read_flow: Flow) -> Flow {
    match (direction, read_flow) {
        (Direction::Read, flow) => flow,
        (Direction::Write, Flow::Request) => Flow::Response,
        (Direction::Write, Flow::Response) => Flow::Request,
    }
}

fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Read => Direction::Write,
        Direction::Write => Direction::Read,
    }
}

/// A TLS record header (RFC 8446 section 5.1): handshake, alert or application data, version 3.x.
fn is_tls(head: &[u8]) -> bool {
    matches!(head, [0x14..=0x17, 3, 0..=4, high, ..] if *high <= 0x48)
}

fn count_loss(counts: &mut StreamCounts, reason: Loss, bytes: usize) {
    let slot = match reason {
        Loss::MidStream => 0,
        Loss::Malformed => 1,
        Loss::TooLong => 2,
    };
    if let Some(count) = counts.lost.get_mut(slot) {
        *count += bytes as u64;
    }
}
