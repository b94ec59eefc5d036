//! What is measured: a process alone on its core.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};
use integration_tests::backends::python_package;
use integration_tests::collector;
use integration_tests::sandbox::{Output, Process, Sandbox, free_ports, uninterrupted};

/// Who made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    Deeptrace,
    Rotel,
}

/// Where spans go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Nothing,
    /// To a backend, over gRPC and compressed with gzip, as is the default of both.
    Otlp,
}

/// A collector with an OTLP receiver.
pub struct Subject {
    /// Where it takes OTLP over gRPC.
    pub port: u16,
    process: Process,
}

impl Subject {
    /// Starts it on this core, for a backend at that port. Everything that is not named here is
    /// as its maker set it.
    pub fn start(
        sandbox: &Sandbox,
        core: usize,
        product: Product,
        target: Target,
        backend: u16,
    ) -> Result<Self> {
        let [port, other] = free_ports()?;
        let started = match product {
            Product::Deeptrace => deeptrace(sandbox, port, target, backend)?,
            Product::Rotel => rotel(port, other, target, backend)?,
        };
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", &core.to_string()]);
        command.arg(started.get_program()).args(started.get_args());
        let mut process = sandbox.spawn("subject", &command, Output::Log)?;
        process.wait_for_port(port, &uninterrupted())?;
        Ok(Self { port, process })
    }

    /// Seconds of processor time that it has used.
    pub fn processor_time(&self) -> Result<f64> {
        // `pid (name) state ...`: utime and stime are the 12th and 13th after the name, in ticks.
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.pid()))?;
        let (_, fields) = stat.rsplit_once(") ").context("no name")?;
        let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>);
        let ticks = ticks.sum::<Result<u64, _>>()?;
        let a_second = rustix::param::clock_ticks_per_second();
        Ok(ticks as f64 / a_second as f64)
    }

    /// A line of `/proc/PID/status` in MiB: `VmRSS` now, `VmHWM` at its highest.
    pub fn memory(&self, name: &str) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        let kib: f64 = kib.context("no such line")?.parse()?;
        Ok(kib / 1024.0)
    }

    /// What it has said.
    pub fn logged(&self) -> String {
        self.process.logged()
    }

    /// Ends it.
    pub fn stop(mut self) -> Result<()> {
        self.process.stop().map(drop)
    }
}

fn deeptrace(sandbox: &Sandbox, port: u16, target: Target, backend: u16) -> Result<Command> {
    let exporter = match target {
        Target::Nothing => "nop: {}".to_owned(),
        Target::Otlp => {
            format!("otlp_grpc: {{endpoint: \"http://127.0.0.1:{backend}\"}}")
        }
    };
    let name = exporter.split(':').next().unwrap_or_default();
    let config = sandbox.dir().join("collector.yaml");
    let text = format!(
        "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: \"127.0.0.1:{port}\"}}}}}}}}\n\
         exporters: {{{exporter}}}\n\
         service:\n  telemetry: {{metrics: {{level: none}}}}\n  \
         pipelines: {{traces: {{receivers: [otlp], exporters: [{name}]}}}}\n"
    );
    fs::write(&config, text)?;
    let mut command = Command::new(collector::program().canonicalize()?);
    command.arg("--config").arg(config);
    Ok(command)
}

fn rotel(port: u16, other: u16, target: Target, backend: u16) -> Result<Command> {
    let program = python_package("rotel/rotel-agent").context("rotel is not installed")?;
    let mut command = Command::new(program.canonicalize()?);
    command.arg("start");
    for (receiver, port) in [("grpc", port), ("http", other)] {
        command.arg(format!("--otlp-{receiver}-endpoint"));
        command.arg(format!("127.0.0.1:{port}"));
    }
    match target {
        Target::Nothing => command.args(["--exporter", "blackhole"]),
        Target::Otlp => command
            .args(["--exporter", "otlp", "--otlp-exporter-protocol", "grpc"])
            .arg("--otlp-exporter-endpoint")
            .arg(format!("http://127.0.0.1:{backend}")),
    };
    Ok(command)
}
