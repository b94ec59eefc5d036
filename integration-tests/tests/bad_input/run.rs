//! The collector as a program, and a program for it to trace.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use integration_tests::compile::{home, target_dir};
use integration_tests::exported::{Span, Summary, read_file};
use integration_tests::programs;
use integration_tests::sandbox::{Output, Process, Sandbox, free_ports, uninterrupted};

/// A stop may take so long, by what its users are told.
pub const STOP_LIMIT: Duration = Duration::from_secs(6);
/// How long anything else may take.
const LIMIT: Duration = Duration::from_secs(30);
/// What it says last before it runs.
const READY: &str = "everything is running";
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Why a test cannot run here; says so.
pub fn skipped(test: &str, needs: &[&str]) -> bool {
    let program = program();
    let why = if !rustix::process::geteuid().is_root() {
        Some("the collector loads eBPF programs, which needs root".to_owned())
    } else if program.is_none() {
        Some("no deeptrace-collector; `cargo build -p collector` makes it".to_owned())
    } else {
        programs::why_not(needs)
    };
    if let Some(why) = &why {
        println!("skipped: {test}: {why}");
    }
    why.is_some()
}

/// The binary that was built last.
pub fn program() -> Option<PathBuf> {
    let built = |profile: &str| {
        let program = target_dir().join(profile).join("deeptrace-collector");
        let at = fs::metadata(&program).and_then(|file| file.modified());
        Some((at.ok()?, program.canonicalize().ok()?))
    };
    let newest = ["debug", "release"].into_iter().filter_map(built).max();
    newest.map(|(_, program)| program)
}

/// The collector behind words such as `setpriv …`, with these arguments.
pub fn command(wrapper: &[&str], arguments: &[&str]) -> Result<Command> {
    let program = program().context("no deeptrace-collector")?;
    let program = program.to_str().context("a path is text")?;
    let words: Vec<&str> = [wrapper, &[program], arguments].concat();
    let (first, rest) = words.split_first().context("never empty")?;
    let mut command = Command::new(first);
    command.args(rest);
    Ok(command)
}

/// A collector that ended by itself.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    /// Both streams.
    pub said: String,
}

/// Runs a command that is to end by itself.
pub fn run(sandbox: &Sandbox, command: &Command) -> Result<Ended> {
    let mut process = sandbox.spawn("ends", command, Output::Log)?;
    let status = process.wait(LIMIT, &uninterrupted())?;
    let said = process.logged();
    process.stop()?;
    let status = status.with_context(|| format!("it does not end\n{said}"))?;
    ensure!(!said.contains("panicked"), "it panicked\n{said}");
    let code = status.code();
    Ok(Ended { code, said })
}

/// A collector that runs. Dropping it stops it.
pub struct Collector {
    process: Process,
    metrics_port: u16,
    spans: PathBuf,
}

/// What is there when it has ended.
pub struct Finished {
    pub spans: Vec<Span>,
    pub summary: Summary,
    pub said: String,
}

impl Collector {
    /// Traces who listens on `port`.
    pub fn start(sandbox: &Sandbox, port: u16, exporters: &[(String, String)]) -> Result<Self> {
        let select = format!("    select: [{{action: include, listen_port: {port}}}]\n");
        Self::start_with(sandbox, &select, exporters)
    }

    /// `receiver` is YAML below `ebpf:`; `exporters` come to the file, by name and settings.
    pub fn start_with(
        sandbox: &Sandbox,
        receiver: &str,
        exporters: &[(String, String)],
    ) -> Result<Self> {
        let mut collector = Self::spawn(sandbox, receiver, exporters, Output::Log)?;
        wait_for("the collector is ready", || {
            if let Some(status) = collector.process.ended()? {
                bail!("it ended ({status})\n{}", collector.process.logged());
            }
            Ok(collector.process.logged().contains(READY))
        })?;
        Ok(collector)
    }

    /// One whose stderr is a pipe that nobody reads any more once it is ready.
    pub fn start_unheard(
        sandbox: &Sandbox,
        port: u16,
        exporters: &[(String, String)],
    ) -> Result<Self> {
        let select = format!("    select: [{{action: include, listen_port: {port}}}]\n");
        let mut collector = Self::spawn(sandbox, &select, exporters, Output::PipedErrors)?;
        let errors = collector.process.child.stderr.take();
        let mut lines = BufReader::new(errors.context("stderr is a pipe")?).lines();
        let ready = lines.any(|line| line.is_ok_and(|line| line.contains(READY)));
        ensure!(ready, "it ended before it was ready");
        Ok(collector)
    }

    fn spawn(
        sandbox: &Sandbox,
        receiver: &str,
        exporters: &[(String, String)],
        output: Output,
    ) -> Result<Self> {
        let [metrics_port] = free_ports()?;
        let spans = sandbox.dir().join("spans.jsonl");
        let (mut names, mut sections) = ("file".to_owned(), String::new());
        for (name, settings) in exporters {
            write!(names, ", {name}")?;
            writeln!(sections, "  {name}: {settings}")?;
        }
        let config = format!(
            "receivers:\n  ebpf:\n{receiver}\
             processors:\n  span_linker: {{decision_wait: 100ms}}\n\
             exporters:\n  file: {{path: {}}}\n{sections}\
             service:\n  telemetry: {{metrics: {{readers: [{{pull: {{exporter: {{prometheus: \
             {{host: 127.0.0.1, port: {metrics_port}}}}}}}}}]}}}}\n  pipelines:\n    traces: \
             {{receivers: [ebpf], processors: [span_linker], exporters: [{names}]}}\n",
            spans.display()
        );
        let file = sandbox.dir().join("collector.yaml");
        fs::write(&file, config)?;
        let file = file.display().to_string();
        let command = command(&[], &["--config", &file])?;
        Ok(Self {
            process: sandbox.spawn("collector", &command, output)?,
            metrics_port,
            spans,
        })
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The sum of a metric over the series that have this text in their labels, now.
    pub fn metric(&self, name: &str, label: &str) -> Result<f64> {
        let text = get(self.metrics_port, "/metrics")?.1;
        let values = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (known, labels) = series.split_once('{').unwrap_or((series, ""));
            (known == name && labels.contains(label)).then(|| value.parse::<f64>().ok())?
        });
        Ok(values.sum())
    }

    /// Waits until a metric is above 0.
    pub fn wait_for_metric(&self, name: &str, label: &str) -> Result<()> {
        wait_for(&format!("{name}{{{label}}} is above 0"), || {
            Ok(self.metric(name, label)? > 0.0)
        })
    }

    /// The whole lines that are in the file so far.
    pub fn exported(&self) -> Result<Vec<Span>> {
        let text = fs::read_to_string(&self.spans)?;
        let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
        let copy = self.spans.with_extension("whole");
        fs::write(&copy, whole)?;
        read_file(&copy)
    }

    /// Ends it with SIGTERM: well, and in time.
    pub fn stop(mut self) -> Result<Finished> {
        let said = self.end()?;
        let lines: Vec<String> = said.lines().map(str::to_owned).collect();
        let summary = Summary::read(&lines).with_context(|| said.clone())?;
        let spans = read_file(&self.spans)?;
        Ok(Finished {
            spans,
            summary,
            said,
        })
    }

    /// The same, giving only what it said.
    pub fn end(&mut self) -> Result<String> {
        let ended = self.process.ended()?;
        ensure!(ended.is_none(), "it had ended\n{}", self.process.logged());
        let begun = Instant::now();
        self.process.terminate();
        let status = self.process.wait(LIMIT, &uninterrupted())?;
        let (elapsed, said) = (begun.elapsed(), self.process.logged());
        let status = status.with_context(|| format!("it does not end\n{said}"))?;
        self.process.stop()?;
        ensure!(status.success(), "it ended with {status}\n{said}");
        ensure!(elapsed < STOP_LIMIT, "it took {elapsed:?} to end\n{said}");
        ensure!(!said.contains("panicked"), "it panicked\n{said}");
        Ok(said)
    }
}

/// Waits until something is so.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !holds()? {
        ensure!(Instant::now() < deadline, "not so after {LIMIT:?}: {what}");
        sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// The workload `statuses.py`.
pub struct Statuses {
    process: Process,
    pub port: u16,
}

impl Statuses {
    pub fn start(sandbox: &Sandbox) -> Result<Self> {
        let [port] = free_ports()?;
        let mut command = Command::new("/usr/bin/python3");
        command
            .arg("-B")
            .arg(home().join("workloads/statuses.py"))
            .arg(port.to_string());
        let mut process = sandbox.spawn(&format!("statuses-{port}"), &command, Output::Log)?;
        process.wait_for_port(port, &uninterrupted())?;
        Ok(Self { process, port })
    }

    /// A connection that stays open.
    pub fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream })
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// A kept connection to [`Statuses`].
pub struct Connection {
    stream: TcpStream,
}

impl Connection {
    /// Sends a request and does not wait.
    pub fn send(&mut self, path: &str) -> Result<()> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: statuses\r\n\r\n");
        Ok(self.stream.write_all(request.as_bytes())?)
    }

    /// Sends a request and checks that the answer is its own.
    pub fn ask(&mut self, path: &str) -> Result<()> {
        self.send(path)?;
        let mut answer = Vec::new();
        let mut piece = vec![0; 65536];
        while !answer.ends_with(path.as_bytes()) {
            let count = self.stream.read(&mut piece)?;
            ensure!(count > 0, "{path}: the server hung up");
            answer.extend_from_slice(&piece[..count]);
        }
        let status = path.split('/').nth(1).unwrap_or_default();
        let text = String::from_utf8_lossy(&answer);
        let begin = format!("HTTP/1.1 {status} ");
        ensure!(text.starts_with(&begin), "{path} was answered {text}");
        Ok(())
    }
}

/// Status line and body of `GET path`.
pub fn get(port: u16, path: &str) -> Result<(String, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text
        .split_once("\r\n\r\n")
        .context("an answer has a head")?;
    let status = head.lines().next().unwrap_or_default();
    Ok((status.to_owned(), body.to_owned()))
}
