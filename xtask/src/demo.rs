//! `cargo xtask demo`: traces the demo application and shows the traces.
//!
//! Whatever it starts and writes lives in the demo's sandbox, which is cleaned up however this ends.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use integration_tests::demo::{self, Demo};
use integration_tests::sandbox::{Output, Process};
use integration_tests::truth::expected;

use crate::run::{self, Interrupt, cargo, root, target_dir};
use crate::setup;

const READY_LIMIT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long the collector may take to hand over what it still holds.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);

/// How to run it.
#[derive(Args)]
pub struct Options {
    /// Use this collector instead of building one.
    #[arg(long)]
    collector: Option<PathBuf>,
    /// Use this configuration of the collector instead of `config/standalone.yaml`.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Let nginx keep its connections to the storefront open.
    #[arg(long)]
    upstream_keepalive: bool,
    /// Requests one after the other.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=1000))]
    sequential: u64,
    /// Requests several at a time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(0..=1000))]
    concurrent: u64,
    /// How many of those at a time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=64))]
    at_a_time: u64,
}

/// Runs it from start to end.
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<()> {
    let collector = match &options.collector {
        Some(program) => program
            .canonicalize()
            .with_context(|| program.display().to_string())?,
        None => build(interrupt)?,
    };
    let demo_options = demo::Options {
        upstream_keepalive: options.upstream_keepalive,
        interrupted: interrupt.flag().clone(),
    };
    eprintln!("demo: starting nginx, storefront (Python), inventory (Node), pricing (C) and Redis");
    let demo = Demo::start(&demo_options)?;
    eprintln!(
        "demo: they listen, http://127.0.0.1:{}/product/1 is the entrance",
        demo.port
    );
    let mut collector = Collector::start(&collector, options, &demo, interrupt)?;
    let asked = ask(options, &demo, interrupt)?;
    // The collector prints its waterfalls on its way out.
    collector.finish(interrupt)?;
    demo.stop()?;
    println!("\ndemo: {asked}; everything stopped, nothing left behind");
    Ok(())
}

fn build(interrupt: &Interrupt) -> Result<PathBuf> {
    setup::for_demo(interrupt)?;
    // Not in `setup`: a collector that was built elsewhere may have the capabilities it needs.
    ensure!(
        rustix::process::geteuid().is_root(),
        "the collector loads eBPF programs, which needs root: run this as root (or with sudo)"
    );
    eprintln!("demo: building the collector");
    run::run(
        cargo().args(["build", "-q", "--release", "-p", "collector"]),
        interrupt,
    )?;
    Ok(target_dir().join("release/deeptrace-collector"))
}

/// Writes the collector's configuration: `config/standalone.yaml`, and with `OTLP_ENDPOINT` a second
/// file laid over it that sends the traces to `host:port` as well.
fn write_config(options: &Options, dir: &Path) -> Result<Vec<PathBuf>> {
    let standalone = root().join("config/standalone.yaml");
    let standalone = options.config.as_ref().unwrap_or(&standalone);
    let copy = dir.join("standalone.yaml");
    fs::copy(standalone, &copy).with_context(|| format!("copying {}", standalone.display()))?;
    let mut files = vec![copy];
    if let Ok(endpoint) = std::env::var("OTLP_ENDPOINT") {
        let overlay = dir.join("otlp.yaml");
        let text = format!(
            "exporters:\n  otlp_grpc:\n    endpoint: \"{endpoint}\"\n    tls:\n      insecure: true\n\
             service:\n  pipelines:\n    traces:\n      exporters: [debug, otlp_grpc]\n"
        );
        fs::write(&overlay, text).with_context(|| format!("writing {}", overlay.display()))?;
        files.push(overlay);
        eprintln!("demo: traces go to {endpoint} too");
    }
    Ok(files)
}

struct Collector {
    process: Process,
}

impl Collector {
    /// Starts it and waits until it says that it is ready.
    fn start(
        program: &Path,
        options: &Options,
        demo: &Demo,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let mut command = Command::new(program);
        command.current_dir(root());
        for file in write_config(options, demo.sandbox().dir())? {
            command.arg("--config").arg(file);
        }
        let mut process = demo
            .sandbox()
            .spawn("collector", &command, Output::PipedErrors)?;
        let errors = process
            .child
            .stderr
            .take()
            .context("the collector's stderr is a pipe")?;
        let ready = watch(errors);
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            interrupt.check()?;
            match ready.recv_timeout(POLL_INTERVAL) {
                Ok(()) => return Ok(Self { process }),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = process.stop()?;
                    bail!("the collector ended before it said `ready` ({status})");
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            ensure!(
                Instant::now() < deadline,
                "the collector says nothing of being ready"
            );
        }
    }

    /// Asks it to hand over what it holds and to end.
    fn finish(&mut self, interrupt: &Interrupt) -> Result<()> {
        if let Some(status) = self.process.ended()? {
            bail!("the collector ended in the middle ({status})");
        }
        self.process.terminate();
        let ended = self.process.wait(DRAIN_LIMIT, interrupt.flag())?;
        interrupt.check()?;
        let status = ended.context("the collector does not end on SIGTERM")?;
        ensure!(status.success(), "the collector ended with {status}");
        self.process.stop()?;
        Ok(())
    }
}

/// Passes on what the collector says, and tells when it says `ready`. The channel closes when the
/// collector ends without.
fn watch(errors: ChildStderr) -> Receiver<()> {
    let (tell, ready) = mpsc::channel();
    thread::spawn(move || {
        let mut tell = Some(tell);
        for line in BufReader::new(errors).lines().map_while(Result::ok) {
            eprintln!("{line}");
            if line.contains("ready")
                && let Some(tell) = tell.take()
            {
                let _ = tell.send(());
            }
        }
    });
    ready
}

/// Sends the requests, checks the replies, and says in a sentence what was sent.
fn ask(options: &Options, demo: &Demo, interrupt: &Interrupt) -> Result<String> {
    let check = |number: u64| -> Result<()> {
        interrupt.check()?;
        let truth = demo.product(number)?.truth()?.shape();
        ensure!(
            truth == expected(number),
            "product {number} was answered unexpectedly: {truth:?}"
        );
        Ok(())
    };
    let first = 1..=options.sequential;
    eprintln!(
        "demo: sending {} requests one after the other",
        options.sequential
    );
    first.clone().try_for_each(check)?;
    let rest: Vec<u64> = (1..=options.concurrent)
        .map(|number| options.sequential + number)
        .collect();
    eprintln!(
        "demo: sending {} requests, {} at a time",
        options.concurrent, options.at_a_time
    );
    for wave in rest.chunks(usize::try_from(options.at_a_time)?) {
        thread::scope(|scope| {
            let waiting: Vec<_> = wave
                .iter()
                .map(|number| scope.spawn(|| check(*number)))
                .collect();
            waiting.into_iter().try_for_each(|one| match one.join() {
                Ok(outcome) => outcome,
                Err(_) => bail!("a request panicked"),
            })
        })?;
    }
    let sent = options.sequential + options.concurrent;
    let calls: usize = first
        .chain(rest)
        .map(|number| expected(number).count().calls)
        .sum();
    Ok(format!(
        "{sent} requests caused {calls} calls between 5 services in 3 languages"
    ))
}
