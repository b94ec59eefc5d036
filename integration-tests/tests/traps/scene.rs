//! Two hosts, a router between them, and who asks and answers.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddrV4;
use std::ops::Range;
use std::process::{ChildStdin, ChildStdout, Command};

use anyhow::{Context as _, Result, ensure};
use integration_tests::collector::{self, Collector, Options};
use integration_tests::compile::home;
use integration_tests::network::{self, Host, Network};
use integration_tests::programs;
use integration_tests::sandbox::{Output, Process, Sandbox, uninterrupted};

/// Where whoever answers listens, and whatever is in between.
pub const PORT: u16 = 8000;
/// How many `numbers.py` keeps.
pub const CONNECTIONS: u32 = 8;

/// Says why a test cannot run here, if it cannot.
pub fn skip(trap: &str, needs: &[&str]) -> bool {
    let why = programs::why_not(&[needs, &["python3"]].concat())
        .or_else(collector::why_not)
        .or_else(network::why_not);
    if let Some(why) = &why {
        println!("skipped: {trap}: {why}");
    }
    why.is_some()
}

/// One end of the connections: `numbers.py`.
fn numbers(way: &str, at: SocketAddrV4) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command.arg(home().join("workloads/numbers.py"));
    command.args([way, &at.ip().to_string(), &at.port().to_string()]);
    command.env("OTEL_SERVICE_NAME", format!("{way}s"));
    command
}

/// Two hosts, who answers on the one, and who asks on the other.
pub struct Scene {
    pub asker: Asker,
    pub answers: Process,
    pub network: Network,
    // Last: it ends what the others left.
    pub sandbox: Sandbox,
}

impl Scene {
    /// `arrange` puts what it likes between the two, and gives the address to ask.
    pub fn with<T>(
        arrange: impl FnOnce(&Sandbox, &Network, SocketAddrV4) -> Result<(SocketAddrV4, T)>,
    ) -> Result<(Self, T)> {
        let sandbox = Sandbox::new()?;
        let network = Network::start(&sandbox)?;
        let at = SocketAddrV4::new(network.open.address, PORT);
        let command = network.open.run(&numbers("answer", at));
        let mut answers = sandbox.spawn("answers", &command, Output::Log)?;
        answers.wait_for_port(PORT, &uninterrupted())?;
        let (to, between) = arrange(&sandbox, &network, at)?;
        let asker = Asker::start(&sandbox, &network.behind_nat, to)?;
        let scene = Self {
            asker,
            answers,
            network,
            sandbox,
        };
        Ok((scene, between))
    }

    /// Nothing between them but the router.
    pub fn direct() -> Result<Self> {
        Ok(Self::with(|_, _, at| Ok((at, ())))?.0)
    }

    /// Traces both ends, and these too.
    pub fn trace(&self, others: &[&Process]) -> Result<Collector> {
        Collector::start(&self.sandbox, &self.both_ends_and(others))
    }

    pub fn both_ends_and(&self, others: &[&Process]) -> Options {
        let ends = [&self.asker.process, &self.answers];
        only(&[&ends, others].concat())
    }
}

/// Traces these.
pub fn only(processes: &[&Process]) -> Options {
    Options {
        pids: processes.iter().map(|process| process.pid()).collect(),
        ..Options::default()
    }
}

/// Who asks for numbers, each of which it asks for once.
pub struct Asker {
    pub process: Process,
    orders: ChildStdin,
    reports: BufReader<ChildStdout>,
    asked: u32,
}

impl Asker {
    fn start(sandbox: &Sandbox, host: &Host, to: SocketAddrV4) -> Result<Self> {
        let command = host.run(&numbers("ask", to));
        let mut process = sandbox.spawn("asks", &command, Output::Conversation)?;
        let orders = process.child.stdin.take().context("stdin is a pipe")?;
        let reports = process.child.stdout.take().context("stdout is a pipe")?;
        Ok(Self {
            process,
            orders,
            reports: BufReader::new(reports),
            asked: 0,
        })
    }

    /// Asks for so many numbers and waits for the answers.
    pub fn ask(&mut self, manner: &str, count: u32) -> Result<Range<u32>> {
        self.ask_at_length(manner, count, 0)
    }

    /// The same with requests that are longer by so many bytes.
    pub fn ask_at_length(&mut self, manner: &str, count: u32, filling: u32) -> Result<Range<u32>> {
        let first = self.asked;
        writeln!(self.orders, "{manner} {first} {count} {filling}")?;
        let mut report = String::new();
        self.reports.read_line(&mut report)?;
        ensure!(
            report.trim() == count.to_string(),
            "asking {manner} failed, as it said above"
        );
        self.asked += count;
        Ok(first..self.asked)
    }
}
