//! `cargo xtask bench`: measures what tracing costs, with the benchmark `syscall_cost` of
//! integration-tests, with `live` how much of live traffic is linked rightly, or with `otlp` what it
//! costs to pass spans on.

use std::fs;
use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::run::{self, Interrupt, cargo, command};
use crate::setup;

/// Where tracepoints are named, which the floors on tracepoints need.
const TRACEFS: &str = "/sys/kernel/tracing";
/// Mounts tracefs where only the benchmark sees it: the host stays as it was.
const WITH_TRACEFS: &str = "mount -t tracefs tracefs /sys/kernel/tracing && exec \"$@\"";

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// `live` or `otlp` for the benchmark of that name. The rest is handed on to the benchmark.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds the collector and the benchmark for release, and runs the latter.
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<()> {
    setup::for_tests(interrupt)?;
    run::run(
        cargo().args(["build", "--release", "-p", "collector"]),
        interrupt,
    )?;
    match options.rest.split_first() {
        Some((name, rest)) if name == "live" => {
            // Cargo makes examples for tests, but not for benchmarks.
            let mut example = cargo();
            example.args(["build", "--release", "-p", "integration-tests"]);
            run::run(example.args(["--example", "live_tokio"]), interrupt)?;
            bench(cargo(), "live", rest, interrupt)
        }
        Some((name, rest)) if name == "otlp" => bench(cargo(), "otlp", rest, interrupt),
        _ => bench(
            in_sight_of_tracefs(),
            "syscall_cost",
            &options.rest,
            interrupt,
        ),
    }
}

fn bench(mut cargo: Command, name: &str, rest: &[String], interrupt: &Interrupt) -> Result<()> {
    cargo.args(["bench", "-q", "-p", "integration-tests", "--bench", name]);
    run::run(cargo.arg("--").args(rest), interrupt)
}

/// Cargo, in a mount namespace of its own with tracefs where the host has not mounted it.
fn in_sight_of_tracefs() -> Command {
    let mounted = fs::read_dir(TRACEFS).is_ok_and(|mut entries| entries.next().is_some());
    let cargo = cargo();
    if mounted {
        return cargo;
    }
    let mut unshare = command("unshare");
    unshare.args(["--mount", "sh", "-c", WITH_TRACEFS, "sh"]);
    unshare.arg(cargo.get_program());
    for (name, value) in cargo.get_envs() {
        match value {
            Some(value) => unshare.env(name, value),
            None => unshare.env_remove(name),
        };
    }
    unshare
}
