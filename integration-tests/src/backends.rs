//! Trace backends that others wrote: Jaeger, which `cargo xtask setup` builds, and rotel.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::compile::target_dir;
use crate::exported::{Span, read_traces};
use crate::network::Host;
use crate::sandbox::{Output, Process, Sandbox, uninterrupted};

/// The version of Jaeger's module; it contains the binary of Jaeger 2.
pub const JAEGER_VERSION: &str = "v1.76.0";
const POLL_INTERVAL: Duration = Duration::from_millis(200);
const QUERY_PORT: u16 = 16686;

/// Where `cargo xtask setup` puts Jaeger: outside of the build directory, so that it outlives it.
pub fn jaeger_program() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    cache
        .or_else(home)
        .unwrap_or_else(target_dir)
        .join("deeptrace")
        .join(format!("jaeger-{JAEGER_VERSION}"))
}

/// A file of a Python package that `cargo xtask setup` installed, whatever Python it was.
pub fn python_package(name: &str) -> Option<PathBuf> {
    let lib = target_dir().join("venv/lib");
    let versions = std::fs::read_dir(lib).ok()?.filter_map(Result::ok);
    let mut files = versions.map(|entry| entry.path().join("site-packages").join(name));
    files.find(|file| file.exists())
}

/// A running Jaeger with everything in memory. Dropping it stops it.
#[derive(Debug)]
pub struct Jaeger<'a> {
    host: &'a Host,
    process: Process,
}

impl<'a> Jaeger<'a> {
    /// Port of its OTLP receiver over gRPC.
    pub const GRPC_PORT: u16 = 4317;

    /// Why it cannot run, if it cannot.
    pub fn why_not() -> Option<String> {
        let program = jaeger_program();
        (!program.is_file()).then(|| {
            "no Jaeger; `cargo xtask setup` builds it, which needs Go 1.26 or newer".to_owned()
        })
    }

    /// Starts it on that host, where it has its usual ports.
    pub fn start(sandbox: &Sandbox, host: &'a Host) -> Result<Self> {
        let mut command = host.run(&Command::new(jaeger_program()));
        command.env("JAEGER_LISTEN_HOST", "0.0.0.0");
        let mut process = sandbox.spawn("jaeger", &command, Output::Log)?;
        process.wait_for_port(Self::GRPC_PORT, &uninterrupted())?;
        process.wait_for_port(QUERY_PORT, &uninterrupted())?;
        Ok(Self { host, process })
    }

    /// Every trace of a service between these times (RFC 3339), once it has so many spans in all.
    pub fn traces(&self, service: &str, count: usize, limit: Duration) -> Result<Vec<Span>> {
        let query = format!(
            "query.service_name={service}&query.num_traces=1000\
             &query.start_time_min=2020-01-01T00:00:00Z&query.start_time_max=2100-01-01T00:00:00Z"
        );
        let deadline = Instant::now() + limit;
        let mut before = 0;
        loop {
            let answer = self.get(&format!("/api/v3/traces?{query}"));
            let spans = match &answer {
                Ok(text) => read_traces(text)?,
                // It knows no such service yet.
                Err(_) => Vec::new(),
            };
            // An answer that is made while spans come in says of some that their parent is missing.
            if spans.len() >= count && spans.len() == before {
                return Ok(spans);
            }
            before = spans.len();
            ensure!(
                Instant::now() < deadline,
                "Jaeger has {} spans, not {count}; it answered {answer:?}\n{}",
                spans.len(),
                self.process.logged()
            );
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Who called whom how often, as `(caller, callee, calls)`.
    pub fn dependencies(&self) -> Result<Vec<(String, String, u64)>> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let end = now.as_millis() + 60_000;
        let text = self.get(&format!("/api/dependencies?endTs={end}&lookback=3600000"))?;
        let answer: Value = serde_json::from_str(&text)?;
        let edges = answer["data"]
            .as_array()
            .context("dependencies are a list")?;
        let edge = |edge: &Value| {
            let name = |key: &str| edge[key].as_str().unwrap_or_default().to_owned();
            (
                name("parent"),
                name("child"),
                edge["callCount"].as_u64().unwrap_or(0),
            )
        };
        Ok(edges.iter().map(edge).collect())
    }

    fn get(&self, path: &str) -> Result<String> {
        self.host
            .get(&format!("http://127.0.0.1:{QUERY_PORT}{path}"))
    }
}

/// rotel, which takes OTLP and prints every span. `None`: on this host.
pub fn start_rotel(
    sandbox: &Sandbox,
    host: Option<&Host>,
    address: &str,
    ports: [u16; 2],
) -> Result<Process> {
    let program = python_package("rotel/rotel-agent").context("rotel is not installed")?;
    let mut command = Command::new(program.canonicalize()?);
    let [grpc, http] = ports.map(|port| format!("{address}:{port}"));
    command.args(["start", "--otlp-grpc-endpoint", &grpc]);
    command.args(["--otlp-http-endpoint", &http]);
    command.args(["--exporter", "blackhole", "--debug-log", "traces"]);
    command.args(["--debug-log-verbosity", "detailed"]);
    let placed = host.map(|host| host.run(&command));
    let command = placed.as_ref().unwrap_or(&command);
    let mut rotel = sandbox.spawn("rotel", command, Output::Log)?;
    rotel.wait_for_port(ports[0], &uninterrupted())?;
    Ok(rotel)
}
