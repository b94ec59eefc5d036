//! A client, a collector with a queue on a disk, and a backend, each of which may be killed.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use integration_tests::backends::python_package;
use integration_tests::collector;
use integration_tests::compile::{home, target_dir};
use integration_tests::programs;
use integration_tests::sandbox::{Output, Process, Sandbox, free_ports, uninterrupted};

/// How long what was taken may need to arrive.
const ARRIVAL_LIMIT: Duration = Duration::from_mins(1);
/// How long a process may take to end.
const END_LIMIT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The length of one load.
pub fn load_time() -> Duration {
    let seconds = std::env::var("DEEPTRACE_DURABILITY_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(8))
}

/// Where the queue lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// The machine's own.
    Large,
    /// A file system of 8 MiB that only the collector sees.
    Mib8,
}

/// Processes and files of one test.
pub struct Scene {
    sandbox: Sandbox,
    otlp_port: u16,
    backend_port: u16,
    metrics_port: u16,
    collector: Option<Process>,
    backend: Option<Process>,
    /// Holds the mount namespace of the small disk.
    holder: Option<Process>,
    started: u32,
}

/// What became of the batches of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(dead_code, reason = "fields are for the message")]
pub struct Report {
    /// Batches that a client was told are taken.
    pub acked: u64,
    /// Batches that a client was told are not, or was told nothing.
    pub refused: u64,
    /// Spans at the backend, each counted once.
    pub arrived: usize,
    /// Spans that came more than once.
    pub repeated: usize,
}

/// A client at work.
pub struct Load(Process);

impl Load {
    /// Waits for its end.
    pub fn wait(mut self) -> Result<()> {
        let limit = load_time() + END_LIMIT;
        let status = self.0.wait(limit, &uninterrupted())?;
        let status = status.context("the load does not end")?;
        self.0.stop()?;
        ensure!(status.success(), "the load failed: {}", self.0.logged());
        Ok(())
    }
}

impl Scene {
    /// Spans of a batch.
    pub const SPANS: u64 = 25;

    /// None: it cannot run here, which has been said.
    pub fn set(name: &str, disk: Disk) -> Result<Option<Self>> {
        let why = collector::why_not()
            .or_else(|| programs::why_not(&["unshare", "nsenter", "mount"]))
            .or_else(|| {
                let package = python_package("grpc");
                let why = "no grpcio in target/venv; `cargo xtask setup` installs it";
                package.is_none().then(|| why.to_owned())
            });
        if let Some(why) = why {
            println!("skipped: {name}: {why}");
            return Ok(None);
        }
        let [otlp_port, backend_port, metrics_port] = free_ports()?;
        let mut scene = Self {
            sandbox: Sandbox::new()?,
            otlp_port,
            backend_port,
            metrics_port,
            collector: None,
            backend: None,
            holder: None,
            started: 0,
        };
        fs::create_dir(scene.file("disk"))?;
        fs::write(scene.file("collector.yaml"), scene.configuration())?;
        if disk == Disk::Mib8 {
            scene.mount()?;
        }
        Ok(Some(scene))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.sandbox.dir().join(name)
    }

    fn configuration(&self) -> String {
        format!(
            "receivers:\n  otlp:\n    protocols:\n      grpc:\n        endpoint: 127.0.0.1:{}\n\
             extensions:\n  file_storage:\n    directory: {}\n\
             exporters:\n  otlp_grpc:\n    endpoint: http://127.0.0.1:{}\n    compression: none\n    \
             retry_on_failure:\n      initial_interval: 100ms\n      max_interval: 500ms\n      \
             max_elapsed_time: 0\n    sending_queue:\n      storage: file_storage\n      \
             sizer: bytes\n      queue_size: 1073741824\n\
             service:\n  extensions: [file_storage]\n  telemetry:\n    metrics:\n      readers:\n        \
             - pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {}}}}}}}\n  \
             pipelines:\n    traces:\n      receivers: [otlp]\n      exporters: [otlp_grpc]\n",
            self.otlp_port,
            self.file("disk").display(),
            self.backend_port,
            self.metrics_port,
        )
    }

    /// A disk in a mount namespace of its own, which goes with the process that holds it.
    fn mount(&mut self) -> Result<()> {
        let mut command = Command::new("unshare");
        let script =
            r#"mount -t tmpfs -o size=8m deeptrace "$0" && echo mounted && exec sleep 3600"#;
        command.args(["--mount", "--propagation", "private", "sh", "-c", script]);
        command.arg(self.file("disk"));
        let mut holder = self
            .sandbox
            .spawn("holder", &command, Output::PipedOutput)?;
        let output = holder.child.stdout.take().context("stdout is a pipe")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line == "mounted\n", "cannot mount a disk of 8 MiB");
        self.holder = Some(holder);
        Ok(())
    }

    fn spawn(&mut self, what: &str, command: &Command) -> Result<Process> {
        self.started += 1;
        let name = format!("{what}-{}", self.started);
        self.sandbox.spawn(&name, command, Output::Log)
    }

    fn python(&self) -> Result<Command> {
        let mut command = Command::new(target_dir().canonicalize()?.join("venv/bin/python"));
        command.arg(home().join("durability.py"));
        Ok(command)
    }

    /// Starts the collector and waits until it takes spans.
    pub fn start_collector(&mut self) -> Result<()> {
        let program = collector::program().canonicalize()?;
        let mut command = match &self.holder {
            None => Command::new(program),
            Some(holder) => {
                let mut command = Command::new("nsenter");
                command.args(["--mount", "--target", &holder.pid().to_string(), "--"]);
                command.arg(program);
                command
            }
        };
        command.arg("--config").arg(self.file("collector.yaml"));
        let mut collector = self.spawn("collector", &command)?;
        collector.wait_for_port(self.otlp_port, &uninterrupted())?;
        self.collector = Some(collector);
        Ok(())
    }

    /// `kill -9`
    pub fn kill_collector(&mut self) -> Result<()> {
        kill(self.collector.take())
    }

    /// Starts a backend that goes on with the notes of those before it.
    pub fn start_backend(&mut self) -> Result<()> {
        let mut command = self.python()?;
        let port = self.backend_port.to_string();
        command.args(["backend", "--port", &port, "--out"]);
        command.arg(self.file("arrived"));
        let mut backend = self.spawn("backend", &command)?;
        backend.wait_for_port(self.backend_port, &uninterrupted())?;
        self.backend = Some(backend);
        Ok(())
    }

    /// `kill -9`
    pub fn kill_backend(&mut self) -> Result<()> {
        kill(self.backend.take())
    }

    /// Starts a client whose batches have numbers of their own from `first_worker` on.
    pub fn start_load(&mut self, first_worker: u32, time: Duration) -> Result<Load> {
        let mut command = self.python()?;
        let port = self.otlp_port.to_string();
        command.args(["load", "--port", &port, "--out"]);
        command.arg(self.file("told"));
        command.args(["--seconds", &time.as_secs().to_string()]);
        command.args(["--first-worker", &first_worker.to_string()]);
        Ok(Load(self.spawn("load", &command)?))
    }

    /// Batches that the clients were told are taken, by number, and how many others there are.
    fn told(&self) -> Result<(Vec<u64>, u64)> {
        let told = fs::read_to_string(self.file("told"))?;
        let (mut acked, mut refused) = (Vec::new(), 0);
        for line in told.lines() {
            match line.split(' ').collect::<Vec<_>>().as_slice() {
                ["acked", number] => acked.push(number.parse()?),
                ["refused", ..] => refused += 1,
                _ => bail!("not a note of the load: {line:?}"),
            }
        }
        Ok((acked, refused))
    }

    /// How many batches the clients were told are taken, and how many others there are.
    pub fn counts(&self) -> Result<(u64, u64)> {
        let (acked, refused) = self.told()?;
        Ok((acked.len() as u64, refused))
    }

    /// Waits until every span that was taken has arrived.
    pub fn wait_for_everything(&self) -> Result<Report> {
        let (acked, refused) = self.told()?;
        let taken =
            || (0..Self::SPANS).flat_map(|index| acked.iter().map(move |n| n * 256 + index));
        let deadline = Instant::now() + ARRIVAL_LIMIT;
        loop {
            let notes = fs::read_to_string(self.file("arrived"))?;
            let ids: Result<Vec<u64>, _> = notes.lines().map(str::parse).collect();
            let ids = ids.context("a note of the backend is no id")?;
            let arrived: HashSet<u64> = ids.iter().copied().collect();
            let missing = taken().filter(|id| !arrived.contains(id)).count();
            if missing == 0 {
                return Ok(Report {
                    acked: acked.len() as u64,
                    refused,
                    arrived: arrived.len(),
                    repeated: ids.len() - arrived.len(),
                });
            }
            ensure!(
                Instant::now() < deadline,
                "{missing} spans of {} batches that were taken have not arrived\n{}",
                acked.len(),
                self.collector
                    .as_ref()
                    .map(Process::logged)
                    .unwrap_or_default()
            );
            sleep(POLL_INTERVAL);
        }
    }

    /// The sum of a metric over all labels, as the collector serves it.
    pub fn metric(&self, name: &str) -> Result<u64> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.metrics_port))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let mut sum = 0;
        let mut found = false;
        for line in text.lines() {
            let rest = line.strip_prefix(name).unwrap_or_default();
            if rest.starts_with(['{', ' ']) {
                let value = rest.rsplit(' ').next().unwrap_or_default();
                sum += value.parse::<u64>().with_context(|| line.to_owned())?;
                found = true;
            }
        }
        ensure!(found, "there is no metric {name}");
        Ok(sum)
    }
}

fn kill(process: Option<Process>) -> Result<()> {
    let mut process = process.context("it does not run")?;
    process.kill();
    let ended = process.wait(END_LIMIT, &uninterrupted())?;
    ended.context("it outlives SIGKILL")?;
    process.stop()?;
    Ok(())
}
