//! Recorded spans with known parents, and how load is put on them.
//!
//! Two forms are read, either of them compressed with zstd or not:
//! - one JSON object a line (`d`, `s`, `p`, `o`, `a`, `b`, `i`, `l`, `g`, and thread ids,
//!   sequence numbers and ports where the recorder had them);
//! - `DeepTrace`'s own: an object with `spans`, each a request and a response message with
//!   payload. The true trace is the `X-Request-Id` in the request.
//!
//! Truth is for scoring; nothing here gives it to a linker, except where a share of exact
//! links is asked for.

use super::Error;
use serde::Deserialize;
use span_model::{PAYLOAD_TOKEN, ToldBy};
use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::Path;

/// A recorded span.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Index of its trace.
    pub trace: u32,
    /// Index of the process it happened in.
    pub process: u32,
    /// A request that the process served, or one that it made.
    pub ingress: bool,
    /// What it did, and whom it asked.
    pub operation: String,
    pub peer: String,
    pub start_ns: u64,
    pub end_ns: u64,
    /// The span's name in the recording.
    pub id: String,
    /// A call's true parent, a request's true caller: their names, then their indexes.
    above_id: Option<String>,
    pub above: Option<u32>,
    /// The recording says that there is a parent, whether or not that was kept.
    pub has_parent: bool,
    /// Threads that moved the request and the response; 0 if unknown.
    pub tids: (u32, u32),
    /// Names the request at both ends of its connection: sequence number and client port.
    wire: Option<(u64, u64)>,
    /// What a collector knew of threads, where recorded.
    pub seen: Option<Seen>,
    /// Request and response, where recorded.
    pub payload: Option<String>,
    /// The id that the application sends on.
    pub token: Option<u64>,
}

/// What a collector knew of threads; spans by their names. As in `span_model::LinkFacts`.
#[derive(Clone, Debug)]
pub struct Seen {
    pub after: Option<String>,
    pub connected_after: Option<String>,
    pub serving: Option<String>,
    pub told_by: ToldBy,
    pub freed: bool,
    pub woken_after: Option<String>,
    pub woken_first: bool,
    pub polls: Polls,
    pub connected_before_ns: u32,
}

/// How often the threads had waited for descriptors: at the request, the response and, of a first call,
/// when it connected.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Polls(pub u32, pub u32, pub u32);

/// Recorded spans, ordered by start.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    pub spans: Vec<Recorded>,
    /// Names of the processes.
    pub processes: Vec<String>,
}

impl Recording {
    /// Reads a file in either form.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let fail = |reason: String| Error::Recording {
            path: path.to_owned(),
            reason,
        };
        let text = read_text(path).map_err(|error| fail(error.to_string()))?;
        let mut names = Names::default();
        let spans = if text.trim_start().starts_with("{\n") || !text.trim_start().contains('\n') {
            read_messages(&text, &mut names).map_err(fail)?
        } else {
            read_lines(&text, &mut names).map_err(fail)?
        };
        let mut recording = Self {
            spans,
            processes: names.processes.names,
        };
        recording.settle();
        if recording.spans.is_empty() {
            return Err(fail("no spans in it".to_owned()));
        }
        Ok(recording)
    }

    /// Orders the spans, drops those with a name twice and finds who is above whom.
    fn settle(&mut self) {
        self.spans
            .sort_by(|a, b| (a.start_ns, &a.id).cmp(&(b.start_ns, &b.id)));
        let mut seen = HashSet::new();
        self.spans.retain(|span| {
            let key = (span.process, span.ingress, span.id.clone());
            seen.insert(key)
        });
        let mut requests = HashMap::new();
        let mut calls = HashMap::new();
        let mut wires = HashMap::new();
        for (index, span) in (0_u32..).zip(&self.spans) {
            if span.ingress {
                requests.insert((span.process, span.id.clone()), index);
            } else {
                calls.insert(span.id.clone(), index);
                wires.extend(span.wire.map(|wire| (wire, index)));
            }
        }
        for span in &mut self.spans {
            let named = span.above_id.clone();
            span.above = if span.ingress {
                let wire = span.wire.and_then(|wire| wires.get(&wire).copied());
                wire.or_else(|| calls.get(&named?).copied())
            } else {
                named.and_then(|id| requests.get(&(span.process, id)).copied())
            };
            span.has_parent = span.above_id.is_some();
        }
    }

    /// Keeps the spans that are kept, and tells who is above whom anew.
    pub fn keep(&mut self, keep: impl Fn(&Recorded) -> bool) {
        self.spans.retain(keep);
        self.settle();
    }

    /// Divides the start times of traces by a factor and keeps durations.
    ///
    /// Threads are forgotten: they would be in two places at once.
    pub fn compress(&mut self, factor: u64) {
        if factor > 1 {
            self.spans.iter_mut().for_each(|span| span.tids = (0, 0));
        }
        let starts = self.trace_starts();
        let first = starts.values().copied().min().unwrap_or(0);
        for span in &mut self.spans {
            let start = starts.get(&span.trace).copied().unwrap_or(first);
            let earlier = (start - first) - (start - first) / factor.max(1);
            span.start_ns -= earlier;
            span.end_ns -= earlier;
        }
        self.settle();
    }

    /// Lays the minutes in which traces began over each other.
    pub fn fold(&mut self) {
        let starts = self.trace_starts();
        for span in &mut self.spans {
            let start = starts.get(&span.trace).copied().unwrap_or(0);
            let earlier = start / MINUTE_NS * MINUTE_NS;
            span.start_ns -= earlier;
            span.end_ns -= earlier;
        }
        self.settle();
    }

    /// The traces that began in some of the recording's minutes, counted from 0.
    pub fn minutes(&self, chosen: &[usize]) -> Self {
        let starts = self.trace_starts();
        let mut minutes: Vec<u64> = starts.values().map(|start| start / MINUTE_NS).collect();
        minutes.sort_unstable();
        minutes.dedup();
        let mut part = self.clone();
        part.keep(|span| {
            let minute = starts.get(&span.trace).map(|start| start / MINUTE_NS);
            let place = minute.and_then(|minute| minutes.binary_search(&minute).ok());
            place.is_some_and(|place| chosen.contains(&place))
        });
        part
    }

    /// Loses a share of all spans, the same ones each time.
    pub fn lose(&mut self, share: f64) {
        self.keep(|span| chance(&span.id, u64::from(span.ingress) + 2) >= share);
    }

    /// A call that is among this share of calls, the same ones each time.
    pub fn is_chosen(&self, index: usize, share: f64) -> bool {
        let span = self.spans.get(index);
        span.is_some_and(|span| chance(&span.id, 1) < share)
    }

    /// Takes the ids that applications send on out of all that a linker sees.
    pub fn strip_ids(&mut self) {
        for span in &mut self.spans {
            span.token = None;
            span.payload = span.payload.as_deref().map(without_uuids);
        }
    }

    fn trace_starts(&self) -> HashMap<u32, u64> {
        let mut starts = HashMap::new();
        for span in &self.spans {
            let start = starts.entry(span.trace).or_insert(span.start_ns);
            *start = span.start_ns.min(*start);
        }
        starts
    }
}

const MINUTE_NS: u64 = 60_000_000_000;

/// A number from 0 to 1 that depends on the text and nothing else.
fn chance(text: &str, salt: u64) -> f64 {
    let hash = hash(text)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(salt);
    let mixed = (hash ^ (hash >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let top = u32::try_from((mixed ^ (mixed >> 29)) >> 32).unwrap_or(0);
    f64::from(top) / f64::from(u32::MAX)
}

/// FNV-1a: the same on every run.
/// As of a header's value.
fn token(text: &str) -> u64 {
    hash(text) & !PAYLOAD_TOKEN
}

fn hash(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The text with everything that looks like a UUID taken out.
fn without_uuids(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let uuid = rest.get(..36).filter(|piece| is_uuid(piece));
        let step = uuid.map_or(first.len_utf8(), str::len);
        if uuid.is_none() {
            kept.push(first);
        }
        rest = rest.get(step..).unwrap_or_default();
    }
    kept
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn read_text(path: &Path) -> std::io::Result<String> {
    let bytes = std::fs::read(path)?;
    let mut text = String::new();
    if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        ruzstd::decoding::StreamingDecoder::new(bytes.as_slice())
            .map_err(std::io::Error::other)?
            .read_to_string(&mut text)?;
    } else {
        bytes.as_slice().read_to_string(&mut text)?;
    }
    Ok(text)
}

/// Numbers for names.
#[derive(Default)]
struct Names {
    traces: Table,
    processes: Table,
}

#[derive(Default)]
struct Table {
    names: Vec<String>,
    numbers: HashMap<String, u32>,
}

impl Table {
    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }
}

/// A line of the first form.
#[derive(Deserialize)]
struct Line {
    t: String,
    s: String,
    d: String,
    p: Option<String>,
    o: String,
    a: u64,
    b: u64,
    i: String,
    l: Option<String>,
    g: Option<String>,
    #[serde(default)]
    tid_req: u32,
    #[serde(default)]
    tid_resp: u32,
    /// The facts of a collector; `freed` is in all lines of a recording that has them.
    after: Option<String>,
    connected_after: Option<String>,
    serving: Option<String>,
    freed: Option<bool>,
    told_by: Option<String>,
    woken_after: Option<String>,
    #[serde(default)]
    woken_first: bool,
    #[serde(default)]
    polls: Polls,
    #[serde(default)]
    connected_before_ns: u32,
    seq: Option<u64>,
    lport: Option<u64>,
    rport: Option<u64>,
}

fn read_lines(text: &str, names: &mut Names) -> Result<Vec<Recorded>, String> {
    let lines = (1..).zip(text.lines());
    let mut spans = Vec::new();
    for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let line: Line =
            serde_json::from_str(line).map_err(|error| format!("line {number}: {error}"))?;
        let ingress = line.d == "in";
        let port = if ingress { line.rport } else { line.lport };
        spans.push(Recorded {
            trace: names.traces.number(&line.t),
            process: names.processes.number(&line.s),
            ingress,
            operation: line.o,
            peer: if ingress {
                String::new()
            } else {
                line.p.unwrap_or_default()
            },
            start_ns: line.a,
            end_ns: line.b.max(line.a),
            id: line.i,
            above_id: if ingress { line.l } else { line.g },
            above: None,
            has_parent: false,
            tids: (line.tid_req, line.tid_resp),
            wire: line.seq.zip(port),
            seen: line.freed.map(|freed| Seen {
                after: line.after,
                connected_after: line.connected_after,
                serving: line.serving,
                told_by: line
                    .told_by
                    .and_then(|name| ToldBy::from_name(&name))
                    .unwrap_or_default(),
                freed,
                woken_after: line.woken_after,
                woken_first: line.woken_first,
                polls: line.polls,
                connected_before_ns: line.connected_before_ns,
            }),
            payload: None,
            // Where thread ids were recorded, the trace is the request id that was sent on.
            token: (line.tid_req != 0).then(|| token(&line.t)),
        });
    }
    Ok(spans)
}

/// The second form.
#[derive(Deserialize)]
struct Messages {
    spans: Vec<Exchange>,
}

#[derive(Deserialize)]
struct Exchange {
    req: Message,
    resp: Message,
}

#[derive(Deserialize)]
struct Message {
    tgid: u32,
    pid: u32,
    enter_seq: u64,
    timestamp_ns: u64,
    quintuple: Quintuple,
    direction: String,
    payload: String,
    protocol: String,
}

#[derive(Deserialize)]
struct Quintuple {
    src_port: u64,
    dst_port: u64,
}

fn read_messages(text: &str, names: &mut Names) -> Result<Vec<Recorded>, String> {
    let messages: Messages = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut spans: Vec<Recorded> = Vec::new();
    for (number, Exchange { req, resp }) in messages.spans.into_iter().enumerate() {
        let Some(trace) = header(&req.payload, "x-request-id") else {
            continue;
        };
        if req.protocol != "HTTP1" {
            continue;
        }
        let ingress = req.direction == "Ingress";
        let port = if ingress {
            req.quintuple.dst_port
        } else {
            req.quintuple.src_port
        };
        let host = header(&req.payload, "host").unwrap_or_default();
        let operation: Vec<&str> = req.payload.split(' ').take(2).collect();
        spans.push(Recorded {
            trace: names.traces.number(trace),
            process: names.processes.number(&req.tgid.to_string()),
            ingress,
            operation: operation.join(" "),
            peer: if ingress {
                String::new()
            } else {
                host.to_owned()
            },
            start_ns: req.timestamp_ns,
            end_ns: resp.timestamp_ns.max(req.timestamp_ns),
            // A request is named after its trace, so that its calls can name it.
            id: if ingress {
                trace.to_owned()
            } else {
                number.to_string()
            },
            above_id: (!ingress).then(|| trace.to_owned()),
            above: None,
            has_parent: false,
            tids: (req.pid, resp.pid),
            wire: Some((req.enter_seq, port)),
            seen: None,
            token: Some(token(trace)),
            payload: Some(req.payload + &resp.payload),
        });
    }
    Ok(spans)
}

fn header<'a>(payload: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = payload.split("\r\n").skip(1);
    lines.find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}
