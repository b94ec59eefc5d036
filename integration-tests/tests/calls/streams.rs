//! Where messages lie in their streams, when that is hard to tell.

use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use collector::capture::{Call, Direction, Flags, Options, Role, SocketEvent};

use crate::skipped;
use crate::watch::{Watch, tcp_pair};

/// The one connection that all messages are of, seen from both ends.
fn check_ends(messages: &[SocketEvent<'_>], connector: &TcpStream) -> Result<()> {
    let port = connector.local_addr()?.port();
    let mut isns = Vec::new();
    for event in messages {
        let connects = event.local.context("an address")?.port() == port;
        let role = if connects {
            Role::Connector
        } else {
            Role::Acceptor
        };
        ensure!(event.role == role, "{event:?} is no {role:?}");
        isns.push(if connects {
            (event.local_isn, event.remote_isn)
        } else {
            (event.remote_isn, event.local_isn)
        });
    }
    isns.dedup();
    ensure!(isns.len() == 1, "the ends have {isns:?}");
    Ok(())
}

#[test]
fn a_connection_with_bytes_under_way_is_joined_in_the_middle() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let (mut connector, mut acceptor) = tcp_pair()?;
    // Both directions are full: bytes wait unsent, unacknowledged and unread.
    let mut sent = Vec::new();
    for end in [&mut connector, &mut acceptor] {
        end.set_nonblocking(true)?;
        let mut total = 0;
        loop {
            match end.write(&[1; 10_000]) {
                Ok(bytes) => total += bytes as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        sent.push(total);
        end.set_nonblocking(false)?;
    }
    acceptor.read_exact(&mut [0; 1234])?;
    let mut watch = Watch::start_here(&Options::default())?;
    connector.read_exact(&mut [0; 10])?;
    acceptor.read_exact(&mut [0; 20])?;
    connector.read_exact(&mut [0; 30])?;
    watch.look();
    let messages = watch.messages()?;
    check_ends(&messages, &connector)?;
    let places: Vec<_> = messages
        .iter()
        .map(|event| (event.offset, event.other_offset, event.total_len))
        .collect();
    let wanted = [(0, sent[0], 10), (1234, sent[1], 20), (10, sent[0], 30)];
    ensure!(places == wanted, "{places:?}, not {wanted:?}");
    ensure!(watch.losses().is_empty(), "{:?}", watch.losses());
    Ok(())
}

#[test]
fn a_connection_that_ended_before_it_was_accepted_is_known() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut watch = Watch::start_here(&Options::default())?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut connector = TcpStream::connect(listener.local_addr()?)?;
    connector.write_all(b"bye")?;
    drop(connector);
    let (mut acceptor, _) = listener.accept()?;
    let mut all = Vec::new();
    acceptor.read_to_end(&mut all)?;
    drop(acceptor);
    watch.look_for_ends(2)?;
    let events: Vec<_> = watch.sockets()?.collect();
    let find = |call| {
        events
            .iter()
            .find(|event: &&SocketEvent<'_>| event.call == call)
    };
    let connect = find(Call::Connect).context("connect")?;
    let accept = find(Call::Accept4).context("accept")?;
    let mirrored = (connect.local_isn, connect.remote_isn) == (accept.remote_isn, accept.local_isn);
    ensure!(
        mirrored && accept.role == Role::Acceptor,
        "{connect:?} {accept:?}"
    );
    let reads = events
        .iter()
        .filter(|event| event.call == Call::Recvfrom || event.call == Call::Read);
    let reads: Vec<_> = reads
        .map(|event| (event.offset, event.total_len, event.flags))
        .collect();
    ensure!(reads == [(0, 3, 0), (3, 0, Flags::END)], "{reads:?}");
    Ok(())
}

#[test]
fn a_connection_ends_with_its_last_descriptor() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut watch = Watch::start_here(&Options::default())?;
    let (connector, mut acceptor) = tcp_pair()?;
    let again = connector.try_clone()?;
    drop(connector);
    watch.look();
    let closes = |watch: &Watch| -> Result<usize> {
        let close = |event: &SocketEvent<'_>| event.call == Call::LocalClose;
        Ok(watch.sockets()?.filter(close).count())
    };
    ensure!(closes(&watch)? == 0, "a descriptor of two is no end");
    (&again).write_all(b"still there")?;
    // Bytes that nobody read would make it a reset.
    acceptor.read_exact(&mut [0; 11])?;
    drop(again);
    drop(acceptor);
    watch.look_for_ends(2)?;
    ensure!(closes(&watch)? == 2, "{} ends", closes(&watch)?);
    Ok(())
}

#[test]
fn unix_sockets_at_the_address_of_a_dead_one_start_at_0() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut watch = Watch::start_here(&Options {
        unix_sockets: true,
        ..Options::default()
    })?;
    let mut socks = HashMap::new();
    for _ in 0..200 {
        let (mut one, mut other) = UnixStream::pair()?;
        one.write_all(b"hello")?;
        other.read_exact(&mut [0; 5])?;
        watch.look();
        for event in watch.messages()? {
            ensure!(event.offset == 0, "{event:?}");
            *socks.entry(event.sock).or_insert(0) += 1;
        }
        watch.forget();
    }
    if socks.values().all(|times| *times == 1) {
        println!("no address was used again");
    }
    Ok(())
}

/// Each message is its writer's letter and number, then filling: the reader knows where it lies.
const RACED_HEAD: usize = 5;
const RACED_MESSAGES: u32 = 50_000;
const WRITERS: [u8; 4] = *b"abcd";

/// As much as may be on its way: a write that finds the buffer full lets others write in between,
/// and then nobody knows where its bytes lie.
const RACED_UNDER_WAY: usize = 16 << 10;

struct Race {
    start: Barrier,
    written: AtomicUsize,
    read: AtomicUsize,
}

impl Race {
    fn write(&self, mut stream: &TcpStream, writer: u8) -> Result<()> {
        self.start.wait();
        for number in 0..RACED_MESSAGES {
            let mut message = vec![writer; RACED_HEAD + raced_filling(writer, number)];
            message[1..RACED_HEAD].copy_from_slice(&number.to_le_bytes());
            while self.under_way() > RACED_UNDER_WAY {
                thread::yield_now();
            }
            self.written.fetch_add(message.len(), Ordering::SeqCst);
            stream.write_all(&message)?;
        }
        Ok(())
    }

    fn under_way(&self) -> usize {
        // In this order: what was read was written.
        let read = self.read.load(Ordering::SeqCst);
        self.written.load(Ordering::SeqCst) - read
    }

    fn read(&self, stream: &mut TcpStream, all: &mut [u8]) -> Result<()> {
        let mut at = 0;
        while at < all.len() {
            let read = stream.read(&mut all[at..])?;
            ensure!(read > 0, "it ends after {at} bytes");
            at += read;
            self.read.store(at, Ordering::SeqCst);
        }
        Ok(())
    }
}

fn raced_filling(writer: u8, number: u32) -> usize {
    1 + (number as usize * 7 + usize::from(writer)) % 90
}

fn raced_key(message: &[u8]) -> Result<(u8, u32)> {
    let number = message.get(1..RACED_HEAD).context("a whole head")?;
    Ok((message[0], u32::from_le_bytes(number.try_into()?)))
}

/// Threads that write on one socket without a lock: by the time that one has returned, another may
/// have written, and the kernel's counters tell the first one's place too high. As no claim is ever
/// too low, wrong ones cannot fit together: who follows the stream sees a gap and an overlap.
#[test]
fn writers_that_race_on_one_socket_are_placed_right_or_visibly_not() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut watch = Watch::start_here(&Options {
        ring_bytes: 128 << 20,
        ..Options::default()
    })?;
    let (connector, mut acceptor) = tcp_pair()?;
    let race = Race {
        start: Barrier::new(WRITERS.len()),
        written: AtomicUsize::new(0),
        read: AtomicUsize::new(0),
    };
    let mut stream = Vec::new();
    thread::scope(|scope| -> Result<()> {
        let writers = WRITERS.map(|writer| {
            let (connector, race) = (&connector, &race);
            scope.spawn(move || race.write(connector, writer))
        });
        let sizes =
            |writer| (0..RACED_MESSAGES).map(move |n| RACED_HEAD + raced_filling(writer, n));
        stream.resize(WRITERS.into_iter().flat_map(sizes).sum(), 0);
        race.read(&mut acceptor, &mut stream)?;
        for writer in writers {
            writer
                .join()
                .map_err(|_| anyhow::anyhow!("a writer panicked"))??;
        }
        Ok(())
    })?;
    let truth = raced_places(&stream)?;
    watch.look();
    ensure!(
        watch.losses().iter().all(|(name, _)| *name == "unstable"),
        "{:?}",
        watch.losses()
    );
    let (mut claims, mut reals) = (Vec::new(), Vec::new());
    for event in watch.messages()? {
        if event.direction == Direction::Write {
            claims.push((event.offset, event.offset + u64::from(event.total_len)));
            let real = truth.get(&raced_key(event.payload)?);
            reals.push(*real.with_context(|| format!("nobody wrote {event:?}"))?);
        }
    }
    let tangled = tangled(&claims);
    let wrong = |index: &usize| claims[*index].0 != reals[*index];
    let wrong: Vec<_> = (0..claims.len()).filter(wrong).collect();
    let silent = wrong
        .iter()
        .filter(|index| !tangled.contains(index))
        .count();
    println!(
        "{} messages, {} in tangles, {} wrong, {silent} silently",
        claims.len(),
        tangled.len(),
        wrong.len(),
    );
    let made = WRITERS.len() * RACED_MESSAGES as usize;
    ensure!(claims.len() == made, "some are missing");
    ensure!(
        silent == 0,
        "{silent} messages are wrong where the claims fit"
    );
    Ok(())
}

/// Where each message came to lie in the stream.
fn raced_places(stream: &[u8]) -> Result<HashMap<(u8, u32), u64>> {
    let (mut places, mut at) = (HashMap::new(), 0);
    while at < stream.len() {
        let key = raced_key(&stream[at..])?;
        places.insert(key, at as u64);
        at += RACED_HEAD + raced_filling(key.0, key.1);
    }
    Ok(places)
}

/// The claims where gaps and overlaps show: from the first that does not begin where those before
/// it end, until as many bytes are claimed as there are.
fn tangled(claims: &[(u64, u64)]) -> HashSet<usize> {
    let mut order: Vec<_> = (0..claims.len()).collect();
    order.sort_by_key(|index| claims[*index]);
    let (mut tangled, mut claimed, mut end) = (HashSet::new(), 0, 0);
    for index in order {
        let (from, to) = claims[index];
        if from != end || claimed != end {
            tangled.insert(index);
        }
        claimed += to - from;
        end = end.max(to);
    }
    tangled
}

/// More bytes than sequence numbers.
const WRAP_BYTES: u64 = (1 << 32) + (64 << 20);
const WRAP_CHUNK: usize = 4 << 20;
const WRAP_LIMIT: Duration = Duration::from_mins(5);

#[test]
fn offsets_go_on_beyond_4_gib() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut watch = Watch::start_here(&Options {
        payload_limit: 0,
        ring_bytes: 64 << 20,
        ..Options::default()
    })?;
    let started = Instant::now();
    let (mut connector, mut acceptor) = tcp_pair()?;
    let chunk = vec![7; WRAP_CHUNK];
    let mut next = [0; 2];
    thread::scope(|scope| -> Result<()> {
        let writer = scope.spawn(|| -> Result<u64> {
            let mut written = 0;
            while written < WRAP_BYTES {
                written += connector.write(&chunk)? as u64;
            }
            Ok(written)
        });
        let (mut read, mut buffer) = (0, vec![0; WRAP_CHUNK]);
        while read < WRAP_BYTES {
            read += acceptor.read(&mut buffer)? as u64;
            if started.elapsed() > WRAP_LIMIT {
                bail!("{read} bytes in {WRAP_LIMIT:?}");
            }
        }
        let written = writer
            .join()
            .map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        acceptor.read_exact(&mut vec![0; usize::try_from(written - read)?])?;
        Ok(())
    })?;
    watch.look();
    for event in watch.messages()? {
        let position = &mut next[usize::from(event.direction == Direction::Write)];
        ensure!(event.offset == *position, "{event:?} is not at {position}");
        *position += u64::from(event.total_len);
    }
    ensure!(next[0] == next[1] && next[0] >= WRAP_BYTES, "{next:?}");
    ensure!(watch.losses().is_empty(), "{:?}", watch.losses());
    println!("{} bytes in {:?}", next[0], started.elapsed());
    Ok(())
}
