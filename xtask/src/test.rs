//! `cargo xtask test`: every check and every test, one closing line.
//!
//! A test that cannot run here prints a line `skipped: WHY` and returns; those lines are shown and
//! counted, while the rest of what passing tests print is not shown.

use std::io::{BufRead as _, BufReader};
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use integration_tests::sandbox::{Output, Sandbox};

use crate::run::{self, Interrupt, cargo, root};
use crate::vm::{self, Oldest};
use crate::{setup, tidy};

const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long `cargo test` may take to end after its last word.
const EXIT_LIMIT: Duration = Duration::from_mins(1);

/// What to test.
#[derive(Args)]
pub struct Options {
    /// Handed on to both runs of `cargo test`: a part of the tests' names, then `--` and options of
    /// the test programs. An option of cargo needs a `--` before it.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

#[derive(Default)]
struct Totals {
    passed: usize,
    failed: usize,
    ignored: usize,
    skipped: Vec<String>,
    wrong: Vec<&'static str>,
}

/// Runs everything, also after something failed.
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<()> {
    let start = Instant::now();
    let mut totals = Totals::default();
    for missing in setup::for_tests(interrupt)? {
        totals.skipped.push(format!("what needs {missing}"));
    }
    for (name, check) in checks() {
        println!("test: {name}");
        for mut command in check {
            if let Err(error) = run::run(&mut command, interrupt) {
                interrupt.check()?;
                eprintln!("test: {error:#}");
                totals.wrong.push(name);
            }
        }
    }
    println!("test: tidy");
    if let Err(error) = tidy::run() {
        eprintln!("test: {error:#}");
        totals.wrong.push("tidy");
    }
    println!("test: unit tests");
    totals.cargo_test("unit tests", &[], options, interrupt)?;
    if rustix::process::geteuid().is_root() {
        println!("test: integration tests");
        let mut build = cargo();
        run::run(
            build.args([
                "build",
                "-q",
                "--release",
                "-p",
                "collector",
                "-p",
                "span-linker",
            ]),
            interrupt,
        )?;
        totals.cargo_test(
            "integration tests",
            &["-p", "integration-tests"],
            options,
            interrupt,
        )?;
        if options.rest.is_empty() {
            totals.oldest_kernel(interrupt)?;
        }
    } else {
        totals
            .skipped
            .push("integration tests: they load eBPF programs, which needs root".to_owned());
    }
    totals.close(start)
}

fn checks() -> [(&'static str, Vec<Command>); 2] {
    let mut fmt = vec![cargo()];
    fmt[0].args(["fmt", "--all", "--check"]);
    for apart in ["ebpf/Cargo.toml", "fuzz/Cargo.toml"] {
        if root().join(apart).exists() {
            let mut command = cargo();
            command.args(["fmt", "--manifest-path", apart, "--check"]);
            fmt.push(command);
        }
    }
    let mut clippy = cargo();
    clippy.args([
        "clippy",
        "-q",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]);
    [("fmt", fmt), ("clippy", vec![clippy])]
}

impl Totals {
    /// Runs some of the tests on the oldest kernel that can be had. All of them on more kernels are
    /// for `make vm`: there is no KVM to count on, and emulated they take minutes.
    fn oldest_kernel(&mut self, interrupt: &Interrupt) -> Result<()> {
        println!("test: the oldest kernel");
        match vm::oldest(interrupt)? {
            Oldest::Skipped(why) => self.skipped.push(why),
            Oldest::Booted(report, wrong) => {
                self.passed += report.passed();
                self.failed += report.failed();
                println!("test: {} passed on {}", report.passed(), report.release);
                self.skipped.extend(report.skipped);
                for what in &wrong {
                    eprintln!("test: {what} on {}", report.release);
                }
                if !wrong.is_empty() {
                    self.wrong.push("the oldest kernel");
                }
            }
        }
        Ok(())
    }

    /// Runs `cargo test` and counts what its test programs say.
    fn cargo_test(
        &mut self,
        name: &'static str,
        which: &[&str],
        options: &Options,
        interrupt: &Interrupt,
    ) -> Result<()> {
        let mut halves = options.rest.splitn(2, |word| word == "--");
        let (ours, theirs) = (halves.next().unwrap_or(&[]), halves.next().unwrap_or(&[]));
        let mut command = cargo();
        command
            .args(["test", "-q", "--no-fail-fast"])
            .args(which)
            .args(ours);
        command
            .args(["--", "--show-output", "--format=pretty"])
            .args(theirs);
        if !which.is_empty() {
            // They share the kernel and its ports.
            command.env("RUST_TEST_THREADS", "1");
        }
        let sandbox = Sandbox::new()?;
        let mut process = sandbox.spawn("test", &command, Output::PipedOutput)?;
        let output = process
            .child
            .stdout
            .take()
            .context("the output is a pipe")?;
        let (send, lines) = mpsc::channel();
        // Reads on when interrupted, so that nothing blocks on a full pipe; ends with the process.
        thread::spawn(move || {
            BufReader::new(output)
                .lines()
                .map_while(Result::ok)
                .all(|line| send.send(line).is_ok())
        });
        let mut quiet = false;
        loop {
            interrupt.check()?;
            match lines.recv_timeout(POLL_INTERVAL) {
                Ok(line) => self.read(&line, &mut quiet),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        process.wait(EXIT_LIMIT, interrupt.flag())?;
        let status = process.stop()?;
        interrupt.check()?;
        if !status.success() {
            self.wrong.push(name);
        }
        Ok(())
    }

    /// One line of a test program. What passing tests printed stands between `successes:` and the
    /// next heading.
    fn read(&mut self, line: &str, quiet: &mut bool) {
        if line == "successes:" {
            *quiet = true;
        } else if line == "failures:" || line.starts_with("test result:") {
            *quiet = false;
        }
        if let Some(why) = line.strip_prefix("skipped: ") {
            self.skipped.push(why.to_owned());
        }
        let Some(result) = line.strip_prefix("test result:") else {
            if !*quiet && !line.is_empty() {
                println!("{line}");
            }
            return;
        };
        let count = |what: &str| -> usize {
            let part = result.split(['.', ';']).find(|part| part.ends_with(what));
            part.and_then(|part| part.trim().split(' ').next()?.parse().ok())
                .unwrap_or(0)
        };
        self.passed += count(" passed");
        self.failed += count(" failed");
        self.ignored += count(" ignored");
        println!("{line}");
    }

    fn close(mut self, start: Instant) -> Result<()> {
        self.skipped.dedup();
        for why in &self.skipped {
            println!("skipped: {why}");
        }
        let Self {
            passed,
            failed,
            ignored,
            skipped,
            wrong,
        } = self;
        println!(
            "test: {passed} passed, {failed} failed, {ignored} ignored, {} skipped, {} s",
            skipped.len(),
            start.elapsed().as_secs()
        );
        if !wrong.is_empty() {
            bail!("not right: {}", wrong.join(", "));
        }
        println!("test: fmt, clippy, tidy and all tests are right");
        Ok(())
    }
}
