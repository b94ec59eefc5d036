//! The command line of `deeptrace-span-linker`: what is shared (`pipeline::cli`) with this
//! binary's components.

use clap::Parser;
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
    command: Option<Command>,
}

/// Does what the command line says.
pub fn run() -> Result<(), CliError> {
    let Arguments { sources, command } = Arguments::parse();
    PROGRAM.run(&sources, command.as_ref())
}
