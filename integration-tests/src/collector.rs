//! The collector under test: configured for one test, started, stopped, and read out.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{ChildStderr, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::compile::target_dir;
use crate::exported::{Span, Summary, read_file};
use crate::sandbox::{Output, Process, Sandbox, uninterrupted};

const READY_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to end before a test gives up on it; how long it should take is for tests
/// to say.
const STOP_LIMIT: Duration = Duration::from_secs(20);
const RELOAD_LIMIT: Duration = Duration::from_secs(20);
const CONFIGURATION: &str = "collector.yaml";
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Why a test that runs the collector cannot run here, if it cannot.
pub fn why_not() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("the collector loads eBPF programs, which needs root".to_owned());
    }
    let program = program();
    (!program.is_file()).then(|| {
        let program = program.display();
        format!("{program} not found; `cargo build --release -p collector` makes it")
    })
}

/// The binary under test.
pub fn program() -> PathBuf {
    target_dir().join("release/deeptrace-collector")
}

/// What differs from test to test.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Processes that listen on these ports are traced, with their children. Without ports and
    /// ids everything is.
    pub ports: Vec<u16>,
    /// Processes with these ids are traced, with their children.
    pub pids: Vec<u32>,
    /// `ring_buffer_mib`, when it is not to be the default.
    pub ring_buffer_mib: Option<u32>,
    /// Further exporters, as YAML: the lines below `exporters:`, indented by two.
    pub exporters: String,
    /// Their names.
    pub exporter_names: Vec<&'static str>,
    /// A file for the spans as the linker gets them, when they are to be kept.
    pub raw: Option<PathBuf>,
    /// `decision_wait`, when it is not to be the default.
    pub decision_wait: Option<&'static str>,
    /// `shutdown_timeout`, when it is not to be the default.
    pub shutdown_timeout: Option<&'static str>,
}

/// A running collector. Dropping it stops it.
#[derive(Debug)]
pub struct Collector {
    process: Process,
    file: PathBuf,
    said: Arc<Mutex<Vec<String>>>,
    listener: Option<JoinHandle<()>>,
}

/// What is there when it has ended.
#[derive(Debug)]
pub struct Finished {
    /// Everything that was exported.
    pub spans: Vec<Span>,
    /// Its own counts.
    pub summary: Summary,
    /// How it ended.
    pub status: ExitStatus,
    /// From SIGTERM to its end.
    pub elapsed: Duration,
    /// Everything it said on stderr, by line.
    pub said: Vec<String>,
}

impl Collector {
    /// Starts it in the sandbox and waits until it is ready.
    pub fn start(sandbox: &Sandbox, options: &Options) -> Result<Self> {
        let file = sandbox.dir().join("spans.jsonl");
        let config = sandbox.dir().join(CONFIGURATION);
        fs::write(&config, configuration(options, &file.display().to_string()))?;
        let mut command = Command::new(program().canonicalize()?);
        command.arg("--config").arg(&config);
        let mut process = sandbox.spawn("collector", &command, Output::PipedErrors)?;
        let errors = process.child.stderr.take().context("stderr is a pipe")?;
        let said = Arc::default();
        let listener = Some(listen(errors, Arc::clone(&said)));
        let mut collector = Self {
            process,
            file,
            said,
            listener,
        };
        let deadline = Instant::now() + READY_LIMIT;
        while !collector.has_said("ready") {
            if let Some(status) = collector.process.ended()? {
                let said = collector.said().join("\n");
                bail!("the collector ended before it was ready ({status})\n{said}");
            }
            ensure!(Instant::now() < deadline, "the collector is not ready");
            sleep(POLL_INTERVAL);
        }
        Ok(collector)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it has exported so far, but for a line that is being written.
    pub fn exported(&self) -> Result<Vec<Span>> {
        let whole = self.file.with_extension("whole");
        let mut bytes = fs::read(&self.file)?;
        bytes.truncate(
            bytes
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |end| end + 1),
        );
        fs::write(&whole, bytes)?;
        read_file(&whole)
    }

    /// Waits until what was exported so far is enough.
    pub fn wait_for(
        &self,
        limit: Duration,
        what: &str,
        enough: impl Fn(&[Span]) -> bool,
    ) -> Result<Vec<Span>> {
        let deadline = Instant::now() + limit;
        loop {
            let spans = self.exported()?;
            if enough(&spans) {
                return Ok(spans);
            }
            ensure!(
                Instant::now() < deadline,
                "{what} is not exported after {limit:?}; {} spans are",
                spans.len()
            );
            sleep(10 * POLL_INTERVAL);
        }
    }

    /// The text of its configuration.
    pub fn configuration(&self) -> Result<String> {
        Ok(fs::read_to_string(self.file.with_file_name(CONFIGURATION))?)
    }

    /// Gives it another configuration, and waits until it has said this about it.
    pub fn reload(&self, configuration: &str, answer: &str) -> Result<()> {
        let answers = || {
            let said = self.said().into_iter();
            said.filter(|line| line.contains(answer)).count()
        };
        let before = answers();
        fs::write(self.file.with_file_name(CONFIGURATION), configuration)?;
        self.process.hang_up();
        let deadline = Instant::now() + RELOAD_LIMIT;
        while answers() == before {
            let late = Instant::now() >= deadline;
            ensure!(
                !late,
                "it does not say {answer:?}\n{}",
                self.said().join("\n")
            );
            sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// Ends it with SIGTERM, and reads what it leaves.
    pub fn stop(mut self) -> Result<Finished> {
        if let Some(status) = self.process.ended()? {
            bail!(
                "the collector had ended ({status})\n{}",
                self.said().join("\n")
            );
        }
        let begun = Instant::now();
        self.process.terminate();
        let status = self.process.wait(STOP_LIMIT, &uninterrupted())?;
        let elapsed = begun.elapsed();
        let status = status.context("the collector does not end on SIGTERM")?;
        self.process.stop()?;
        if let Some(listener) = self.listener.take() {
            // It ends with the pipe.
            let _ = listener.join();
        }
        let said = self.said();
        Ok(Finished {
            spans: read_file(&self.file)?,
            summary: Summary::read(&said).with_context(|| said.join("\n"))?,
            status,
            elapsed,
            said,
        })
    }

    fn said(&self) -> Vec<String> {
        self.said
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn has_said(&self, word: &str) -> bool {
        self.said().iter().any(|line| line.contains(word))
    }
}

impl Finished {
    /// It ended well, and by its own counts, which agree with the file, nothing was lost and
    /// nothing is without its partner.
    pub fn check(&self) -> Result<()> {
        let said = self.said.join("\n");
        ensure!(
            self.status.success(),
            "it ended with {}\n{said}",
            self.status
        );
        let losses = [
            "deeptrace_kernel_lost",
            "deeptrace_dropped",
            "deeptrace_unparsed_bytes",
            "deeptrace_unpaired",
            "deeptrace_lost_spans",
            "deeptrace_linker_events",
            "otelcol_receiver_refused_spans",
            "otelcol_exporter_send_failed_spans",
            "otelcol_exporter_enqueue_failed_spans",
        ];
        for name in losses {
            let lost = self.summary.sum(name, &[]);
            ensure!(lost == 0, "{name} is {lost}\n{said}");
        }
        // Not `gone`: whatever else runs on this machine starts and ends as it likes.
        for reason in ["too_many_traced", "too_many_known", "denied", "unreadable"] {
            let missed = self
                .summary
                .sum("deeptrace_processes_missed", &[("reason", reason)]);
            ensure!(missed == 0, "{missed} processes missed: {reason}\n{said}");
        }
        let written = self.spans.len() as u64;
        let linked = self.summary.sum("deeptrace_linked_spans", &[]);
        let unlinked = self.summary.sum("deeptrace_unlinked_spans", &[]);
        let counts = [
            ("made", self.summary.sum("deeptrace_spans", &[])),
            (
                "accepted",
                self.summary.sum("otelcol_receiver_accepted_spans", &[]),
            ),
            ("linked or not", linked + unlinked),
            (
                "sent",
                self.summary
                    .sum("otelcol_exporter_sent_spans", &[("exporter", "file")]),
            ),
        ];
        for (what, count) in counts {
            ensure!(
                count == written,
                "{count} spans {what}, {written} in the file\n{said}"
            );
        }
        let ids: HashSet<_> = self.spans.iter().map(|span| &span.span_id).collect();
        ensure!(
            ids.len() == self.spans.len(),
            "{} spans have {} ids",
            self.spans.len(),
            ids.len()
        );
        Ok(())
    }
}

fn configuration(options: &Options, file: &str) -> String {
    let select = select(options);
    let ring = options.ring_buffer_mib;
    let ring = ring.map_or_else(String::new, |mib| format!("    ring_buffer_mib: {mib}\n"));
    let wait = options.decision_wait.unwrap_or("2s");
    let timeout = options.shutdown_timeout.unwrap_or("5s");
    let mut further = options.exporters.clone();
    let mut raw = String::new();
    if let Some(file) = &options.raw {
        let _ = writeln!(further, "  file/raw:\n    path: {}", file.display());
        raw.push_str("    traces/raw:\n      receivers: [ebpf]\n      exporters: [file/raw]\n");
    }
    let names = [&["file"][..], &options.exporter_names].concat().join(", ");
    format!(
        "receivers:\n  ebpf:\n    select: {select}\n{ring}\
         processors:\n  span_linker:\n    decision_wait: {wait}\n\
         exporters:\n  file:\n    path: {file}\n{further}\n\
         service:\n  shutdown_timeout: {timeout}\n  telemetry:\n    metrics:\n      level: none\n  pipelines:\n    traces:\n      \
         receivers: [ebpf]\n      processors: [span_linker]\n      exporters: [{names}]\n{raw}"
    )
}

fn select(options: &Options) -> String {
    let mut rules = Vec::new();
    if !options.ports.is_empty() {
        let ports: Vec<_> = options.ports.iter().map(ToString::to_string).collect();
        let ports = ports.join(",");
        rules.push(format!("{{action: include, listen_port: \"{ports}\"}}"));
    }
    if !options.pids.is_empty() {
        rules.push(format!("{{action: include, pid: {:?}}}", options.pids));
    }
    format!("[{}]", rules.join(", "))
}

fn listen(errors: ChildStderr, said: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(errors).lines().map_while(Result::ok) {
            said.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(line);
        }
    })
}
