//! Prints what the kernel side reports of one process: `raw PID SECONDS`.

use anyhow::Context as _;
use collector::capture::{Capture, Event, GoLayout, Options, SocketEvent, decode};
use std::time::{Duration, Instant};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = || arguments.next().context("usage: raw PID SECONDS");
    let (pid, seconds): (u32, u64) = (number()?.parse()?, number()?.parse()?);
    let mut capture = Capture::start(&Options::default())?;
    capture.trace(pid, GoLayout::default())?;
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        capture.wait(Duration::from_millis(10));
        capture.drain(4096, |record| match decode(record) {
            Ok(Event::Socket(event)) => print(&event),
            other => println!("{other:?}"),
        });
    }
    for (counter, per_cpu) in capture.counters() {
        println!("{}: {per_cpu:?}", counter.as_str());
    }
    Ok(())
}

fn print(event: &SocketEvent<'_>) {
    let head = event.payload.get(..40).unwrap_or(event.payload);
    println!(
        "{:?} {:?} {:?} tid {} fd {} {:?} -> {:?} isn {:08x}/{:08x} at {} (other {}) len {} flags {:#x}: {:?}",
        event.call,
        event.direction,
        event.role,
        event.tid,
        event.fd,
        event.local,
        event.remote,
        event.local_isn,
        event.remote_isn,
        event.offset,
        event.other_offset,
        event.total_len,
        event.flags,
        String::from_utf8_lossy(head)
    );
}
