//! `cargo xtask bench`: measures what tracing costs, with the benchmark `syscall_cost` of integration-tests.

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
    /// Handed on to the benchmark.
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
    let mut bench = in_sight_of_tracefs();
    bench.args([
        "bench",
        "-q",
        "-p",
        "integration-tests",
        "--bench",
        "syscall_cost",
        "--",
    ]);
    run::run(bench.args(&options.rest), interrupt)
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
