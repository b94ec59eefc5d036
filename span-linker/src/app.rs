//! The command line of `deeptrace-span-linker`: what is shared (`pipeline::cli`) with this
//! binary's components.

use crate::evaluate::{self, evaluate};
use clap::{Parser, Subcommand};
use pipeline::cli::{CliError, Command, Program};
use pipeline::component::Factories;
use pipeline::{Sources, exporters, extensions, receivers};

/// Component types of this binary.
pub const FACTORIES: Factories = Factories {
    receivers: receivers::ALL,
    processors: crate::PROCESSORS,
    exporters: exporters::ALL,
    extensions: extensions::ALL,
};

/// What this binary is.
pub const PROGRAM: Program = Program {
    name: "deeptrace-span-linker",
    description: "Joins the spans of several collectors into traces",
    version: env!("CARGO_PKG_VERSION"),
    factories: &FACTORIES,
};

/// Joins the spans of several collectors into traces.
#[derive(Debug, Parser)]
#[command(name = PROGRAM.name, version)]
struct Arguments {
    #[command(flatten)]
    sources: Sources,
    #[command(subcommand)]
    command: Option<LinkerCommand>,
}

/// What this binary does beside running.
#[derive(Debug, Subcommand)]
enum LinkerCommand {
    #[command(flatten)]
    Shared(Command),
    /// Link recorded spans whose parents are known, and say how right that was
    Evaluate(Box<evaluate::Options>),
}

/// Why the program stops.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// As any program of pipelines.
    #[error(transparent)]
    Cli(#[from] CliError),
    /// Recorded spans could not be evaluated.
    #[error(transparent)]
    Evaluate(#[from] evaluate::Error),
}

/// Does what the command line says.
pub fn run() -> Result<(), Error> {
    let Arguments { sources, command } = Arguments::parse();
    match command {
        Some(LinkerCommand::Evaluate(options)) => {
            evaluate(&options, &mut std::io::stdout().lock())?;
        }
        Some(LinkerCommand::Shared(command)) => PROGRAM.run(&sources, Some(&command))?,
        None => PROGRAM.run(&sources, None)?,
    }
    Ok(())
}
