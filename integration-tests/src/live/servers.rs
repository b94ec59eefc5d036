//! The servers of `live/`, how each is started, and what stands behind them.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Round;
use super::truth::{LeafLog, Monitor, Truth};
use crate::compile::{c_program, go_program, home, target_dir};
use crate::programs::find;
use crate::sandbox::{Output, Process, Sandbox, free_ports, uninterrupted};

/// How long the last calls may take to arrive after the last reply.
const TELL_LIMIT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Where Debian and others put Java.
const JAVA_HOMES: &str = "/usr/lib/jvm";
/// The first Java whose virtual threads do not hold their carrier in `synchronized`.
const VIRTUAL_THREADS_SINCE: u32 = 24;

/// A kind of server.
#[derive(Debug)]
pub struct Runtime {
    /// What it is called in tables.
    pub name: &'static str,
    command: fn(&Site<'_>) -> Result<Command>,
    /// Calls `/stock` and `/price` only.
    proxy: bool,
}

const fn runtime(name: &'static str, command: fn(&Site<'_>) -> Result<Command>) -> Runtime {
    Runtime {
        name,
        command,
        proxy: false,
    }
}

/// All of them.
pub const RUNTIMES: &[Runtime] = &[
    runtime("gunicorn gthread", gthread),
    runtime("aiohttp", aiohttp),
    runtime("node", node),
    Runtime {
        proxy: true,
        ..runtime("nginx", nginx)
    },
    runtime("go", go),
    runtime("tokio", tokio),
    runtime("java pool", java_pool),
    runtime("java virtual threads", java_virtual),
];

impl Runtime {
    /// How many calls a request causes.
    fn calls(&self, number: u64) -> usize {
        if self.proxy {
            2
        } else {
            3 + usize::from(number.is_multiple_of(2))
        }
    }
}

/// Where a server is started, and whom it calls.
struct Site<'a> {
    dir: &'a Path,
    port: u16,
    shop: Ports,
}

/// Where the called listen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) stock: u16,
    pub(super) price: u16,
    pub(super) ship: u16,
    pub(super) redis: u16,
}

impl Ports {
    fn all(self) -> [u16; 4] {
        [self.stock, self.price, self.ship, self.redis]
    }

    /// What a port is called in tables.
    pub(super) fn name(self, port: u16) -> &'static str {
        let names = ["stock", "price", "ship", "redis"];
        let named = self.all().into_iter().zip(names);
        named
            .into_iter()
            .find_map(|(known, name)| (known == port).then_some(name))
            .unwrap_or("?")
    }
}

/// A running server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Server {
    pub(super) runtime: &'static Runtime,
    pub(super) port: u16,
    pub(super) shop: Ports,
}

/// All servers that this machine can run, and whom they call. Dropping it stops them.
#[derive(Debug)]
pub struct Shop {
    servers: Vec<Server>,
    /// Why the others are missing.
    pub missing: Vec<String>,
    ports: Ports,
    log: LeafLog,
    monitor: Monitor,
    /// The next request's number: none comes twice.
    next: u64,
    // Callers first, so that nobody calls who is gone.
    _processes: Vec<Process>,
    _sandbox: Sandbox,
}

impl Shop {
    /// Starts everything and waits until everything listens.
    pub fn start() -> Result<Self> {
        let sandbox = Sandbox::new()?;
        let [stock, price, ship, redis] = free_ports()?;
        let shop = Ports {
            stock,
            price,
            ship,
            redis,
        };
        let path = sandbox.dir().join("leaf.truth");
        let mut leaf = Command::new(c_program("live/leaf.c")?);
        leaf.arg(&path)
            .args([stock, price, ship].map(|port| port.to_string()));
        let mut processes = vec![
            spawn(&sandbox, "leaf", &leaf, ship)?,
            spawn(
                &sandbox,
                "redis",
                &redis_server(redis, sandbox.dir()),
                redis,
            )?,
        ];
        let mut servers = Vec::new();
        let mut missing = Vec::new();
        for runtime in RUNTIMES {
            let [port] = free_ports()?;
            let dir = &sandbox.dir().join(runtime.name.replace(' ', "-"));
            fs::create_dir_all(dir)?;
            match (runtime.command)(&Site { dir, port, shop }) {
                Err(why) => missing.push(format!("{}: {why:#}", runtime.name)),
                Ok(command) => {
                    let name = runtime.name.replace(' ', "-");
                    processes.insert(0, sandbox.spawn(&name, &command, Output::Log)?);
                    servers.push(Server {
                        runtime,
                        port,
                        shop,
                    });
                }
            }
        }
        for (server, process) in servers.iter().rev().zip(&mut processes) {
            process.wait_for_port(server.port, &uninterrupted())?;
        }
        Ok(Self {
            servers,
            missing,
            ports: shop,
            log: LeafLog { path, read: 0 },
            monitor: Monitor::start(redis)?,
            next: 1,
            _processes: processes,
            _sandbox: sandbox,
        })
    }

    /// The runtimes that are there.
    pub fn runtimes(&self) -> Vec<&'static str> {
        self.servers
            .iter()
            .map(|server| server.runtime.name)
            .collect()
    }

    /// Every port that somebody listens on.
    pub(super) fn ports(&self) -> Vec<u16> {
        let servers = self.servers.iter().map(|server| server.port);
        servers.chain(self.ports.all()).collect()
    }

    pub(super) fn server(&self, runtime: &str) -> Result<Server> {
        let mut servers = self.servers.iter();
        let server = servers.find(|server| server.runtime.name == runtime);
        server.copied().with_context(|| format!("no {runtime}"))
    }
    /// Numbers for so many requests.
    pub(super) fn take_numbers(&mut self, requests: u64) -> Range<u64> {
        let numbers = self.next..self.next + requests;
        self.next = numbers.end;
        numbers
    }

    /// Waits until all calls of these requests have arrived, and adds them to the truth.
    pub(super) fn tell(&mut self, rounds: &[Round], truth: &mut Truth) -> Result<()> {
        let calls = |round: &Round| -> usize {
            let numbers = round.numbers.clone();
            numbers
                .map(|number| round.server.runtime.calls(number))
                .sum()
        };
        let mut awaited: usize = rounds.iter().map(calls).sum();
        let deadline = Instant::now() + TELL_LIMIT;
        loop {
            let came = [self.log.read()?, self.monitor.read()].concat();
            awaited = awaited
                .checked_sub(came.len())
                .context("more calls than requests cause")?;
            for came in came {
                truth.add(came);
            }
            if awaited == 0 {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{awaited} calls did not arrive");
            sleep(POLL_INTERVAL);
        }
    }
}

fn spawn(sandbox: &Sandbox, name: &str, command: &Command, port: u16) -> Result<Process> {
    let mut process = sandbox.spawn(name, command, Output::Log)?;
    process.wait_for_port(port, &uninterrupted())?;
    Ok(process)
}

fn redis_server(port: u16, dir: &Path) -> Command {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--loglevel", "warning"]);
    command.arg("--port").arg(port.to_string());
    command.arg("--dir").arg(dir);
    command
}

fn gthread(site: &Site<'_>) -> Result<Command> {
    let mut command = python("gunicorn")?;
    command.args(["-m", "gunicorn", "gthread:app", "--worker-class", "gthread"]);
    command.args(["--workers", "1", "--threads", "64", "--keep-alive", "60"]);
    command.args(["--bind", &format!("127.0.0.1:{}", site.port), "--chdir"]);
    command.arg(home().join("live"));
    let names = ["STOCK", "PRICE", "SHIP", "REDIS"];
    for (name, port) in names.iter().zip(site.shop.all()) {
        command.env(name, port.to_string());
    }
    Ok(command)
}

fn aiohttp(site: &Site<'_>) -> Result<Command> {
    let mut command = python("aiohttp")?;
    command.arg(home().join("live/asyncio_aiohttp.py"));
    Ok(site.tell_ports(command))
}

fn node(site: &Site<'_>) -> Result<Command> {
    let mut command = program("node")?;
    command.arg(home().join("live/node.js"));
    Ok(site.tell_ports(command))
}

fn nginx(site: &Site<'_>) -> Result<Command> {
    let mut command = program("nginx")?;
    let template = home().join("live/nginx.conf");
    let text = fs::read_to_string(&template).with_context(|| template.display().to_string())?;
    let ports = [
        ("@PORT@", site.port),
        ("@STOCK@", site.shop.stock),
        ("@PRICE@", site.shop.price),
    ];
    let told = |text: String, (word, port): (&str, u16)| text.replace(word, &port.to_string());
    let path = site.dir.join("nginx.conf");
    fs::write(&path, ports.into_iter().fold(text, told))?;
    command.args(["-e", "stderr", "-p"]).arg(site.dir);
    command.arg("-c").arg(path);
    Ok(command)
}

fn go(site: &Site<'_>) -> Result<Command> {
    Ok(site.tell_ports(Command::new(go_program("live/go")?)))
}

/// Built by cargo beside the program that runs.
fn tokio(site: &Site<'_>) -> Result<Command> {
    let here = std::env::current_exe()?;
    let profile = here.parent().and_then(Path::parent);
    let profile = profile.context("no target directory")?;
    let server = profile.join("examples/live_tokio");
    ensure!(server.is_file(), "{} is not built", server.display());
    Ok(site.tell_ports(Command::new(server)))
}

fn java_pool(site: &Site<'_>) -> Result<Command> {
    Ok(threads_java(program("java")?, "pool", site))
}

fn java_virtual(site: &Site<'_>) -> Result<Command> {
    let newest = javas().into_iter().max();
    let newest = newest.filter(|(version, _)| *version >= VIRTUAL_THREADS_SINCE);
    let (_, java) = newest
        .with_context(|| format!("no Java {VIRTUAL_THREADS_SINCE} or newer in {JAVA_HOMES}"))?;
    Ok(threads_java(Command::new(java), "virtual", site))
}

fn threads_java(mut java: Command, kind: &str, site: &Site<'_>) -> Command {
    java.arg("-Xmx512m");
    java.arg(home().join("live/Threads.java")).arg(kind);
    site.tell_ports(java)
}

/// Every Java of this machine: major version and program.
fn javas() -> Vec<(u32, PathBuf)> {
    let version = |home: &Path| -> Option<u32> {
        let release = fs::read_to_string(home.join("release")).ok()?;
        let (_, version) = release.split_once("JAVA_VERSION=\"")?;
        version.split(['.', '"', '-', '+']).next()?.parse().ok()
    };
    let homes = fs::read_dir(JAVA_HOMES).into_iter().flatten().flatten();
    let homes = homes.map(|home| home.path());
    homes
        .filter_map(|home| Some((version(&home)?, home.join("bin/java"))))
        .collect()
}

fn python(module: &str) -> Result<Command> {
    let python = target_dir().join("venv/bin/python");
    ensure!(
        python.is_file(),
        "{module} not found; `cargo xtask setup` installs it"
    );
    let mut command = Command::new(std::path::absolute(python)?);
    command.arg("-B");
    Ok(command)
}

fn program(name: &str) -> Result<Command> {
    let path = find(name);
    let path =
        path.with_context(|| format!("{name} not found; `cargo xtask setup` installs it"))?;
    Ok(Command::new(path))
}

impl Site<'_> {
    /// `PORT STOCK PRICE SHIP REDIS`
    fn tell_ports(&self, mut command: Command) -> Command {
        let ports = [&[self.port][..], &self.shop.all()].concat();
        command.args(ports.iter().map(ToString::to_string));
        command
    }
}
