//! Sets up, demonstrates, tests, benchmarks and checks the repository.

mod bench;
mod demo;
mod run;
mod setup;
mod test;
mod tidy;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::run::Interrupt;

/// The repository's own tool.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building, the demo and the tests need, and say what cannot be had.
    Setup,
    /// Trace a small application and show its traces.
    Demo(demo::Options),
    /// Check and test everything.
    Test(test::Options),
    /// Measure what tracing costs.
    Bench(bench::Options),
    /// Check the rules that neither rustfmt nor clippy know.
    Tidy,
    /// Run the programs and their tests on other kernels, in QEMU.
    Vm(vm::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = Interrupt::listen().and_then(|interrupt| match arguments.task {
        Task::Setup => setup::everything(&interrupt),
        Task::Demo(options) => demo::run(&options, &interrupt),
        Task::Test(options) => test::run(&options, &interrupt),
        Task::Bench(options) => bench::run(&options, &interrupt),
        Task::Tidy => tidy::run(),
        Task::Vm(options) => vm::run(&options, &interrupt),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
