//! However `xtask demo` ends, nothing of it stays: no process, no file.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use integration_tests::demo::PROGRAMS;
use integration_tests::programs;
use rustix::process::{Pid, Signal, kill_process};

const CLEAN_LIMIT: Duration = Duration::from_secs(20);

/// Says what a collector says, and takes its time to end, as one that has much to hand over does.
const COLLECTOR: &str = r#"#!/bin/sh
trap 'echo draining >&2; sleep 0.3; exit 0' TERM
echo "deeptrace-collector is ready" >&2
while :; do sleep 0.05; done
"#;

/// Runs the demo, signals it once it has said `moment`, and gives what it has left.
fn left_after(moment: &str, signal: Signal) -> Result<Vec<String>> {
    let home = tempfile::tempdir()?;
    let temporary = home.path().join("tmp");
    fs::create_dir(&temporary)?;
    let collector = home.path().join("collector");
    fs::write(&collector, COLLECTOR)?;
    fs::set_permissions(&collector, fs::Permissions::from_mode(0o755))?;
    let config = home.path().join("collector.yaml");
    fs::write(&config, "{}\n")?;

    let mut demo = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("demo")
        .arg("--collector")
        .arg(&collector)
        .arg("--config")
        .arg(&config)
        .env("TMPDIR", &temporary)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let errors = demo.stderr.take().context("stderr is a pipe")?;
    let mut said = String::new();
    for line in BufReader::new(errors).lines() {
        said += &line?;
        if said.contains(moment) {
            break;
        }
        said.push('\n');
    }
    ensure!(said.contains(moment), "it never said {moment:?}:\n{said}");
    let pid = Pid::from_raw(i32::try_from(demo.id())?).context("a process id is not zero")?;
    kill_process(pid, signal)?;
    ensure!(!demo.wait()?.success(), "it did not notice the signal");

    let deadline = Instant::now() + CLEAN_LIMIT;
    loop {
        let left = left_below(&temporary)?;
        if left.is_empty() || Instant::now() > deadline {
            return Ok(left);
        }
        sleep(Duration::from_millis(20));
    }
}

/// Files in `dir`, and processes that work there or were told of it.
fn left_below(dir: &Path) -> Result<Vec<String>> {
    let mut left: Vec<_> = fs::read_dir(dir)?
        .map(|entry| Ok(entry?.path().display().to_string()))
        .collect::<Result<_>>()?;
    for process in fs::read_dir("/proc")?.flatten().map(|entry| entry.path()) {
        let is_process = process.join("cwd").symlink_metadata().is_ok();
        if !is_process || process.ends_with("self") || process.ends_with("thread-self") {
            continue;
        }
        let words = fs::read(process.join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        let works_in = fs::read_link(process.join("cwd")).unwrap_or_else(|_| PathBuf::new());
        if words.contains(&*dir.to_string_lossy()) || works_in.starts_with(dir) {
            left.push(format!("{} {words}", process.display()));
        }
    }
    Ok(left)
}

fn check(signal: Signal) -> Result<()> {
    if let Some(why) = programs::why_not(&PROGRAMS) {
        println!("skipped: interrupting the demo: {why}");
        return Ok(());
    }
    let moments = [
        "starting nginx",
        "they listen",
        "is ready",
        "one after the other",
        "at a time",
        "draining",
    ];
    for moment in moments {
        let left = left_after(moment, signal)?;
        ensure!(left.is_empty(), "{signal:?} at {moment:?} leaves {left:#?}");
    }
    Ok(())
}

#[test]
fn interrupting_the_demo_at_any_moment_leaves_nothing() -> Result<()> {
    check(Signal::INT)
}

#[test]
fn terminating_the_demo_at_any_moment_leaves_nothing() -> Result<()> {
    check(Signal::TERM)
}

#[test]
fn killing_the_demo_at_any_moment_leaves_nothing() -> Result<()> {
    check(Signal::KILL)
}
