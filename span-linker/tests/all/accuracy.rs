//! How often the linker is right on a real capture of three Go services, A -> {B, C}.
//!
//! The capture is outside the repository; without it the tests say so and pass.
//! Facts are derived as the collector would: what each thread read last, whose
//! request it has not answered, hashes of the request id that the apps send on.
//! Load is raised as `TraceWeaver` did: start times of traces divided by a factor,
//! durations kept.

use crate::scene::{Linked, Seen, Stage, client, finished, id, server};
use serde_json::Value;
use span_linker::Config;
use span_model::SpanKind;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;

/// One line of the capture.
#[derive(Clone, Debug)]
struct Line {
    id: u64,
    trace: String,
    service: String,
    ingress: bool,
    start_ns: u64,
    end_ns: u64,
    tids: (u32, u32),
    /// The true parent of an egress span.
    truth: Option<u64>,
    /// Sequence number and client port: names the request at both ends.
    request: (u64, u64),
}

fn capture() -> Option<Vec<Line>> {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/spans/rps100.norm.jsonl");
    let Ok(text) = fs::read_to_string(&path) else {
        println!("skipped: no {}", path.display());
        return None;
    };
    text.lines()
        .map(|line| parse(&serde_json::from_str(line).ok()?))
        .collect()
}

fn parse(line: &Value) -> Option<Line> {
    let number = |key: &str| line.get(key)?.as_u64();
    let text = |key: &str| Some(line.get(key)?.as_str()?.to_owned());
    // 0 is no span id, so ids are shifted by one.
    let shifted = |key: &str| Some(text(key)?.parse::<u64>().ok()? + 1);
    let tid = |key: &str| u32::try_from(number(key)?).ok();
    let ingress = text("d")? == "in";
    Some(Line {
        id: shifted("i")?,
        trace: text("t")?,
        service: text("s")?,
        ingress,
        start_ns: number("a")?,
        end_ns: number("b")?,
        tids: (tid("tid_req")?, tid("tid_resp")?),
        truth: shifted("g"),
        request: (
            number("seq")?,
            number(if ingress { "rport" } else { "lport" })?,
        ),
    })
}

/// Divides the start times of traces, keeps durations.
fn compress(lines: &mut [Line], factor: u64) {
    let mut starts: HashMap<String, u64> = HashMap::new();
    for line in &*lines {
        let start = starts.entry(line.trace.clone()).or_insert(line.start_ns);
        *start = (*start).min(line.start_ns);
    }
    let first = starts.values().copied().min().unwrap_or(0);
    for line in lines {
        let start = starts.get(&line.trace).copied().unwrap_or(first);
        let shift = (start - first) - (start - first) / factor;
        line.start_ns -= shift;
        line.end_ns -= shift;
    }
}

/// What a thread did last, as the collector keeps it.
#[derive(Default)]
struct Thread {
    read: Option<u64>,
    serving: Option<u64>,
}

fn observe(lines: &[Line], with_tokens: bool) -> Vec<Seen> {
    let mut events = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        events.push((line.start_ns, index, true));
        events.push((line.end_ns, index, false));
    }
    events.sort_unstable();
    let callers: HashMap<_, _> = lines
        .iter()
        .filter(|l| !l.ingress)
        .map(|l| (l.request, l.id))
        .collect();
    let hasher = RandomState::new();
    let mut threads: HashMap<(String, u32), Thread> = HashMap::new();
    let mut seen: BTreeMap<usize, Seen> = BTreeMap::new();
    for (_, index, begins) in events {
        let Some(line) = lines.get(index) else {
            continue;
        };
        let tid = if begins { line.tids.0 } else { line.tids.1 };
        match (line.ingress, begins) {
            (true, true) => {
                let thread = threads.entry((line.service.clone(), tid)).or_default();
                (thread.read, thread.serving) = (Some(line.id), Some(line.id));
            }
            (true, false) => {
                let answered = threads
                    .values_mut()
                    .filter(|thread| thread.serving == Some(line.id));
                answered.for_each(|thread| thread.serving = None);
            }
            (false, true) => {}
            (false, false) => {
                threads.entry((line.service.clone(), tid)).or_default().read = Some(line.id);
            }
        }
        if begins {
            let thread = threads.entry((line.service.clone(), tid)).or_default();
            seen.insert(index, observe_one(line, thread, &callers));
        }
    }
    if with_tokens {
        for (index, seen) in &mut seen {
            seen.facts.tokens.extend(
                lines
                    .get(*index)
                    .map(|line| hasher.hash_one(&line.trace) >> 1),
            );
        }
    }
    seen.into_values().collect()
}

fn observe_one(line: &Line, thread: &Thread, callers: &HashMap<(u64, u64), u64>) -> Seen {
    let pid = line.service.bytes().next().map_or(0, i64::from);
    let times = line.start_ns / 1000..line.end_ns / 1000;
    let mut seen = if line.ingress {
        server(line.id, pid, times)
    } else {
        client(line.id, pid, times)
    };
    if line.ingress {
        seen.facts.caller = callers.get(&line.request).map(|caller| id(*caller));
    } else if line.tids.0 != 0 {
        seen.facts.after = thread.read.map(id);
        seen.facts.serving = thread.serving.map(id);
    }
    seen.tids(line.tids.0, line.tids.1)
}

/// Right, wrong and missing parents by how they were found.
#[derive(Debug, Default)]
struct Score {
    by_method: BTreeMap<String, (usize, usize)>,
    right: usize,
    wrong: usize,
    missing: usize,
}

fn score(lines: &[Line], linked: &Linked) -> Score {
    let mut score = Score::default();
    for line in lines.iter().filter(|line| line.truth.is_some()) {
        let parent = linked.parent(line.id);
        let right = parent == line.truth.map(id);
        let method = match parent {
            Some(_) => linked.text(line.id, "deeptrace.link.method"),
            None => linked.text(line.id, "deeptrace.link.reason"),
        };
        let by_method = score.by_method.entry(method.to_owned()).or_default();
        match parent {
            None => (by_method.1, score.missing) = (by_method.1 + 1, score.missing + 1),
            Some(_) if right => (by_method.0, score.right) = (by_method.0 + 1, score.right + 1),
            Some(_) => (by_method.1, score.wrong) = (by_method.1 + 1, score.wrong + 1),
        }
    }
    score
}

/// The same traffic again and again.
fn repeat(lines: &mut Vec<Line>, times: u64) {
    let first = lines.iter().map(|line| line.start_ns).min().unwrap_or(0);
    let last = lines.iter().map(|line| line.end_ns).max().unwrap_or(0);
    let ids = lines.iter().map(|line| line.id).max().unwrap_or(0);
    let once = std::mem::take(lines);
    for time in 0..times {
        let later = time * (last - first);
        lines.extend(once.iter().map(|line| Line {
            id: line.id + time * ids,
            trace: format!("{time} {}", line.trace),
            start_ns: line.start_ns + later,
            end_ns: line.end_ns + later,
            truth: line.truth.map(|truth| truth + time * ids),
            request: (line.request.0 + (time << 32), line.request.1),
            ..line.clone()
        }));
    }
}

fn run(factor: u64, with_tokens: bool, config: Config) -> Option<(Score, Linked)> {
    let mut lines = capture()?;
    compress(&mut lines, factor);
    Some(link(&lines, factor, with_tokens, config))
}

fn link(lines: &[Line], factor: u64, with_tokens: bool, config: Config) -> (Score, Linked) {
    let seen = observe(lines, with_tokens);
    let mut stage = Stage::new(config);
    stage.at(0, finished(&seen));
    let linked = stage.flush();
    let score = score(lines, &linked);
    println!(
        "x{factor:<3} tokens={with_tokens:<5} precision {:.3} recall {:.3}  (right, wrong or missing) {:?}",
        ratio(score.right, score.right + score.wrong),
        ratio(score.right, score.right + score.wrong + score.missing),
        score.by_method
    );
    (score, linked)
}

#[expect(clippy::cast_precision_loss, reason = "counts of a test")]
fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        1.0
    } else {
        part as f64 / whole as f64
    }
}

#[test]
fn request_ids_that_apps_send_on_link_every_call_at_any_load() {
    for factor in [1, 5, 20] {
        let Some((score, _)) = run(factor, true, Config::default()) else {
            return;
        };
        assert_eq!((score.right, score.wrong, score.missing), (575, 0, 0));
    }
}

#[test]
fn go_threads_alone_give_no_wrong_parents() {
    // Threads are not believed; what is left at the real load are requests that were alone.
    for (factor, at_least) in [(1, 40), (5, 0), (20, 0)] {
        let threads = Config {
            timing: false,
            ..Config::default()
        };
        let Some((score, _)) = run(factor, false, threads) else {
            return;
        };
        assert!(score.wrong == 0 && score.right >= at_least, "{score:?}");
    }
}

#[test]
fn timing_tells_most_calls_of_go_threads_where_it_can_tell_requests_apart() {
    let Some(once) = capture() else { return };
    for (factor, precision, recall) in [(1, 0.93, 0.65), (20, 1.0, 0.0)] {
        let mut lines = once.clone();
        compress(&mut lines, factor);
        if factor > 1 {
            // Threads would be in several places at once.
            for line in &mut lines {
                line.tids = (0, 0);
            }
        }
        repeat(&mut lines, 8);
        let (score, _) = link(&lines, factor, false, Config::default());
        let given = score.right + score.wrong;
        assert!(
            ratio(score.right, given) >= precision
                && ratio(score.right, given + score.missing) >= recall,
            "{score:?}"
        );
    }
}

#[test]
fn the_only_open_request_is_the_right_one_on_this_capture() {
    let Some((score, _)) = run(
        1,
        false,
        Config {
            confidence_floor: 0.6,
            ..Config::default()
        },
    ) else {
        return;
    };
    let only = score.by_method.get("only_open").copied();
    assert!(
        only.is_some_and(|(right, wrong)| wrong == 0 && right >= 45),
        "{score:?}"
    );
}

#[test]
fn every_server_span_finds_its_caller_and_every_trace_is_whole() {
    let Some((_, linked)) = run(1, true, Config::default()) else {
        return;
    };
    let Some(lines) = capture() else { return };
    let callees = lines
        .iter()
        .filter(|line| line.ingress && line.service != "A");
    let found = callees
        .filter(|line| linked.parent(line.id).is_some())
        .count();
    assert_eq!(found, 574);
    let mut traces: HashMap<_, Vec<_>> = HashMap::new();
    for line in lines
        .iter()
        .filter(|line| line.ingress || line.truth.is_some())
    {
        traces
            .entry(line.trace.clone())
            .or_default()
            .push(linked.trace(line.id));
    }
    let whole = traces
        .values()
        .filter(|ids| ids.windows(2).all(|pair| pair.first() == pair.last()))
        .count();
    // The recorder lost one call of A; the request it made is a trace of its own.
    assert_eq!((whole, traces.len()), (287, 288));
    assert!(lines.iter().all(|line| linked.0.contains_key(&id(line.id))));
    let kinds = linked
        .0
        .values()
        .filter(|span| span.kind == kind(SpanKind::Client))
        .count();
    assert_eq!(kinds, 575);
}

fn kind(kind: SpanKind) -> i32 {
    match kind {
        SpanKind::Server => 2,
        SpanKind::Client => 3,
    }
}
