//! `cargo xtask bench`: measures what tracing costs, with the benchmark `syscall_cost` of integration-tests.

use anyhow::Result;
use clap::Args;

use crate::run::{self, Interrupt, cargo};
use crate::setup;

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
    let bench = [
        "bench",
        "-q",
        "-p",
        "integration-tests",
        "--bench",
        "syscall_cost",
        "--",
    ];
    run::run(cargo().args(bench).args(&options.rest), interrupt)
}
