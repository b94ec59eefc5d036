//! What one thread read and wrote, in order.

use span_model::SpanId;

/// A request that was served.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// Its server span.
    pub id: SpanId,
    /// What it asked for; 0 if unknown.
    pub kind: u32,
    /// First byte of the request, ns since the Unix epoch.
    pub start_ns: u64,
    /// Last byte of the response; none while open.
    pub end_ns: Option<u64>,
    /// How often the thread had waited for descriptors when it read the request, and when it wrote
    /// the response; 0: not known.
    pub polls: (u32, u32),
}

/// A call that was made.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// Its client span.
    pub id: SpanId,
    /// Whom and what it asked; 0 if unknown.
    pub kind: u32,
    /// First byte of the request, ns since the Unix epoch.
    pub start_ns: u64,
    /// Last byte of the response; none while open.
    pub end_ns: Option<u64>,
    /// It is the first on its connection: when the thread read last before it connected, ns since
    /// the Unix epoch. That is when it was the request's turn, and not when the socket was ready.
    pub connected_after_ns: Option<u64>,
    /// How often the thread had waited for descriptors when it wrote the request, and when it read
    /// the response; 0: not known.
    pub polls: (u32, u32),
    /// When it connected, ns since the Unix epoch, and the same then; none: it did not, or that is
    /// not known.
    pub connected: Option<(u64, u32)>,
    /// Its parent, where that is known.
    pub parent: Option<SpanId>,
}

impl Made {
    /// It is the first on its connection.
    pub fn connects(&self) -> bool {
        self.connected.is_some() || self.connected_after_ns.is_some()
    }
}

/// A piece of a thread's time.
#[derive(Debug, Default)]
pub struct Scene {
    /// Requests under way in it.
    pub requests: Vec<Served>,
    /// Calls under way in it.
    pub calls: Vec<Made>,
    /// Steps before this were followed already, ns since the Unix epoch.
    pub since_ns: u64,
    /// Calls that began before this are to be decided; what comes after only tells of them.
    pub until_ns: u64,
    /// What comes after this is left out.
    pub horizon_ns: u64,
}

/// The kind of a response to a request that was served.
pub const ANSWER: u32 = 0;

/// A read or a write.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub time_ns: u64,
    pub round: u32,
    /// How often the thread had waited for descriptors before; 0: not known.
    pub polls: u32,
    pub what: What,
    /// Kind of the request or call; `ANSWER` for answers.
    pub kind: u32,
    /// Index of the request or of the call.
    pub index: usize,
}

/// What moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A request came in.
    Request,
    /// The response to a call came in.
    Response,
    /// A call went out.
    Call,
    /// The response to a request went out.
    Answer,
}

impl What {
    pub fn is_read(self) -> bool {
        matches!(self, Self::Request | Self::Response)
    }
}

/// A loop waits for descriptors, then goes on with what it waited for: that is a round, the time of
/// such a loop. Where its waits are not known, it is taken to read, then to write, then to read again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    number: u32,
    polls: u32,
    reads: bool,
}

/// Rounds between two steps; more count as these.
const MAX_GAP: u32 = 64;

impl Round {
    /// The round that a step is in.
    pub fn after(self, step: &Step) -> Self {
        let reads = step.what.is_read();
        let (gap, polls) = match (self.polls, step.polls) {
            (0, polls) => (u32::from(reads && !self.reads), polls),
            (polls, 0) => (0, polls),
            (from, to) => (gap(from, to), to),
        };
        Self {
            number: self.number.saturating_add(gap),
            polls,
            reads,
        }
    }
}

/// How many more waits there were; they are counted modulo 2^32.
fn gap(from: u32, to: u32) -> u32 {
    let more = to.wrapping_sub(from);
    if more > u32::MAX / 2 {
        0
    } else {
        more.min(MAX_GAP)
    }
}

/// The steps of a scene, in order.
pub fn steps(scene: &Scene, begin: Round) -> Vec<Step> {
    let mut steps = Vec::with_capacity(2 * (scene.requests.len() + scene.calls.len()));
    let mut add = |time_ns: u64, polls, what, kind, index| {
        if time_ns >= scene.since_ns && time_ns < scene.horizon_ns {
            let round = 0;
            steps.push(Step {
                time_ns,
                round,
                polls,
                what,
                kind,
                index,
            });
        }
    };
    for (index, request) in scene.requests.iter().enumerate() {
        let (read, written) = request.polls;
        add(request.start_ns, read, What::Request, request.kind, index);
        if let Some(end_ns) = request.end_ns {
            add(end_ns, written, What::Answer, ANSWER, index);
        }
    }
    for (index, call) in scene.calls.iter().enumerate() {
        let (written, read) = call.polls;
        match (call.connected, call.connected_after_ns) {
            (Some((time_ns, polls)), _) => add(time_ns, polls, What::Call, call.kind, index),
            (None, None) => add(call.start_ns, written, What::Call, call.kind, index),
            (None, Some(_)) => {}
        }
        if let Some(end_ns) = call.end_ns {
            add(end_ns, read, What::Response, call.kind, index);
        }
    }
    let id = |step: &Step| match step.what {
        What::Request | What::Answer => scene.requests.get(step.index).map(|request| request.id),
        What::Call | What::Response => scene.calls.get(step.index).map(|call| call.id),
    };
    steps.sort_by_key(|step| (step.time_ns, step.what, id(step)));
    let mut round = begin;
    for step in &mut steps {
        round = round.after(step);
        step.round = round.number;
    }
    with_connecting(scene, begin, steps)
}

/// Calls on new connections come last in the round in which they connect: others had their turn
/// before them, or they would have had those connections.
fn with_connecting(scene: &Scene, begin: Round, steps: Vec<Step>) -> Vec<Step> {
    let mut connecting = Vec::new();
    for (index, call) in scene.calls.iter().enumerate() {
        let Some(after_ns) = call.connected_after_ns.filter(|_| call.connected.is_none()) else {
            continue;
        };
        if call.start_ns >= scene.horizon_ns {
            continue;
        }
        let seen = steps.partition_point(|step| step.time_ns <= after_ns);
        let last = seen.checked_sub(1).and_then(|last| steps.get(last));
        let round = last.map_or(begin.number, |last| last.round);
        let place = steps.partition_point(|step| step.round <= round);
        let next = steps.get(place);
        connecting.push((
            place,
            call.start_ns,
            Step {
                time_ns: next.map_or(call.start_ns, |next| next.time_ns),
                round,
                polls: 0,
                what: What::Call,
                kind: call.kind,
                index,
            },
        ));
    }
    connecting.sort_by_key(|(place, start_ns, step)| (*place, *start_ns, step.index));
    let mut all = Vec::with_capacity(steps.len() + connecting.len());
    let mut connecting = connecting.into_iter().peekable();
    for (place, step) in steps.into_iter().enumerate() {
        while let Some((_, _, step)) = connecting.next_if(|(at, ..)| *at <= place) {
            all.push(step);
        }
        all.push(step);
    }
    all.extend(connecting.map(|(_, _, step)| step));
    all
}
