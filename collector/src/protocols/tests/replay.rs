//! Plays a connection to a parser the way the stream layer does, and checks what
//! every step promises.

use crate::protocols::{
    Audience, Flow, Loss, MAX_UNREAD, Message, MessageKind, Parser, Protocol, Step,
};
use span_model::Value;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::{fmt, fs};

/// Bytes that one system call delivered.
#[derive(Clone, PartialEq)]
pub(crate) struct Read {
    pub(crate) flow: Flow,
    pub(crate) bytes: Vec<u8>,
}

impl fmt::Debug for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.flow, self.bytes.escape_ascii())
    }
}

/// One recorded connection.
#[derive(Clone, Debug)]
pub(crate) struct Fixture {
    pub(crate) name: String,
    pub(crate) reads: Vec<Read>,
}

impl Fixture {
    /// False for recordings after which the connection carries nothing more, and for
    /// those that begin with a cut message.
    pub(crate) fn goes_on(&self) -> bool {
        let ends = [
            "until_close",
            "upgrade",
            "connect",
            "monitor",
            "http_1_0",
            "mid_stream",
        ];
        !ends.contains(&self.name.as_str())
    }
}

/// All recordings of a protocol; `record.py` there says how they are written.
pub(crate) fn fixtures(protocol: &dyn Protocol) -> Vec<Fixture> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(protocol.name());
    let mut fixtures: Vec<Fixture> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| Fixture {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            reads: parse(&fs::read_to_string(&path).unwrap()),
        })
        .collect();
    fixtures.sort_by(|one, other| one.name.cmp(&other.name));
    fixtures
}

/// One recording.
pub(crate) fn fixture(protocol: &dyn Protocol, name: &str) -> Fixture {
    let all = fixtures(protocol);
    all.into_iter()
        .find(|one| one.name == name)
        .unwrap_or_else(|| panic!("no fixture {name}"))
}

fn parse(text: &str) -> Vec<Read> {
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (mark, quoted) = line.split_once(' ').unwrap();
            let flow = if mark == ">" {
                Flow::Request
            } else {
                Flow::Response
            };
            let escaped = quoted
                .strip_prefix('"')
                .and_then(|rest| rest.strip_suffix('"'));
            Read {
                flow,
                bytes: unescape(escaped.unwrap()),
            }
        })
        .collect()
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut letters = text.bytes();
    while let Some(letter) = letters.next() {
        bytes.push(match letter {
            b'\\' => match letters.next().unwrap() {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'x' => {
                    let digits = [letters.next().unwrap(), letters.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                quoted => quoted,
            },
            plain => plain,
        });
    }
    bytes
}

/// Plays what `>` the client and `<` the server sent, and ends both flows.
pub(crate) fn play(protocol: &dyn Protocol, reads: &[(char, &[u8])]) -> Vec<Seen> {
    let mut replay = Replay::new(protocol);
    for (mark, bytes) in reads {
        replay.feed(
            if *mark == '>' {
                Flow::Request
            } else {
                Flow::Response
            },
            bytes,
        );
    }
    replay.finish()
}

/// Kind, name and error of each message, for tests that tell a story.
pub(crate) fn story(seen: &[Seen]) -> Vec<String> {
    let one = |seen: &Seen| {
        let message = &seen.message;
        let kind = format!("{:?}", message.kind).to_lowercase();
        let status = shown(message, Audience::Client).remove("http.response.status_code");
        let name = message.span_name.to_string();
        let error = message
            .client_error
            .as_deref()
            .unwrap_or_default()
            .to_owned();
        let cut = if seen.end.is_none() { "cut" } else { "" };
        let words = [
            kind,
            name,
            status.unwrap_or_default(),
            error,
            cut.to_owned(),
        ];
        words
            .into_iter()
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    };
    seen.iter().map(one).collect()
}

/// A message's attributes as one side's span carries them.
pub(crate) fn shown(message: &Message, side: Audience) -> BTreeMap<String, String> {
    let mut shown = BTreeMap::new();
    for (audience, (key, value)) in &message.attributes {
        if *audience == side || *audience == Audience::Both {
            let text = match value {
                Value::Str(text) => text.to_string(),
                Value::Int(number) => number.to_string(),
                other => format!("{other:?}"),
            };
            assert_eq!(shown.insert(key.to_string(), text), None, "{key} twice");
        }
    }
    shown
}

/// A message and where it stood in its flow.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) flow: Flow,
    pub(crate) start: u64,
    /// None: the message was cut.
    pub(crate) end: Option<u64>,
    pub(crate) message: Message,
    /// Responses: the request they answer, as an index.
    pub(crate) answers: Option<usize>,
}

#[derive(Default)]
struct Lane {
    unread: Vec<u8>,
    offset: u64,
    /// Bytes to pass over; then the message under way ends, if so.
    skip: u64,
    ends: bool,
    /// Index of the message under way.
    current: Option<usize>,
    /// The last step was an `End` of nothing.
    empty_end: bool,
}

/// A connection on its way through a parser.
pub(crate) struct Replay {
    parser: Box<dyn Parser>,
    lanes: [Lane; 2],
    open: VecDeque<usize>,
    seen: Vec<Seen>,
    pub(crate) losses: Vec<Loss>,
    pub(crate) stopped: bool,
}

impl Replay {
    pub(crate) fn new(protocol: &dyn Protocol) -> Self {
        Self {
            parser: protocol.parser(),
            lanes: [Lane::default(), Lane::default()],
            open: VecDeque::new(),
            seen: Vec::new(),
            losses: Vec::new(),
            stopped: false,
        }
    }

    pub(crate) fn seen(&self) -> &[Seen] {
        &self.seen
    }

    pub(crate) fn open_requests(&self) -> usize {
        self.open.len()
    }

    /// What a stream layer does when it no longer knows which request is answered next.
    pub(crate) fn forget(&mut self) {
        self.open.clear();
    }

    /// Bytes of this flow are missing. A gap inside what is passed over does no harm.
    pub(crate) fn gap(&mut self, flow: Flow, length: u64) {
        let lane = &mut self.lanes[flow as usize];
        lane.offset += length;
        if lane.skip >= length {
            lane.skip -= length;
            self.settle(flow);
            return;
        }
        lane.offset += lane.unread.len() as u64;
        lane.unread.clear();
        (lane.skip, lane.ends, lane.current) = (0, false, None);
        self.open.clear();
        self.parser.resync(flow);
    }

    /// Bytes of this flow, right after the last ones.
    pub(crate) fn feed(&mut self, flow: Flow, bytes: &[u8]) {
        self.lanes[flow as usize].unread.extend_from_slice(bytes);
        while !self.stopped && self.settle(flow) && self.advance(flow) {}
    }

    /// Ends both flows and gives what was seen.
    pub(crate) fn finish(mut self) -> Vec<Seen> {
        for flow in [Flow::Request, Flow::Response] {
            let ends_well = self.parser.end(flow);
            let lane = &self.lanes[flow as usize];
            if let (true, Some(current)) = (ends_well, lane.current) {
                self.seen[current].end = Some(lane.offset);
            }
        }
        self.seen
    }

    /// Passes over what is not wanted. True: there are bytes to look at.
    fn settle(&mut self, flow: Flow) -> bool {
        let lane = &mut self.lanes[flow as usize];
        let passed = lane.skip.min(lane.unread.len() as u64);
        lane.unread.drain(..usize::try_from(passed).unwrap());
        lane.offset += passed;
        lane.skip = if lane.skip == u64::MAX {
            u64::MAX
        } else {
            lane.skip - passed
        };
        if lane.skip == 0 && std::mem::take(&mut lane.ends) {
            let current = lane
                .current
                .take()
                .expect("an end needs a message under way");
            self.seen[current].end = Some(lane.offset);
        }
        lane.skip == 0 && !lane.unread.is_empty()
    }

    /// One step. False: the parser waits or has stopped.
    fn advance(&mut self, flow: Flow) -> bool {
        let answered = self
            .open
            .front()
            .copied()
            .filter(|_| flow == Flow::Response);
        let answered_message = answered.map(|at| self.seen[at].message.clone());
        let lane = &mut self.lanes[flow as usize];
        let step = self
            .parser
            .step(flow, &lane.unread, answered_message.as_ref());
        let was_empty_end = std::mem::take(&mut lane.empty_end);
        let there = lane.unread.len();
        match step {
            Step::NeedMore => {
                assert!(there < MAX_UNREAD, "{there} bytes are kept");
                return false;
            }
            Step::Skip(count) => {
                assert!(count > 0, "a skip of nothing");
                lane.skip = count;
            }
            Step::Message {
                consumed,
                message,
                complete,
            } => {
                assert!(consumed > 0, "a message of nothing");
                assert!(lane.current.is_none(), "a message inside a message");
                let at = self.seen.len();
                let start = lane.offset;
                let answers = answered.filter(|_| message.kind == MessageKind::Response);
                (lane.skip, lane.ends, lane.current) = (consumed, complete, Some(at));
                match message.kind {
                    MessageKind::Request => self.open.push_back(at),
                    MessageKind::Response => drop(self.open.pop_front()),
                    MessageKind::OneWay | MessageKind::Interim => {}
                }
                self.seen.push(Seen {
                    flow,
                    start,
                    end: None,
                    message: *message,
                    answers,
                });
            }
            Step::End { consumed } => {
                assert!(lane.current.is_some(), "an end without a message");
                assert!(consumed > 0 || !was_empty_end, "two ends of nothing");
                lane.empty_end = consumed == 0;
                (lane.skip, lane.ends) = (consumed, true);
            }
            Step::Resync { consumed, reason } => {
                assert!((1..=there).contains(&consumed), "{consumed} of {there}");
                (lane.skip, lane.current) = (consumed as u64, None);
                self.losses.push(reason);
            }
            Step::Stop => {
                self.stopped = true;
                return false;
            }
        }
        true
    }
}
