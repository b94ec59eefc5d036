//! Captures of other projects, read from `../shared/corpus` where it is there. None
//! of their files is copied here.

use super::replay::{Replay, Seen, shown};
use crate::protocols::{Audience, Detection, Flow, MessageKind, Protocol, REGISTRY};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// One end of a connection: address and port.
type End = (Vec<u8>, u16);

/// A TCP segment with a payload.
struct Segment {
    from: End,
    to: End,
    sequence: u32,
    payload: Vec<u8>,
}

fn corpus() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus/deepflow");
    if root.is_dir() {
        return Some(root);
    }
    println!("skipped: {} is not there", root.display());
    None
}

/// The segments of a pcap of Ethernet frames; other packets are passed over.
fn segments(file: &Path) -> Vec<Segment> {
    let bytes = fs::read(file).unwrap();
    let big_endian = bytes[..4] == [0xa1, 0xb2, 0xc3, 0xd4];
    let number = |at: usize| {
        let field: [u8; 4] = bytes[at..at + 4].try_into().unwrap();
        let number = if big_endian {
            u32::from_be_bytes(field)
        } else {
            u32::from_le_bytes(field)
        };
        number as usize
    };
    let mut at = 24;
    let mut segments = Vec::new();
    while at + 16 <= bytes.len() {
        let length = number(at + 8);
        segments.extend(segment(&bytes[at + 16..at + 16 + length]));
        at += 16 + length;
    }
    segments
}

fn segment(frame: &[u8]) -> Option<Segment> {
    let short = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
    let mut ip = 14;
    let mut kind = short(12)?;
    while kind == 0x8100 {
        kind = short(ip + 2)?;
        ip += 4;
    }
    let (protocol, tcp, end, from, to) = match kind {
        0x0800 => {
            let end = ip + usize::from(short(ip + 2)?);
            let tcp = ip + usize::from(frame.get(ip)? & 15) * 4;
            (
                *frame.get(ip + 9)?,
                tcp,
                end,
                ip + 12..ip + 16,
                ip + 16..ip + 20,
            )
        }
        0x86dd => {
            let end = ip + 40 + usize::from(short(ip + 4)?);
            (
                *frame.get(ip + 6)?,
                ip + 40,
                end,
                ip + 8..ip + 24,
                ip + 24..ip + 40,
            )
        }
        _ => return None,
    };
    if protocol != 6 {
        return None;
    }
    let start = tcp + usize::from(frame.get(tcp + 12)? >> 4) * 4;
    let payload = frame.get(start..end.min(frame.len()))?.to_vec();
    let sequence = u32::from_be_bytes(frame.get(tcp + 4..tcp + 8)?.try_into().ok()?);
    let from = (frame.get(from)?.to_vec(), short(tcp)?);
    let to = (frame.get(to)?.to_vec(), short(tcp + 2)?);
    (!payload.is_empty()).then_some(Segment {
        from,
        to,
        sequence,
        payload,
    })
}

/// What one end sent, in order and once. None: a gap.
struct Sent {
    connection: (End, End),
    from: End,
    bytes: Option<Vec<u8>>,
}

/// All payloads in the order in which they were captured, retransmitted bytes left out.
fn sent(file: &Path) -> Vec<Sent> {
    let mut next: BTreeMap<(End, End), u32> = BTreeMap::new();
    let mut all = Vec::new();
    for segment in segments(file) {
        let Segment {
            from,
            to,
            sequence,
            payload,
        } = segment;
        let connection = if from < to {
            (from.clone(), to.clone())
        } else {
            (to.clone(), from.clone())
        };
        let expected = next.entry((from.clone(), to)).or_insert(sequence);
        let ahead = sequence.wrapping_sub(*expected).cast_signed();
        let mut push = |bytes| {
            let (connection, from) = (connection.clone(), from.clone());
            all.push(Sent {
                connection,
                from,
                bytes,
            });
        };
        if ahead > 0 {
            push(None);
        }
        let seen_before = usize::try_from(-ahead.min(0)).unwrap();
        if seen_before < payload.len() {
            *expected = sequence.wrapping_add(u32::try_from(payload.len()).unwrap());
            push(Some(payload[seen_before..].to_vec()));
        }
    }
    all
}

/// Plays a capture with `protocol`, all its connections at a time; `cut` shortens the
/// reads to so many bytes.
fn play(protocol: &dyn Protocol, file: &Path, cut: usize) -> Vec<Seen> {
    let all = sent(file);
    let mut replays: BTreeMap<&(End, End), Replay> = BTreeMap::new();
    let mut seen = Vec::new();
    for one in &all {
        let Some(client) = client_of(protocol, &all, &one.connection) else {
            continue;
        };
        let replay = replays
            .entry(&one.connection)
            .or_insert_with(|| Replay::new(protocol));
        let before = replay.seen().len();
        let flow = if one.from == client {
            Flow::Request
        } else {
            Flow::Response
        };
        match &one.bytes {
            Some(bytes) => bytes.chunks(cut).for_each(|piece| replay.feed(flow, piece)),
            None => replay.gap(flow, 1),
        }
        seen.extend_from_slice(&replay.seen()[before..]);
    }
    seen
}

/// The end that asks, as detection tells it.
fn client_of(protocol: &dyn Protocol, all: &[Sent], connection: &(End, End)) -> Option<End> {
    let (one, other) = connection;
    let own = all.iter().filter(|sent| sent.connection == *connection);
    own.filter_map(|sent| Some((&sent.from, protocol.detect(sent.bytes.as_ref()?))))
        .find_map(|(from, found)| match found {
            Detection::Yes(Flow::Request) => Some(from),
            Detection::Yes(Flow::Response) => Some(if from == one { other } else { one }),
            _ => None,
        })
        .cloned()
}

/// The text after `name: ` on a line of a `.result`.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let found = line
        .split_once(&format!(" {name}: "))
        .map_or("", |(_, rest)| rest);
    let end = if found.starts_with('"') { "\"," } else { "," };
    found
        .split(end)
        .next()
        .unwrap_or_default()
        .trim_start_matches('"')
}

fn inside(option: &str) -> Option<String> {
    let inner = option.strip_prefix("Some(")?.trim_end_matches(')');
    Some(inner.trim_matches('"').to_owned())
}

fn protocol(name: &str) -> &'static dyn Protocol {
    *REGISTRY
        .iter()
        .find(|protocol| protocol.name() == name)
        .unwrap()
}

/// Requests as `METHOD target`, responses as their status.
fn http_facts(seen: &[Seen]) -> Vec<String> {
    let one = |seen: &Seen| {
        let server = shown(&seen.message, Audience::Server);
        match seen.flow {
            Flow::Request => {
                let query = server.get("url.query").map(|query| format!("?{query}"));
                let target = format!("{}{}", server["url.path"], query.unwrap_or_default());
                format!("{} {target}", server["http.request.method"])
            }
            Flow::Response => server["http.response.status_code"].clone(),
        }
    };
    seen.iter().map(one).collect()
}

#[test]
fn the_http_captures_give_their_known_facts() {
    let Some(root) = corpus() else { return };
    // Of the last one's answer only the status line was captured.
    for (name, whole_heads) in [("httpv1", 2), ("sw8", 6), ("istio-tcp-frag", 1)] {
        let result = fs::read_to_string(root.join(format!("http/{name}.result"))).unwrap();
        let expected: Vec<String> = result
            .lines()
            .filter(|line| line.contains("is_http: true"))
            .take(whole_heads)
            .map(|line| match inside(field(line, "status_code")) {
                Some(status) => status,
                None => format!(
                    "{} {}",
                    field(line, "method").to_uppercase(),
                    field(line, "path")
                ),
            })
            .collect();
        for cut in [1, 7, usize::MAX] {
            let seen = play(
                protocol("http1"),
                &root.join(format!("http/{name}.pcap")),
                cut,
            );
            assert_eq!(http_facts(&seen), expected, "{name}");
        }
    }
}

#[test]
fn a_skywalking_capture_gives_its_contexts() {
    let Some(root) = corpus() else { return };
    let seen = play(protocol("http1"), &root.join("http/sw8.pcap"), usize::MAX);
    let context = seen[0].message.context.unwrap();
    assert_eq!(
        (context.parent_span_id, context.sampled),
        (None, Some(true))
    );
}

/// The capture holds the first segment of the request only.
#[test]
fn a_head_that_was_cut_off_gives_no_request_and_its_answer_all_the_same() {
    let Some(root) = corpus() else { return };
    let seen = play(
        protocol("http1"),
        &root.join("http/client-ip.pcap"),
        usize::MAX,
    );
    assert_eq!(http_facts(&seen), ["200"]);
}

#[test]
fn the_redis_captures_give_their_known_facts() {
    let Some(root) = corpus() else { return };
    for name in ["redis", "redis-error", "redis-debug"] {
        let result = fs::read_to_string(root.join(format!("redis/{name}.result"))).unwrap();
        let (mut commands, mut errors) = (Vec::new(), Vec::new());
        for line in result
            .lines()
            .filter(|line| line.contains("is_redis: true"))
        {
            match field(line, "request_type") {
                "" => {
                    let error = field(&line.replace(" }", ","), "error").to_owned();
                    let first = error
                        .trim_start_matches('-')
                        .split(' ')
                        .next()
                        .unwrap_or_default();
                    errors.push(first.to_owned());
                }
                command => commands.push(command.to_owned()),
            }
        }
        for cut in [1, 13, usize::MAX] {
            let seen = play(
                protocol("redis"),
                &root.join(format!("redis/{name}.pcap")),
                cut,
            );
            let of = |flow: Flow| seen.iter().filter(move |seen| seen.flow == flow);
            let names: Vec<&str> = of(Flow::Request)
                .map(|seen| &*seen.message.operation)
                .collect();
            assert_eq!(names, commands, "{name}");
            let found: Vec<&str> = of(Flow::Response)
                .map(|seen| seen.message.client_error.as_deref().unwrap_or_default())
                .collect();
            assert_eq!(found, errors, "{name}");
            assert!(of(Flow::Response).all(|seen| seen.message.kind == MessageKind::Response));
        }
    }
}

/// Other protocols' traffic, and broken TCP: nothing claims it, nothing fails on it.
#[test]
fn captures_of_other_protocols_are_not_claimed() {
    let Some(root) = corpus() else { return };
    let mut checked = 0;
    let own = ["http", "redis"];
    let folders = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    for folder in folders.filter(|path| path.is_dir()) {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        for file in fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
        {
            if file.extension().is_none_or(|extension| extension != "pcap") || name == "nats" {
                continue;
            }
            for bytes in sent(&file)
                .into_iter()
                .filter_map(|sent| sent.bytes)
                .take(8)
            {
                checked += 1;
                for protocol in REGISTRY {
                    let claimed = matches!(protocol.detect(&bytes), Detection::Yes(_));
                    let what = format!("{} {}", protocol.name(), file.display());
                    assert!(!claimed || own.contains(&&*name), "{what}");
                    for flow in [Flow::Request, Flow::Response] {
                        Replay::new(*protocol).feed(flow, &bytes);
                    }
                }
            }
        }
    }
    println!("{checked} reads of all protocols");
}
