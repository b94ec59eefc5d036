//! `cargo xtask bench`: measures what tracing costs, with the program `bench` of integration-tests.

use anyhow::Result;
use clap::Args;

use crate::run::{self, Interrupt, cargo};
use crate::setup;

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// Handed on to the program `bench`.
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
        "run",
        "--release",
        "-q",
        "-p",
        "integration-tests",
        "--bin",
        "bench",
        "--",
    ];
    run::run(cargo().args(bench).args(&options.rest), interrupt)
}
