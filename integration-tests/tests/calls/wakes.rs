//! Which thread ended another one's wait. A thread of Rust parks by `FUTEX_WAIT_BITSET`.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use collector::capture::{Options, Woken};

use crate::skipped;
use crate::watch::{Watch, tcp_pair};

const PATIENCE: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(20);

fn own_tid() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// Until the thread waits for something.
fn until_it_waits(tid: i32) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let stat = fs::read_to_string(format!("/proc/self/task/{tid}/stat"))?;
        let (_, rest) = stat.rsplit_once(") ").context("no state")?;
        if rest.starts_with('S') {
            return Ok(());
        }
        thread::yield_now();
    }
    anyhow::bail!("thread {tid} does not wait")
}

/// Waits in each of these ways in turn, writing a byte after each but the first.
fn worker(mut socket: TcpStream, boss: (Thread, i32), tids: Sender<i32>) -> JoinHandle<Result<()>> {
    thread::spawn(move || {
        let mut say = || socket.write_all(b"x");
        tids.send(own_tid())?;
        thread::park();
        tids.send(0)?;
        thread::park();
        say()?;
        say()?;
        tids.send(0)?;
        thread::park_timeout(SHORT);
        say()?;
        tids.send(0)?;
        until_it_waits(boss.1)?;
        boss.0.unpark();
        thread::park();
        say()?;
        Ok(())
    })
}

fn next(tids: &Receiver<i32>) -> Result<i32> {
    Ok(tids.recv_timeout(PATIENCE)?)
}

#[test]
fn who_ended_a_wait_is_told_once_and_only_if_it_is_sure() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut watch = Watch::start_here(&Options::default())?;
    let ((socket, mut other), (tids, heard)) = (tcp_pair()?, channel());
    let worker = worker(socket, (thread::current(), own_tid()), tids);
    let tid = next(&heard)?;
    // What the boss did before its own byte does not count.
    until_it_waits(tid)?;
    worker.thread().unpark();
    next(&heard)?;
    other.write_all(b"y")?;
    until_it_waits(tid)?;
    worker.thread().unpark();
    next(&heard)?;
    next(&heard)?;
    // The boss is woken itself, so whom it wakes then is not told whose work it does.
    thread::park();
    until_it_waits(tid)?;
    worker.thread().unpark();
    worker
        .join()
        .map_err(|_| anyhow::anyhow!("it panicked"))??;
    watch.look();
    let messages = watch.messages()?;
    let said: Vec<_> = messages
        .iter()
        .filter(|event| i64::from(event.tid) == i64::from(tid))
        .collect();
    ensure!(said.len() == 4, "{said:?}");
    let woken: Vec<_> = said.iter().map(|event| event.woken).collect();
    let Some(Woken {
        waker_tid,
        time_ns,
        first,
    }) = woken[0]
    else {
        anyhow::bail!("nobody woke it: {woken:?}");
    };
    ensure!(i64::from(waker_tid) == i64::from(own_tid()) && first);
    let boss = messages.iter().find(|event| event.tid == waker_tid);
    let boss_ns = boss.context("the boss's byte")?.exit_ns;
    ensure!(boss_ns < time_ns && time_ns < said[0].exit_ns);
    ensure!(woken[1..].iter().all(Option::is_none), "{woken:?}");
    Ok(())
}
