//! What user space does not want, and what does not fit: marked and counted.

use std::io::{Read as _, Write as _};

use anyhow::{Context as _, Result, ensure};
use collector::capture::{CaptureMode, Counter, Flags, Options};

use crate::skipped;
use crate::truth::flags;
use crate::watch::{Watch, tcp_pair};

const MESSAGE_BYTES: usize = 100;

/// A message with a mode: what was sent before it, what comes of it.
struct Case {
    name: &'static str,
    mode: CaptureMode,
    captured: usize,
    flags: u16,
}

fn cases(written: u64) -> Vec<Case> {
    let full = CaptureMode {
        read_limit: 1000,
        write_limit: 1000,
        ..CaptureMode::default()
    };
    let skip = |bytes| CaptureMode {
        write_skip_until: written + bytes,
        ..full
    };
    let limit = |bytes| CaptureMode {
        write_limit: bytes,
        ..full
    };
    let case = |name, mode, captured, flags| Case {
        name,
        mode,
        captured,
        flags: flags | Flags::WRITE,
    };
    vec![
        case("no bytes", limit(0), 0, Flags::TRUNCATED),
        case("ten bytes", limit(10), 10, Flags::TRUNCATED),
        case("as many as it has", limit(100), 100, 0),
        case("more than there is", limit(1 << 30), 100, 0),
        case("skipped to its end", skip(100), 0, Flags::SKIPPED),
        case("skipped beyond its end", skip(150), 0, Flags::SKIPPED),
        case("skipped not to its end", skip(99), 100, 0),
    ]
}

#[test]
fn a_connection_gives_as_much_as_its_mode_wants() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut watch = Watch::start_here(&Options {
        payload_limit: 7,
        ..Options::default()
    })?;
    let (mut connector, mut acceptor) = tcp_pair()?;
    let message = [b'm'; MESSAGE_BYTES];
    connector.write_all(&message)?;
    watch.look();
    let first = watch.messages()?.pop().context("the first message")?;
    ensure!(
        first.payload.len() == 7 && first.has(Flags::TRUNCATED),
        "{first:?}"
    );
    let mut written = 100;
    for index in 0..cases(0).len() {
        let case = cases(written).swap_remove(index);
        watch.set_mode(case.mode)?;
        connector.write_all(&message)?;
        watch.look();
        let messages = watch.messages()?;
        let last = messages.last().context("no message")?;
        let seen = (
            last.offset,
            last.total_len,
            last.payload.len(),
            flags(last.flags),
        );
        let wanted = (written, 100, case.captured, flags(case.flags));
        ensure!(seen == wanted, "{}: {seen:?}, not {wanted:?}", case.name);
        written += 100;
    }
    // Off: nothing at all, but counted; the other end is another connection.
    let off = CaptureMode {
        off: 1,
        ..CaptureMode::default()
    };
    watch.set_mode(off)?;
    let before = watch.messages()?.len();
    connector.write_all(&message)?;
    connector.write_all(&message)?;
    watch.look();
    ensure!(
        watch.messages()?.len() == before,
        "messages of a connection that is off"
    );
    ensure!(
        watch.counted(Counter::SwitchedOff) == 2,
        "switched_off counts"
    );
    acceptor.read_exact(&mut [0; MESSAGE_BYTES])?;
    watch.look();
    let messages = watch.messages()?;
    let read = messages.last().filter(|_| messages.len() == before + 1);
    let read = read.context("the other end is not off")?;
    ensure!(read.payload.len() == 7 && read.offset == 0, "{read:?}");
    ensure!(watch.losses().is_empty(), "{:?}", watch.losses());
    Ok(())
}

/// Records of other processes (each exec on the host makes one) may be lost too, so that not every
/// attempt counts exactly.
const ATTEMPTS: usize = 20;

#[test]
fn what_does_not_fit_into_the_ring_is_counted() -> Result<()> {
    const MESSAGES: usize = 1000;
    if skipped() {
        return Ok(());
    }
    let options = Options {
        ring_bytes: 64 << 10,
        ..Options::default()
    };
    let mut watch = Watch::start_here(&options)?;
    let mut exact = false;
    for _ in 0..ATTEMPTS {
        let (mut connector, mut acceptor) = tcp_pair()?;
        watch.forget();
        for _ in 0..MESSAGES {
            connector.write_all(&[b'm'; MESSAGE_BYTES])?;
        }
        let (submitted, lost) = (
            watch.counted(Counter::Submitted),
            watch.counted(Counter::RingFull),
        );
        watch.look();
        let received = watch.messages()?.len();
        let missing = (MESSAGES - received) as u64;
        ensure!(
            received > 200 && missing > 0,
            "{received} of {MESSAGES} were received"
        );
        ensure!(
            lost >= missing,
            "{missing} are missing, {lost} were counted"
        );
        exact |= lost == missing && submitted == watch.received() as u64;
        for (index, message) in watch.messages()?.iter().enumerate() {
            let whole = message.payload == [b'm'; MESSAGE_BYTES];
            ensure!(
                whole && message.offset == (index * MESSAGE_BYTES) as u64,
                "{message:?}"
            );
        }
        // There is room again: the gap shows in the offset.
        watch.forget();
        connector.write_all(b"after")?;
        watch.look();
        let messages = watch.messages()?;
        let after = messages.last().context("nothing after the ring was full")?;
        ensure!(
            after.offset == (MESSAGES * MESSAGE_BYTES) as u64,
            "{after:?}"
        );
        acceptor.read_exact(&mut [0; MESSAGE_BYTES])?;
        if exact {
            return Ok(());
        }
    }
    anyhow::bail!("never in {ATTEMPTS} attempts was exactly counted what was missing")
}
