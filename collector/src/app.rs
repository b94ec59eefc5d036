//! The command line: what is shared (`pipeline::cli`) with this binary's components, and `doctor`.

use crate::capture::{Capture, Options};
use crate::clock::now_monotonic;
use crate::discovery::{HostFacts, Limits, Pid, Proc, Selector, Table, Users};
use crate::doctor::{Check, Facts, Report};
use crate::receiver::EbpfSettings;
use clap::{Parser, Subcommand};
use pipeline::cli::{self, Program};
use pipeline::component::{Factories, Factory};
use pipeline::config::Section;
use pipeline::{Sources, exporters, extensions, receivers};
use std::any::Any;
use std::process::ExitCode;

/// Component types of this binary.
pub const FACTORIES: Factories = Factories {
    receivers: &[Factory::receiver::<EbpfSettings>("ebpf"), receivers::OTLP],
    processors: span_linker::PROCESSORS,
    exporters: exporters::ALL,
    extensions: extensions::ALL,
};

/// What this binary is.
pub const PROGRAM: Program = Program {
    name: "deeptrace-collector",
    description: "Shows how requests travel through programs that nobody instrumented",
    version: env!("CARGO_PKG_VERSION"),
    factories: &FACTORIES,
};

/// Shows how requests travel through programs that nobody instrumented.
#[derive(Debug, Parser)]
#[command(name = PROGRAM.name, version)]
struct Arguments {
    #[command(flatten)]
    sources: Sources,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Shared(cli::Command),
    /// Says what this kernel and these privileges allow, and what would be traced.
    Doctor(Sources),
}

/// Does what the command line says.
pub fn run() -> anyhow::Result<ExitCode> {
    let Arguments { sources, command } = Arguments::parse();
    match command {
        Some(Command::Doctor(more)) => return doctor(&sources.and(&more)),
        Some(Command::Shared(command)) => PROGRAM.run(&sources, Some(&command))?,
        None => PROGRAM.run(&sources, None)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// With a configuration: what its `ebpf` receiver would trace; without: everything.
fn doctor(sources: &Sources) -> anyhow::Result<ExitCode> {
    let mut receivers = Section::new();
    if *sources != Sources::default() {
        let config = PROGRAM.load(sources)?;
        cli::warn(&config);
        receivers = config.receivers;
    }
    let settings = receivers.values().find_map(|settings| {
        let settings: &dyn Any = settings.as_ref();
        settings.downcast_ref::<EbpfSettings>()
    });
    let select = settings
        .map(|settings| settings.select.clone())
        .unwrap_or_default();
    let facts = Facts::probe(|| vec![try_capture()]);
    let selector = Selector::new(select, Pid(std::process::id()))?;
    let proc = Proc::open("/proc")?;
    let mut table = Table::new(
        proc,
        selector,
        HostFacts::probe(),
        Users::probe(),
        Limits::default(),
    );
    table.scan(now_monotonic())?;
    let report = Report::new(&facts, &table);
    cli::tell(&report.to_string())?;
    Ok(ExitCode::from(report.exit_code()))
}

/// Loads and attaches the programs as the receiver would, and takes them off again.
fn try_capture() -> Check {
    match Capture::start(&Options::default()) {
        Ok(_) => Check::pass("BPF programs", "load and attach"),
        Err(error) => {
            let error = anyhow::Error::from(error);
            let remedy = "run as root on a kernel from 5.8 on; see the other checks";
            Check::fail("BPF programs", format!("{error:#}"), remedy)
        }
    }
}
