//! Every call on every kind of socket in every case: captured right or marked, never silently
//! wrong. The workload `calls` says what really happened.

mod losses;
mod places;
mod polls;
mod streams;
mod truth;
mod wakes;
mod watch;

use std::collections::HashMap;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use collector::capture::{Call, Counter, Direction, Flags, Options, Protocol, Role, SocketEvent};
use integration_tests::compile;
use integration_tests::sandbox::Sandbox;
use integration_tests::workload::{self, Calls, combinations};

use truth::{Expected, Row, Truth, differences, flags, truth};
use watch::{Watch, why_not};

/// Says why nothing can be tested here, if so.
fn skipped() -> bool {
    let why = compile::why_not(workload::CALLS).or(why_not().map(str::to_owned));
    if let Some(why) = &why {
        println!("skipped: {why}");
    }
    why.is_some()
}

/// Rows of the workload for which a test asks, all failures told.
fn check(wanted: impl Fn(&str) -> bool) -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let start = Instant::now();
    let sandbox = Sandbox::new()?;
    let mut watch = Watch::start(&Options {
        unix_sockets: true,
        ..Options::default()
    })?;
    let (mut rows, mut events, mut wrong) = (0, 0, Vec::new());
    // For a look at one row: CALLS="recvmsg inet tcp trunc".
    let only = std::env::var("CALLS").unwrap_or_default();
    for row in combinations()? {
        if !wanted(&row) || !row.contains(&only) {
            continue;
        }
        let seen = check_row(&sandbox, &mut watch, &row);
        match seen.with_context(|| row.clone())? {
            None => continue,
            Some((count, problems)) => {
                events += count;
                wrong.extend(problems.into_iter().map(|what| format!("{row}: {what}")));
            }
        }
        rows += 1;
    }
    println!("{rows} rows, {events} messages, {:?}", start.elapsed());
    ensure!(rows > 0, "no row was possible");
    if !wrong.is_empty() {
        bail!("{} things are wrong:\n{}", wrong.len(), wrong.join("\n"));
    }
    Ok(())
}

/// How many messages were expected, and what was wrong; `None` when it cannot be done here.
fn check_row(
    sandbox: &Sandbox,
    watch: &mut Watch,
    combination: &str,
) -> Result<Option<(usize, Vec<String>)>> {
    let row = Row::parse(combination)?;
    let Some(mut calls) = Calls::start(sandbox, combination)? else {
        return Ok(None);
    };
    let (subject, peer) = (calls.pid(), calls.peer());
    watch.forget();
    watch.trace(subject)?;
    watch.trace(peer)?;
    let made = calls.make()?;
    watch.look();
    let truth = truth(&row, &made)?;
    let mut wrong = Vec::new();
    let mut subjects = watch.children(subject);
    subjects.push(subject);
    let sockets = check_calls(watch, &row, &truth, &subjects, peer, &mut wrong)?;
    check_counters(watch, &truth, &mut wrong);
    calls.finish()?;
    watch.look_for_ends(sockets.len())?;
    check_ends(watch, &row, &truth, &sockets, &mut wrong)?;
    for pid in subjects.into_iter().chain([peer]) {
        watch.untrace(pid);
    }
    if !wrong.is_empty() {
        let events = watch.sockets()?.map(|event| brief(&event));
        wrong.push(events.fold("captured were".to_owned(), |all, one| all + "\n    " + &one));
    }
    Ok(Some((truth.events.len(), wrong)))
}

/// A TCP connection as one of its ends has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    of_peer: bool,
    isns: (u32, u32),
    addresses: (Option<std::net::SocketAddr>, Option<std::net::SocketAddr>),
    role: Role,
}

/// Compares the calls of both processes; gives the TCP sockets that they used.
fn check_calls(
    watch: &Watch,
    row: &Row<'_>,
    truth: &Truth,
    subjects: &[u32],
    peer: u32,
    wrong: &mut Vec<String>,
) -> Result<HashMap<u64, End>> {
    let (mut own, mut theirs) = (Vec::new(), Vec::new());
    let (mut sockets, mut last) = (HashMap::new(), HashMap::new());
    for event in watch.sockets()? {
        if matches!(event.call, Call::LocalClose | Call::Closed) {
            continue;
        }
        // Between two processors, and between a call and an interrupt that closes, the one that
        // reads the clock first may be the second to get its place in the ring.
        if last.insert(event.tid, event.exit_ns) > Some(event.exit_ns) {
            wrong.push(format!("goes back in time: {}", brief(&event)));
        }
        let of_peer = event.tgid == peer;
        if event.protocol == Protocol::Tcp {
            let end = end_of(&event, of_peer);
            let known = *sockets.entry(event.sock).or_insert(end);
            if known != end {
                wrong.push(format!("{known:?} became another: {}", brief(&event)));
            }
        }
        check_bytes(row, &event, of_peer, wrong);
        if of_peer {
            theirs.push(event);
        } else if subjects.contains(&event.tgid) {
            own.push(event);
        } else {
            wrong.push(format!("is of nobody: {}", brief(&event)));
        }
    }
    check_subject(row, truth, &own, wrong);
    check_peer(row, &theirs, wrong);
    check_agreement(row, &sockets, wrong);
    Ok(sockets)
}

fn end_of(event: &SocketEvent<'_>, of_peer: bool) -> End {
    End {
        of_peer,
        isns: (event.local_isn, event.remote_isn),
        addresses: (event.local, event.remote),
        role: event.role,
    }
}

/// Every byte of a stream is at the offset where the workload put it.
fn check_bytes(row: &Row<'_>, event: &SocketEvent<'_>, of_peer: bool, wrong: &mut Vec<String>) {
    let from_the_tracer_on = row.unix() && row.case == "old";
    let urgent = row.case == "urgent" && event.payload == b"!";
    if !row.stream || from_the_tracer_on || urgent {
        return;
    }
    let from_peer = of_peer == (event.direction == Direction::Write);
    let made = |offset: u64| (offset % 251).to_le_bytes()[0] ^ if from_peer { 0x80 } else { 0 };
    let misplaced = (event.offset..)
        .zip(event.payload)
        .find(|(offset, byte)| made(*offset) != **byte);
    if let Some((offset, byte)) = misplaced {
        wrong.push(format!(
            "byte {byte} is not from {offset}: {}",
            brief(event)
        ));
    }
}

fn check_subject(row: &Row<'_>, truth: &Truth, own: &[SocketEvent<'_>], wrong: &mut Vec<String>) {
    let mut events = own.iter();
    if let Some(call) = row.opening().filter(|_| row.captured()) {
        match events.next() {
            Some(event) if event.call == call => check_opening(row, event, wrong),
            other => wrong.push(format!("{call:?} is missing before {:?}", other.map(brief))),
        }
    }
    for expected in &truth.events {
        match events.next() {
            Some(event) => {
                for what in differences(expected, event) {
                    wrong.push(format!("{:?}: {what}: {}", expected.call, brief(event)));
                }
            }
            None => wrong.push(format!("was not captured: {}", missing(expected))),
        }
    }
    wrong.extend(events.map(|event| format!("is too many: {}", brief(event))));
}

fn missing(expected: &Expected) -> String {
    format!("{expected:?}")
}

/// connect or accept: who and where, before any byte.
fn check_opening(row: &Row<'_>, event: &SocketEvent<'_>, wrong: &mut Vec<String>) {
    let nothing_moved = (
        event.offset,
        event.other_offset,
        event.total_len,
        event.payload.len(),
    ) == (0, 0, 0, 0);
    let numbered = row.protocol() != Protocol::Tcp || event.local_isn.min(event.remote_isn) != 0;
    if event.role != row.role() || !nothing_moved || !numbered || event.flags != 0 {
        wrong.push(format!("does not open it: {}", brief(event)));
    }
}

/// The peer's calls are not told, but its streams have no gap.
fn check_peer(row: &Row<'_>, theirs: &[SocketEvent<'_>], wrong: &mut Vec<String>) {
    let mut next: HashMap<Direction, u64> = HashMap::new();
    for event in theirs {
        let moves = !matches!(event.call, Call::Accept | Call::Connect);
        let allowed = Flags::WRITE | Flags::END | Flags::TRUNCATED;
        if event.flags & !allowed != 0 {
            wrong.push(format!("the peer's flags: {}", brief(event)));
        }
        if !row.stream || !moves {
            continue;
        }
        // Before the tracer came, the peer wrote 33 bytes and read none.
        let base = if row.case == "old" && !row.unix() && event.direction == Direction::Write {
            33
        } else {
            0
        };
        let position = next.entry(event.direction).or_insert(base);
        if *position != event.offset {
            wrong.push(format!("not at {position}, of the peer: {}", brief(event)));
        }
        *position = event.offset + u64::from(event.total_len);
    }
}

/// Both ends have the same connection, each from its side.
fn check_agreement(row: &Row<'_>, sockets: &HashMap<u64, End>, wrong: &mut Vec<String>) {
    let one = |of_peer| sockets.values().filter(move |end| end.of_peer == of_peer);
    let count = (one(false).count(), one(true).count());
    let at_most = usize::from(row.protocol() == Protocol::Tcp);
    if count.0 > at_most || count.1 > at_most {
        wrong.push(format!("{count:?} sockets are too many"));
    }
    let (Some(own), Some(theirs)) = (one(false).next(), one(true).next()) else {
        return;
    };
    let roles = (own.role, theirs.role);
    let opposite = matches!(
        roles,
        (Role::Connector, Role::Acceptor) | (Role::Acceptor, Role::Connector)
    );
    let mirrored = own.isns == (theirs.isns.1, theirs.isns.0)
        && own.addresses == (theirs.addresses.1, theirs.addresses.0);
    if !opposite || !mirrored {
        wrong.push(format!("the ends disagree: {own:?}, {theirs:?}"));
    }
}

fn check_counters(watch: &Watch, truth: &Truth, wrong: &mut Vec<String>) {
    let losses: Vec<_> = truth.losses.iter().map(|(name, n)| (*name, *n)).collect();
    if watch.losses() != losses {
        wrong.push(format!("counted {:?}, not {losses:?}", watch.losses()));
    }
    let peeked = watch.counted(Counter::Peeked);
    if peeked != truth.peeked {
        wrong.push(format!("{peeked} were peeked, not {}", truth.peeked));
    }
}

/// Every connection ends once, as the one that it was.
fn check_ends(
    watch: &Watch,
    row: &Row<'_>,
    truth: &Truth,
    sockets: &HashMap<u64, End>,
    wrong: &mut Vec<String>,
) -> Result<()> {
    let mut ends: HashMap<(u64, Call), usize> = HashMap::new();
    for event in watch.sockets()? {
        if !matches!(event.call, Call::LocalClose | Call::Closed) {
            continue;
        }
        *ends.entry((event.sock, event.call)).or_default() += 1;
        let Some(known) = sockets.get(&event.sock) else {
            wrong.push(format!("ends what was not seen: {}", brief(&event)));
            continue;
        };
        if end_of(&event, known.of_peer) != *known {
            wrong.push(format!("ends as another than {known:?}: {}", brief(&event)));
        }
        let places = [event.other_offset, event.offset];
        // The urgent byte stays in the stream; a half that is closed early ends early.
        let told = !matches!(row.case, "urgent" | "half") && !known.of_peer;
        if told && places != truth.ends {
            wrong.push(format!("ends not at {:?}: {}", truth.ends, brief(&event)));
        }
    }
    for sock in sockets.keys() {
        let times = |call| ends.get(&(*sock, call)).copied().unwrap_or(0);
        if times(Call::Closed) != 1 || times(Call::LocalClose) > 1 {
            wrong.push(format!("{sock:x} ends {ends:?}"));
        }
    }
    Ok(())
}

fn brief(event: &SocketEvent<'_>) -> String {
    format!(
        "{:?} by {}/{} on {} at {}/{} of {} bytes with {} {} {:?} {:?}->{:?} {:x}/{:x}",
        event.call,
        event.tgid,
        event.tid,
        event.fd,
        event.offset,
        event.other_offset,
        event.total_len,
        event.payload.len(),
        flags(event.flags),
        event.role,
        event.local,
        event.remote,
        event.local_isn,
        event.remote_isn,
    )
}

#[test]
fn every_call_that_reads_is_captured_right_or_marked() -> Result<()> {
    check(|row| row.starts_with("re"))
}

#[test]
fn every_call_that_writes_is_captured_right_or_marked() -> Result<()> {
    check(|row| row.starts_with("write") || row.starts_with("sendm") || row.starts_with("sendto"))
}

#[test]
fn bytes_that_no_buffer_shows_are_explicit_gaps() -> Result<()> {
    check(|row| row.starts_with("sendfile") || row.starts_with("splice"))
}
