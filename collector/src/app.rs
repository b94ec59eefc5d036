//! The command line: builds the rooms in order and owns the shutdown.

use crate::capture::{Capture, Options};
use crate::clock::now_monotonic;
use crate::discovery::{HostFacts, Limits, Pid, Proc, Selector, Table, Users};
use crate::doctor::{Check, Facts, Report};
use crate::receiver::EbpfSettings;
use anyhow::{anyhow, ensure};
use clap::{Parser, Subcommand};
use pipeline::component::{Factories, Factory};
use pipeline::telemetry::{Metrics, Sample, init_logs};
use pipeline::{Config, Service, exporters, extensions, processors};
use std::any::Any;
use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Component types of this binary.
pub const FACTORIES: Factories = Factories {
    receivers: &[Factory::receiver::<EbpfSettings>("ebpf")],
    processors: &[processors::MEMORY_LIMITER, span_linker::FACTORY],
    exporters: exporters::ALL,
    extensions: extensions::ALL,
};

/// Shows how requests travel through programs that nobody instrumented.
#[derive(Debug, Parser)]
#[command(name = "deeptrace-collector", version)]
struct Arguments {
    /// Configuration file; of several, later ones are laid over earlier ones.
    #[arg(long, global = true, value_name = "FILE")]
    config: Vec<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Checks a configuration and says everything that is wrong with it.
    Validate,
    /// Says what this kernel and these privileges allow, and what would be traced.
    Doctor,
}

/// Does what the command line says.
pub fn run() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let files = arguments.config.as_slice();
    match arguments.command {
        Some(Command::Validate) => validate(files),
        Some(Command::Doctor) if files.is_empty() => doctor(None),
        Some(Command::Doctor) => {
            let config = load(files)?;
            warn(&config);
            doctor(Some(config))
        }
        None => serve(&load(files)?),
    }
}

fn load(files: &[PathBuf]) -> anyhow::Result<Config> {
    ensure!(
        !files.is_empty(),
        "no configuration: pass --config FILE (more than one: later ones are laid over earlier ones)"
    );
    Config::load(files, &FACTORIES)
        .map_err(|error| anyhow!("the configuration cannot be used\n{error}"))
}

fn warn(config: &Config) {
    for warning in &config.warnings {
        complain(format_args!("warning: {warning}"));
    }
}

/// Reads the configuration and builds all of it, without starting any.
fn validate(files: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let config = load(files)?;
    warn(&config);
    Service::build(&config, Metrics::default())?;
    let names: Vec<String> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    let mut lines = vec![format!("{}: sound", names.join(" + "))];
    lines.extend(config.pipelines.iter().map(ToString::to_string));
    tell(&format!("{}\n", lines.join("\n")));
    Ok(ExitCode::SUCCESS)
}

/// With a configuration: what its `ebpf` receiver would trace; without: everything.
fn doctor(config: Option<Config>) -> anyhow::Result<ExitCode> {
    let receivers = config.map(|config| config.receivers).unwrap_or_default();
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
    tell(&report.to_string());
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

fn serve(config: &Config) -> anyhow::Result<ExitCode> {
    init_logs(&config.telemetry.logs)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let summary = runtime.block_on(async {
        let service = Service::build(config, Metrics::default())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // The terminal went away: a stop like any other.
        let mut hangup = signal(SignalKind::hangup())?;
        let until = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {}
            }
        };
        anyhow::Ok(service.run(until).await?)
    })?;
    print_summary(&summary.samples);
    match summary.failure {
        Some(failure) => Err(failure.into()),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Counters of things lost: what an operator looks at first.
const LOSSES: [&str; 5] = [
    "deeptrace_kernel_lost",
    "deeptrace_dropped",
    "deeptrace_unpaired",
    "deeptrace_lost_spans",
    "otelcol_exporter_send_failed_spans",
];

/// Spans, traces and losses in a few lines, then every counter that is not zero.
fn print_summary(samples: &[Sample]) {
    let sum = |name: &str| -> f64 {
        let named = samples.iter().filter(|sample| sample.name == name);
        named.map(|sample| sample.value).sum()
    };
    let (spans, roots) = (sum("deeptrace_spans"), sum("deeptrace_unlinked_spans"));
    complain(format_args!("summary: {spans} spans in {roots} traces"));
    let lost = |sample: &&Sample| sample.value != 0.0 && LOSSES.contains(&sample.name.as_str());
    if samples.iter().any(|sample| lost(&sample)) {
        complain(format_args!("lost, by reason:"));
    } else {
        complain(format_args!("lost: nothing"));
    }
    for sample in samples.iter().filter(lost) {
        complain(format_args!("  {sample}"));
    }
    complain(format_args!("counters:"));
    for sample in samples
        .iter()
        .filter(|sample| sample.value != 0.0 && !lost(sample))
    {
        complain(format_args!("  {sample}"));
    }
}

/// A line on stderr. Nobody may be there to read it (`| head`, a log pipe that broke), which is
/// no reason to panic as `eprintln!` does.
pub fn complain(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The answer of a command on stdout, likewise.
fn tell(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}
