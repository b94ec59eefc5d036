//! What tracing costs: one run, ratios and differences against named floors.
//!
//! Each state is measured in turn, several rounds over, and the median of the
//! rounds counts: the machine drifts, the order of the states must not matter.

use anyhow::{Context as _, Result, ensure};
use collector::capture::{Capture, Floor, GoLayout, Hook, Options, go};
use integration_tests::compile::{c_program, go_program};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const ROUNDS: usize = 3;
const WORKLOADS: [(&str, &str); 6] = [
    ("tcp_write", "40000"),
    ("tcp_read", "40000"),
    ("getppid", "500000"),
    ("futex_wake", "40000"),
    ("epoll_wait", "500000"),
    (GO, "40000"),
];
/// The workload that is a Go program.
const GO: &str = "go_tcp_write";
/// Which Go compiles it; any that is newer has its layout.
const GO_MINOR: u16 = 26;

/// What is attached while a workload runs.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Nothing,
    EmptyRawExit,
    EmptyRawBoth,
    EmptyTracepointExit,
    EmptyTracepointBoth,
    Untraced,
    Traced,
    TracedHeads,
    TracedGoroutines,
}

const STATES: [(State, &str); 9] = [
    (State::Nothing, "nothing attached"),
    (State::EmptyRawExit, "floor: empty raw_tp/sys_exit"),
    (
        State::EmptyRawBoth,
        "floor: empty raw_tp/sys_enter and sys_exit",
    ),
    (
        State::EmptyTracepointExit,
        "floor: empty syscalls:sys_exit_{read,write}",
    ),
    (
        State::EmptyTracepointBoth,
        "floor: the same, and sys_enter_{read,write}",
    ),
    (
        State::Untraced,
        "deeptrace attached, this process not traced",
    ),
    (State::Traced, "deeptrace, traced, 128 bytes of payload"),
    (State::TracedHeads, "deeptrace, traced, no payload"),
    (
        State::TracedGoroutines,
        "deeptrace, traced, no payload, goroutines",
    ),
];

fn main() -> Result<()> {
    let program = c_program("workloads/cost.c")?;
    let go = go_program("workloads/cost-go");
    let mut results = vec![vec![Vec::new(); WORKLOADS.len()]; STATES.len()];
    for _ in 0..ROUNDS {
        for ((state, name), row) in STATES.iter().zip(&mut results) {
            for ((workload, calls), cell) in WORKLOADS.iter().zip(row) {
                let is_go = *workload == GO;
                if *state == State::TracedGoroutines && !is_go {
                    continue;
                }
                let program = match &go {
                    Ok(go) if is_go => go,
                    Err(error) if is_go => {
                        eprintln!("{name}, {workload}: skipped: {error:#}");
                        continue;
                    }
                    _ => &program,
                };
                match measure(*state, program, workload, calls) {
                    Ok(ns) => cell.push(ns),
                    Err(error) => eprintln!("{name}, {workload}: skipped: {error:#}"),
                }
            }
        }
    }
    print_table(&results);
    Ok(())
}

/// ns a call, the best of the workload's own rounds.
fn measure(state: State, program: &Path, workload: &str, calls: &str) -> Result<f64> {
    let mut child = Command::new(program)
        .args([workload, calls])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let result = watch(state, &mut child);
    // A workload that failed to start waits for a line that will not come.
    drop(child.stdin.take());
    let ended = child.wait()?;
    let ns = result?;
    ensure!(ended.success(), "the workload failed");
    Ok(ns)
}

fn watch(state: State, child: &mut Child) -> Result<f64> {
    let mut lines = BufReader::new(child.stdout.take().context("stdout is a pipe")?).lines();
    let pid = lines
        .next()
        .context("the workload says nothing")??
        .parse()?;
    let raw: &[Hook] = &[Hook::Raw("sys_exit"), Hook::Raw("sys_enter")];
    let calls: &[Hook] = &[
        Hook::Tracepoint("sys_exit_read"),
        Hook::Tracepoint("sys_exit_write"),
        Hook::Tracepoint("sys_enter_read"),
        Hook::Tracepoint("sys_enter_write"),
    ];
    let _floor = match state {
        State::EmptyRawExit => Some(Floor::attach(raw.get(..1).unwrap_or(raw))?),
        State::EmptyRawBoth => Some(Floor::attach(raw)?),
        State::EmptyTracepointExit => Some(Floor::attach(calls.get(..2).unwrap_or(calls))?),
        State::EmptyTracepointBoth => Some(Floor::attach(calls)?),
        _ => None,
    };
    let mut run = || -> Result<f64> {
        let stdin = child.stdin.as_mut().context("stdin is a pipe")?;
        stdin.write_all(b"go\n")?;
        Ok(lines
            .next()
            .context("the workload says no time")??
            .parse()?)
    };
    let payload_limit = match state {
        State::TracedHeads | State::TracedGoroutines => 0,
        _ => Options::default().payload_limit,
    };
    let layout = match state {
        State::TracedGoroutines => go::layout(GO_MINOR),
        _ => GoLayout::default(),
    };
    match state {
        State::Untraced | State::Traced | State::TracedHeads | State::TracedGoroutines => {
            let mut capture = Capture::start(&Options {
                payload_limit,
                ..Options::default()
            })?;
            if state != State::Untraced {
                capture.trace(pid, layout)?;
            }
            drained(&mut capture, run)
        }
        _ => run(),
    }
}

/// Empties the ring buffer while `run` runs, as the collector does.
fn drained(capture: &mut Capture, run: impl FnOnce() -> Result<f64> + Send) -> Result<f64> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let result = scope.spawn(|| {
            let result = run();
            done.store(true, Ordering::Release);
            result
        });
        while !done.load(Ordering::Acquire) {
            capture.wait(Duration::from_millis(10));
            capture.drain(usize::MAX, |_| {});
        }
        result
            .join()
            .map_err(|_| anyhow::anyhow!("the measuring thread panicked"))?
    })
}

fn print_table(results: &[Vec<Vec<f64>>]) {
    println!("ns a call, median of {ROUNDS} rounds (difference to nothing attached)\n");
    print!("{:<48}", "state");
    for (workload, _) in WORKLOADS {
        print!("{workload:>18}");
    }
    println!();
    let base: Vec<Option<f64>> = results
        .first()
        .map(|row| row.iter().map(|cell| median(cell)).collect())
        .unwrap_or_default();
    for ((_, name), row) in STATES.iter().zip(results) {
        print!("{name:<48}");
        for (cell, base) in row.iter().zip(&base) {
            match (median(cell), base) {
                (Some(ns), Some(base)) => print!("{:>18}", format!("{ns:.0} ({:+.0})", ns - base)),
                _ => print!("{:>18}", "-"),
            }
        }
        println!();
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}
